//! The first token: without it nobody could make another.

use crate::{
    composition::{Services, StartError},
    data_dir::DataDir,
};
use domain::{
    Error,
    identity::{Actor, Role, Scopes},
    page::PageRequest,
    text::Name,
};
use std::path::PathBuf;

/// The name of the first token.
const ADMIN: &str = "admin";

/// Makes the first token and writes it to a file, if nobody has a credential yet. Returns the file, if there is one.
///
/// A credential that exists is left alone, also where its file is not here: another server on the same database may hold
/// it. So if this process is killed between the two, nobody knows the token, and whoever runs the server makes another
/// one with `starlink-server token create`.
///
/// # Errors
/// If the database or the file cannot be written.
pub async fn admin_token(services: &Services, data: &DataDir) -> Result<Option<PathBuf>, StartError> {
    let startup = Actor::system("startup");
    let one = PageRequest { limit: 1, after: None };
    let tokens = services.tokens.token_list(&startup, one.clone()).await?;
    let users = services.users.user_list(&startup, one).await?;
    let file = data.join("admin.token");
    let found = || file.exists().then(|| file.clone());
    if tokens.total + users.total > 0 {
        return Ok(found());
    }
    let name = Name::trusted(ADMIN.to_owned());
    let (token, secret) =
        match services.tokens.token_create(&startup, name, Role::Admin, Scopes::all(), None, None).await {
            // Another server on the same database has begun at the same time: the first token is in its directory.
            Err(Error::Conflict { code: "name_taken", .. }) => return Ok(found()),
            made => made?,
        };
    let written = data.write_admin_token(&secret);
    if written.is_err() {
        // Nobody has seen it, so the next start may make it anew. The file's error is the one to tell.
        let _ = services.tokens.token_delete(&startup, token.id).await;
    }
    Ok(Some(written?))
}

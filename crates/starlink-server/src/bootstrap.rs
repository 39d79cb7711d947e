//! The first token: without it nobody could make another.

use crate::{
    composition::{Services, StartError},
    data_dir::DataDir,
};
use domain::{
    identity::{Actor, Role, Scopes},
    page::PageRequest,
    text::Name,
};
use std::path::PathBuf;

/// The name of the first token.
const ADMIN: &str = "admin";

/// Makes the first token and writes it to a file, if nobody has a credential yet. Returns the file.
///
/// A server that was killed between the two has a token that nobody knows; it was never used, and is made anew.
///
/// # Errors
/// If the database or the file cannot be written.
pub async fn admin_token(services: &Services, data: &DataDir) -> Result<Option<PathBuf>, StartError> {
    let startup = Actor::system("startup");
    let tokens = services.tokens.token_list(&startup, PageRequest::default()).await?;
    let users = services.users.user_list(&startup, PageRequest { limit: 1, after: None }).await?;
    let file = data.join("admin.token");
    if users.total > 0 || tokens.total > 1 {
        return Ok(file.exists().then_some(file));
    }
    if let Some(token) = tokens.items.first() {
        let unknown = !file.exists() && token.name.as_str() == ADMIN && token.last_used_at.is_none();
        if !unknown {
            return Ok(file.exists().then_some(file));
        }
        services.tokens.token_delete(&startup, token.id).await?;
    }
    let name = Name::trusted(ADMIN.to_owned());
    let (_, secret) = services.tokens.token_create(&startup, name, Role::Admin, Scopes::all(), None, None).await?;
    Ok(Some(data.write_admin_token(&secret)?))
}

//! Users, tokens and sessions as they are sent and shown. Secrets are read but never shown, but for new ones, once.

use crate::{extract::patch, rooms::dto};
use domain::{
    Error, Result,
    clock::Timestamp,
    error::Checks,
    identity::{Actor, Login, Principal, Role, Room, Scopes, Secret, Ticket, Token, User, UserPatch},
    patch::Patch,
    text::Name,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What somebody may do.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "Role")]
pub(super) enum RoleWord {
    /// Reads.
    Viewer,
    /// Reads and changes.
    Operator,
    /// Reads, and approves what another person asked for.
    Approver,
    /// Reads, changes, and manages users and tokens.
    Admin,
}

impl From<RoleWord> for Role {
    fn from(word: RoleWord) -> Self {
        match word {
            RoleWord::Viewer => Self::Viewer,
            RoleWord::Operator => Self::Operator,
            RoleWord::Approver => Self::Approver,
            RoleWord::Admin => Self::Admin,
        }
    }
}

/// A capability that a token can be limited to.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "Scope")]
pub(super) enum ScopeWord {
    /// Users, tokens, sessions.
    Identity,
    /// The audit log.
    Audit,
    /// Servers.
    Fleet,
    /// Resource pools.
    Pools,
    /// Tasks and where they run.
    Scheduling,
    /// Containers and images.
    Containers,
    /// Samples and trends.
    Observability,
}

impl From<ScopeWord> for Room {
    fn from(word: ScopeWord) -> Self {
        match word {
            ScopeWord::Identity => Self::Identity,
            ScopeWord::Audit => Self::Audit,
            ScopeWord::Fleet => Self::Fleet,
            ScopeWord::Pools => Self::Pools,
            ScopeWord::Scheduling => Self::Scheduling,
            ScopeWord::Containers => Self::Containers,
            ScopeWord::Observability => Self::Observability,
        }
    }
}

fn scope_words(scopes: &Scopes) -> Option<Vec<&'static str>> {
    scopes.rooms().map(|rooms| rooms.iter().map(|room| room.as_str()).collect())
}

/// A user name and a password.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LoginRequest {
    /// The user's name.
    #[schemars(length(max = 128))]
    pub name: String,
    /// The password.
    #[schemars(length(max = 256))]
    pub password: String,
    /// Whether the session's secret is set as a cookie (the default) or told in the answer.
    pub cookie: Option<bool>,
}

/// A session that began.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Login")]
pub(super) struct LoginView {
    user: UserView,
    expires_at: Timestamp,
    /// The session's secret, to be sent as a bearer token; `null` where it was set as a cookie.
    token: Option<String>,
}

impl LoginView {
    /// The answer to a login.
    pub(super) fn new(login: &Login, token: Option<String>) -> Self {
        Self { user: UserView::from(&login.user), expires_at: login.session.expires_at, token }
    }
}

/// The session has ended.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct SignedOut {
    signed_out: bool,
}

impl Default for SignedOut {
    fn default() -> Self {
        Self { signed_out: true }
    }
}

/// Who asks, and what they may do.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Actor")]
pub(super) struct ActorView {
    /// `user`, `token`, `agent` or `system`.
    kind: &'static str,
    /// The id of the user, token or agent's server.
    id: Option<i64>,
    name: String,
    /// As audit rows name them.
    actor: String,
    role: &'static str,
    /// The rooms that the token opens; `null` for all.
    scopes: Option<Vec<&'static str>>,
}

impl From<&Actor> for ActorView {
    fn from(actor: &Actor) -> Self {
        let (kind, id, name) = match &actor.principal {
            Principal::User { id, name, .. } => ("user", Some(id.0), name.clone()),
            Principal::Token { id, name } => ("token", Some(id.0), name.clone()),
            Principal::Agent { server, name } => ("agent", Some(server.0), name.clone()),
            Principal::System(job) => ("system", None, (*job).to_owned()),
        };
        let scopes = scope_words(&actor.scopes);
        Self { kind, id, name, actor: actor.label(), role: actor.role.as_str(), scopes }
    }
}

/// A ticket.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Ticket")]
pub(super) struct TicketView {
    ticket: String,
    expires_at: Timestamp,
}

impl From<&Ticket> for TicketView {
    fn from(ticket: &Ticket) -> Self {
        Self { ticket: ticket.secret.expose().to_owned(), expires_at: ticket.expires_at }
    }
}

/// A token to be made.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenCreate {
    /// What audit rows call its bearer, unique among tokens.
    #[schemars(schema_with = "dto::name")]
    name: String,
    /// What its bearer may do.
    role: RoleWord,
    /// The rooms that it opens; every one if left out.
    scopes: Option<Vec<ScopeWord>>,
    /// When it stops working; never if left out.
    expires_at: Option<Timestamp>,
}

/// A token to be made, checked.
pub(super) struct ParsedToken {
    /// What audit rows call its bearer.
    pub name: Name,
    /// What its bearer may do.
    pub role: Role,
    /// Where.
    pub scopes: Scopes,
    /// When it stops working.
    pub expires_at: Option<Timestamp>,
}

impl TokenCreate {
    /// The domain's words for it.
    pub(super) fn parse(self) -> Result<ParsedToken> {
        Ok(ParsedToken {
            name: Name::parse(self.name).map_err(|reason| Error::invalid("name", reason))?,
            role: self.role.into(),
            scopes: self.scopes.map_or_else(Scopes::all, |words| Scopes::only(words.into_iter().map(Room::from))),
            expires_at: self.expires_at,
        })
    }
}

/// An API token, without its secret.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Token")]
pub(super) struct TokenView {
    id: i64,
    name: String,
    role: &'static str,
    /// The rooms that it opens; `null` for all.
    scopes: Option<Vec<&'static str>>,
    expires_at: Option<Timestamp>,
    /// To the minute.
    last_used_at: Option<Timestamp>,
    created_by: String,
    created_at: Timestamp,
}

impl From<&Token> for TokenView {
    fn from(token: &Token) -> Self {
        Self {
            id: token.id.0,
            name: token.name.as_str().to_owned(),
            role: token.role.as_str(),
            scopes: scope_words(&token.scopes),
            expires_at: token.expires_at,
            last_used_at: token.last_used_at,
            created_by: token.created_by.clone(),
            created_at: token.created_at,
        }
    }
}

/// A new API token with its secret.
#[derive(Serialize, JsonSchema)]
pub(super) struct TokenCreated {
    #[serde(flatten)]
    token: TokenView,
    /// The secret. It is not shown again.
    secret: String,
}

impl TokenCreated {
    /// The answer to a token's creation.
    pub(super) fn new(token: &Token, secret: &Secret) -> Self {
        Self { token: TokenView::from(token), secret: secret.expose().to_owned() }
    }
}

/// A user to be made.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UserCreate {
    /// What they sign in with, unique among users; it cannot be changed later.
    #[schemars(schema_with = "dto::name")]
    name: String,
    /// What they may do.
    role: RoleWord,
    /// What they prove themselves with.
    #[schemars(length(min = 8, max = 256))]
    password: String,
}

impl UserCreate {
    /// The domain's words for it.
    pub(super) fn parse(self) -> Result<(Name, Role, Secret)> {
        let name = Name::parse(self.name).map_err(|reason| Error::invalid("name", reason))?;
        Ok((name, self.role.into(), Secret::from(self.password)))
    }
}

/// A merge patch of a user.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "UserPatch")]
pub(super) struct UserPatchBody {
    /// Another role.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(with = "RoleWord")]
    role: Patch<RoleWord>,
    /// Locked out or not.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(with = "bool")]
    disabled: Patch<bool>,
    /// Another password.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(with = "String", length(min = 8, max = 256))]
    password: Patch<String>,
}

impl UserPatchBody {
    /// The domain's word for it.
    pub(super) fn parse(self) -> Result<UserPatch> {
        let mut checks = Checks::default();
        let patch = UserPatch {
            role: dto::replaced(&mut checks, "role", self.role, |word| Ok(word.into())),
            disabled: dto::replaced(&mut checks, "disabled", self.disabled, Ok),
            password: dto::replaced(&mut checks, "password", self.password, |text| Ok(Secret::from(text))),
        };
        checks.finish()?;
        Ok(patch)
    }
}

/// A user.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "User")]
pub(super) struct UserView {
    id: i64,
    name: String,
    role: &'static str,
    disabled: bool,
    revision: i64,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<&User> for UserView {
    fn from(user: &User) -> Self {
        Self {
            id: user.id.0,
            name: user.name.as_str().to_owned(),
            role: user.role.as_str(),
            disabled: user.disabled,
            revision: user.revision,
            created_at: user.created_at,
            updated_at: user.updated_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ScopeWord;
    use domain::identity::Room;

    #[test]
    fn every_room_is_a_scope() {
        for room in Room::ALL {
            let word: ScopeWord = serde_json::from_str(&format!("{:?}", room.as_str())).unwrap();
            assert_eq!(Room::from(word), room);
        }
    }
}

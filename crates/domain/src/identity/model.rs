use super::permissions::{Access, Room};
use crate::{
    change::Recorded,
    clock::Timestamp,
    digest::{hex, sha256_hex},
    entropy::Entropy,
    ids::{ServerId, SessionId, TokenId, UserId},
    text::Name,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Reads and changes.
    Operator,
    /// Reads, and approves what another person asked for.
    Approver,
    /// Reads, changes, and manages users and tokens.
    Admin,
    /// Speaks for one server. Nobody can be given it: it comes with an agent's own token.
    Agent,
}

impl Role {
    /// Every role that can be given to somebody.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Operator, Self::Approver, Self::Admin];

    /// The role's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Approver => "approver",
            Self::Admin => "admin",
            Self::Agent => "agent",
        }
    }

    /// Reads [`Role::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }

    /// Whether the role is enough for this access.
    #[must_use]
    pub fn allows(self, access: Access) -> bool {
        match access {
            Access::Public => true,
            Access::Agent => self == Self::Agent,
            Access::Known | Access::Read(_) => self != Self::Agent,
            Access::Change(_) => matches!(self, Self::Operator | Self::Admin),
            Access::Manage(_) => self == Self::Admin,
        }
    }
}

/// The rooms that a credential opens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Scopes(Option<BTreeSet<Room>>);

impl Scopes {
    /// Every room, those to come included.
    #[must_use]
    pub fn all() -> Self {
        Self(None)
    }

    /// These rooms.
    pub fn only(rooms: impl IntoIterator<Item = Room>) -> Self {
        Self(Some(rooms.into_iter().collect()))
    }

    /// Whether `room` is among them.
    #[must_use]
    pub fn contains(&self, room: Room) -> bool {
        self.0.as_ref().is_none_or(|rooms| rooms.contains(&room))
    }

    /// Whether everything that `other` opens is opened by these, too.
    #[must_use]
    pub fn cover(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(own), Some(rooms)) => rooms.is_subset(own),
        }
    }

    /// The rooms, or `None` for every room.
    #[must_use]
    pub fn rooms(&self) -> Option<&BTreeSet<Room>> {
        self.0.as_ref()
    }
}

/// A random secret: shown to its owner once, stored as a digest. Never printed by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A new secret of 256 bits that starts with `prefix`, so that scanners recognise one that leaked.
    #[must_use]
    pub fn generate(prefix: &str, entropy: &dyn Entropy) -> Self {
        Self(format!("{prefix}_{}", hex(&entropy.bytes())))
    }

    /// The secret itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is stored of it.
    #[must_use]
    pub fn digest(&self) -> String {
        sha256_hex(self.0.as_bytes())
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// A person who signs in with a password. The password's hash is not part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Its id.
    pub id: UserId,
    /// What they sign in with; it cannot change, since audit rows name it.
    pub name: Name,
    /// What they may do.
    pub role: Role,
    /// Whether they are locked out.
    pub disabled: bool,
    /// Counts changes; the `ETag`.
    pub revision: i64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl Recorded for User {
    const KIND: &'static str = "user";
    fn id(&self) -> i64 {
        self.id.0
    }
}

/// A user to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewUser {
    /// What they sign in with.
    pub name: Name,
    /// What they may do.
    pub role: Role,
    /// argon2id in PHC string format.
    pub password_hash: String,
    /// When.
    pub created_at: Timestamp,
}

/// A change of a user; `None` keeps what is.
#[derive(Debug, Clone, Default)]
pub struct UserPatch {
    /// Another role.
    pub role: Option<Role>,
    /// Locked out or not.
    pub disabled: Option<bool>,
    /// Another password.
    pub password: Option<Secret>,
}

/// An API token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Its id.
    pub id: TokenId,
    /// What audit rows call its bearer.
    pub name: Name,
    /// What its bearer may do.
    pub role: Role,
    /// Where.
    pub scopes: Scopes,
    /// When it stops working; `None` for never.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<Timestamp>,
    /// Who made it, as audit rows name them.
    pub created_by: String,
    /// When it was made.
    pub created_at: Timestamp,
}

impl Recorded for Token {
    const KIND: &'static str = "token";
    fn id(&self) -> i64 {
        self.id.0
    }
}

/// A token to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewToken {
    /// What audit rows call its bearer.
    pub name: Name,
    /// What its bearer may do.
    pub role: Role,
    /// Where.
    pub scopes: Scopes,
    /// When it stops working.
    pub expires_at: Option<Timestamp>,
    /// Who makes it.
    pub created_by: String,
    /// SHA-256 of its secret.
    pub secret_digest: String,
    /// When.
    pub created_at: Timestamp,
}

/// A console session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// Whose.
    pub user_id: UserId,
    /// When it ends by itself.
    pub expires_at: Timestamp,
    /// When it began.
    pub created_at: Timestamp,
}

impl Recorded for Session {
    const KIND: &'static str = "session";
    fn id(&self) -> i64 {
        self.id.0
    }
}

/// A session to be begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSession {
    /// Whose.
    pub user_id: UserId,
    /// SHA-256 of the cookie's secret.
    pub secret_digest: String,
    /// When it ends by itself.
    pub expires_at: Timestamp,
    /// When it begins.
    pub created_at: Timestamp,
}

/// What a secret opens, as it is looked up by its digest. Expiry is not judged yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// An API token.
    Token(Token),
    /// A console session and its user.
    Session(Session, User),
    /// The agent of a server.
    Agent {
        /// The server.
        server: ServerId,
        /// Its name.
        name: String,
    },
}

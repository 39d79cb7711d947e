//! Users, API tokens and console sessions. Secrets are stored as digests, passwords as slow hashes.

mod credentials;
mod sessions;
mod tokens;
mod users;

pub(crate) use credentials::CredentialCache;
pub use sessions::DieselSessions;
pub use tokens::DieselTokens;
pub use users::DieselUsers;

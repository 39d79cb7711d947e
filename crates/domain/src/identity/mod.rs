//! Who may do what: users, roles, API tokens, console sessions and one-time tickets.
//!
//! Invariants: a secret is shown once and stored as a digest; every operation has exactly one rule that says who may
//! do it ([`Operation`]); a disabled user, an expired token and an ended session open nothing.

mod actor;
#[cfg(test)]
mod doubles;
mod model;
mod permissions;
mod ports;
mod sessions;
mod throttle;
mod tokens;
mod users;

pub use actor::{Actor, Principal};
pub use model::{Credential, NewSession, NewToken, NewUser, Role, Scopes, Secret, Session, Token, User, UserPatch};
pub use permissions::{Access, Operation, Room};
pub use ports::{PasswordHasher, Sessions, Tokens, Users};
pub use sessions::{Denied, Login, SESSION_HOURS, SessionPorts, SessionService, TICKET_SECONDS, Ticket};
pub use throttle::LoginThrottle;
pub use tokens::TokenService;
pub use users::UserService;
pub(crate) use users::at_revision;

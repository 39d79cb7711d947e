use super::{
    model::{Role, Scopes},
    permissions::{Access, Operation, Room},
};
use crate::{
    Error, Result,
    ids::{ServerId, SessionId, TokenId, UserId},
};

/// Who somebody is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// A person, in a console session.
    User {
        /// The person.
        id: UserId,
        /// Their name.
        name: String,
        /// The session they signed in with.
        session: SessionId,
    },
    /// The bearer of an API token.
    Token {
        /// The token.
        id: TokenId,
        /// Its name.
        name: String,
    },
    /// The agent of a server.
    Agent {
        /// The server.
        server: ServerId,
        /// Its name.
        name: String,
    },
    /// The product itself: a background job, or a command on its own machine.
    System(&'static str),
}

/// Who asks for something, in which role, in which request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// Who it is.
    pub principal: Principal,
    /// The person for whom the principal acts, where that is somebody else.
    pub on_behalf_of: Option<String>,
    /// What they may do.
    pub role: Role,
    /// Where they may do it.
    pub scopes: Scopes,
    /// The request, if there is one.
    pub request_id: Option<String>,
}

impl Actor {
    /// The product itself, which may do everything.
    #[must_use]
    pub fn system(job: &'static str) -> Self {
        Self {
            principal: Principal::System(job),
            on_behalf_of: None,
            role: Role::Admin,
            scopes: Scopes::all(),
            request_id: None,
        }
    }

    /// How audit rows name this actor.
    #[must_use]
    pub fn label(&self) -> String {
        match &self.principal {
            Principal::User { name, .. } => format!("user:{name}"),
            Principal::Token { name, .. } => format!("token:{name}"),
            Principal::Agent { name, .. } => format!("agent:{name}"),
            Principal::System(job) => format!("system:{job}"),
        }
    }

    /// Allows the operation, or says what is missing.
    ///
    /// # Errors
    /// [`Error::Forbidden`] naming the role or the scope that would be needed.
    pub fn authorize(&self, operation: Operation) -> Result<()> {
        let access = operation.access();
        if !self.role.allows(access) {
            let reason =
                format!("{} needs the role {}; yours is {}", operation.id(), needed(access), self.role.as_str());
            return Err(Error::Forbidden { reason });
        }
        match room(access) {
            Some(room) if !self.scopes.contains(room) => {
                let reason = format!("{} needs a token with the scope {}", operation.id(), room.as_str());
                Err(Error::Forbidden { reason })
            }
            _ => Ok(()),
        }
    }
}

fn room(access: Access) -> Option<Room> {
    match access {
        Access::Public | Access::Known | Access::Agent => None,
        Access::Read(room) | Access::Change(room) | Access::Manage(room) => Some(room),
    }
}

fn needed(access: Access) -> &'static str {
    match access {
        Access::Public | Access::Known | Access::Read(_) => "viewer",
        Access::Change(_) => "operator or admin",
        Access::Manage(_) => "admin",
        Access::Agent => "agent, which comes with the token that a server's agent got when it joined",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(role: Role, allowed: &[Operation], refused: &[Operation]) {
        let actor = Actor { role, ..Actor::system("test") };
        for operation in allowed {
            assert!(actor.authorize(*operation).is_ok(), "{role:?} {operation:?}");
        }
        for operation in refused {
            assert!(matches!(actor.authorize(*operation), Err(Error::Forbidden { .. })), "{role:?} {operation:?}");
        }
    }

    #[test]
    fn each_role_may_what_it_is_for() {
        use Operation::{AuditLogList, AuthMe, ServerCreate, ServerList, UserCreate};
        check(Role::Viewer, &[AuthMe, ServerList, AuditLogList], &[ServerCreate, UserCreate]);
        check(Role::Approver, &[AuthMe, ServerList, AuditLogList], &[ServerCreate, UserCreate]);
        check(Role::Operator, &[AuthMe, ServerList, ServerCreate], &[UserCreate]);
        let (agents, people): (Vec<_>, Vec<_>) =
            Operation::ALL.iter().partition(|operation| operation.access() == Access::Agent);
        check(Role::Admin, &people, &agents);
        let theirs: Vec<_> = people.iter().copied().filter(|operation| operation.access() != Access::Public).collect();
        check(Role::Agent, &agents, &theirs);
    }

    #[test]
    fn a_scoped_token_stays_in_its_rooms() {
        let scopes = Scopes::only([Room::Fleet]);
        let actor = Actor { scopes, ..Actor::system("test") };
        assert!(actor.authorize(Operation::ServerCreate).is_ok());
        assert!(actor.authorize(Operation::AuthMe).is_ok());
        assert!(actor.authorize(Operation::PoolList).is_err());
    }

    #[test]
    fn operation_ids_are_unique() {
        let ids: std::collections::BTreeSet<_> = Operation::ALL.iter().map(|operation| operation.id()).collect();
        assert_eq!(ids.len(), Operation::ALL.len());
    }
}

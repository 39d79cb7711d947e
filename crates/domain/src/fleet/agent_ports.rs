use super::{
    enrollment::{Enrollment, NewEnrollment},
    model::{NewServer, Server},
    operations::{Operation, OperationFilter},
};
use crate::{
    Result,
    change::{Change, Done, Once},
    clock::Timestamp,
    ids::{EnrollmentId, OperationId, ServerId},
    page::{Page, PageRequest},
};
use async_trait::async_trait;

/// The agent of a server, to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAgent {
    /// SHA-256 of its token, in hexadecimal.
    pub token_digest: String,
    /// Where it runs, see [`super::protocol::SessionRequest::place`].
    pub place: String,
}

/// The agent of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentAccount {
    /// The server.
    pub server_id: ServerId,
    /// Where it was last known to run.
    pub place: String,
    /// When it joined.
    pub enrolled_at: Timestamp,
}

/// Join tokens in the database.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait Enrollments: Send + Sync {
    /// Stores a join token at the time of the change's entry, which it completes.
    ///
    /// MUST fail with [`crate::Error::Invalid`] for `pool_id` if there is no such pool.
    async fn create(&self, enrollment: NewEnrollment, change: Change) -> Result<Done<Enrollment>>;

    /// Newest first.
    async fn list(&self, page: PageRequest) -> Result<Page<Enrollment>>;

    /// MUST fail with [`crate::Error::NotFound`] if there is none.
    async fn get(&self, id: EnrollmentId) -> Result<Enrollment>;

    /// MUST fail with [`crate::Error::NotFound`] if there is none. Nobody MUST join with it once this returns.
    async fn delete(&self, enrollment: Enrollment, change: Change) -> Result<Done<()>>;

    /// The join token whose secret has this digest.
    async fn find(&self, secret_digest: &str) -> Result<Option<Enrollment>>;

    /// Makes a server of a machine, with its agent, by a join token, which is used once more by that: all of it, or
    /// nothing. The server gets the token's pool and tags. A server of that name that has no agent and nothing reserved
    /// on it, and is of that architecture, becomes this machine's: its operator's members stay, what `server` says of
    /// the machine replaces the rest ([`super::Namesake::adopted`]).
    ///
    /// An agent that asks again ([`super::Namesake::asks_again`]) gets this token instead of its first one, and no more
    /// happens.
    ///
    /// MUST otherwise check the token in the transaction ([`Enrollment::check_good`] at the time of the entry), and
    /// fail with [`crate::Error::Unauthenticated`] if it is gone, with `pool_gone` if its pool is, and with `name_taken`
    /// if there is another server of that name.
    async fn join(
        &self,
        enrollment: EnrollmentId,
        server: NewServer,
        inventory: super::model::Inventory,
        agent: NewAgent,
        change: Change,
    ) -> Result<Done<Server>>;
}

/// Agents in the database.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait Agents: Send + Sync {
    /// The agent of a server, if it has one.
    async fn get(&self, server: ServerId) -> Result<Option<AgentAccount>>;

    /// The servers that have an agent.
    async fn servers(&self) -> Result<Vec<ServerId>>;

    /// Writes what an agent reported of its server, or that it is out of reach: status, architecture, capacity, GPU
    /// model and inventory of `server`, whose revision is one above that of the row it replaces; and where the agent
    /// runs, if `place` says so. MUST NOT touch what is reserved, nor [`super::Inventory::last_seen_at`].
    ///
    /// MUST fail with [`crate::Error::Stale`] if the row is at another revision, or holds more meanwhile than `server`
    /// has, and with [`crate::Error::NotFound`] if it is gone.
    async fn report(&self, server: Server, place: Option<String>, change: Change) -> Result<Done<Server>>;

    /// Notes where an agent runs, where nothing else is different. Errors as for `report`.
    async fn moved(&self, server: ServerId, place: String, change: Change) -> Result<Done<()>>;

    /// Notes when agents were last heard of; unaudited, and never earlier than what is noted already. Those who follow
    /// this process MUST be told of what is noted ([`crate::feed::Fact::ServerSeen`]).
    async fn touch(&self, heard: Vec<(ServerId, Timestamp)>) -> Result<()>;
}

/// What agents were told, in the database. Operations of attempts are written with the attempts, see
/// [`crate::scheduling::Tasks`].
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait Operations: Send + Sync {
    /// Operations that match, newest first. Pages MUST neither repeat nor skip rows when others are inserted meanwhile.
    async fn list(&self, filter: OperationFilter, page: PageRequest) -> Result<Page<Operation>>;

    /// MUST fail with [`crate::Error::NotFound`] if there is none.
    async fn get(&self, id: OperationId) -> Result<Operation>;

    /// Stores an order that runs no task, under an id of its own, which those who follow are told.
    async fn create(&self, operation: Operation, change: Change) -> Result<Done<Operation>>;

    /// What [`Operations::create`] answered under this idempotency key, if it is known.
    async fn answered(&self, once: Once, now: Timestamp) -> Result<Option<Operation>>;

    /// Writes how far such an order is; `operation` was computed from `before`.
    ///
    /// MUST fail with [`crate::Error::Stale`] if it is in another state than it was then, and with
    /// [`crate::Error::NotFound`] if it is gone.
    async fn update(&self, before: Operation, operation: Operation, change: Change) -> Result<Done<Operation>>;

    /// Notes what an operation is at, as long as it is open; unaudited, and nobody who follows is told.
    async fn progress(&self, id: OperationId, message: String) -> Result<()>;

    /// Sees to it that what was committed by now, by whomever, is known to those who follow.
    async fn catch_up(&self) -> Result<()>;
}

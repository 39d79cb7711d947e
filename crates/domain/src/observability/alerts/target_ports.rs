use super::{
    delivery::{Delivery, DeliveryState, Sent, Try},
    message::Message,
    target::{NewTarget, Target, TargetSecret, TargetSpec},
};
use crate::{
    Result,
    change::{Change, Done},
    clock::Timestamp,
    ids::{AlertId, DeliveryId, TargetId},
    page::{Page, PageRequest},
};
use async_trait::async_trait;

/// The targets in the database. What it takes to reach them MUST be in nothing that is recorded or answered but by `reach`.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait AlertTargets: Send + Sync {
    /// Makes a target at the time of the change's entry, which it completes with the target's id and state.
    ///
    /// MUST fail with `name_taken` if there is a target of that name.
    async fn create(&self, target: NewTarget, change: Change) -> Result<Done<Target>>;

    /// Targets, newest first. Pages MUST neither repeat nor skip rows when others are inserted meanwhile.
    async fn list(&self, page: PageRequest) -> Result<Page<Target>>;

    /// MUST fail with [`crate::Error::NotFound`] if there is none.
    async fn get(&self, id: TargetId) -> Result<Target>;

    /// The same, with what it takes to reach it.
    async fn reach(&self, id: TargetId) -> Result<(Target, TargetSecret)>;

    /// Writes `target`, whose revision is one above that of the row it replaces, and its secret.
    ///
    /// MUST fail with [`crate::Error::Stale`] if the row is at another revision, with [`crate::Error::NotFound`] if it is
    /// gone, and with `name_taken` as for creation.
    async fn update(&self, target: Target, secret: TargetSecret, change: Change) -> Result<Done<Target>>;

    /// Removes `target` if its row is still at that revision; what was on its way to it is not tried any more. Errors as
    /// for `update`, and `target_in_use` with the names of rules that tell it.
    async fn delete(&self, target: Target, change: Change) -> Result<Done<()>>;
}

/// A message that is to be sent now.
#[derive(Debug, Clone)]
pub struct Errand {
    /// Its id.
    pub id: DeliveryId,
    /// When it was decided.
    pub created_at: Timestamp,
    /// How often it was tried.
    pub tries: u32,
    /// What is to be said.
    pub message: Message,
    /// To whom.
    pub spec: TargetSpec,
    /// What else that takes.
    pub secret: TargetSecret,
}

/// The messages in the database.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait Deliveries: Send + Sync {
    /// Whether one is to be tried by now.
    async fn is_due(&self, now: Timestamp) -> Result<bool>;

    /// Takes up to `most` that are to be tried by now: nobody else gets them before `until`, so that one that nobody
    /// tells anything of is tried again then. Those of targets that are gone or disabled MUST be given up.
    async fn claim(&self, now: Timestamp, until: Timestamp, most: usize) -> Result<Vec<Errand>>;

    /// Writes down what came of a try, and what is to become of the message. MUST do nothing if the message is gone.
    async fn tried(&self, id: DeliveryId, one: Try, state: DeliveryState, due_at: Option<Timestamp>) -> Result<()>;

    /// Keeps a message to a target that is about to be sent, with what is recorded of that; not to be claimed before
    /// `until`.
    async fn begin(
        &self,
        target: Target,
        message: Message,
        until: Timestamp,
        change: Change,
    ) -> Result<Done<DeliveryId>>;

    /// MUST fail with [`crate::Error::NotFound`] if there is none.
    async fn get(&self, id: DeliveryId) -> Result<Delivery>;

    /// Those about an alert, oldest first.
    async fn of_alert(&self, id: AlertId) -> Result<Vec<Delivery>>;
}

/// Sends messages.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait Notifier: Send + Sync {
    /// Sends one, and says how it went. MUST end within half a minute, and MUST NOT say anything of the secret. `now` is
    /// what a signature says when it was made.
    async fn send(
        &self,
        spec: &TargetSpec,
        secret: &TargetSecret,
        id: DeliveryId,
        message: &Message,
        now: Timestamp,
    ) -> Sent;
}

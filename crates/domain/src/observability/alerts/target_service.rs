use super::{
    delivery::{Delivery, Sent, Try, after_try},
    message::Message,
    target::{NewTarget, Target, TargetPatch, TargetSpec},
    target_ports::{AlertTargets, Deliveries, Errand, Notifier},
};
use crate::{
    Error, Result,
    audit::AuditEntry,
    change::{Change, Once, TRIES},
    clock::Clock,
    entropy::Entropy,
    identity::{Actor, Operation, Secret, at_revision},
    ids::{DeliveryId, TargetId},
    page::{Page, PageRequest},
};
use chrono::TimeDelta;
use std::sync::Arc;

/// What errors call a target.
const WHAT: &str = "alert target";
/// For how long a message is in the hands of whoever sends it.
const IN_HAND: TimeDelta = TimeDelta::seconds(120);
/// Messages that are sent side by side.
const SIDE_BY_SIDE: usize = 16;

/// What a [`TargetService`] needs.
pub struct TargetPorts {
    /// The targets in the database.
    pub targets: Arc<dyn AlertTargets>,
    /// What is on its way to them.
    pub deliveries: Arc<dyn Deliveries>,
    /// Sends it.
    pub notifier: Arc<dyn Notifier>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Makes keys to sign with.
    pub entropy: Arc<dyn Entropy>,
}

/// Keeps targets, and sends what they are to be told.
pub struct TargetService {
    ports: TargetPorts,
}

impl TargetService {
    /// A service over these ports.
    #[must_use]
    pub fn new(ports: TargetPorts) -> Self {
        Self { ports }
    }

    /// Makes a target. The key that its messages are signed with, if they are, is in the answer and nowhere else.
    ///
    /// # Errors
    /// As [`AlertTargets::create`]; `already_created` if the request is a repetition, since the key was shown once.
    pub async fn target_create(
        &self,
        actor: &Actor,
        mut target: NewTarget,
        once: Option<Once>,
    ) -> Result<(Target, Option<Secret>)> {
        actor.authorize(Operation::AlertTargetCreate)?;
        let signed = matches!(target.spec, TargetSpec::Webhook { .. });
        let key = signed.then(|| Secret::generate("sls", &*self.ports.entropy));
        target.secret.key = key.as_ref().map(|key| key.expose().to_owned());
        let entry = AuditEntry::new(actor, Operation::AlertTargetCreate.action(), self.ports.clock.now());
        let done = self.ports.targets.create(target, Change::new(entry, once)).await?;
        if done.replayed {
            let reason = format!(
                "target \"{}\" was created by an earlier request with this idempotency key, and its key was shown then; \
                 if it is lost, delete the target and create another",
                done.value.name
            );
            return Err(Error::conflict("already_created", reason));
        }
        Ok((done.value, key))
    }

    /// Targets, newest first.
    ///
    /// # Errors
    /// [`Error::Forbidden`] if the actor may not.
    pub async fn target_list(&self, actor: &Actor, page: PageRequest) -> Result<Page<Target>> {
        actor.authorize(Operation::AlertTargetList)?;
        self.ports.targets.list(page).await
    }

    /// One target.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none.
    pub async fn target_get(&self, actor: &Actor, id: TargetId) -> Result<Target> {
        actor.authorize(Operation::AlertTargetGet)?;
        self.ports.targets.get(id).await
    }

    /// Changes a target. Where the caller names no revision, the patch is applied to the newest one.
    ///
    /// # Errors
    /// [`Error::Stale`] if the target is not at `revision` any more; as [`Target::patched`].
    pub async fn target_update(
        &self,
        actor: &Actor,
        id: TargetId,
        revision: Option<i64>,
        patch: TargetPatch,
    ) -> Result<Target> {
        actor.authorize(Operation::AlertTargetUpdate)?;
        for _ in 0..TRIES {
            let (before, secret) = self.ports.targets.reach(id).await?;
            at_revision(WHAT, id, before.revision, revision)?;
            let now = self.ports.clock.now();
            let (after, secret) = before.patched(&secret, patch.clone(), now)?;
            let entry = AuditEntry::new(actor, Operation::AlertTargetUpdate.action(), now).changed(&before, &after);
            match self.ports.targets.update(after, secret, entry.into()).await {
                Err(Error::Stale { .. }) if revision.is_none() => {}
                outcome => return outcome.map(|done| done.value),
            }
        }
        Err(Error::busy(WHAT, id))
    }

    /// Removes a target that no rule tells anything.
    ///
    /// # Errors
    /// As [`AlertTargets::delete`].
    pub async fn target_delete(&self, actor: &Actor, id: TargetId, revision: Option<i64>) -> Result<()> {
        actor.authorize(Operation::AlertTargetDelete)?;
        for _ in 0..TRIES {
            let target = self.ports.targets.get(id).await?;
            at_revision(WHAT, id, target.revision, revision)?;
            let now = self.ports.clock.now();
            let entry = AuditEntry::new(actor, Operation::AlertTargetDelete.action(), now).deleted(&target);
            match self.ports.targets.delete(target, entry.into()).await {
                Err(Error::Stale { .. }) if revision.is_none() => {}
                outcome => return outcome.map(|done| done.value),
            }
        }
        Err(Error::busy(WHAT, id))
    }

    /// Sends a test message now, whether the target is enabled or not; what came of it.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such target.
    pub async fn target_test(&self, actor: &Actor, id: TargetId, once: Option<Once>) -> Result<Delivery> {
        actor.authorize(Operation::AlertTargetTest)?;
        let (target, secret) = self.ports.targets.reach(id).await?;
        let (now, spec) = (self.ports.clock.now(), target.spec.clone());
        let entry = AuditEntry::new(actor, Operation::AlertTargetTest.action(), now);
        let message = Message::test(now);
        let change = Change::new(entry, once);
        let begun = self.ports.deliveries.begin(target, message.clone(), now + IN_HAND, change).await?;
        if !begun.replayed {
            let errand = Errand { id: begun.value, created_at: now, tries: 0, message, spec, secret };
            self.send(errand, Repeats::Never).await?;
        }
        self.ports.deliveries.get(begun.value).await
    }

    /// Whether a message is to be sent by now.
    ///
    /// # Errors
    /// Whatever the database says.
    pub async fn deliveries_are_due(&self) -> Result<bool> {
        self.ports.deliveries.is_due(self.ports.clock.now()).await
    }

    /// Background job: a part of what is to be sent by now, side by side; the caller runs the errands.
    ///
    /// # Errors
    /// Whatever the database says.
    pub async fn deliveries_claim(&self) -> Result<Vec<Errand>> {
        let now = self.ports.clock.now();
        self.ports.deliveries.claim(now, now + IN_HAND, SIDE_BY_SIDE).await
    }

    /// Sends one of them.
    ///
    /// # Errors
    /// If what came of it cannot be written down: it is sent again then.
    pub async fn delivery_send(&self, errand: Errand) -> Result<()> {
        self.send(errand, Repeats::AsUsual).await
    }

    async fn send(&self, errand: Errand, repeats: Repeats) -> Result<()> {
        let Errand { id, created_at, tries, message, spec, secret } = errand;
        let sent = self.ports.notifier.send(&spec, &secret, id, &message, self.ports.clock.now()).await;
        self.note(id, created_at, tries + 1, sent, repeats).await
    }

    async fn note(
        &self,
        id: DeliveryId,
        created_at: crate::clock::Timestamp,
        tries: u32,
        sent: Sent,
        repeats: Repeats,
    ) -> Result<()> {
        let (now, [chance, ..]) = (self.ports.clock.now(), self.ports.entropy.bytes());
        let tries = match repeats {
            Repeats::AsUsual => tries,
            Repeats::Never => super::delivery::MOST_TRIES,
        };
        let (state, due_at) = after_try(sent.fate, tries, created_at, now, chance);
        let one = Try { at: now, status: sent.status, error: sent.error };
        self.ports.deliveries.tried(id, one, state, due_at).await
    }
}

/// Whether a message that did not come through is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repeats {
    AsUsual,
    /// Somebody waits for the outcome.
    Never,
}

//! Join tokens: whoever has one makes its machine a server of the fleet.

use super::agent_ports::Enrollments;
use crate::{
    Error, Result,
    audit::AuditEntry,
    change::{Change, Once, Recorded},
    clock::{Clock, Timestamp},
    entropy::Entropy,
    identity::{Actor, Operation, Secret},
    ids::{EnrollmentId, PoolId},
    page::{Page, PageRequest},
    text::{Name, Tags},
};
use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How long a join token is good if nobody says.
pub const ENROLLMENT_HOURS: i64 = 24;
/// The most servers that may join with one token.
pub const MAX_USES: u32 = 10_000;

/// A join token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrollment {
    /// Its id.
    pub id: EnrollmentId,
    /// What it is for.
    pub name: Name,
    /// The pool that servers join.
    pub pool_id: Option<PoolId>,
    /// The tags that servers get.
    pub tags: Tags,
    /// How many servers may join with it.
    pub max_uses: u32,
    /// How many have.
    pub uses: u32,
    /// When it stops working.
    pub expires_at: Timestamp,
    /// Who made it, as audit rows name them.
    pub created_by: String,
    /// When it was made.
    pub created_at: Timestamp,
}

impl Recorded for Enrollment {
    const KIND: &'static str = "enrollment";
    fn id(&self) -> i64 {
        self.id.0
    }
}

impl Enrollment {
    /// Whether a server may join with it now.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] that says what is the matter.
    pub fn check_good(&self, now: Timestamp) -> Result<()> {
        let refused = |what: String| {
            let reason = format!("the join token \"{}\" {what}; have an admin make another", self.name);
            Err(Error::Unauthenticated { reason })
        };
        if self.expires_at <= now {
            return refused(format!("expired at {}", self.expires_at.to_rfc3339()));
        }
        if self.uses >= self.max_uses {
            return refused(format!("was good for {} servers, and as many have joined", self.max_uses));
        }
        Ok(())
    }
}

/// What somebody wants a join token for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrollmentRequest {
    /// What it is for.
    pub name: Name,
    /// The pool that servers join.
    pub pool_id: Option<PoolId>,
    /// The tags that servers get.
    pub tags: Tags,
    /// How many servers may join with it, 1 to [`MAX_USES`].
    pub max_uses: u32,
    /// When it stops working; after [`ENROLLMENT_HOURS`] if absent.
    pub expires_at: Option<Timestamp>,
}

/// A join token to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEnrollment {
    /// What was asked for.
    pub request: EnrollmentRequest,
    /// When it stops working.
    pub expires_at: Timestamp,
    /// Who makes it.
    pub created_by: String,
    /// SHA-256 of the secret, in hexadecimal.
    pub secret_digest: String,
}

/// Makes and revokes join tokens.
pub struct EnrollmentService {
    enrollments: Arc<dyn Enrollments>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl EnrollmentService {
    /// A service over these ports.
    #[must_use]
    pub fn new(enrollments: Arc<dyn Enrollments>, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        Self { enrollments, clock, entropy }
    }

    /// Makes a join token. Its secret is in the answer and nowhere else.
    ///
    /// # Errors
    /// [`Error::Invalid`] for `max_uses`, `expires_at`, or a pool that there is not; `already_created` if the request is
    /// a repetition.
    pub async fn enrollment_create(
        &self,
        actor: &Actor,
        request: EnrollmentRequest,
        once: Option<Once>,
    ) -> Result<(Enrollment, Secret)> {
        actor.authorize(Operation::EnrollmentCreate)?;
        let now = self.clock.now();
        if !(1..=MAX_USES).contains(&request.max_uses) {
            return Err(Error::invalid("max_uses", format!("must be from 1 to {MAX_USES}")));
        }
        let expires_at = request.expires_at.unwrap_or(now + TimeDelta::hours(ENROLLMENT_HOURS));
        if expires_at <= now {
            return Err(Error::invalid("expires_at", "must be in the future"));
        }
        let secret = Secret::generate("slj", &*self.entropy);
        let new = NewEnrollment { request, expires_at, created_by: actor.label(), secret_digest: secret.digest() };
        let entry = AuditEntry::new(actor, Operation::EnrollmentCreate.action(), now);
        let done = self.enrollments.create(new, Change::new(entry, once)).await?;
        if done.replayed {
            let reason = format!(
                "join token \"{}\" was created by an earlier request with this idempotency key, and its secret was \
                 shown then; if it is lost, delete the token and create another",
                done.value.name
            );
            return Err(Error::conflict("already_created", reason));
        }
        Ok((done.value, secret))
    }

    /// Join tokens, newest first.
    ///
    /// # Errors
    /// [`Error::Forbidden`] if the actor may not.
    pub async fn enrollment_list(&self, actor: &Actor, page: PageRequest) -> Result<Page<Enrollment>> {
        actor.authorize(Operation::EnrollmentList)?;
        self.enrollments.list(page).await
    }

    /// One join token.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none.
    pub async fn enrollment_get(&self, actor: &Actor, id: EnrollmentId) -> Result<Enrollment> {
        actor.authorize(Operation::EnrollmentGet)?;
        self.enrollments.get(id).await
    }

    /// Revokes a join token. Servers that joined with it stay.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none.
    pub async fn enrollment_delete(&self, actor: &Actor, id: EnrollmentId) -> Result<()> {
        actor.authorize(Operation::EnrollmentDelete)?;
        let enrollment = self.enrollments.get(id).await?;
        let entry = AuditEntry::new(actor, Operation::EnrollmentDelete.action(), self.clock.now()).deleted(&enrollment);
        self.enrollments.delete(enrollment, entry.into()).await.map(|done| done.value)
    }
}

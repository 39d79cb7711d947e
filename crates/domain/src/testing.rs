//! What the tests of several rooms share: a clock to set, bytes that count, and somebody who asks.

use crate::{
    change::Once,
    clock::{Clock, Timestamp},
    entropy::Entropy,
    identity::{Actor, Principal, Role, Scopes},
    ids::{SessionId, UserId},
    text::Name,
};
use chrono::TimeDelta;
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU8, Ordering},
};

/// When tests begin.
pub(crate) const START: Timestamp = Timestamp::UNIX_EPOCH;

/// A clock that stands still unless it is told to go on.
pub(crate) struct TestClock(Mutex<Timestamp>);

impl TestClock {
    pub(crate) fn start() -> Arc<Self> {
        Arc::new(Self(Mutex::new(START)))
    }

    pub(crate) fn advance(&self, by: TimeDelta) {
        *self.0.lock().unwrap() += by;
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }

    fn uptime(&self) -> std::time::Duration {
        (self.now() - START).to_std().unwrap()
    }
}

/// Bytes that differ each time, and are the same in each run.
#[derive(Default)]
pub(crate) struct CountingEntropy(AtomicU8);

impl Entropy for CountingEntropy {
    fn bytes(&self) -> [u8; 32] {
        [self.0.fetch_add(1, Ordering::Relaxed); 32]
    }
}

/// The user `alice` (id 1, session 10) in this role, in the request `r-1`.
pub(crate) fn alice(role: Role) -> Actor {
    Actor {
        principal: Principal::User { id: UserId(1), name: "alice".to_owned(), session: SessionId(10) },
        on_behalf_of: None,
        role,
        scopes: Scopes::all(),
        request_id: Some("r-1".to_owned()),
    }
}

/// An idempotency key of alice's.
pub(crate) fn once() -> Once {
    Once { caller: "user:alice".to_owned(), key: "k-1".to_owned(), fingerprint: "f".repeat(64) }
}

pub(crate) fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

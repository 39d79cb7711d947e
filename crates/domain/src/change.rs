//! What travels with a write and commits with it: its audit entry and its idempotency key.

use crate::audit::AuditEntry;
use serde::Serialize;

/// How often a change is computed again when somebody else changed the same thing in between; [`Error::busy`] then.
///
/// [`Error::busy`]: crate::Error::busy
pub(crate) const TRIES: usize = 8;

/// The part of a write that is not about the thing written. A repository MUST commit all of it, or nothing.
#[derive(Debug, Clone)]
pub struct Change {
    /// Who does what to what.
    pub entry: AuditEntry,
    /// Keeps a repeated request from repeating the write.
    pub once: Option<Once>,
}

impl Change {
    /// A change that its caller may not repeat by accident, if it gave a key.
    #[must_use]
    pub fn new(entry: AuditEntry, once: Option<Once>) -> Self {
        Self { entry, once }
    }
}

impl From<AuditEntry> for Change {
    fn from(entry: AuditEntry) -> Self {
        Self { entry, once: None }
    }
}

/// An idempotency key: the same key and request get the same answer for 24 hours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Once {
    /// Whose key it is; two callers may use the same key for different things.
    pub caller: String,
    /// The key as the client chose it.
    pub key: String,
    /// SHA-256 over method, path and body in hexadecimal; another request under the same key is refused.
    pub fingerprint: String,
}

/// The outcome of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done<T> {
    /// What was written, as it was when it was written.
    pub value: T,
    /// Whether the write had happened before, under the same idempotency key.
    pub replayed: bool,
}

impl<T> Done<T> {
    /// The same outcome with its value converted.
    pub fn map<U>(self, convert: impl FnOnce(T) -> U) -> Done<U> {
        Done { value: convert(self.value), replayed: self.replayed }
    }
}

/// Something whose creation and changes are recorded.
pub trait Recorded: Serialize {
    /// The noun in targets and actions, such as `server`.
    const KIND: &'static str;

    /// The id that the database gave it.
    fn id(&self) -> i64;

    /// How audit rows name it, such as `server:7`.
    fn target(&self) -> String {
        format!("{}:{}", Self::KIND, self.id())
    }
}

//! Who did what, when, to what, with what outcome.
//!
//! Invariants: every change of intent or state has exactly one row, committed with it; rows are numbered without
//! gaps; each row is sealed with a keyed hash over its canonical text and the hash of the row before it, so that
//! an edit, a removal, a swap or a cut tail shows. Secrets never enter a row.

mod chain;
mod events;
mod model;
mod ports;
mod refusals;
mod service;

pub use chain::{ChainVerifier, Seal, StoredRow, Verification};
pub use events::{Event, RESTORE, event_of};
pub use model::{AuditEntry, AuditFilter, AuditLine, AuditRow, Checkpoint, Head, HeadMark, MarkKind, Outcome, Refusal};
pub use ports::{AuditLog, HeadFile};
pub use refusals::{RefusalKey, RefusalMeter, Verdict};
pub use service::AuditService;

#[cfg(any(test, feature = "mocks"))]
pub use ports::{MockAuditLog, MockHeadFile};

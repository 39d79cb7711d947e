//! How operations end that no driver has anything to say of.

use crate::work::{Exit, WorkId};
use domain::{
    clock::Timestamp,
    fleet::protocol::{End, Ending},
    scheduling::reason,
};
use std::io;

fn end(ending: Ending, reason: Option<&str>, detail: impl std::fmt::Display, at: Timestamp) -> End {
    End {
        ending,
        exit_code: None,
        signal: None,
        reason: reason.map(str::to_owned),
        detail: Some(detail.to_string()),
        outcome: None,
        started_at: None,
        finished_at: Some(at),
    }
}

pub(super) fn cancelled(at: Timestamp) -> End {
    end(Ending::Cancelled, None, "it was cancelled before it ran", at)
}

pub(super) fn expired(at: Timestamp) -> End {
    end(Ending::Expired, Some(reason::EXPIRED), "it was not begun in time", at)
}

pub(super) fn unsupported(detail: &str, at: Timestamp) -> End {
    end(Ending::Failed, Some(reason::UNSUPPORTED), detail, at)
}

/// The journal cannot be written, so that nothing may be begun.
pub(super) fn unwritten(error: &io::Error, at: Timestamp) -> End {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    let full = matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge);
    let reason = if full { reason::DISK_FULL } else { reason::START_FAILED };
    end(Ending::Failed, Some(reason), format!("the agent's state directory cannot be written: {error}"), at)
}

pub(super) fn lost(detail: &str, at: Timestamp) -> End {
    Exit { finished_at: Some(at), ..Exit::lost(detail) }.told(false)
}

/// The server speaks of an operation by a number that was another one's.
pub(super) fn mistaken(before: Option<&WorkId>, at: Timestamp) -> End {
    let before = before.map_or_else(|| "something else".to_owned(), ToString::to_string);
    let detail = format!(
        "the number of this operation was that of {before} before: was the server's database restored from a backup? \
         it was not begun; run the task again"
    );
    end(Ending::Failed, Some(reason::START_FAILED), detail, at)
}

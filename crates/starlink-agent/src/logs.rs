//! The output of work, kept on this machine: what drivers write, and what readers see.
//!
//! Each attempt has a folder `log/` of its own, written by one process at a time and read by others meanwhile. In it are
//! segments: files called after the place of their first byte in the whole output, each a row of checksummed records. A
//! place is a number of bytes of output, line feeds included; a cursor is made of places.
//!
//! Invariants: what a program wrote is on the disk when [`Writer::append`] returns, or is counted as lost and told as
//! such; a log is never larger than its limit; reading on after any line neither loses nor repeats a byte that is there;
//! a text is cut between characters only.

mod cursor;
mod follow;
mod lines;
mod reader;
mod record;
mod retention;
mod segment;
mod store;
mod tape;
mod writer;

pub use follow::Lines;
pub use reader::{Batch, Progress, Reader};
pub use retention::{KEEP_FOR, prune};
pub use writer::Writer;

use std::{
    fs::{DirBuilder, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// What is kept of an attempt's output unless its task says otherwise.
pub const LIMIT_MIB: i64 = 100;
/// The longest text of one line, in bytes as they were written; a longer line comes in pieces.
pub const LONGEST_PIECE: usize = 1024 * 1024;
/// Tells that nothing more will be written.
const FINISHED: &str = "finished";

/// Why a log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The cursor is none, or none of this log.
    #[error("cursor {0:?} is none of this log: take one from a line of it, or leave it out to read from the beginning")]
    Cursor(String),
    /// The disk says no.
    #[error("the log could not be read: {0}")]
    Io(#[from] io::Error),
}

/// The most bytes that a log of a task with this limit takes; nobody but the owner of the machine sets it lower than 1 MiB.
#[must_use]
pub fn limit_bytes(log_limit_mib: Option<i64>) -> u64 {
    u64::try_from(log_limit_mib.unwrap_or(LIMIT_MIB)).unwrap_or(1).max(1).saturating_mul(1024 * 1024)
}

/// Where the log of work with this folder is.
#[must_use]
pub fn folder(work_folder: &Path) -> PathBuf {
    work_folder.join("log")
}

/// Says that nothing more will be written into the log of work with this folder. Saying it again changes nothing.
///
/// # Errors
/// What the disk says, such as that it is full.
pub fn finish(work_folder: &Path) -> io::Result<()> {
    let folder = folder(work_folder);
    make(&folder)?;
    OpenOptions::new().create(true).append(true).mode(0o600).open(folder.join(FINISHED)).map(drop)
}

/// Whether nothing more will be written.
fn is_finished(folder: &Path) -> bool {
    folder.join(FINISHED).exists()
}

/// Makes the folder of a log, which nobody but its writer may look into. The folder of the work must be there.
fn make(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// How many bytes that is.
fn count(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

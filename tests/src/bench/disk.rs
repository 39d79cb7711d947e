//! How long the disk takes to keep something for good: no durable commit can be faster.

use crate::{Outcome, table::median};
use std::{
    fs::File,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

const TIMES: usize = 200;
/// About what a small commit appends to a write-ahead log.
const BLOCK: [u8; 8192] = [7; 8192];

/// The median of appending to a file in this directory and waiting until the disk has it.
pub(crate) fn sync_time(directory: &Path) -> Outcome<Duration> {
    let path = directory.join("sync-time");
    let mut file = File::create(&path)?;
    let mut times = Vec::with_capacity(TIMES);
    for _ in 0..TIMES {
        let began = Instant::now();
        file.write_all(&BLOCK)?;
        file.sync_data()?;
        times.push(began.elapsed());
    }
    std::fs::remove_file(&path)?;
    Ok(median(&times, |time| *time).unwrap_or_default())
}

//! The files of a log: what they are called, and what they begin with.

use super::record::checksum;
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The bytes before the first record.
pub(super) const HEAD: usize = 37;
/// The largest segment: one is read through before a place in it is found.
pub(super) const LARGEST: u64 = 16 * 1024 * 1024;
const MAGIC: &[u8; 8] = b"StarLog1";

/// What a segment begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// Names the log; the same in all its segments.
    pub(super) log: u64,
    /// The place of its first byte.
    pub(super) base: u64,
    /// When it was begun, in nanoseconds since 1970.
    pub(super) nanos: i64,
    /// The streams that are in the middle of a line there, one bit each by their numbers.
    pub(super) open: u8,
}

impl Head {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.log.to_le_bytes());
        bytes.extend_from_slice(&self.base.to_le_bytes());
        bytes.extend_from_slice(&self.nanos.to_le_bytes());
        bytes.push(self.open);
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (checked, sum) = bytes.get(..HEAD)?.split_last_chunk::<4>()?;
        let rest = checked.strip_prefix(MAGIC)?;
        let (log, rest) = rest.split_first_chunk::<8>()?;
        let (base, rest) = rest.split_first_chunk::<8>()?;
        let (nanos, rest) = rest.split_first_chunk::<8>()?;
        (checksum(checked) == u32::from_le_bytes(*sum)).then_some(Self {
            log: u64::from_le_bytes(*log),
            base: u64::from_le_bytes(*base),
            nanos: i64::from_le_bytes(*nanos),
            open: *rest.first()?,
        })
    }
}

/// A segment that is there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Segment {
    /// The place of its first byte.
    pub(super) base: u64,
    pub(super) path: PathBuf,
}

impl Segment {
    pub(super) fn at(folder: &Path, base: u64) -> Self {
        Self { base, path: folder.join(format!("{base:020}.log")) }
    }
}

/// The segments of a log, oldest first; none, if there is no such folder.
pub(super) fn list(folder: &Path) -> io::Result<Vec<Segment>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut segments = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".log"));
        if let Some(base) = name.filter(|name| name.len() == 20).and_then(|name| name.parse().ok()) {
            segments.push(Segment { base, path });
        }
    }
    segments.sort();
    Ok(segments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_reads_back_and_nothing_less_does() {
        let head = Head { log: 1, base: 2, nanos: -3, open: 4 };
        let bytes = head.encode();
        assert_eq!(bytes.len(), HEAD);
        assert_eq!(Head::decode(&bytes), Some(head));
        for place in 0..HEAD {
            assert_eq!(Head::decode(&bytes[..place]), None);
            let mut bytes = bytes.clone();
            bytes[place] ^= 1;
            assert_eq!(Head::decode(&bytes), None, "changed at {place}");
        }
    }
}

//! The segments of a log, as its writer sees them.

use super::{
    count, make,
    segment::{self, Head, Segment},
    tape,
};
use nix::{
    errno::Errno,
    fcntl::{FallocateFlags, fallocate},
};
use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// A record in some bytes that are written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written {
    /// Where it ends in them.
    pub(super) end: usize,
    /// How many bytes of output it stands for.
    pub(super) span: u64,
    /// Its stream, as a bit, and whether a line ends with it.
    pub(super) stream: u8,
    pub(super) ends: bool,
}

/// A log that was opened for writing.
#[derive(Debug)]
pub(super) struct Store {
    folder: PathBuf,
    /// Names the log; 0 before the first segment.
    log: u64,
    /// The place of what is written next.
    next: u64,
    /// The streams that are in the middle of a line, one bit each by their numbers.
    pub(super) open: u8,
    /// The segments but the newest and their sizes, oldest first.
    old: VecDeque<(Segment, u64)>,
    newest: Option<Newest>,
}

/// The segment that is written to.
#[derive(Debug)]
struct Newest {
    segment: Segment,
    file: File,
    size: u64,
}

impl Store {
    /// Opens what is there, and cuts a record off that was not written to its end.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        make(folder)?;
        let folder = folder.to_owned();
        let mut store = Self { folder, log: 0, next: 0, open: 0, old: VecDeque::new(), newest: None };
        let mut segments = segment::list(&store.folder)?;
        while let Some(segment) = segments.pop() {
            let Some(end) = tape::scan(&segment)? else {
                // Its head was torn, so nothing is in it.
                fs::remove_file(&segment.path)?;
                continue;
            };
            let file = OpenOptions::new().write(true).open(&segment.path)?;
            file.set_len(end.offset)?;
            (store.log, store.next, store.open) = (end.log, end.place, end.open);
            store.newest = Some(Newest { segment, file, size: end.offset });
            break;
        }
        for segment in segments {
            let size = fs::metadata(&segment.path)?.len();
            store.old.push_back((segment, size));
        }
        Ok(store)
    }

    /// The size of the newest segment, if there is one.
    pub(super) fn size(&self) -> Option<u64> {
        self.newest.as_ref().map(|newest| newest.size)
    }

    /// Writes records. Tells how many of them are written, and what kept it from writing the rest.
    pub(super) fn write(&mut self, bytes: &[u8], records: &[Written]) -> (usize, Option<io::Error>) {
        let Some(newest) = &mut self.newest else {
            return (0, Some(io::Error::other("the log has no segment to write to")));
        };
        let (done, error) = newest.write(bytes);
        // Whole records may have been read already, so they stay.
        let whole = records.iter().take_while(|record| record.end <= done).count();
        for record in records.iter().take(whole) {
            self.next += record.span;
            self.open = if record.ends { self.open & !record.stream } else { self.open | record.stream };
        }
        newest.size += records.iter().take(whole).next_back().map_or(0, |record| count(record.end));
        if error.is_some() && newest.file.set_len(newest.size).is_err() {
            self.retire();
        }
        (whole, error)
    }

    /// Whether the disk has room for so much more at the end. Where it cannot tell, that is seen when it is written.
    pub(super) fn reserve(&self, bytes: u64) -> bool {
        let Some(newest) = &self.newest else { return false };
        let (Ok(offset), Ok(bytes)) = (newest.size.try_into(), bytes.try_into()) else { return true };
        match fallocate(&newest.file, FallocateFlags::FALLOC_FL_KEEP_SIZE, offset, bytes) {
            Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL) => true,
            Err(_) => false,
        }
    }

    /// Drops the oldest segments, until all of them take at most this many bytes.
    pub(super) fn shrink(&mut self, most: u64) {
        self.retire();
        let mut total: u64 = self.old.iter().map(|(_, size)| size).sum();
        while let Some((segment, size)) = self.old.front().filter(|_| total > most) {
            if fs::remove_file(&segment.path).is_err_and(|error| error.kind() != io::ErrorKind::NotFound) {
                return;
            }
            total -= size;
            self.old.pop_front();
        }
    }

    /// Begins the next segment.
    pub(super) fn begin(&mut self, nanos: i64) -> io::Result<()> {
        self.retire();
        let log = if self.log == 0 { nanos.cast_unsigned().max(1) } else { self.log };
        let head = Head { log, base: self.next, nanos, open: self.open };
        let segment = Segment::at(&self.folder, self.next);
        // One of the same name has no record in it.
        self.old.retain(|(old, _)| *old != segment);
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&segment.path)?;
        if let Err(error) = file.write_all_at(&head.encode(), 0) {
            // Without a head it is none; what cannot be removed is removed when the log is opened next.
            let _ = fs::remove_file(&segment.path);
            return Err(error);
        }
        self.log = log;
        self.newest = Some(Newest { segment, file, size: count(segment::HEAD) });
        Ok(())
    }

    /// Writes no more to the newest segment.
    fn retire(&mut self) {
        self.old.extend(self.newest.take().map(|newest| (newest.segment, newest.size)));
    }
}

impl Newest {
    /// Writes bytes at the end, or as many as possible.
    fn write(&self, bytes: &[u8]) -> (usize, Option<io::Error>) {
        let mut done = 0;
        while done < bytes.len() {
            match self.file.write_at(&bytes[done..], self.size + count(done)) {
                Ok(0) => return (done, Some(io::ErrorKind::WriteZero.into())),
                Ok(written) => done += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (done, Some(error)),
            }
        }
        (done, None)
    }
}

//! The records of a log in the order in which they were written, from any place on, while another process writes.

use super::{
    count,
    record::{Decoded, HEAD, LONGEST, Record, bit},
    segment::{self, Head, Segment},
};
use std::{
    fs::File,
    io,
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// How much is read at once: more than any record.
const BLOCK: usize = 2 * (HEAD + LONGEST);

/// What comes next.
#[derive(Debug)]
pub(super) enum Step<'a> {
    /// The record at this place.
    Record(u64, Record<'a>),
    /// Output is missing.
    Gap(Gap),
    /// Nothing yet.
    Nothing,
}

/// Output that is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gap {
    /// The place at which reading goes on.
    pub(super) to: u64,
    /// How many bytes.
    pub(super) bytes: u64,
    /// When the first of what is there was written, in nanoseconds since 1970.
    pub(super) nanos: i64,
    /// Whether it was dropped to keep the log small; otherwise it cannot be read.
    pub(super) dropped: bool,
}

/// Reads records.
#[derive(Debug)]
pub(super) struct Tape {
    folder: PathBuf,
    /// The place of what is read next.
    place: u64,
    /// Records that end here or before are passed over.
    from: u64,
    /// Names the log, once something of it was read.
    log: Option<u64>,
    open: Option<Open>,
}

/// The segment that is being read.
#[derive(Debug)]
struct Open {
    file: File,
    base: u64,
    /// Where in the file the buffer ends.
    offset: u64,
    buffer: Vec<u8>,
    /// The first byte of the buffer that was not taken yet.
    taken: usize,
    /// Whether the next segment was there already before the file was last read: then nothing is added to this one.
    sealed: bool,
}

/// A record whose bytes are in the buffer.
struct Found {
    place: u64,
    record: Record<'static>,
    bytes: Range<usize>,
}

impl Tape {
    /// Begins with the record that has this place in it.
    pub(super) fn new(folder: &Path, from: u64) -> Self {
        Self { folder: folder.to_owned(), place: from, from, log: None, open: None }
    }

    /// Which log it is, once something of it was read.
    pub(super) fn log(&self) -> Option<u64> {
        self.log
    }

    /// The place of what is read next.
    pub(super) fn place(&self) -> u64 {
        self.place
    }

    pub(super) fn next(&mut self) -> io::Result<Step<'_>> {
        loop {
            if self.open.is_none() {
                match self.turn()? {
                    Turned::Gap(gap) => return Ok(Step::Gap(gap)),
                    Turned::Nothing => return Ok(Step::Nothing),
                    Turned::Opened => {}
                }
            }
            if let Some(found) = self.take() {
                if found.place + found.record.span() + count(found.bytes.len()) <= self.from {
                    continue;
                }
                let bytes = self.open.as_ref().and_then(|open| open.buffer.get(found.bytes)).unwrap_or_default();
                return Ok(Step::Record(found.place, Record { bytes, ..found.record }));
            }
            let Some(open) = &mut self.open else { continue };
            if open.fill()? {
                continue;
            }
            if open.sealed {
                self.open = None;
            } else if segment::list(&self.folder)?.last().is_some_and(|newest| newest.base > open.base) {
                open.sealed = true;
            } else {
                return Ok(Step::Nothing);
            }
        }
    }

    /// Takes the next record out of the buffer, if all of it is there.
    fn take(&mut self) -> Option<Found> {
        let open = self.open.as_mut()?;
        let Decoded::Whole(record, length) = Record::decode(open.buffer.get(open.taken..)?) else { return None };
        let bytes = open.taken + HEAD..open.taken + length;
        open.taken += length;
        let (place, Record { stream, nanos, ends, .. }) = (self.place, record);
        self.place += record.span();
        Some(Found { place, bytes, record: Record { stream, nanos, ends, bytes: &[] } })
    }

    /// Opens the segment with the next place in it, or the first one after it.
    fn turn(&mut self) -> io::Result<Turned> {
        let segments = segment::list(&self.folder)?;
        // Only the first segment is entered in its middle; after that, reading goes on behind what cannot be read.
        let first = match self.log {
            None => segments.iter().rposition(|segment| segment.base <= self.place).unwrap_or(0),
            Some(_) => segments.iter().position(|segment| segment.base >= self.place).unwrap_or(segments.len()),
        };
        for segment in segments.get(first..).unwrap_or_default() {
            // One that cannot be opened was dropped just now, or is being made.
            let Some((open, head)) = Open::segment(segment)? else { continue };
            let expected = std::mem::replace(&mut self.place, head.base);
            self.log = Some(head.log);
            self.open = Some(open);
            if head.base <= expected {
                return Ok(Turned::Opened);
            }
            self.from = self.from.max(head.base);
            let dropped =
                segments.first() == Some(segment) || !segments.first().is_some_and(|oldest| oldest.path.exists());
            return Ok(Turned::Gap(Gap { to: head.base, bytes: head.base - expected, nanos: head.nanos, dropped }));
        }
        Ok(Turned::Nothing)
    }
}

/// Where a segment ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    pub(super) log: u64,
    /// The place behind its last record.
    pub(super) place: u64,
    /// Where that is in the file.
    pub(super) offset: u64,
    /// The streams that are in the middle of a line there, one bit each by their numbers.
    pub(super) open: u8,
}

/// Reads through a segment; `None` if it has no head.
pub(super) fn scan(segment: &Segment) -> io::Result<Option<End>> {
    let Some((mut open, head)) = Open::segment(segment)? else { return Ok(None) };
    let mut end = End { log: head.log, place: head.base, offset: open.offset, open: head.open };
    loop {
        let Decoded::Whole(record, length) = Record::decode(&open.buffer[open.taken..]) else {
            if open.fill()? {
                continue;
            }
            return Ok(Some(end));
        };
        end.place += record.span();
        end.offset += count(length);
        end.open = if record.ends { end.open & !bit(record.stream) } else { end.open | bit(record.stream) };
        open.taken += length;
    }
}

enum Turned {
    Opened,
    Gap(Gap),
    Nothing,
}

impl Open {
    /// Opens a segment behind its head; `None` if it is not there, or has no head.
    fn segment(segment: &Segment) -> io::Result<Option<(Self, Head)>> {
        let file = match File::open(&segment.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut head = [0; segment::HEAD];
        match file.read_exact_at(&mut head, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let Some(head) = Head::decode(&head).filter(|head| head.base == segment.base) else { return Ok(None) };
        let offset = count(segment::HEAD);
        let open = Self { file, base: head.base, offset, buffer: Vec::new(), taken: 0, sealed: false };
        Ok(Some((open, head)))
    }

    /// Reads on; whether there was more. What was seen of a record that was not whole is read again, as its writer may
    /// have begun it anew.
    fn fill(&mut self) -> io::Result<bool> {
        let known = self.buffer.len() - self.taken;
        self.offset -= count(known);
        let old = self.buffer.split_off(self.taken);
        self.buffer.resize(BLOCK, 0);
        self.taken = 0;
        let read = loop {
            match self.file.read_at(&mut self.buffer, self.offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        self.buffer.truncate(read.as_ref().copied().unwrap_or(0));
        self.offset += count(read?);
        Ok(self.buffer != old)
    }
}

#[cfg(test)]
#[path = "tape_tests.rs"]
mod tests;

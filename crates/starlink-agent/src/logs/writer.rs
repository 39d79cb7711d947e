//! Writes a log.

use super::{
    count, finish, folder,
    record::{self, Record, bit},
    segment::LARGEST,
    store::{Store, Written},
};
use chrono::{DateTime, Utc};
use domain::fleet::protocol::LogStream;
use std::{
    io,
    path::{Path, PathBuf},
};

/// A log has so many segments, so that dropping one of them loses little.
const SEGMENTS: u64 = 8;
/// The smallest limit that leaves room for a line in each segment.
const SMALLEST: u64 = 16 * 1024;
/// Once something was lost, nothing is written until there is room for so much.
const RECOVERED: u64 = 128 * 1024;
/// So many records are written together at most.
const BATCH: usize = 512;
/// The longest text that the agent says in one line.
const LONGEST_MARK: usize = 4096;

/// Writes the log of one attempt. Only one at a time does.
///
/// Nothing of it fails: what cannot be written, because the disk is full, is counted, and once it is possible again the
/// log says how many bytes were lost. Work must not end or wait for the sake of its log.
#[derive(Debug)]
pub struct Writer {
    work_folder: PathBuf,
    folder: PathBuf,
    limits: Limits,
    store: Option<Store>,
    lost: Option<Lost>,
    batch: Batch,
}

/// The most bytes of all segments, of one, and of the output in one record.
#[derive(Debug, Clone, Copy)]
struct Limits {
    total: u64,
    segment: u64,
    record: usize,
}

/// Output that could not be written.
#[derive(Debug)]
struct Lost {
    bytes: u64,
    because: String,
}

/// Records that are written together.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    ends: Vec<Written>,
}

impl Writer {
    /// Goes on with the log of the work with this folder, or begins it; a record that was torn by a kill is cut off.
    #[must_use]
    pub fn open(work_folder: &Path, limit_bytes: u64) -> Self {
        let total = limit_bytes.max(SMALLEST);
        let segment = (total / SEGMENTS).min(LARGEST);
        let record = usize::try_from(segment / 4).unwrap_or(record::LONGEST).min(record::LONGEST);
        let limits = Limits { total, segment, record };
        let (work_folder, folder) = (work_folder.to_owned(), folder(work_folder));
        let mut writer = Self { work_folder, folder, limits, store: None, lost: None, batch: Batch::default() };
        writer.ready();
        writer
    }

    /// Writes what was read of a stream at this time: any bytes, which may end within a line or a character.
    pub fn append(&mut self, stream: LogStream, at: DateTime<Utc>, bytes: &[u8]) {
        self.tell_lost(at);
        self.put(stream, nanos(at), bytes);
    }

    /// Says something in the name of the agent, such as that the program was started again.
    pub fn mark(&mut self, at: DateTime<Utc>, text: &str) {
        let text = &text[..text.floor_char_boundary(LONGEST_MARK)];
        let line = text.replace('\n', " ") + "\n";
        self.append(LogStream::Agent, at, line.as_bytes());
    }

    /// Ends the lines that have no line feed yet: what is written next is said by another run of the program.
    pub fn end_lines(&mut self, at: DateTime<Utc>) {
        for stream in [LogStream::Stdout, LogStream::Stderr] {
            let open = self.store.as_ref().is_some_and(|store| store.open & bit(stream) != 0);
            if open && self.lost.is_none() {
                self.write(Record { stream, nanos: nanos(at), ends: true, bytes: &[] });
            }
        }
        self.flush();
    }

    /// Says that nothing more will be written.
    ///
    /// # Errors
    /// What the disk says; saying it again may succeed.
    pub fn finish(&mut self, at: DateTime<Utc>) -> io::Result<()> {
        self.tell_lost(at);
        finish(&self.work_folder)
    }

    /// How many bytes could not be written, and were not told as lost yet.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.as_ref().map_or(0, |lost| lost.bytes)
    }

    /// Tries to say how much was lost, if anything was.
    fn tell_lost(&mut self, at: DateTime<Utc>) {
        let Some(lost) = self.lost.take().filter(|lost| lost.bytes > 0) else { return };
        if !self.has_recovered(nanos(at)) {
            self.lost = Some(lost);
            return;
        }
        // The end of those lines was lost as well.
        self.end_lines(at);
        let text = format!("{} bytes of output were lost: {}\n", lost.bytes, lost.because);
        self.put(LogStream::Agent, nanos(at), text.as_bytes());
        if self.lost.is_some() {
            self.lost = Some(lost);
        }
    }

    /// Whether there is room for more than to say that there is none.
    fn has_recovered(&mut self, nanos: i64) -> bool {
        if self.room() < count(record::HEAD + record::LONGEST).min(self.limits.segment / 2) {
            self.roll(nanos);
        }
        let room = RECOVERED.min(self.limits.segment);
        self.lost.is_none() && self.store.as_ref().is_some_and(|store| store.reserve(room))
    }

    fn put(&mut self, stream: LogStream, nanos: i64, bytes: &[u8]) {
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (line, ends) = line.strip_suffix(b"\n").map_or((line, false), |line| (line, true));
            let mut pieces = line.chunks(self.limits.record).peekable();
            if pieces.peek().is_none() {
                self.write(Record { stream, nanos, ends, bytes: &[] });
            }
            while let Some(bytes) = pieces.next() {
                self.write(Record { stream, nanos, ends: ends && pieces.peek().is_none(), bytes });
            }
        }
        self.flush();
    }

    /// Adds a record to the batch. Once something was lost, what comes right behind it is lost, too.
    fn write(&mut self, record: Record<'_>) {
        let length = count(record::HEAD + record.bytes.len());
        if self.batch.ends.len() >= BATCH || length > self.room() {
            self.flush();
        }
        if length > self.room() && self.lost.is_none() {
            self.roll(record.nanos);
        }
        if let Some(lost) = &mut self.lost {
            lost.bytes += record.span();
            return;
        }
        record.encode(&mut self.batch.bytes);
        let (end, span) = (self.batch.bytes.len(), record.span());
        self.batch.ends.push(Written { end, span, stream: bit(record.stream), ends: record.ends });
    }

    /// How many bytes more the newest segment takes.
    fn room(&self) -> u64 {
        let size = self.store.as_ref().and_then(Store::size);
        size.map_or(0, |size| self.limits.segment.saturating_sub(size + count(self.batch.bytes.len())))
    }

    /// Writes the batch. What of it cannot be written is lost.
    fn flush(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        if batch.ends.is_empty() {
            return;
        }
        let (done, error) = match &mut self.store {
            Some(store) => store.write(&batch.bytes, &batch.ends),
            None => (0, Some(io::Error::other("the log could not be opened"))),
        };
        if let Some(error) = error {
            self.lose(batch.ends.iter().skip(done).map(|record| record.span).sum(), &error);
        }
    }

    fn lose(&mut self, bytes: u64, error: &io::Error) {
        let lost = self.lost.get_or_insert_with(|| Lost { bytes: 0, because: error.to_string() });
        lost.bytes += bytes;
    }

    /// Opens the log, if it is not open.
    fn ready(&mut self) {
        if self.store.is_none() {
            match Store::open(&self.folder) {
                Ok(store) => self.store = Some(store),
                Err(error) => self.lose(0, &error),
            }
        }
    }

    /// Begins the next segment, and drops the oldest ones for it.
    fn roll(&mut self, nanos: i64) {
        self.ready();
        let begun = self.store.as_mut().map_or(Ok(()), |store| {
            store.shrink(self.limits.total - self.limits.segment);
            store.begin(nanos)
        });
        if let Err(error) = begun {
            self.lose(0, &error);
        }
    }
}

fn nanos(at: DateTime<Utc>) -> i64 {
    at.timestamp_nanos_opt().unwrap_or_default()
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;

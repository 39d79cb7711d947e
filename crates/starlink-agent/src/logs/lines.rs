//! Lines out of records: streams apart, characters whole, memory bounded. Pure.

use super::{
    count,
    record::{Record, number},
};
use domain::fleet::protocol::LogStream;
use std::collections::VecDeque;

/// The longest sequence of a UTF-8 character, less one: so far back from a cut its first byte may be.
const BACK: usize = 3;

/// A line, or a piece of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) stream: LogStream,
    /// When its first byte was written, in nanoseconds since 1970.
    pub(super) nanos: i64,
    pub(super) text: String,
    pub(super) continues: bool,
    /// How far the log was read, and where the next line of each stream begins: the cursor.
    pub(super) read: u64,
    pub(super) starts: [u64; 3],
}

/// What was read of a line that has not ended.
#[derive(Debug, Default)]
struct Part {
    /// The place of its first byte; while there is none, that from which on the stream is wanted.
    start: u64,
    nanos: i64,
    bytes: Vec<u8>,
    /// Where the newest bytes come from: enough to tell the place of each of the last few.
    sources: VecDeque<Source>,
}

#[derive(Debug, Clone, Copy)]
struct Source {
    /// The index in the part's bytes.
    index: usize,
    place: u64,
    nanos: i64,
}

/// Puts lines together.
#[derive(Debug)]
pub(super) struct Lines {
    /// The most bytes of one piece.
    longest: usize,
    parts: [Part; 3],
    read: u64,
}

impl Lines {
    /// Wants each stream from its place on. `longest` is at least 8.
    pub(super) fn new(longest: usize, starts: [u64; 3]) -> Self {
        let parts = starts.map(|start| Part { start, ..Part::default() });
        Self { longest, parts, read: starts.into_iter().max().unwrap_or_default() }
    }

    /// Takes in the record at this place, and gives the lines that it completes to `give`.
    pub(super) fn push(&mut self, place: u64, record: &Record<'_>, give: &mut impl FnMut(Line)) {
        let index = usize::from(number(record.stream));
        let end = place + record.span();
        let wanted = self.parts[index].wanted();
        self.read = self.read.max(end);
        if end <= wanted {
            return;
        }
        let skip = usize::try_from(wanted.saturating_sub(place)).unwrap_or(usize::MAX).min(record.bytes.len());
        self.parts[index].extend(place + count(skip), record.nanos, &record.bytes[skip..]);
        while self.parts[index].bytes.len() > self.longest {
            let at = cut(&self.parts[index].bytes, self.longest);
            let (nanos, text) = self.parts[index].split(at, end);
            give(self.line(record.stream, nanos, text, true));
        }
        if record.ends {
            let all = self.parts[index].bytes.len();
            let (nanos, text) = self.parts[index].split(all, end);
            give(self.line(record.stream, nanos.or(Some(record.nanos)), text, false));
        }
    }

    /// Gives what was read of lines that have not ended, the oldest first. In a log that is finished that is the last of
    /// them; otherwise each goes on, and an unfinished character is left for later.
    pub(super) fn flush(&mut self, finished: bool, give: &mut impl FnMut(Line)) {
        let mut streams = [LogStream::Stdout, LogStream::Stderr, LogStream::Agent];
        streams.sort_by_key(|stream| self.parts[usize::from(number(*stream))].start);
        for stream in streams {
            let part = &mut self.parts[usize::from(number(stream))];
            let whole = if finished { part.bytes.len() } else { part.bytes.len() - unfinished(&part.bytes) };
            if whole > 0 {
                let (nanos, text) = part.split(whole, self.read);
                give(self.line(stream, nanos, text, !finished));
            }
        }
    }

    /// What comes next is at this place at the earliest: everything before it is gone.
    pub(super) fn jump(&mut self, place: u64) {
        self.read = self.read.max(place);
        for part in &mut self.parts {
            part.start = part.start.max(place);
        }
    }

    /// How far the log was read, and where the next line of each stream begins.
    pub(super) fn position(&self) -> (u64, [u64; 3]) {
        let starts = [0, 1, 2].map(|index: usize| {
            let part = &self.parts[index];
            if part.bytes.is_empty() { self.read } else { part.start }
        });
        (self.read, starts)
    }

    fn line(&self, stream: LogStream, nanos: Option<i64>, text: Vec<u8>, continues: bool) -> Line {
        let text =
            String::from_utf8(text).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
        let (read, starts) = self.position();
        Line { stream, nanos: nanos.unwrap_or_default(), text, continues, read, starts }
    }
}

impl Part {
    /// The place of the first byte that it has not got.
    fn wanted(&self) -> u64 {
        self.sources.back().map_or(self.start, |last| last.place + count(self.bytes.len() - last.index))
    }

    fn extend(&mut self, place: u64, nanos: i64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self.bytes.is_empty() {
            (self.start, self.nanos) = (place, nanos);
            self.sources.clear();
        }
        let length = self.bytes.len();
        self.sources.push_back(Source { index: length, place, nanos });
        while self.sources.get(1).is_some_and(|second| second.index + BACK <= length) {
            self.sources.pop_front();
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Takes the first bytes out, with their time. What is left begins where it was written; if nothing is, at `next`.
    fn split(&mut self, at: usize, next: u64) -> (Option<i64>, Vec<u8>) {
        let nanos = (!self.bytes.is_empty()).then_some(self.nanos);
        let rest = self.bytes.split_off(at);
        let text = std::mem::replace(&mut self.bytes, rest);
        let source = self.sources.iter().rev().find(|source| source.index <= at).copied();
        match source {
            Some(source) if !self.bytes.is_empty() => {
                (self.start, self.nanos) = (source.place + count(at - source.index), source.nanos);
                self.sources.retain(|other| other.index >= source.index);
                for source in &mut self.sources {
                    if source.index < at {
                        source.place += count(at - source.index);
                    }
                    source.index = source.index.saturating_sub(at);
                }
            }
            _ => {
                self.start = next;
                self.sources.clear();
            }
        }
        (nanos, text)
    }
}

/// Where to cut bytes of which there are more than `most`: at most there, and never within a character, nor within bytes
/// that are replaced by one mark together.
fn cut(bytes: &[u8], most: usize) -> usize {
    // Whatever is no continuation byte begins something new. Where four in a row continue, the last one cannot belong
    // to a character that began before the first.
    (0..=BACK).map(|back| most - back).find(|at| !continues(bytes[*at])).unwrap_or(most)
}

/// How many bytes at the end are the beginning of a character.
fn unfinished(bytes: &[u8]) -> usize {
    let tail = &bytes[bytes.len().saturating_sub(BACK)..];
    let Some(first) = tail.iter().rposition(|byte| !continues(*byte)) else { return 0 };
    match std::str::from_utf8(&tail[first..]) {
        Err(error) if error.error_len().is_none() && error.valid_up_to() == 0 => tail.len() - first,
        _ => 0,
    }
}

fn continues(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}

#[cfg(test)]
#[path = "lines_tests.rs"]
mod tests;

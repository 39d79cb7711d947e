//! Lines out of an engine's messages, with the place of each. Pure.
//!
//! Where a line ends only later, what is there of it is given as a piece. Whoever goes on after a piece reads the messages
//! before it again, so all that is remembered here comes out the same.

use super::frames::{CUT, Part};
use domain::{containers::LogCursor, fleet::protocol::LogStream};

/// How far behind the newest time a message of the other stream may still come in, in nanoseconds.
pub(super) const OVERTAKING: u64 = 2_000_000_000;
/// What follows the lines of a message when a run is over: the ends of unfinished lines, and the mark.
const END_OF_OUTPUT: u32 = u32::MAX - 2;
const END_OF_ERRORS: u32 = u32::MAX - 1;
const MARK: u32 = u32::MAX;

/// A line, or a piece of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) cursor: LogCursor,
    /// When it was written, in nanoseconds since 1970.
    pub(crate) at: u64,
    pub(crate) stream: LogStream,
    pub(crate) text: String,
    pub(crate) continues: bool,
}

/// A line that has not ended.
#[derive(Debug, Default)]
struct Open {
    /// The time of its first message and that of its last, if the line was begun.
    began: Option<u64>,
    stamp: u64,
    /// Whether its last message was cut where engines cut lines; otherwise the program itself has written no more.
    cut: bool,
    /// Bytes at its end that do not make a character yet.
    pending: Vec<u8>,
}

/// Puts lines together.
#[derive(Debug)]
pub(super) struct Assembler {
    terminal: bool,
    /// The latest time, and the number of messages since.
    place: LogCursor,
    /// The earliest time that came since.
    low: u64,
    open: [Open; 2],
    /// The last piece, whose line may end with it.
    held: Option<Piece>,
    /// Up to here all was given before.
    given: Option<LogCursor>,
    /// The time of the present message, and how much of its text came before its present part.
    at: u64,
    length: usize,
}

impl Assembler {
    /// `given` is the last line that was given before: of what is read again, the ends of lines must come out as they
    /// did.
    pub(super) fn new(terminal: bool, given: Option<LogCursor>) -> Self {
        let (place, open) = (LogCursor::default(), Default::default());
        Self { terminal, place, low: 0, open, held: None, given, at: 0, length: 0 }
    }

    /// The latest time so far.
    pub(super) fn time(&self) -> u64 {
        self.place.time
    }

    /// Whether a piece waits for what comes after it.
    pub(super) fn holds(&self) -> bool {
        self.held.is_some()
    }

    /// Takes in a part, of which the time was taken off. A message without a time is as old as the newest before it, and
    /// was written `now`.
    pub(super) fn take(
        &mut self,
        part: &Part,
        stamp: Option<u64>,
        now: u64,
        text: &[u8],
        give: &mut impl FnMut(Piece),
    ) {
        if part.first {
            self.begin(part.stream, stamp, now, give);
        }
        self.length += text.len();
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            self.place.step += 1;
            match line.split_last() {
                Some((b'\n', line)) => give(self.end_line(part.stream, line)),
                _ => self.go_on(part, stamp, line, give),
            }
        }
    }

    /// Gives what is there of lines that go on.
    pub(super) fn flush(&mut self, give: &mut impl FnMut(Piece)) {
        if let Some(held) = self.held.take() {
            give(held);
        }
    }

    /// A run is over, and its unfinished lines with it.
    pub(super) fn end_run(&mut self, give: &mut impl FnMut(Piece)) {
        for stream in [LogStream::Stdout, LogStream::Stderr] {
            self.close(stream, LogCursor { step: closing(stream), ..self.cursor() }).into_iter().for_each(&mut *give);
        }
    }

    /// What stands between two runs.
    pub(super) fn mark(&self, after: Option<LogCursor>, mark: u64, text: String) -> Piece {
        let here = self.cursor();
        let here = after.filter(|after| (after.time, after.count) > (here.time, here.count)).unwrap_or(here);
        let cursor = LogCursor { step: MARK, mark, ..here };
        Piece { cursor, at: mark, stream: LogStream::Agent, text, continues: false }
    }

    fn begin(&mut self, stream: LogStream, stamp: Option<u64>, now: u64, give: &mut impl FnMut(Piece)) {
        let open = &self.open[index(stream)];
        let ended = open.began.is_some() && !open.cut && stamp.is_some_and(|stamp| stamp != open.stamp);
        let here = self.cursor();
        if ended && self.held.as_ref().is_some_and(|held| held.stream == stream) {
            self.close(stream, LogCursor { step: closing(stream), ..here }).into_iter().for_each(&mut *give);
        }
        self.flush(give);
        let time = stamp.unwrap_or(self.place.time);
        if time > self.place.time {
            self.place = LogCursor { time, count: 1, ..LogCursor::default() };
            self.low = time;
        } else {
            self.place = LogCursor { count: self.place.count + 1, step: 0, ..self.place };
            self.low = self.low.min(time);
        }
        if ended {
            self.close(stream, self.cursor()).into_iter().for_each(give);
        }
        self.at = stamp.unwrap_or(now);
        self.length = 0;
    }

    /// Ends an unfinished line, of which nothing may be left but that it has ended.
    fn close(&mut self, stream: LogStream, cursor: LogCursor) -> Option<Piece> {
        let open = std::mem::take(&mut self.open[index(stream)]);
        open.began?;
        let rest = String::from_utf8_lossy(&open.pending).into_owned();
        let held = self.held.take_if(|held| held.stream == stream);
        let held = held.filter(|held| self.given.is_none_or(|given| held.cursor > given));
        let (text, at) = held.map_or((rest.clone(), open.stamp), |held| (held.text + &rest, held.at));
        Some(Piece { cursor, at, stream, text, continues: false })
    }

    fn end_line(&mut self, stream: LogStream, line: &[u8]) -> Piece {
        let open = std::mem::take(&mut self.open[index(stream)]);
        let mut bytes = open.pending;
        bytes.extend_from_slice(line);
        if self.terminal && bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
        Piece { cursor: self.cursor(), at: self.at, stream, text: text(bytes), continues: false }
    }

    fn go_on(&mut self, part: &Part, stamp: Option<u64>, line: &[u8], give: &mut impl FnMut(Piece)) {
        let (terminal, at, cut) = (self.terminal, self.at, !part.last || self.length >= CUT);
        let open = &mut self.open[index(part.stream)];
        open.began.get_or_insert(stamp.unwrap_or(at));
        (open.stamp, open.cut) = (at, cut);
        let mut bytes = std::mem::take(&mut open.pending);
        bytes.extend_from_slice(line);
        let whole = bytes.len() - unfinished(&bytes, terminal);
        open.pending = bytes.split_off(whole);
        if bytes.is_empty() {
            return;
        }
        let cursor = self.cursor();
        let piece = Piece { cursor, at, stream: part.stream, text: text(bytes), continues: true };
        if part.last {
            self.held = Some(piece);
        } else {
            give(piece);
        }
    }

    /// The place, from which on the engine tells what is needed to count the same way again.
    fn cursor(&self) -> LogCursor {
        let began = self.open.iter().filter_map(|open| open.began).min().unwrap_or(u64::MAX);
        let from = self.low.min(began).saturating_sub(OVERTAKING);
        LogCursor { back: self.place.time.saturating_sub(from), ..self.place }
    }
}

fn closing(stream: LogStream) -> u32 {
    if stream == LogStream::Stderr { END_OF_ERRORS } else { END_OF_OUTPUT }
}

fn index(stream: LogStream) -> usize {
    usize::from(stream == LogStream::Stderr)
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// How many bytes at the end may become something else with what follows: the beginning of a character, or of a
/// terminal's line end.
fn unfinished(bytes: &[u8], terminal: bool) -> usize {
    if terminal && bytes.last() == Some(&b'\r') {
        return 1;
    }
    let Some(last) = bytes.utf8_chunks().last().map(|chunk| chunk.invalid()) else { return 0 };
    let begins = std::str::from_utf8(last).is_err_and(|error| error.error_len().is_none());
    if begins { last.len() } else { 0 }
}

#[cfg(test)]
#[path = "assemble_tests.rs"]
mod tests;

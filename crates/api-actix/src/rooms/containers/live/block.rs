//! Lines as readers are sent them: written once for each way of showing them, and cut to what one reader wants.

use crate::rooms::output::{write_event, write_plain};
use chrono::SecondsFormat;
use domain::{
    clock::Timestamp,
    containers::{LogCursor, wire::LogBatch},
    fleet::protocol::{LogLine, LogStream},
};
use serde_json::json;
use std::sync::Arc;

/// The most text of one block, in bytes, unless one line is longer.
const LONGEST: usize = 64 * 1024;
/// The most lines of one block.
const MOST: usize = 1024;
/// So much text is sent at once, in bytes, or one line.
pub(super) const CHUNK: usize = 64 * 1024;

/// How lines are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// As events.
    Events,
    /// As they are.
    Plain,
    /// As they are, after the time at which they were begun.
    Stamped,
}

/// One thing for each [`Format`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct PerFormat<T>([T; 3]);

impl<T> PerFormat<T> {
    pub(super) fn of(&self, format: Format) -> &T {
        let [events, plain, stamped] = &self.0;
        match format {
            Format::Events => events,
            Format::Plain => plain,
            Format::Stamped => stamped,
        }
    }

    pub(super) fn of_mut(&mut self, format: Format) -> &mut T {
        let [events, plain, stamped] = &mut self.0;
        match format {
            Format::Events => events,
            Format::Plain => plain,
            Format::Stamped => stamped,
        }
    }
}

/// The formats that somebody reads.
pub(super) type Wanted = PerFormat<bool>;

impl Wanted {
    pub(super) fn only(format: Format) -> Self {
        let mut wanted = Self::default();
        *wanted.of_mut(format) = true;
        wanted
    }

    /// Whether whatever `other` asks for is asked for here.
    pub(super) fn covers(self, other: Self) -> bool {
        self.0.iter().zip(other.0).all(|(ours, theirs)| *ours || !theirs)
    }
}

/// How many lines went by, so that whoever missed some can be told how many of those that they wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    stdout: u64,
    stderr: u64,
    agent: u64,
    /// Lines that the agent left out: nobody knows of which stream.
    unknown: u64,
}

impl Tally {
    fn count(&mut self, item: &Item) {
        let ended = u64::from(!item.continues);
        *match item.stream {
            LogStream::Stdout => &mut self.stdout,
            LogStream::Stderr => &mut self.stderr,
            LogStream::Agent => &mut self.agent,
        } += ended;
    }

    /// How many of those that are wanted went by since an earlier count.
    pub(super) fn since(&self, earlier: &Self, only: Option<LogStream>) -> u64 {
        let stdout = self.stdout.saturating_sub(earlier.stdout);
        let stderr = self.stderr.saturating_sub(earlier.stderr);
        let agent = self.agent.saturating_sub(earlier.agent);
        let wanted = match only {
            None => stdout + stderr + agent,
            Some(LogStream::Stdout) => stdout,
            Some(LogStream::Stderr) => stderr,
            Some(LogStream::Agent) => agent,
        };
        wanted + self.unknown.saturating_sub(earlier.unknown)
    }
}

/// A line of a block.
#[derive(Debug)]
struct Item {
    cursor: LogCursor,
    at: Timestamp,
    stream: LogStream,
    continues: bool,
    /// Where its text ends.
    ends: PerFormat<usize>,
}

/// Which streams are within a line, so that the rest of one gets no time of its own.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Torn {
    stdout: bool,
    stderr: bool,
    agent: bool,
}

impl Torn {
    /// Whether the line before of this stream goes on in this one.
    fn goes_on(&mut self, line: &LogLine) -> bool {
        let torn = match line.stream {
            LogStream::Stdout => &mut self.stdout,
            LogStream::Stderr => &mut self.stderr,
            LogStream::Agent => &mut self.agent,
        };
        std::mem::replace(torn, line.continues)
    }
}

/// Some lines, written down for everybody.
#[derive(Debug)]
pub(super) struct Block {
    /// How many lines before these the agent left out.
    dropped: u64,
    items: Vec<Item>,
    texts: PerFormat<Vec<u8>>,
}

impl Block {
    /// Lines in these formats.
    ///
    /// # Errors
    /// If the agent sent something that is no cursor.
    pub(super) fn write(
        dropped: u64,
        lines: &[LogLine],
        wanted: Wanted,
        torn: &mut Torn,
    ) -> Result<Self, domain::containers::NoCursor> {
        let mut block = Self { dropped, items: Vec::with_capacity(lines.len()), texts: PerFormat::default() };
        for line in lines {
            let cursor = LogCursor::parse(&line.cursor)?;
            let goes_on = torn.goes_on(line);
            let mut ends = PerFormat::default();
            for format in [Format::Events, Format::Plain, Format::Stamped] {
                let text = block.texts.of_mut(format);
                if *wanted.of(format) {
                    write(text, format, line, goes_on);
                }
                *ends.of_mut(format) = text.len();
            }
            block.items.push(Item { cursor, at: line.at, stream: line.stream, continues: line.continues, ends });
        }
        Ok(block)
    }

    /// How much memory it takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let texts: usize = self.texts.0.iter().map(Vec::capacity).sum();
        texts + self.items.capacity() * size_of::<Item>() + size_of::<Self>()
    }

    /// How much of it is sent to one reader at most, in bytes.
    pub(super) fn longest_text(&self) -> usize {
        self.texts.0.iter().map(Vec::len).max().unwrap_or_default()
    }

    /// What has gone by at its end, if this has at its beginning.
    pub(super) fn counted(&self, mut before: Tally) -> Tally {
        before.unknown += self.dropped;
        for item in &self.items {
            before.count(item);
        }
        before
    }

    fn text(&self, format: Format, line: usize) -> &[u8] {
        let end = |line: usize| self.items.get(line).map_or(0, |item| *item.ends.of(format));
        let start = line.checked_sub(1).map_or(0, end);
        self.texts.of(format).get(start..end(line)).unwrap_or_default()
    }
}

/// A batch in pieces that make blocks of a bounded size, with how many lines are missing before each.
pub(super) fn pieces(batch: &LogBatch) -> Vec<(u64, &[LogLine])> {
    let mut pieces = Vec::new();
    let (mut rest, mut dropped) = (batch.lines.as_slice(), batch.dropped);
    while !rest.is_empty() || dropped > 0 {
        let mut bytes = 0;
        let fits = |line: &&LogLine| {
            bytes += line.text.len();
            bytes <= LONGEST
        };
        let count = rest.iter().take(MOST).take_while(fits).count().max(1).min(rest.len());
        let (piece, later) = rest.split_at(count);
        pieces.push((std::mem::take(&mut dropped), piece));
        rest = later;
    }
    pieces
}

/// How lines are shown to a reader, and which of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct View {
    pub(super) format: Format,
    /// Only those of this stream.
    pub(super) only: Option<LogStream>,
    /// Only those that were written at this time or later.
    pub(super) since: Option<Timestamp>,
    /// Only those behind this place.
    pub(super) after: Option<LogCursor>,
    /// Whether what was shown last is a line that is still to go on.
    pub(super) torn: bool,
}

impl View {
    pub(super) fn new(format: Format, only: Option<LogStream>, since: Option<Timestamp>) -> Self {
        Self { format, only, since, after: None, torn: false }
    }

    /// Whether a line is shown. From the first one behind the place where the reader had been, all are.
    fn shows(&mut self, item: &Item) -> bool {
        if self.after.is_some_and(|after| item.cursor <= after) {
            return false;
        }
        self.after = None;
        self.only.is_none_or(|only| only == item.stream) && self.since.is_none_or(|since| item.at >= since)
    }

    /// Writes that lines are missing here.
    pub(super) fn write_dropped(&mut self, into: &mut Vec<u8>, lines: u64) {
        match self.format {
            Format::Events => {
                into.extend_from_slice(format!("event: dropped\ndata: {}\n\n", json!({ "lines": lines })).as_bytes());
            }
            Format::Plain | Format::Stamped => {
                let broken = if std::mem::take(&mut self.torn) { "\n" } else { "" };
                let why = "they were written faster than they were read";
                into.extend_from_slice(
                    format!("{broken}[starlink] {lines} lines were dropped here: {why}\n").as_bytes(),
                );
            }
        }
    }

    /// Writes the lines of a block from this one on, until there is a chunk: which one is next, and what has gone by.
    pub(super) fn write(
        &mut self,
        into: &mut Vec<u8>,
        block: &Block,
        from: usize,
        mut passed: Tally,
    ) -> (usize, Tally) {
        if from == 0 && block.dropped > 0 {
            passed.unknown += block.dropped;
            // What is missing before a line that was shown already was shown as well.
            if self.after.is_none() || block.items.first().is_some_and(|first| self.after < Some(first.cursor)) {
                self.write_dropped(into, block.dropped);
            }
        }
        let mut next = from;
        for item in block.items.iter().skip(from) {
            // At least one line, so that what is missing before it is not told again.
            if into.len() >= CHUNK && next > from {
                break;
            }
            if self.shows(item) {
                into.extend_from_slice(block.text(self.format, next));
                self.torn = item.continues;
            }
            passed.count(item);
            next += 1;
        }
        (next, passed)
    }

    /// Whether a block has nothing after this line.
    pub(super) fn is_done(block: &Block, next: usize) -> bool {
        next >= block.items.len()
    }

    /// Counts the lines of a block that would be shown.
    pub(super) fn count(&mut self, block: &Block) -> u64 {
        let mut tally = Tally { unknown: block.dropped, ..Tally::default() };
        for item in &block.items {
            if self.shows(item) {
                tally.count(item);
            }
        }
        tally.since(&Tally::default(), self.only)
    }
}

/// Blocks that share nothing with other readers, to be shown one after the other.
#[derive(Debug, Default)]
pub(super) struct Pile {
    blocks: std::collections::VecDeque<Arc<Block>>,
    next: usize,
}

impl Pile {
    pub(super) fn push(&mut self, block: Block) {
        self.blocks.push_back(Arc::new(block));
    }

    /// The next chunk; nothing, if nothing is left.
    pub(super) fn take(&mut self, view: &mut View) -> Vec<u8> {
        let mut chunk = Vec::new();
        while chunk.len() < CHUNK
            && let Some(block) = self.blocks.front()
        {
            (self.next, _) = view.write(&mut chunk, block, self.next, Tally::default());
            if View::is_done(block, self.next) {
                self.blocks.pop_front();
                self.next = 0;
            }
        }
        chunk
    }
}

fn write(into: &mut Vec<u8>, format: Format, line: &LogLine, goes_on: bool) {
    match format {
        Format::Events => {
            write_event(into, if line.stream == LogStream::Agent { "mark" } else { "line" }, line);
        }
        Format::Stamped if !goes_on => {
            into.extend_from_slice(line.at.to_rfc3339_opts(SecondsFormat::AutoSi, true).as_bytes());
            into.push(b' ');
            write_plain(into, line);
        }
        Format::Plain | Format::Stamped => write_plain(into, line),
    }
}

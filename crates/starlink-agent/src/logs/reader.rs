//! Reads a log: lines, from a cursor or the last few, as far as they are there.

use super::{
    LONGEST_PIECE, LogError,
    cursor::Cursor,
    folder, is_finished,
    lines::{Line, Lines},
    make, segment,
    tape::{Gap, Step, Tape},
};
use chrono::DateTime;
use domain::fleet::protocol::{LogLine, LogQuery, LogStream};
use std::path::{Path, PathBuf};

/// A batch is full with so many lines,
const BATCH_LINES: usize = 256;
/// or so many bytes of text,
const BATCH_BYTES: usize = 256 * 1024;
/// or after so many records, however few lines they made.
const BATCH_RECORDS: usize = 4096;

/// Lines, and what comes after them.
#[derive(Debug)]
pub struct Batch {
    /// The lines, in the order in which they ended.
    pub lines: Vec<LogLine>,
    /// What comes after them.
    pub progress: Progress,
}

/// What comes after some lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// There may be more at once.
    More,
    /// Nothing yet; only where it is followed.
    Nothing,
    /// Nothing, ever.
    End,
}

/// Reads the log of one attempt. It blocks for as long as the disk does, never for a writer.
#[derive(Debug)]
pub struct Reader {
    folder: PathBuf,
    tape: Tape,
    lines: Lines,
    /// Where it began, until that was found to be a place of this log.
    began: Option<Cursor>,
    /// Lines to pass over before the first that is wanted.
    skip: u64,
    /// Lines that are still wanted.
    left: u64,
    follow: bool,
    /// Whether nothing more was written when the tape was read last.
    finished: bool,
    ended: bool,
}

impl Reader {
    /// Begins to read the log of the work with this folder, which must be there; its log need not yet.
    ///
    /// With `tail`, a piece of a long line counts as a line.
    ///
    /// # Errors
    /// [`LogError`], if the cursor is none of this log, or the disk says no.
    pub fn open(work_folder: &Path, query: &LogQuery) -> Result<Self, LogError> {
        Self::cut(work_folder, query, LONGEST_PIECE)
    }

    /// The same with pieces of at most so many bytes.
    fn cut(work_folder: &Path, query: &LogQuery, longest: usize) -> Result<Self, LogError> {
        let folder = folder(work_folder);
        // So that it can be watched before the first line is written.
        make(&folder)?;
        let began = query.after.as_deref().map(Cursor::parse).transpose()?;
        let starts = began.map_or([0; 3], Cursor::starts);
        let mut reader = Self::begin(folder, starts, longest, query.follow);
        reader.began = began;
        let Some(tail) = query.tail else { return Ok(reader) };
        let (starts, lines) = reader.find_tail(starts, tail, longest)?;
        let mut reader = Self { began, ..Self::begin(reader.folder, starts, longest, query.follow) };
        reader.skip = lines.saturating_sub(tail);
        if !query.follow {
            reader.left = tail;
        }
        Ok(reader)
    }

    fn begin(folder: PathBuf, starts: [u64; 3], longest: usize, follow: bool) -> Self {
        let tape = Tape::new(&folder, starts.into_iter().min().unwrap_or_default());
        let lines = Lines::new(longest, starts);
        Self { folder, tape, lines, began: None, skip: 0, left: u64::MAX, follow, finished: false, ended: false }
    }

    /// Reads on as far as there is something, or as a batch is full.
    ///
    /// # Errors
    /// [`LogError`], if the cursor turns out to be none of this log, or the disk says no.
    pub fn read(&mut self) -> Result<Batch, LogError> {
        let mut lines: Vec<LogLine> = Vec::new();
        let mut bytes = 0;
        for _ in 0..BATCH_RECORDS {
            if self.ended || self.left == 0 {
                return Ok(Batch { lines, progress: Progress::End });
            }
            if lines.len() >= BATCH_LINES || bytes >= BATCH_BYTES {
                break;
            }
            let known = lines.len();
            let progress = self.step(&mut lines)?;
            bytes += lines[known..].iter().map(|line| line.text.len()).sum::<usize>();
            if progress == Progress::Nothing {
                return Ok(Batch { lines, progress });
            }
        }
        Ok(Batch { lines, progress: Progress::More })
    }

    /// Takes one record or gap.
    fn step(&mut self, into: &mut Vec<LogLine>) -> Result<Progress, LogError> {
        let mut made = Vec::new();
        let progress = match self.tape.next()? {
            Step::Record(place, record) => {
                self.lines.push(place, &record, &mut |line| made.push(line));
                Progress::More
            }
            Step::Gap(gap) => {
                self.lines.flush(true, &mut |line| made.push(line));
                self.lines.jump(gap.to);
                made.push(self.marker(gap));
                Progress::More
            }
            Step::Nothing => self.pause(&mut |line| made.push(line)),
        };
        self.check(progress)?;
        for line in made {
            if self.skip > 0 {
                self.skip -= 1;
            } else if self.left > 0 {
                self.left -= 1;
                into.push(self.told(line));
            }
        }
        Ok(progress)
    }

    /// There is nothing more for now.
    fn pause(&mut self, give: &mut impl FnMut(Line)) -> Progress {
        if self.finished || !self.folder.exists() {
            self.lines.flush(true, give);
            self.ended = true;
            return Progress::More;
        }
        // What was written before it was finished may have come after the last look.
        self.finished = is_finished(&self.folder);
        if !self.finished && self.follow {
            return Progress::Nothing;
        }
        if !self.finished {
            self.lines.flush(false, give);
            self.ended = true;
        }
        Progress::More
    }

    /// Whether the cursor is one of this log, as soon as that can be told.
    fn check(&mut self, progress: Progress) -> Result<(), LogError> {
        let Some(began) = self.began else { return Ok(()) };
        let foreign = self.tape.log().is_some_and(|log| log != began.log);
        let there = self.tape.log().is_some() && self.tape.place() >= began.read;
        let all = self.ended || progress == Progress::Nothing;
        if foreign || all && !there {
            return Err(LogError::Cursor(began.to_string()));
        }
        if there {
            self.began = None;
        }
        Ok(())
    }

    fn marker(&self, gap: Gap) -> Line {
        let what = if gap.dropped { "bytes of older output were dropped" } else { "bytes of output cannot be read" };
        let (read, starts) = self.lines.position();
        let text = format!("{} {what}", gap.bytes);
        Line { stream: LogStream::Agent, nanos: gap.nanos, text, continues: false, read, starts }
    }

    fn told(&self, line: Line) -> LogLine {
        let [stdout, stderr, _] = line.starts;
        let cursor = Cursor { log: self.tape.log().unwrap_or_default(), read: line.read, stdout, stderr };
        LogLine {
            cursor: cursor.to_string(),
            at: DateTime::from_timestamp_micros(line.nanos.div_euclid(1000)).unwrap_or_default(),
            stream: line.stream,
            text: line.text,
            continues: line.continues,
        }
    }

    /// Where to begin for the last lines, and how many there are from there on.
    fn find_tail(&self, starts: [u64; 3], tail: u64, longest: usize) -> Result<([u64; 3], u64), LogError> {
        let from = starts.into_iter().min().unwrap_or_default();
        let segments = segment::list(&self.folder)?;
        let mut back = 1;
        loop {
            // At the beginning of a segment there may be the rest of a line, which is none of the last lines.
            let segment = segments.len().checked_sub(back).and_then(|index| segments.get(index));
            let Some(segment) = segment.filter(|segment| back < segments.len() && segment.base > from) else {
                let (lines, _) = Self::count(self.folder.clone(), starts, longest, self.follow)?;
                return Ok((starts, lines));
            };
            let there = [segment.base; 3].map(|base| base.max(starts.into_iter().max().unwrap_or_default()));
            let (lines, unsure) = Self::count(self.folder.clone(), there, longest, self.follow)?;
            if lines.saturating_sub(unsure) >= tail {
                return Ok((there, lines));
            }
            back *= 2;
        }
    }

    /// How many lines there are, and how many of them until each stream has ended one.
    fn count(folder: PathBuf, starts: [u64; 3], longest: usize, follow: bool) -> Result<(u64, u64), LogError> {
        let mut reader = Self::begin(folder, starts, longest, follow);
        let (mut lines, mut unsure, mut ended) = (0, 0, [false; 3]);
        loop {
            let batch = reader.read()?;
            for line in batch.lines {
                lines += 1;
                let ended = &mut ended[usize::from(super::record::number(line.stream))];
                if !*ended && line.stream != LogStream::Agent {
                    unsure = lines;
                    *ended = !line.continues;
                }
            }
            if batch.progress != Progress::More {
                return Ok((lines, unsure));
            }
        }
    }
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;

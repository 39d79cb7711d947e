//! Copies what the engine has of a container's output into the log of its work, each line once.
//!
//! There is no position on the disk besides the log: its last lines have the engine's own times, and tell what was
//! copied, whatever was killed in between.

use super::window::Window;
use crate::{
    logs::{self, Progress, Reader, Writer},
    work::Work,
};
use bollard::{container::LogOutput, query_parameters::LogsOptions};
use chrono::{DateTime, Utc};
use domain::{
    clock::Clock,
    fleet::protocol::{LogLine, LogQuery, LogStream},
    scheduling::TaskSpec,
};
use std::{collections::VecDeque, sync::Arc};

/// What stands in the log between two runs.
const AGAIN: &str = "the program ended, and was started again";
/// How many of the log's last lines are looked at.
const TAIL: u64 = 1024;

/// The most bytes that are kept of the output of a task.
pub(super) fn limit_bytes(spec: &TaskSpec) -> u64 {
    logs::limit_bytes(spec.log_limit_mib)
}

/// How much the engine is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// All that there is.
    SoFar,
    /// The same without what is later than this.
    Until(DateTime<Utc>),
    /// All that there is, and what comes.
    Follow,
}

/// Writes one log. Its methods block for as long as the disk does.
pub(super) struct Copier {
    writer: Writer,
    window: Window,
    /// The ends of runs that the log has no mark for yet, oldest first.
    ends: VecDeque<DateTime<Utc>>,
    /// Up to here it has.
    marked: DateTime<Utc>,
    /// What is later belongs to a run that was not seen yet, and is left to come again.
    until: DateTime<Utc>,
    clock: Arc<dyn Clock>,
}

impl Copier {
    /// Goes on where the log ends.
    pub(super) fn open(work: &Work, clock: Arc<dyn Clock>) -> Self {
        // First of all, because that cuts off what is torn.
        let writer = Writer::open(&work.folder, limit_bytes(&work.spec));
        let mut copier = Self {
            writer,
            window: Window::default(),
            ends: VecDeque::new(),
            marked: DateTime::UNIX_EPOCH,
            until: DateTime::<Utc>::MAX_UTC,
            clock,
        };
        if let Err(error) = copier.recall(work) {
            tracing::warn!(work = %work.id, %error, "the end of a log could not be read, some of it may be written again");
        }
        copier
    }

    /// Reads from the end of the log what was copied.
    fn recall(&mut self, work: &Work) -> Result<(), logs::LogError> {
        let query =
            LogQuery { task_id: work.id.task, attempt: work.id.attempt, follow: false, after: None, tail: Some(TAIL) };
        let mut reader = Reader::open(&work.folder, &query)?;
        let (mut count, mut oldest) = (0, None);
        loop {
            let batch = reader.read()?;
            for line in batch.lines {
                count += 1;
                if line.stream != LogStream::Agent {
                    oldest = oldest.or(Some(line.at));
                }
                self.recall_line(line);
            }
            if batch.progress != Progress::More {
                break;
            }
        }
        // Of those with the oldest time, some may be further up.
        if let Some(oldest) = oldest.filter(|_| count >= TAIL) {
            self.window.forget_until(oldest.timestamp_micros());
        }
        Ok(())
    }

    fn recall_line(&mut self, line: LogLine) {
        if line.stream != LogStream::Agent {
            let mut bytes = line.text.into_bytes();
            if !line.continues {
                bytes.push(b'\n');
            }
            self.window.add(line.at.timestamp_micros(), line.stream, &bytes);
        } else if line.text == AGAIN {
            self.marked = self.marked.max(line.at);
        }
    }

    /// Up to when the log has a mark for each end of a run after which there was another.
    pub(super) fn marked(&self) -> DateTime<Utc> {
        self.marked
    }

    /// What the engine is to be asked for. Its answer is to be given to [`Copier::take`] from its beginning.
    pub(super) fn ask(&mut self, extent: Extent) -> LogsOptions {
        self.window.begin();
        self.until = if let Extent::Until(time) = extent { time } else { DateTime::<Utc>::MAX_UTC };
        LogsOptions {
            follow: extent == Extent::Follow,
            stdout: true,
            stderr: true,
            since: i32::try_from(self.window.from().div_euclid(1_000_000)).unwrap_or(0),
            timestamps: true,
            ..LogsOptions::default()
        }
    }

    /// A run has begun that was not seen before; runs before it ended at these times.
    pub(super) fn expect(&mut self, began: DateTime<Utc>, ends: Vec<DateTime<Utc>>) {
        self.window.expect(began.timestamp_micros());
        self.ends = ends.into();
    }

    /// Writes what is new.
    pub(super) fn take(&mut self, frames: &[LogOutput]) {
        for frame in frames {
            let Some((stream, bytes)) = stream(frame) else { continue };
            let Some((at, bytes)) = stamped(bytes) else {
                self.writer.append(stream, self.clock.now(), bytes);
                continue;
            };
            if at > self.until {
                return;
            }
            while self.ends.front().is_some_and(|end| *end < at) {
                self.mark();
            }
            let fresh = self.window.fresh(at.timestamp_micros(), stream, bytes);
            if !fresh.is_empty() {
                self.writer.append(stream, at, fresh);
                self.window.add(at.timestamp_micros(), stream, fresh);
            }
        }
    }

    /// All that came before the present run was copied.
    pub(super) fn mark_all(&mut self) {
        while !self.ends.is_empty() {
            self.mark();
        }
    }

    fn mark(&mut self) {
        if let Some(end) = self.ends.pop_front() {
            self.writer.end_lines(end);
            self.writer.mark(end, AGAIN);
            self.marked = self.marked.max(end);
        }
    }

    /// Nothing more will come.
    pub(super) fn finish(&mut self) -> std::io::Result<()> {
        self.writer.finish(self.clock.now())
    }
}

/// The output in a frame; what the engine itself says in between is none.
fn stream(frame: &LogOutput) -> Option<(LogStream, &[u8])> {
    match frame {
        LogOutput::StdOut { message } => Some((LogStream::Stdout, message)),
        LogOutput::StdErr { message } => Some((LogStream::Stderr, message)),
        LogOutput::StdIn { .. } | LogOutput::Console { .. } => None,
    }
}

/// Takes off the time that the engine was asked to put before each line.
pub(super) fn stamped(bytes: &[u8]) -> Option<(DateTime<Utc>, &[u8])> {
    let space = bytes.iter().take(40).position(|byte| *byte == b' ')?;
    let (time, rest) = bytes.split_at_checked(space)?;
    let time = DateTime::parse_from_rfc3339(std::str::from_utf8(time).ok()?).ok()?;
    Some((time.to_utc(), rest.get(1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_taken_off() {
        let (at, rest) = stamped(b"2026-11-25T09:43:25.767566170Z hello  world\n").unwrap();
        assert_eq!((at.timestamp_subsec_nanos(), rest), (767_566_170, &b"hello  world\n"[..]));
        // Podman writes the local time.
        let (at, rest) = stamped(b"2026-11-25T10:43:25.000000001+01:00 \n").unwrap();
        assert_eq!((at.to_rfc3339().as_str(), rest), ("2026-11-25T09:43:25.000000001+00:00", &b"\n"[..]));
        for bytes in [&b""[..], b"hello world\n", b"2026-11-25T09:43:25Z", b"\xf0\x9f", b"\xff \n"] {
            assert_eq!(stamped(bytes), None, "{bytes:?}");
        }
    }
}

//! Which output was copied already. Pure.
//!
//! The engine is asked for what came since a moment, and tells some of it again. What was copied last is remembered by
//! time and stream, as far back as two streams of a container may overtake each other in the engine's own copy, and as
//! the number of lines: of several lines with one time the copied ones come first.

use domain::fleet::protocol::LogStream;
use std::collections::BTreeMap;

/// How far behind the newest time something may still come in, in microseconds.
const OVERTAKING: i64 = 2_000_000;
/// How far back a time must be for the clock to have been set back, in microseconds.
const SET_BACK: i64 = 5_000_000;
/// The most times that are remembered.
const MOST: usize = 1024;

/// A time in microseconds, as the log has it, and the number of a stream.
type Key = (i64, u8);

/// What was copied with one time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Copied {
    /// Lines with their line feeds,
    lines: u32,
    /// and bytes of a line that had none yet.
    rest: usize,
}

/// What was copied last.
#[derive(Debug, Default)]
pub(super) struct Window {
    copied: BTreeMap<Key, Copied>,
    /// Everything before it was copied.
    from: i64,
    newest: i64,
    /// What the present stream has not told again yet.
    awaited: BTreeMap<Key, Copied>,
    /// Whether nothing new has come in the present stream.
    repeating: bool,
}

impl Window {
    /// Since when output is to be asked for, in microseconds.
    pub(super) fn from(&self) -> i64 {
        self.from
    }

    /// A stream begins, with what came since [`Window::from`] or before.
    pub(super) fn begin(&mut self) {
        self.awaited = self.copied.clone();
        self.repeating = true;
    }

    /// What comes now came at this time or later. If the clock was set back, all of that seems to be old.
    pub(super) fn expect(&mut self, at: i64) {
        if at < self.from - SET_BACK {
            *self = Self { from: at, newest: at, ..Self::default() };
        }
    }

    /// What of these bytes is new.
    pub(super) fn fresh<'a>(&mut self, at: i64, stream: LogStream, bytes: &'a [u8]) -> &'a [u8] {
        if self.repeating && at < self.from {
            return &[];
        }
        let mut fresh = bytes;
        if let Some(copied) = self.awaited.get_mut(&(at, number(stream))) {
            while copied.lines > 0 && !fresh.is_empty() {
                let end = fresh.iter().position(|byte| *byte == b'\n');
                copied.lines -= u32::from(end.is_some());
                fresh = end.map_or(&[], |end| fresh.get(end + 1..).unwrap_or_default());
            }
            let rest = if copied.lines > 0 { 0 } else { copied.rest.min(fresh.len()) };
            copied.rest -= rest;
            fresh = fresh.get(rest..).unwrap_or_default();
        }
        self.repeating &= fresh.is_empty();
        fresh
    }

    /// These bytes were copied.
    pub(super) fn add(&mut self, at: i64, stream: LogStream, bytes: &[u8]) {
        self.expect(at);
        if at < self.from {
            // It took long to come, and is too old to be told again and be taken for new.
            return;
        }
        let copied = self.copied.entry((at, number(stream))).or_default();
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            if line.ends_with(b"\n") {
                *copied = Copied { lines: copied.lines + 1, rest: 0 };
            } else {
                copied.rest += line.len();
            }
        }
        self.newest = self.newest.max(at);
        self.from = self.from.max(self.newest - OVERTAKING);
        while let Some((&(oldest, stream), _)) = self.copied.first_key_value() {
            if self.copied.len() > MOST {
                self.from = self.from.max(oldest + 1);
            }
            if oldest >= self.from {
                break;
            }
            self.copied.remove(&(oldest, stream));
        }
    }

    /// Forgets everything up to this time; the log may have more of it than is known.
    pub(super) fn forget_until(&mut self, at: i64) {
        self.from = self.from.max(at + 1);
        self.copied.retain(|(time, _), _| *time > at);
    }
}

fn number(stream: LogStream) -> u8 {
    match stream {
        LogStream::Stdout => 0,
        LogStream::Stderr => 1,
        LogStream::Agent => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use LogStream::{Stderr, Stdout};

    const NOW: i64 = 1_800_000_000_000_000;

    type Frame = (i64, LogStream, &'static [u8]);

    /// Copies frames, and returns what was new in them, with times from [`NOW`] on.
    fn copy(window: &mut Window, frames: &[Frame]) -> Vec<(i64, &'static [u8])> {
        window.begin();
        let mut fresh = Vec::new();
        for (at, stream, bytes) in frames {
            let new = window.fresh(NOW + at, *stream, bytes);
            if !new.is_empty() {
                window.add(NOW + at, *stream, new);
                fresh.push((*at, new));
            }
        }
        fresh
    }

    #[test]
    fn what_is_told_again_is_not_new() {
        let mut window = Window::default();
        let frames: &[Frame] = &[(1, Stdout, b"a\n"), (1, Stderr, b"b\n"), (1, Stdout, b"c\n"), (2, Stdout, b"d\n")];
        assert_eq!(copy(&mut window, frames).len(), 4);
        assert_eq!(copy(&mut window, frames), []);
        let more: &[Frame] = &[(2, Stdout, b"e\n"), (2, Stderr, b"f\n")];
        let all = [frames, more].concat();
        assert_eq!(copy(&mut window, &all), [(2, &b"e\n"[..]), (2, b"f\n")]);
        assert_eq!(copy(&mut window, &all), []);
    }

    #[test]
    fn a_line_in_pieces_goes_on_where_it_was_left() {
        let mut window = Window::default();
        copy(&mut window, &[(1, Stdout, b"one "), (1, Stdout, b"tw")]);
        let frames: &[Frame] =
            &[(1, Stdout, b"one "), (1, Stdout, b"two "), (1, Stdout, b"three\n"), (3, Stdout, b"x\n")];
        assert_eq!(copy(&mut window, frames), [(1, &b"o "[..]), (1, b"three\n"), (3, b"x\n")]);
        assert_eq!(copy(&mut window, frames), []);
    }

    #[test]
    fn what_another_stream_overtook_is_new() {
        let mut window = Window::default();
        copy(&mut window, &[(1_000_000, Stdout, b"a\n"), (3_000_000, Stdout, b"b\n")]);
        assert_eq!(window.from(), NOW + 1_000_000);
        let frames: &[Frame] = &[(1_000_000, Stdout, b"a\n"), (3_000_000, Stdout, b"b\n"), (2_999_999, Stderr, b"c\n")];
        assert_eq!(copy(&mut window, frames), [(2_999_999, &b"c\n"[..])]);
        // What is older than anything can be is the same again, because engines are asked by the second.
        assert_eq!(copy(&mut window, &[(999_999, Stdout, b"z\n")]), []);
    }

    #[test]
    fn memory_is_bounded_and_what_is_forgotten_is_not_taken_for_new() {
        let mut window = Window::default();
        window.begin();
        for at in 0..5000 {
            let bytes = window.fresh(NOW + at, Stdout, b"x\n");
            window.add(NOW + at, Stdout, bytes);
        }
        assert_eq!(window.copied.len(), MOST);
        window.begin();
        assert!((0..5000).all(|at| window.fresh(NOW + at, Stdout, b"x\n").is_empty()));
        assert_eq!(window.fresh(NOW + 5000, Stdout, b"x\n"), b"x\n");
    }

    #[test]
    fn a_clock_that_is_set_back_loses_nothing() {
        let mut window = Window::default();
        let hour = 3_600_000_000;
        assert_eq!(copy(&mut window, &[(hour, Stdout, b"a\n"), (0, Stdout, b"b\n"), (1, Stdout, b"c\n")]).len(), 3);
        assert_eq!(copy(&mut window, &[(0, Stdout, b"b\n"), (1, Stdout, b"c\n"), (2, Stdout, b"d\n")]).len(), 1);
    }
}

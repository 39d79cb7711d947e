//! Messages out of the bytes that an engine sends. Pure.
//!
//! With two streams each message comes in a frame with a header. With a terminal there are none, and a message ends with
//! its line, or where engines cut long lines.

use domain::fleet::protocol::LogStream;

/// The longest part of a message that is put together.
pub(super) const LONGEST_PART: usize = 32 << 10;
/// Where engines cut lines, without the time before them.
pub(super) const CUT: usize = 16 << 10;
/// A time and the space after it are not longer.
pub(super) const LONGEST_STAMP: usize = 40;
/// The header of a frame.
const HEADER: usize = 8;

/// A message of the engine, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::drivers::docker) struct Part {
    pub(in crate::drivers::docker) stream: LogStream,
    /// Whether the message begins with it, and with that the time before its text.
    pub(super) first: bool,
    /// Whether the message ends with it.
    pub(super) last: bool,
    pub(in crate::drivers::docker) bytes: Vec<u8>,
}

/// Why bytes could not be understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::drivers::docker) enum Garbled {
    /// They are no frames.
    NoFrames,
    /// The engine says that something went wrong, in these words.
    Said(String),
}

/// Takes messages apart.
#[derive(Debug)]
pub(in crate::drivers::docker) struct Frames {
    terminal: bool,
    buffer: Vec<u8>,
    /// How much of the buffer was given out.
    start: usize,
    /// What is left of the present frame: its kind, how many bytes, and whether none of it was given out.
    frame: Option<(u8, usize, bool)>,
    /// The last time that was told of a terminal's output, as it was written: the pieces of a line have the same.
    stamp: Vec<u8>,
}

impl Frames {
    pub(in crate::drivers::docker) fn new(terminal: bool) -> Self {
        Self { terminal, buffer: Vec::new(), start: 0, frame: None, stamp: Vec::new() }
    }

    /// Takes in more bytes.
    pub(in crate::drivers::docker) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next part, once it is complete.
    pub(in crate::drivers::docker) fn next(&mut self) -> Result<Option<Part>, Garbled> {
        if self.terminal { Ok(self.next_line()) } else { self.next_framed() }
    }

    /// What is left of a terminal's output that ended well. Of a frame, there is nothing to be left.
    pub(super) fn finish(&mut self) -> Option<Part> {
        let left = self.buffer.len() - self.start;
        (self.terminal && left > 0).then(|| self.give(LogStream::Stdout, left, true, true))
    }

    fn next_framed(&mut self) -> Result<Option<Part>, Garbled> {
        loop {
            let Some((kind, left, first)) = self.frame else {
                let Some(header) = self.unread().first_chunk::<HEADER>() else { return Ok(None) };
                let [kind, 0, 0, 0, length @ ..] = *header else { return Err(Garbled::NoFrames) };
                let length = usize::try_from(u32::from_be_bytes(length)).or(Err(Garbled::NoFrames))?;
                self.start += HEADER;
                self.frame = (length > 0).then_some((kind, length, true));
                continue;
            };
            let length = left.min(LONGEST_PART);
            if self.unread().len() < length {
                return Ok(None);
            }
            let last = length == left;
            self.frame = (!last).then_some((kind, left - length, false));
            let stream = match kind {
                // 0 is the input, which an engine that echoes it means to be shown.
                0 | 1 => LogStream::Stdout,
                2 => LogStream::Stderr,
                3 => {
                    let part = self.give(LogStream::Stderr, length, first, last);
                    return Err(Garbled::Said(String::from_utf8_lossy(&part.bytes).trim().to_owned()));
                }
                _ => return Err(Garbled::NoFrames),
            };
            return Ok(Some(self.give(stream, length, first, last)));
        }
    }

    fn next_line(&mut self) -> Option<Part> {
        let unread = self.unread();
        let stamp = stamp_length(unread);
        if stamp.is_none() && unread.len() < LONGEST_STAMP && !unread.contains(&b'\n') {
            // Whether there is a time cannot be seen yet.
            return None;
        }
        if let Some(stamp) = stamp.and_then(|length| unread.get(..length)) {
            self.stamp = stamp.to_vec();
        }
        let skip = stamp.unwrap_or_default();
        let length = skip + self.message_length(self.unread().get(skip..)?)?;
        Some(self.give(LogStream::Stdout, length, true, true))
    }

    /// Where the message ends of which this is the text: with its line, or where the time of a line is told again, or
    /// where engines cut. They may count what they cannot keep as it was, such as half a character.
    fn message_length(&self, text: &[u8]) -> Option<usize> {
        let line = text.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
        let within = text.get(..line.unwrap_or(text.len()).min(LONGEST_PART)).unwrap_or(text);
        if let Some(again) = find(within, &self.stamp) {
            return Some(again);
        }
        let may_begin = |length: &usize| within.ends_with(self.stamp.get(..*length).unwrap_or_default());
        match line {
            Some(line) if line <= LONGEST_PART => Some(line),
            _ if text.len() >= LONGEST_PART + LONGEST_STAMP => Some(LONGEST_PART),
            _ if text.len() == CUT && !(1..self.stamp.len()).any(|length| may_begin(&length)) => Some(CUT),
            _ => None,
        }
    }

    fn unread(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }

    fn give(&mut self, stream: LogStream, length: usize, first: bool, last: bool) -> Part {
        let bytes = self.unread().get(..length).unwrap_or_default().to_vec();
        self.start += length;
        Part { stream, first, last, bytes }
    }
}

/// Where something is; what is empty is nowhere.
fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    let first = *what.first()?;
    let places = bytes.iter().enumerate().filter(|(_, byte)| **byte == first).map(|(at, _)| at);
    places.into_iter().find(|at| bytes.get(*at..).is_some_and(|rest| rest.starts_with(what)))
}

/// How long the time at the beginning is, with the space after it.
fn stamp_length(bytes: &[u8]) -> Option<usize> {
    bytes.first().filter(|byte| byte.is_ascii_digit())?;
    bytes.iter().take(LONGEST_STAMP).position(|byte| *byte == b' ').map(|at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, bytes: &[u8]) -> Vec<u8> {
        let mut frame = vec![kind, 0, 0, 0];
        frame.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
        frame.extend(bytes);
        frame
    }

    fn all(frames: &mut Frames) -> Vec<Part> {
        std::iter::from_fn(|| frames.next().unwrap()).collect()
    }

    #[test]
    fn frames_come_through_however_their_bytes_are_cut() {
        let bytes = [frame(1, b"one\n"), frame(2, b"two\n"), frame(1, b""), frame(1, b"three")].concat();
        let expected =
            [(LogStream::Stdout, &b"one\n"[..]), (LogStream::Stderr, b"two\n"), (LogStream::Stdout, b"three")];
        for size in 1..bytes.len() {
            let mut frames = Frames::new(false);
            let mut parts = Vec::new();
            for piece in bytes.chunks(size) {
                frames.feed(piece);
                parts.extend(all(&mut frames));
            }
            let parts: Vec<_> = parts.iter().map(|part| (part.stream, part.bytes.as_slice())).collect();
            assert_eq!(parts, expected, "in pieces of {size}");
            assert_eq!(frames.finish(), None);
        }
    }

    #[test]
    fn a_long_frame_comes_in_parts() {
        let mut frames = Frames::new(false);
        frames.feed(&frame(1, &vec![b'x'; LONGEST_PART + 1]));
        let shape: Vec<_> = all(&mut frames).iter().map(|part| (part.first, part.last, part.bytes.len())).collect();
        assert_eq!(shape, [(true, false, LONGEST_PART), (false, true, 1)]);
    }

    #[test]
    fn what_is_no_frame_and_what_the_engine_says_are_told_apart() {
        let mut frames = Frames::new(false);
        frames.feed(b"2026-11-25T09:00:00Z no frame\n");
        assert_eq!(frames.next(), Err(Garbled::NoFrames));
        let mut frames = Frames::new(false);
        frames.feed(&frame(3, b"Error grabbing logs: disk\n"));
        assert_eq!(frames.next(), Err(Garbled::Said("Error grabbing logs: disk".to_owned())));
    }

    #[test]
    fn a_terminal_s_lines_are_cut_where_engines_cut_them() {
        let stamp = "2026-11-25T09:43:25.767566170Z ";
        let long = format!("{stamp}{}{stamp}end\r\n{stamp}> ", "x".repeat(CUT));
        let mut frames = Frames::new(true);
        let mut parts = Vec::new();
        for piece in long.as_bytes().chunks(1000) {
            frames.feed(piece);
            parts.extend(all(&mut frames));
        }
        parts.extend(frames.finish());
        let texts: Vec<_> = parts.iter().map(|part| part.bytes.len() - stamp.len()).collect();
        assert_eq!(texts, [CUT, 5, 2]);
    }

    #[test]
    fn a_terminal_s_lines_may_be_cut_a_little_beside() {
        let stamp = "2026-11-25T09:43:25.767566170Z ";
        for length in [CUT - 3, CUT - 1, CUT + 1, CUT + 31] {
            let text = format!("{stamp}{}{stamp}end\n", "x".repeat(length));
            for size in [700, 1000, CUT + 12, CUT + 1000] {
                let mut frames = Frames::new(true);
                let mut parts = Vec::new();
                for piece in text.as_bytes().chunks(size) {
                    frames.feed(piece);
                    parts.extend(all(&mut frames));
                }
                let texts: Vec<_> = parts.iter().map(|part| part.bytes.len() - stamp.len()).collect();
                assert_eq!(texts, [length, 4], "{length} in pieces of {size}");
            }
        }
    }
}

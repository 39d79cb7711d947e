//! Where a line stands in a container's output.
//!
//! An engine numbers nothing; it tells a time with each message that a container wrote. Of those, several may be the
//! same, and one may be earlier than the one before it: two streams overtake each other, and clocks are set back. So a
//! place is the latest time so far, and the number of messages since that time was first told, which whoever reads the
//! same messages counts the same way, wherever he begins.

use std::{cmp::Ordering, fmt, str::FromStr};

/// A place between two lines of a container's output. Places compare in the order of the lines.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogCursor {
    /// The latest time that came with a message up to here, in nanoseconds since 1970.
    pub time: u64,
    /// How many messages there were since the first one with that time, and with it.
    pub count: u64,
    /// Which of the lines that the last one of them gave rise to.
    pub step: u32,
    /// For a mark between two runs: when the later one began, in nanoseconds since 1970; otherwise 0.
    pub mark: u64,
    /// How far before `time` the engine must be asked to go on from here, in nanoseconds. It says nothing about the place.
    pub back: u64,
}

impl LogCursor {
    fn place(&self) -> (u64, u64, u32, u64) {
        (self.time, self.count, self.step, self.mark)
    }
}

impl PartialEq for LogCursor {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl Eq for LogCursor {}

impl PartialOrd for LogCursor {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for LogCursor {
    fn cmp(&self, other: &Self) -> Ordering {
        self.place().cmp(&other.place())
    }
}

impl fmt::Display for LogCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}-{:x}-{:x}-{:x}", self.time, self.count, self.step, self.mark, self.back)
    }
}

/// That a text is no cursor of a container's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no cursor of a container's output: take one from a line of it, or leave it out")]
pub struct NoCursor;

impl FromStr for LogCursor {
    type Err = NoCursor;

    fn from_str(text: &str) -> Result<Self, NoCursor> {
        let number = |text: &str| {
            let hexadecimal = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            text.bytes().all(hexadecimal).then(|| u64::from_str_radix(text, 16).ok()).flatten()
        };
        let mut parts = text.split('-').map(number);
        let mut part = || parts.next().flatten().ok_or(NoCursor);
        let (time, count) = (part()?, part()?);
        let step = u32::try_from(part()?).or(Err(NoCursor))?;
        let (mark, back) = (part()?, part()?);
        if parts.next().is_some() {
            return Err(NoCursor);
        }
        Ok(Self { time, count, step, mark, back })
    }
}

impl LogCursor {
    /// Reads the [`fmt::Display`] form.
    ///
    /// # Errors
    /// [`NoCursor`]
    pub fn parse(text: &str) -> Result<Self, NoCursor> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_and_is_short() {
        let cursor = LogCursor { time: u64::MAX, count: u64::MAX, step: u32::MAX, mark: u64::MAX, back: u64::MAX };
        let text = cursor.to_string();
        assert!(text.len() <= 128 && text.bytes().all(|byte| byte.is_ascii_graphic()), "{text}");
        assert_eq!(LogCursor::parse(&text), Ok(cursor));
        let cursor = LogCursor { time: 0x1a, count: 2, step: 3, mark: 0, back: 0xff };
        assert_eq!(cursor.to_string(), "1a-2-3-0-ff");
        assert_eq!(LogCursor::parse("1a-2-3-0-ff").unwrap().back, 0xff);
    }

    #[test]
    fn nonsense_is_no_cursor() {
        let long = "1-".repeat(400);
        for text in
            ["", "-", "1-2-3-4", "1-2-3-4-5-6", "1-2-100000000-4-5", "+1-2-3-4-5", "1-2-3-4-", "G-2-3-4-5", &long]
        {
            assert_eq!(LogCursor::parse(text), Err(NoCursor), "{text}");
        }
    }

    #[test]
    fn cursors_compare_as_their_lines_follow_each_other() {
        let mut texts = ["2-1-1-0-9", "1-a-1-0-9", "1-2-5-0-9", "1-2-5-7-9", "1-2-5-6-9", "1-2-1-0-9"];
        texts.sort_by_key(|text| LogCursor::parse(text).unwrap());
        assert_eq!(texts, ["1-2-1-0-9", "1-2-5-0-9", "1-2-5-6-9", "1-2-5-7-9", "1-a-1-0-9", "2-1-1-0-9"]);
        // How far back to ask does not belong to the place.
        assert_eq!(LogCursor::parse("1-2-3-0-4"), LogCursor::parse("1-2-3-0-5"));
    }
}

//! Where reading goes on: how far the log was read, and where the unfinished line of each stream begins.

use super::LogError;

/// A position between two lines. What is before `read` is either delivered, or belongs to a line that is not finished
/// and begins at or after the place of its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cursor {
    /// Names the log.
    pub(super) log: u64,
    /// How far it was read.
    pub(super) read: u64,
    /// Where the next line of standard output begins.
    pub(super) stdout: u64,
    /// Where the next line of standard error begins.
    pub(super) stderr: u64,
}

impl Cursor {
    pub(super) fn parse(text: &str) -> Result<Self, LogError> {
        let number = |text: &str| {
            let hexadecimal = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            text.bytes().all(hexadecimal).then(|| u64::from_str_radix(text, 16).ok()).flatten()
        };
        let mut parts = text.split('-').map(number);
        let mut part = || parts.next().flatten();
        let cursor = (|| Some(Self { log: part()?, read: part()?, stdout: part()?, stderr: part()? }))();
        cursor
            .filter(|cursor| parts.next().is_none() && cursor.stdout <= cursor.read && cursor.stderr <= cursor.read)
            .ok_or_else(|| LogError::Cursor(text.chars().take(100).collect()))
    }

    /// The place of each stream by its number; the agent is never in the middle of a line.
    pub(super) fn starts(self) -> [u64; 3] {
        [self.stdout, self.stderr, self.read]
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:x}-{:x}-{:x}-{:x}", self.log, self.read, self.stdout, self.stderr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back() {
        let cursor = Cursor { log: u64::MAX, read: 30, stdout: 7, stderr: 30 };
        assert_eq!(cursor.to_string(), "ffffffffffffffff-1e-7-1e");
        assert_eq!(Cursor::parse(&cursor.to_string()).unwrap(), cursor);
    }

    #[test]
    fn nonsense_is_no_cursor() {
        let long = "f".repeat(400);
        for text in
            ["", "-", "1-2-3", "1-2-2-2-2", "1-2-2-3", "1-2-3-2", "+1-2-2-2", "1-2-2-", "1-2-2-G", "A-2-2-2", &long]
        {
            let error = Cursor::parse(text).unwrap_err();
            assert!(matches!(&error, LogError::Cursor(told) if told.len() <= 100), "{text}: {error}");
        }
    }
}

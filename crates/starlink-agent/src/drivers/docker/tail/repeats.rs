//! What an engine tells twice. Pure.
//!
//! An engine that changes its files while it is being followed may begin one of them again. Of one stream, a message is
//! never older than the one before it, unless the clock was set back meanwhile.

use domain::fleet::protocol::LogStream;

/// Knows the newest message of each stream.
#[derive(Debug)]
pub(super) struct Repeats {
    /// Whether the engine tells times so fine that no two lines of a stream have the same.
    fine: bool,
    newest: [Newest; 2],
}

#[derive(Debug, Default)]
struct Newest {
    at: u64,
    /// How many messages came with this time.
    count: u32,
    /// How many of them are to be told again.
    again: u32,
    text: Vec<u8>,
}

impl Repeats {
    pub(super) fn new(fine: bool) -> Self {
        Self { fine, newest: Default::default() }
    }

    /// Notes a message that is known not to be told again.
    pub(super) fn note(&mut self, stream: LogStream, at: u64, text: &[u8]) {
        let newest = self.of(stream);
        let count = if at == newest.at { newest.count + 1 } else { 1 };
        (newest.at, newest.count, newest.again) = (at, count, 0);
        newest.text.clear();
        newest.text.extend_from_slice(text);
    }

    /// Whether a message was told before.
    pub(super) fn is_repeated(&mut self, stream: LogStream, at: u64, text: &[u8], now: impl FnOnce() -> u64) -> bool {
        // What is kept by the microsecond is not as fine as the engine.
        let fine = self.fine && !at.is_multiple_of(1000);
        let newest = self.of(stream);
        if at < newest.at && newest.at <= now() {
            newest.again = newest.count;
            return true;
        }
        if at == newest.at && newest.again > 0 {
            newest.again -= 1;
            return true;
        }
        // The pieces of a long line do have the same time.
        if at == newest.at && fine && text.ends_with(b"\n") && text == newest.text {
            return true;
        }
        self.note(stream, at, text);
        false
    }

    fn of(&mut self, stream: LogStream) -> &mut Newest {
        let [output, errors] = &mut self.newest;
        if stream == LogStream::Stderr { errors } else { output }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use LogStream::{Stderr, Stdout};

    const NOW: u64 = 1000;

    fn fresh(messages: &[(u64, LogStream)]) -> Vec<u64> {
        let mut repeats = Repeats::new(false);
        let fresh = messages.iter().filter(|(at, stream)| !repeats.is_repeated(*stream, *at, b"x\n", || NOW));
        fresh.map(|(at, _)| *at).collect()
    }

    #[test]
    fn a_file_that_is_begun_again_is_passed_over() {
        let stdout = |times: &[u64]| times.iter().map(|at| (*at, Stdout)).collect::<Vec<_>>();
        assert_eq!(fresh(&stdout(&[1, 2, 3, 3, 1, 2, 3, 3, 3, 4])), [1, 2, 3, 3, 3, 4]);
        assert_eq!(fresh(&stdout(&[1, 2, 1, 2, 1, 2, 3])), [1, 2, 3]);
    }

    #[test]
    fn streams_may_overtake_each_other() {
        assert_eq!(fresh(&[(5, Stdout), (3, Stderr), (5, Stdout), (4, Stderr)]), [5, 3, 5, 4]);
    }

    #[test]
    fn a_clock_that_was_set_back_loses_nothing() {
        assert_eq!(fresh(&[(NOW + 9, Stdout), (NOW - 9, Stdout), (NOW - 8, Stdout)]), [NOW + 9, NOW - 9, NOW - 8]);
    }

    #[test]
    fn a_single_line_that_is_told_again_is_recognised_where_times_are_fine() {
        let count = |fine, at, texts: &[&[u8]]| {
            let mut repeats = Repeats::new(fine);
            texts.iter().filter(|text| !repeats.is_repeated(Stdout, at, text, || u64::MAX)).count()
        };
        let same: &[&[u8]] = &[b"x\n", b"x\n"];
        let different: &[&[u8]] = &[b"x\n", b"y\n"];
        let pieces: &[&[u8]] = &[b"x", b"x", b"x"];
        assert_eq!((count(true, 7, same), count(true, 7, different), count(true, 7, pieces)), (1, 2, 3));
        assert_eq!((count(false, 7, same), count(true, 7000, same)), (2, 2));
    }
}

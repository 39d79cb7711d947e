//! A piece of one line of output, as it lies on the disk: checksum, length, stream, time, bytes.
//!
//! The line feed itself is not kept, only that it was there.

use super::count;
use domain::fleet::protocol::LogStream;

/// The bytes before the output.
pub(super) const HEAD: usize = 17;
/// The most output in one record.
pub(super) const LONGEST: usize = 32 * 1024;
/// Set in the byte of the stream where a line ends.
const ENDS: u8 = 0x80;

/// A piece of one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) stream: LogStream,
    /// When its first byte was written, in nanoseconds since 1970.
    pub(super) nanos: i64,
    /// Whether a line feed follows.
    pub(super) ends: bool,
    pub(super) bytes: &'a [u8],
}

/// What is at the beginning of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decoded<'a> {
    /// A record, and how long it is on the disk.
    Whole(Record<'a>, usize),
    /// Less than a record.
    Short,
    /// No record.
    Broken,
}

impl<'a> Record<'a> {
    /// How many bytes of output it stands for.
    pub(super) fn span(&self) -> u64 {
        count(self.bytes.len()) + u64::from(self.ends)
    }

    /// Appends it to what is written next. Its bytes are at most [`LONGEST`].
    pub(super) fn encode(&self, into: &mut Vec<u8>) {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        let kind = number(self.stream) | if self.ends { ENDS } else { 0 };
        let start = into.len();
        into.extend_from_slice(&[0; 4]);
        into.extend_from_slice(&length.to_le_bytes());
        into.push(kind);
        into.extend_from_slice(&self.nanos.to_le_bytes());
        into.extend_from_slice(self.bytes);
        let sum = checksum(into.get(start + 4..).unwrap_or_default());
        if let Some(place) = into.get_mut(start..start + 4) {
            place.copy_from_slice(&sum.to_le_bytes());
        }
    }

    pub(super) fn decode(bytes: &'a [u8]) -> Decoded<'a> {
        let Some((sum, rest)) = bytes.split_first_chunk::<4>() else { return Decoded::Short };
        let Some((length, fields)) = rest.split_first_chunk::<4>() else { return Decoded::Short };
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        if length > LONGEST {
            return Decoded::Broken;
        }
        let Some(checked) = rest.get(..HEAD - 4 + length) else { return Decoded::Short };
        let (Some((kind, after)), true) = (fields.split_first(), checksum(checked) == u32::from_le_bytes(*sum)) else {
            return Decoded::Broken;
        };
        let (Some(stream), Some((nanos, after))) = (stream(kind & !ENDS), after.split_first_chunk::<8>()) else {
            return Decoded::Broken;
        };
        let bytes = after.get(..length).unwrap_or_default();
        let record = Record { stream, nanos: i64::from_le_bytes(*nanos), ends: kind & ENDS != 0, bytes };
        Decoded::Whole(record, HEAD + length)
    }
}

/// Tells a record that was written to its end from one that was not. It guards against a kill and a power cut, not
/// against forgery.
pub(super) fn checksum(bytes: &[u8]) -> u32 {
    let mix = |sum: u64, word: u64| (sum.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    let (words, rest) = bytes.as_chunks::<8>();
    let sum = words.iter().fold(count(bytes.len()) + 1, |sum, word| mix(sum, u64::from_le_bytes(*word)));
    let sum = rest.iter().fold(sum, |sum, byte| mix(sum, u64::from(*byte)));
    u32::try_from(sum >> 32).unwrap_or(u32::MAX)
}

/// The number of a stream, on the disk and in arrays.
pub(super) fn number(stream: LogStream) -> u8 {
    match stream {
        LogStream::Stdout => 0,
        LogStream::Stderr => 1,
        LogStream::Agent => 2,
    }
}

/// What stands for a stream in a set of them.
pub(super) fn bit(stream: LogStream) -> u8 {
    1 << number(stream)
}

fn stream(number: u8) -> Option<LogStream> {
    match number {
        0 => Some(LogStream::Stdout),
        1 => Some(LogStream::Stderr),
        2 => Some(LogStream::Agent),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_and_nothing_less_does() {
        let record = Record { stream: LogStream::Stderr, nanos: -7, ends: true, bytes: b"a line, not a short one" };
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        assert_eq!(bytes.len(), HEAD + 23);
        assert_eq!(Record::decode(&bytes), Decoded::Whole(record, bytes.len()));
        for cut in 0..bytes.len() {
            assert_eq!(Record::decode(&bytes[..cut]), Decoded::Short, "cut at {cut}");
        }
        for place in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[place] ^= 0x10;
            assert!(!matches!(Record::decode(&bytes), Decoded::Whole(..)), "changed at {place}");
        }
    }

    #[test]
    fn what_a_power_cut_leaves_is_no_record() {
        assert_eq!(Record::decode(&[0; 64]), Decoded::Broken);
        assert_eq!(Record::decode(&[0xff; 64]), Decoded::Broken);
    }
}

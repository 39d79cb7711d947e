use super::*;
use proptest::prelude::*;

/// Output in pieces: a stream, and what was written to it at once.
type Chunks = Vec<(LogStream, Vec<u8>)>;

/// Pieces that tear lines and characters, with bytes that are no UTF-8.
fn chunks() -> impl Strategy<Value = Chunks> {
    let byte = prop_oneof![
        3 => Just(b'\n'),
        4 => b'a'..=b'e',
        6 => prop::sample::select("é€🚀".as_bytes().to_vec()),
        2 => prop::sample::select(vec![0x80, 0xbf, 0xc3, 0xe2, 0xf0, 0xff, 0xed, 0x00]),
    ];
    let text =
        prop::sample::select(vec!["🚀\n", "é", "€€€€€€", "line\n", "a line that is longer than a piece of it may be"]);
    let bytes = prop_oneof![prop::collection::vec(byte, 1..12), text.prop_map(|text| text.as_bytes().to_vec())];
    let stream = prop_oneof![Just(LogStream::Stdout), Just(LogStream::Stderr)];
    prop::collection::vec((stream, bytes), 0..24)
}

/// What a stream's lines are.
fn expected(chunks: &Chunks, stream: LogStream) -> Vec<String> {
    let of_stream = chunks.iter().filter(|(other, _)| *other == stream);
    let all: Vec<u8> = of_stream.flat_map(|(_, bytes)| bytes.iter().copied()).collect();
    let lines = all.split_inclusive(|byte| *byte == b'\n');
    lines.map(|line| String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(line)).into_owned()).collect()
}

/// The lines of a stream, with pieces put together.
fn joined<'a>(lines: impl IntoIterator<Item = (LogStream, &'a str, bool)>, stream: LogStream) -> Vec<String> {
    let mut joined: Vec<String> = Vec::new();
    let mut goes_on = false;
    for (_, text, continues) in lines.into_iter().filter(|(other, ..)| *other == stream) {
        match joined.last_mut().filter(|_| goes_on) {
            Some(line) => line.push_str(text),
            None => joined.push(text.to_owned()),
        }
        goes_on = continues;
    }
    joined
}

fn records(chunks: &Chunks) -> Vec<(LogStream, bool, Vec<u8>)> {
    let split = |(stream, bytes): &(LogStream, Vec<u8>)| {
        let lines: Vec<_> = bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        let stream = *stream;
        lines.into_iter().map(move |line| match line.strip_suffix(b"\n") {
            Some(text) => (stream, true, text.to_vec()),
            None => (stream, false, line),
        })
    };
    chunks.iter().flat_map(split).collect()
}

fn read(records: &[(LogStream, bool, Vec<u8>)], longest: usize, starts: [u64; 3], finished: bool) -> Vec<Line> {
    let (mut lines, mut read, mut place) = (Lines::new(longest, starts), Vec::new(), 0);
    for (index, (stream, ends, bytes)) in records.iter().enumerate() {
        let record = Record { stream: *stream, nanos: index.try_into().unwrap(), ends: *ends, bytes };
        if place + record.span() > starts.into_iter().min().unwrap() {
            lines.push(place, &record, &mut |line| read.push(line));
        }
        place += record.span();
    }
    lines.flush(finished, &mut |line| read.push(line));
    read
}

proptest! {
    #[test]
    fn lines_are_what_was_written(chunks in chunks(), longest in 8_usize..40) {
        let lines = read(&records(&chunks), longest, [0; 3], true);
        for stream in [LogStream::Stdout, LogStream::Stderr] {
            let told = lines.iter().map(|line| (line.stream, line.text.as_str(), line.continues));
            prop_assert_eq!(joined(told, stream), expected(&chunks, stream));
        }
        prop_assert!(lines.iter().all(|line| line.text.chars().count() <= longest));
    }

    #[test]
    fn reading_on_after_any_line_is_as_if_there_had_been_no_break(chunks in chunks(), longest in 8_usize..40) {
        let records = records(&chunks);
        let lines = read(&records, longest, [0; 3], true);
        for (index, line) in lines.iter().enumerate() {
            let mut starts = line.starts;
            starts[2] = line.read;
            prop_assert!(starts.iter().all(|start| *start <= line.read));
            prop_assert_eq!(&read(&records, longest, starts, true), &lines[index + 1..], "after line {}", index);
        }
    }

    #[test]
    fn a_look_at_unfinished_output_and_what_comes_later_are_all_of_it(
        chunks in chunks(),
        longest in 8_usize..40,
        until in any::<prop::sample::Index>(),
    ) {
        let records = records(&chunks);
        let until = until.index(records.len() + 1);
        let mut lines = read(&records[..until], longest, [0; 3], false);
        let mut starts = lines.last().map_or([0; 3], |line| line.starts);
        starts[2] = lines.last().map_or(0, |line| line.read);
        lines.extend(read(&records, longest, starts, true));
        for stream in [LogStream::Stdout, LogStream::Stderr] {
            let told = lines.iter().map(|line| (line.stream, line.text.as_str(), line.continues));
            let mut told = joined(told, stream);
            // The end of a line may come alone.
            told.retain(|line| !line.is_empty());
            let mut expected = expected(&chunks, stream);
            expected.retain(|line| !line.is_empty());
            prop_assert_eq!(told, expected);
        }
    }
}

#[test]
fn a_line_has_the_time_of_its_first_byte() {
    let out = LogStream::Stdout;
    let records = [(out, false, b"0123".to_vec()), (out, false, b"4567".to_vec()), (out, true, b"89".to_vec())];
    let lines = read(&records, 8, [0; 3], true);
    let told: Vec<_> = lines.iter().map(|line| (line.nanos, line.text.as_str(), line.continues)).collect();
    assert_eq!(told, [(0, "01234567", true), (2, "89", false)]);
    let lines = read(&records, 100, [0; 3], true);
    assert_eq!((lines[0].nanos, lines[0].text.as_str()), (0, "0123456789"));
}

#[test]
fn cuts_fall_between_characters() {
    let at = |text: &[u8], most: usize| cut(text, most);
    assert_eq!(at(b"abcdefgh", 5), 5);
    assert_eq!(at("ab🚀cd".as_bytes(), 5), 2, "within the rocket");
    assert_eq!(at("ab🚀cd".as_bytes(), 6), 6, "behind the rocket");
    assert_eq!(at(b"ab\x80\x80\x80\x80\x80", 6), 6, "within what is no character");
    assert_eq!(at(b"abcd\xf0\x9f\x9a", 6), 4, "bytes that make one mark together");
}

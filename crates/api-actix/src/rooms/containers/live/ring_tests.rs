use super::{
    super::{
        block::{Format, Torn, Wanted},
        played::line,
    },
    *,
};
use domain::fleet::protocol::LogStream;
use proptest::prelude::*;

const ROOM: usize = 4000;

fn block(first: u64, count: u64, dropped: u64, stream: LogStream) -> Block {
    let lines: Vec<_> = (first..first + count).map(|n| line(n, stream)).collect();
    Block::write(dropped, &lines, Wanted::only(Format::Plain), &mut Torn::default()).unwrap()
}

/// Somebody who reads, and the numbers of the lines that they were shown.
struct Reading {
    place: Place,
    view: View,
    shown: Vec<u64>,
    dropped: u64,
}

impl Reading {
    fn new(ring: &Ring, only: Option<LogStream>) -> Self {
        Self { place: ring.end(), view: View::new(Format::Plain, only, None), shown: Vec::new(), dropped: 0 }
    }

    fn read(&mut self, ring: &Ring) {
        let text = match ring.find(&self.place) {
            Found::Nothing => return,
            Found::Blocks(blocks) => show(&mut self.place, &mut self.view, &blocks),
            Found::Overrun(left) => skip(&mut self.place, &mut self.view, left),
        };
        for line in std::str::from_utf8(&text).unwrap().lines() {
            match line.strip_prefix("[starlink] ") {
                Some(rest) => self.dropped += rest.split(' ').next().unwrap().parse::<u64>().unwrap(),
                None => self.shown.push(line.strip_prefix("line ").unwrap().parse().unwrap()),
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Deed {
    Write { count: u64, dropped: u64, err: bool },
    Read(usize),
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let write =
        (0..40_u64, 0..3_u64, any::<bool>()).prop_map(|(count, dropped, err)| Deed::Write { count, dropped, err });
    proptest::collection::vec(prop_oneof![write, (0..3_usize).prop_map(Deed::Read)], 1..80)
}

proptest! {
    #[test]
    fn whoever_misses_lines_is_told_exactly_how_many(deeds in deeds()) {
        let mut ring = Ring::new(ROOM);
        let wanted = [None, Some(LogStream::Stdout), Some(LogStream::Stderr)];
        let mut readers = wanted.map(|only| Reading::new(&ring, only));
        let (mut written, mut left_out, mut of) = (0, 0, [0, 0]);
        for deed in deeds {
            match deed {
                Deed::Write { count, dropped, err } => {
                    let stream = if err { LogStream::Stderr } else { LogStream::Stdout };
                    let block = block(written, count, dropped, stream);
                    let bytes = block.bytes();
                    let stays = ring.first_to_stay(bytes);
                    ring.push(block);
                    prop_assert_eq!(stays, ring.first);
                    prop_assert!(ring.bytes() <= ROOM.max(bytes));
                    written += count;
                    left_out += dropped;
                    of[usize::from(err)] += count;
                }
                Deed::Read(who) => readers[who].read(&ring),
            }
        }
        for (reader, total) in readers.iter_mut().zip([of[0] + of[1], of[0], of[1]]) {
            while !matches!(ring.find(&reader.place), Found::Nothing) {
                reader.read(&ring);
            }
            prop_assert!(reader.shown.is_sorted_by(|one, other| one < other), "{:?}", reader.shown);
            let shown = u64::try_from(reader.shown.len()).unwrap();
            prop_assert_eq!(shown + reader.dropped, total + left_out);
        }
    }
}

#[test]
fn a_chunk_is_bounded_and_nothing_is_told_twice() {
    let mut ring = Ring::new(usize::MAX);
    let mut reading = Reading::new(&ring, None);
    for n in 0..40 {
        ring.push(block(n * 1000, 1000, 7, LogStream::Stdout));
    }
    let mut chunks = 0;
    while let Found::Blocks(blocks) = ring.find(&reading.place) {
        let mut place = reading.place;
        assert!(show(&mut place, &mut reading.view.clone(), &blocks).len() <= CHUNK + 100);
        reading.read(&ring);
        chunks += 1;
    }
    assert_eq!(reading.shown, (0..40_000).collect::<Vec<_>>());
    assert_eq!(reading.dropped, 40 * 7);
    assert!((5..20).contains(&chunks), "{chunks}");
}

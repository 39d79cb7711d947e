use super::{
    super::{
        hub::Hubs,
        played::{Played, Seen, follow},
    },
    *,
};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Deed {
    Write(u64),
    Read(usize),
    Cut,
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = prop_oneof![
        4 => (1..60_u64).prop_map(Deed::Write),
        4 => (1..8_usize).prop_map(Deed::Read),
        1 => Just(Deed::Cut),
    ];
    proptest::collection::vec(deed, 1..30)
}

/// Two who follow from different moments on, while lines are written and the connection is cut.
async fn play(before: u64, room: usize, deeds: Vec<Deed>) -> u64 {
    let (hubs, played) = (Arc::new(Hubs::with_room(room)), Played::new(7));
    played.write(before);
    let mut other = follow(&hubs, &played).await;
    let mut of_other = Seen::default();
    of_other.read(&mut other, 3).await;
    let mut reader = follow(&hubs, &played).await;
    let (mut seen, mut total) = (Seen::default(), before);
    for deed in deeds {
        match deed {
            Deed::Write(count) => {
                played.write(count);
                total += count;
                of_other.read(&mut other, 3).await;
            }
            Deed::Read(steps) => seen.read(&mut reader, steps).await,
            Deed::Cut => played.cut(),
        }
    }
    of_other.read_to(&mut other, total).await;
    seen.read_to(&mut reader, total).await;
    assert_eq!((of_other.next, seen.next), (total, total));
    seen.dropped
}

fn run(before: u64, room: usize, deeds: Vec<Deed>) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(play(before, room, deeds))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn who_joins_sees_everything_once_however_things_fall(before in 0..200_u64, deeds in deeds()) {
        prop_assert_eq!(run(before, 1024 * 1024, deeds), 0);
    }

    #[test]
    fn who_joins_is_told_exactly_what_is_missing_where_there_is_little_room(before in 0..200_u64, deeds in deeds()) {
        run(before, 3000, deeds);
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_hub_lets_go_of_meanwhile_is_read_again() {
    let (hubs, played) = (Arc::new(Hubs::with_room(3000)), Played::new(10));
    played.write(100);
    let mut fast = follow(&hubs, &played).await;
    let mut of_fast = Seen::default();
    of_fast.read_to(&mut fast, 100).await;
    of_fast.read(&mut fast, 1).await;
    let mut late = follow(&hubs, &played).await;
    let mut seen = Seen::default();
    seen.read(&mut late, 2).await;
    played.write(1000);
    of_fast.read_to(&mut fast, 1100).await;
    seen.read_to(&mut late, 1100).await;
    assert_eq!((of_fast.dropped, seen.dropped), (0, 0));
    seen.read(&mut late, 3).await;
    assert!(late.rounds > 0);
}

#[tokio::test(start_paused = true)]
async fn who_reads_too_slowly_to_catch_up_is_told_how_much_is_missing() {
    let (hubs, played) = (Arc::new(Hubs::with_room(3000)), Played::new(10));
    played.write(100);
    let mut fast = follow(&hubs, &played).await;
    let mut of_fast = Seen::default();
    of_fast.read_to(&mut fast, 100).await;
    of_fast.read(&mut fast, 1).await;
    let mut late = follow(&hubs, &played).await;
    let mut seen = Seen::default();
    let mut total = 100;
    while seen.dropped == 0 {
        // Always more than is kept, while what was before is read.
        played.write(200);
        total += 200;
        of_fast.read_to(&mut fast, total).await;
        seen.read(&mut late, 50).await;
        assert!(total < 100_000, "it catches up: {seen:?}");
    }
    seen.read_to(&mut late, total).await;
    assert_eq!((of_fast.dropped, seen.next), (0, total));
}

#[tokio::test]
async fn who_does_not_follow_reads_to_the_end() {
    let played = Played::new(10);
    played.write(1000);
    let hubs = Arc::new(Hubs::with_room(3000));
    let mut reader = follow(&hubs, &played).await;
    reader.seat = None;
    let mut seen = Seen::default();
    seen.read(&mut reader, 1000).await;
    assert_eq!((seen.next, seen.dropped, seen.end.as_deref()), (1000, 0, Some("")));
}

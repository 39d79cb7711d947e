use super::{
    super::played::{Played, Seen, engine_id, follow, follow_from_now, sit},
    *,
};
use crate::rooms::containers::live::reader::{Reader, Step};

/// Waits until nothing goes on by itself any more: time that stands still goes on only then.
async fn idle() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}

fn hubs(room: usize) -> Arc<Hubs> {
    Arc::new(Hubs { by_container: Mutex::default(), room, most: 2 })
}

#[tokio::test(start_paused = true)]
async fn readers_share_one_stream_which_ends_with_the_last() {
    let (hubs, played) = (hubs(ROOM), Played::new(100));
    played.write(50);
    let mut readers = Vec::new();
    for _ in 0..20 {
        readers.push((follow(&hubs, &played).await, Seen::default()));
    }
    played.write(50);
    for (reader, seen) in &mut readers {
        seen.read_to(reader, 100).await;
        assert_eq!(seen.dropped, 0);
    }
    idle().await;
    assert_eq!(played.follows(), 1);
    assert_eq!(hubs.hubs().len(), 1);
    readers.clear();
    assert_eq!(hubs.hubs().len(), 0);
    // Whoever comes later gets a stream of their own.
    let mut later = follow(&hubs, &played).await;
    Seen::default().read_to(&mut later, 100).await;
    played.write(1);
    idle().await;
    assert_eq!(played.follows(), 2);
}

#[tokio::test]
async fn the_fastest_misses_nothing_and_the_slow_are_told_how_much() {
    let (hubs, played) = (hubs(20_000), Played::new(50));
    let (mut fast, mut slow) = (follow_from_now(&hubs, &played).await, follow_from_now(&hubs, &played).await);
    let (mut of_fast, mut of_slow) = (Seen::default(), Seen::default());
    of_fast.read(&mut fast, 1).await;
    of_slow.read(&mut slow, 1).await;
    played.write(20_000);
    of_fast.read_to(&mut fast, 20_000).await;
    assert_eq!(of_fast.dropped, 0);
    of_slow.read_to(&mut slow, 20_000).await;
    assert!(of_slow.dropped > 15_000, "{of_slow:?}");
    let hub = hubs.hubs().values().next().unwrap().clone();
    assert!(hub.state().ring.bytes() <= 20_000 + 64 * 1024, "{}", hub.state().ring.bytes());
}

#[tokio::test(start_paused = true)]
async fn what_nobody_has_read_yet_is_kept_and_the_agent_waits() {
    let (hubs, played) = (hubs(20_000), Played::new(50));
    let mut only = follow_from_now(&hubs, &played).await;
    let mut seen = Seen::default();
    seen.read(&mut only, 1).await;
    played.write(20_000);
    idle().await;
    seen.read_to(&mut only, 20_000).await;
    assert_eq!(seen.dropped, 0);
}

/// Someone who sits down and reads no more, and a ring that is full of what they have not read.
async fn stalled(hubs: &Arc<Hubs>, played: &Arc<Played>) -> (Reader, Seen) {
    let (mut stalled, mut seen) = (follow_from_now(hubs, played).await, Seen::default());
    seen.read(&mut stalled, 1).await;
    played.write(20_000);
    idle().await;
    (stalled, seen)
}

#[tokio::test(start_paused = true)]
async fn who_joins_one_that_reads_no_more_is_not_held_up() {
    let (hubs, played) = (hubs(20_000), Played::new(50));
    let (mut slow, mut of_slow) = stalled(&hubs, &played).await;
    let mut late = follow_from_now(&hubs, &played).await;
    let mut text = String::new();
    while !text.ends_with("line 19999\n") {
        match tokio::time::timeout(Duration::from_secs(5), late.next()).await.unwrap() {
            Step::Text(more) => text.push_str(&String::from_utf8(more).unwrap()),
            Step::End(end) => panic!("{end:?}"),
        }
    }
    assert!(!text.contains("dropped"));
    of_slow.read_to(&mut slow, 20_000).await;
    assert!(of_slow.dropped > 15_000, "{of_slow:?}");
    assert_eq!(of_slow.next, 20_000);
}

#[tokio::test(start_paused = true)]
async fn who_joins_one_that_reads_no_more_gets_what_was_before_and_what_comes() {
    let (hubs, played) = (hubs(20_000), Played::new(50));
    let (mut slow, mut of_slow) = stalled(&hubs, &played).await;
    let (mut late, mut seen) = (follow(&hubs, &played).await, Seen::default());
    seen.read_to(&mut late, 20_000).await;
    // To the end of what was before, and then all that the hub has.
    seen.read(&mut late, 2000).await;
    played.write(500);
    seen.read_to(&mut late, 20_500).await;
    assert_eq!((seen.next, seen.dropped), (20_500, 0));
    of_slow.read_to(&mut slow, 20_500).await;
    assert!(of_slow.dropped > 15_000, "{of_slow:?}");
    assert_eq!(of_slow.next, 20_500);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_goes_on_after_the_last_line() {
    let (hubs, played) = (hubs(ROOM), Played::new(3));
    played.write(10);
    let mut reader = follow(&hubs, &played).await;
    let mut seen = Seen::default();
    seen.read_to(&mut reader, 10).await;
    for _ in 0..5 {
        played.write(4);
        seen.read(&mut reader, 1).await;
        played.cut();
        played.write(4);
        let all = seen.next.div_ceil(2);
        seen.read(&mut reader, usize::try_from(all).unwrap()).await;
    }
    seen.read_to(&mut reader, 50).await;
    assert_eq!((seen.next, seen.dropped), (50, 0));
    let asked = played.asked.lock().unwrap();
    assert!(asked.iter().filter(|query| query.follow).all(|query| query.after.is_some() && query.tail.is_none()));
}

#[tokio::test(start_paused = true)]
async fn what_has_ended_is_told_and_begun_anew_for_others() {
    let (hubs, played) = (hubs(ROOM), Played::new(3));
    played.write(10);
    let mut reader = follow(&hubs, &played).await;
    let mut seen = Seen::default();
    seen.read_to(&mut reader, 10).await;
    played.remove();
    seen.read(&mut reader, 3).await;
    assert_eq!(seen.end.as_deref(), Some("the container was removed"));
    let seat = sit(&hubs, &played, Format::Plain).await;
    drop(reader);
    assert_eq!(hubs.hubs().len(), 1, "who leaves the old one does not end the new one");
    drop(seat);
    assert_eq!(hubs.hubs().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_stays_away_is_given_up_after_a_minute() {
    let (hubs, played) = (hubs(ROOM), Played::new(3));
    played.write(1);
    let down = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (inner, is_down) = (played.opener(), down.clone());
    let open: Opener = Arc::new(move |query| {
        if is_down.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(Error::Unavailable { reason: "it is away".to_owned(), source: None });
        }
        inner(query)
    });
    let mut seat = hubs.join(ContainerId(1), &engine_id(), &open, Format::Plain).unwrap();
    seat.opened().await.unwrap();
    let mut reader = follow_from_now(&hubs, &played).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    down.store(true, std::sync::atomic::Ordering::Relaxed);
    played.cut();
    let begun = tokio::time::Instant::now();
    let end = loop {
        if let Step::End(reason) = reader.next().await {
            break reason;
        }
    };
    assert_eq!(end.as_deref(), Some("it is away"));
    assert!((60..63).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn there_are_so_many_hubs_and_no_more() {
    let (hubs, played) = (hubs(ROOM), Played::new(3));
    let join = |n| hubs.join(ContainerId(n), &engine_id(), &played.opener(), Format::Plain);
    let (_one, two) = (join(1).unwrap(), join(2).unwrap());
    assert!(matches!(join(3), Err(Error::Exhausted { .. })));
    let _again = join(1).unwrap();
    drop(two);
    let _three = join(3).unwrap();
}

#[tokio::test(start_paused = true)]
async fn each_reader_gets_the_format_that_they_asked_for() {
    let (hubs, played) = (hubs(ROOM), Played::new(3));
    let mut seats = Vec::new();
    for format in [Format::Plain, Format::Events, Format::Stamped] {
        played.write(1);
        let mut seat = sit(&hubs, &played, format).await;
        let mut view = View::new(format, None, None);
        seat.hear(&mut view);
        seats.push((seat, view));
    }
    idle().await;
    played.write(1);
    idle().await;
    for (mut seat, mut view) in seats {
        let mut all = Vec::new();
        while let Heard::Text(text) = seat.hear(&mut view) {
            all.extend(text);
        }
        let text = String::from_utf8(all).unwrap();
        match view.format {
            Format::Plain => assert!(text.ends_with("line 3\n") && !text.contains('Z'), "{text}"),
            Format::Events => assert!(text.starts_with("id: ") && text.contains("event: line\ndata: {"), "{text}"),
            Format::Stamped => assert!(text.ends_with("Z line 3\n"), "{text}"),
        }
    }
}

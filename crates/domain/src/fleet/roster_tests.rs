use super::*;
use crate::{
    fleet::{Architecture, Inventory, NewServer, ServerStatus},
    ids::PoolId,
    testing::{START, name},
    text::Tags,
    units::Resources,
};
use proptest::prelude::*;

fn server(id: i64) -> Server {
    NewServer {
        name: name(&format!("edge-{id}")),
        architecture: Architecture::Arm64,
        status: ServerStatus::Online,
        capacity: Resources { cpu_millis: 1000 * (id % 3), memory_mib: 1024, ..Resources::default() },
        gpu_model: None,
        location: Some("Halle Süd".to_owned()),
        cluster: None,
        zone: (id % 2 == 0).then(|| "even".to_owned()),
        pool_id: (id % 2 == 1).then_some(PoolId(9)),
        tags: Tags::parse([("tier".to_owned(), (id % 2).to_string())].into()).unwrap(),
    }
    .into_server(ServerId(id), START)
}

fn roster(ids: impl IntoIterator<Item = i64>) -> Roster {
    let roster = Roster::default();
    let servers = ids.into_iter().map(|id| Arc::new(server(id))).collect();
    roster.reset(&State { servers, ..State::default() });
    roster
}

fn page(limit: u16, after: Option<Cursor>) -> PageRequest {
    PageRequest { limit, after }
}

fn ids(page: &Page<Arc<RosterEntry>>) -> Vec<i64> {
    page.items.iter().map(|server| server.id.0).collect()
}

#[track_caller]
fn check(filter: &ServerFilter, sort: &str, expected: &[i64]) {
    let sort = ServerSort::parse(sort).unwrap();
    let found = roster(1..=5).list(filter, sort, &page(100, None)).unwrap();
    assert_eq!((ids(&found), found.total), (expected.to_vec(), i64::try_from(expected.len()).unwrap()), "{filter:?}");
}

#[test]
fn each_filter_and_sort_finds_what_it_says() {
    let all = ServerFilter::default;
    check(&all(), "-id", &[5, 4, 3, 2, 1]);
    check(&all(), "id", &[1, 2, 3, 4, 5]);
    check(&all(), "-name", &[5, 4, 3, 2, 1]);
    check(&all(), "total_cpu", &[3, 1, 4, 2, 5]);
    check(&all(), "-total_memory", &[5, 4, 3, 2, 1]);
    check(&ServerFilter { architecture: Some(Architecture::X86_64), ..all() }, "id", &[]);
    check(&ServerFilter { status: Some(ServerStatus::Offline), ..all() }, "id", &[]);
    check(&ServerFilter { keyword: Some("sÜD".to_owned()), ..all() }, "-id", &[5, 4, 3, 2, 1]);
    check(&ServerFilter { keyword: Some("TIER:1".to_owned()), ..all() }, "id", &[1, 3, 5]);
    check(&ServerFilter { keyword: Some("%".to_owned()), ..all() }, "id", &[]);
    check(&ServerFilter { pool_id: Some(PoolId(9)), ..all() }, "id", &[1, 3, 5]);
    check(&ServerFilter { zone: Some("even".to_owned()), ..all() }, "id", &[2, 4]);
    check(&ServerFilter { tags: vec![("tier".to_owned(), "0".to_owned())], ..all() }, "id", &[2, 4]);
}

#[test]
fn facts_are_taken_in() {
    let roster = roster(1..=3);
    let renamed = Server { name: name("other"), ..server(2) };
    roster.follow(&[Fact::ServerGone(ServerId(1)), Fact::Server(Arc::new(renamed)), Fact::Server(Arc::new(server(4)))]);
    let found = roster.list(&ServerFilter::default(), ServerSort::NEWEST_FIRST, &page(100, None)).unwrap();
    assert_eq!(ids(&found), [4, 3, 2]);
    assert_eq!(found.items[2].name.as_str(), "other");
}

#[test]
fn when_an_agent_was_heard_of_shows_and_changes_nothing_else() {
    let roster = roster(1..=2);
    let at = server(1).created_at + chrono::TimeDelta::minutes(1);
    roster.follow(&[Fact::ServerSeen(ServerId(1), at), Fact::ServerSeen(ServerId(9), at)]);
    let found = roster.list(&ServerFilter::default(), ServerSort::NEWEST_FIRST, &page(100, None)).unwrap();
    assert_eq!(ids(&found), [2, 1]);
    let seen = Server { inventory: Inventory { last_seen_at: Some(at), ..server(1).inventory }, ..server(1) };
    assert_eq!((&**found.items[1], &**found.items[0]), (&seen, &server(2)));
}

#[test]
fn a_text_is_made_once_for_each_state() {
    let roster = roster([1]);
    let shown = |text: &str| {
        let found = roster.list(&ServerFilter::default(), ServerSort::NEWEST_FIRST, &page(1, None)).unwrap();
        found.items[0].shown(|_| text.to_owned()).to_owned()
    };
    assert_eq!((shown("first"), shown("second")), ("first".to_owned(), "first".to_owned()));
    roster.follow(&[Fact::Server(Arc::new(server(1)))]);
    assert_eq!(shown("third"), "third");
}

#[test]
fn a_cursor_of_another_kind_is_refused() {
    let sort = ServerSort::parse("total_cpu").unwrap();
    let cursor = Cursor { sort: "total_cpu".to_owned(), key: "edge-1".to_owned(), id: 1 };
    let found = roster(1..=3).list(&ServerFilter::default(), sort, &page(2, Some(cursor)));
    assert!(matches!(found, Err(Error::Invalid { .. })));
}

proptest! {
    #[test]
    fn pages_show_each_row_once_in_order_whatever_comes_and_goes(
        sort in prop::sample::select(vec!["id", "-id", "name", "-name", "total_cpu", "-total_cpu", "-total_memory"]),
        limit in 1_u16..5,
        gone in 1_i64..20,
    ) {
        let roster = roster(1..=20);
        let sort = ServerSort::parse(sort).unwrap();
        let mut seen = Vec::new();
        let mut after = None;
        loop {
            let found = roster.list(&ServerFilter::default(), sort, &page(limit, after)).unwrap();
            prop_assert!(found.items.len() <= usize::from(limit));
            seen.extend(found.items);
            after = found.next;
            if after.is_none() {
                break;
            }
            roster.follow(&[Fact::ServerGone(ServerId(gone)), Fact::Server(Arc::new(server(gone + 100)))]);
        }
        let old: Vec<i64> = seen.iter().map(|server| server.id.0).filter(|id| *id <= 20 && *id != gone).collect();
        let mut sorted = old.clone();
        sorted.sort_unstable();
        sorted.dedup();
        prop_assert_eq!(sorted.len(), 19, "{:?}", old);
        prop_assert!(seen.is_sorted_by(|a, b| directed(compare(a, b, sort.key), sort) == Ordering::Less));
    }
}

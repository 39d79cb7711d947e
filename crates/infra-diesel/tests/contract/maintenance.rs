//! The port `MaintenanceWindows`, and what servers have to do with it.

use crate::{
    on_both,
    store::{Process, Store, at_once, check_conflict, check_not_found, check_stale, entry, name, once, start, walk},
};
use chrono::TimeDelta;
use domain::{
    Error, Result,
    audit::AuditEntry,
    change::{Change, Done},
    clock::Timestamp,
    feed::{Fact, Follower, State},
    fleet::{
        MaintenanceWindows, NewWindow, Reach, Server, ServerFilter, ServerSort, ServerStatus, Servers, Span, Window,
        WindowFilter, WindowPatch, WindowStatus,
    },
    identity::Actor,
    ids::{ServerId, WindowId},
    page::PageRequest,
};
use std::{
    cell::Cell,
    sync::{Arc, Mutex},
};

on_both!(
    a_window_is_read_back_as_it_was_planned,
    what_is_not_there_is_not_found,
    a_window_is_planned_once_under_its_key,
    a_window_that_is_over_is_not_planned,
    a_window_begins_and_ends_with_its_server,
    a_window_whose_time_has_come_begins_as_it_is_planned,
    the_last_of_overlapping_windows_lets_the_server_go,
    a_window_that_is_cancelled_lets_the_server_go,
    a_missed_window_leaves_its_server_alone,
    an_update_from_an_old_revision_is_stale,
    nobody_changes_the_status_of_a_server_in_a_window,
    windows_go_with_their_server,
    windows_are_found_by_server_status_and_whether_they_are_to_come,
    pages_neither_repeat_nor_skip,
    windows_are_found_by_the_time_that_they_take,
    whoever_ends_a_window_first_ends_it_alone,
);

/// So many minutes after the beginning.
fn minute(minutes: i64) -> Timestamp {
    start() + TimeDelta::minutes(minutes)
}

fn entry_at(action: &str, minutes: i64) -> AuditEntry {
    AuditEntry::new(&Actor::system("test"), action, minute(minutes))
}

fn new_window(from: i64, duration_minutes: u32) -> NewWindow {
    NewWindow { title: name("disks"), description: None, scheduled_for: minute(from), duration_minutes }
}

/// A window of a server, from a minute after the beginning on, planned at the beginning.
pub(crate) async fn planned(process: &Process, server: ServerId, from: i64, minutes: u32) -> Window {
    let change = entry("maintenance.create").into();
    process.windows.create(server, new_window(from, minutes), change).await.unwrap().value
}

async fn turn(store: &Store, server: ServerId, minutes: i64) -> Option<Server> {
    store.windows.turn(server, Reach::NoAgent, entry_at("maintenance.update", minutes)).await.unwrap()
}

/// Writes what a patch makes of a window at some minute.
async fn patch(process: &Process, before: &Window, minutes: i64, patch: WindowPatch) -> Result<Window> {
    let after = before.patched(patch, minute(minutes))?;
    let entry = entry_at(after.deed_since(before), minutes).changed(before, &after);
    process.windows.update(after, Reach::NoAgent, entry.into()).await.map(|done| done.value)
}

fn to_status(status: WindowStatus) -> WindowPatch {
    WindowPatch { status: Some(status), ..WindowPatch::default() }
}

async fn server_status(store: &Store, server: ServerId) -> ServerStatus {
    let row = store.servers.get(server).await.unwrap();
    let sort = ServerSort::parse("id").unwrap();
    let listed = store.list(ServerFilter::default(), sort, PageRequest::default()).await.unwrap();
    assert!(listed.items.contains(&row), "who follows knows what is stored");
    row.status
}

async fn a_window_is_read_back_as_it_was_planned(store: Store) {
    let server = store.server("edge-1").await;
    let full = NewWindow { description: Some("two\nlines".to_owned()), ..new_window(60, 1440) };
    for new in [new_window(60, 1), full] {
        let change = entry_at("maintenance.create", 5).into();
        let done = store.windows.create(server.id, new.clone(), change).await.unwrap();
        let expected = new.into_window(done.value.id, server.id, "system:test".to_owned(), minute(5));
        assert_eq!(done, Done { value: expected.clone(), replayed: false });
        assert_eq!(store.windows.get(expected.id).await.unwrap(), expected);
        let row = store.last_row().await;
        assert_eq!(row.entry.target, Some(format!("maintenance:{}", expected.id)));
        assert_eq!(row.entry.after, Some(serde_json::to_value(&expected).unwrap()));
    }
    assert_eq!(server_status(&store, server.id).await, ServerStatus::Online);
    store.check_log(&["server.create", "maintenance.create", "maintenance.create"]).await;
}

async fn what_is_not_there_is_not_found(store: Store) {
    let change = || Change::from(entry("maintenance.create"));
    check_not_found(store.windows.create(ServerId(7), new_window(60, 1), change()).await);
    check_not_found(store.windows.get(WindowId(7)).await);
    let window = new_window(60, 1).into_window(WindowId(7), ServerId(7), "user:alice".to_owned(), start());
    check_not_found(store.windows.update(window, Reach::NoAgent, change()).await);
    assert_eq!(turn(&store, ServerId(7), 60).await, None);
    store.check_log(&[]).await;
}

async fn a_window_is_planned_once_under_its_key(store: Store) {
    let server = store.server("edge-1").await;
    let plan = || store.windows.create(server.id, new_window(0, 30), once("maintenance.create", "k-1", 0));
    let first = plan().await.unwrap();
    assert!(!first.replayed && first.value.is_in_progress());
    patch(&store, &first.value, 10, to_status(WindowStatus::Completed)).await.unwrap();
    assert_eq!(plan().await.unwrap(), Done { value: first.value.clone(), replayed: true });
    assert_eq!(server_status(&store, server.id).await, ServerStatus::Online);
    // It is answered again when it could not be planned any more.
    let late = once("maintenance.create", "k-1", 7200);
    let again = store.windows.create(server.id, new_window(0, 30), late).await.unwrap();
    assert_eq!(again, Done { value: first.value, replayed: true });
}

async fn a_window_that_is_over_is_not_planned(store: Store) {
    let server = store.server("edge-1").await;
    let change = |at| entry_at("maintenance.create", at).into();
    let refused = store.windows.create(server.id, new_window(60, 30), change(90)).await;
    let Err(Error::Invalid { errors }) = refused else { panic!("{refused:?}") };
    assert_eq!(errors[0].field, "scheduled_for");
    check_not_found(store.windows.create(ServerId(99), new_window(60, 30), change(90)).await);
    store.windows.create(server.id, new_window(60, 30), change(89)).await.unwrap();
}

/// Keeps what is told of servers.
#[derive(Default)]
struct Ear(Mutex<Vec<ServerStatus>>);

impl Follower for Ear {
    fn reset(&self, _: &State) {}

    fn follow(&self, facts: &[Fact]) {
        let servers = facts.iter().filter_map(|fact| match fact {
            Fact::Server(server) => Some(server.status),
            _ => None,
        });
        self.0.lock().unwrap().extend(servers);
    }
}

async fn a_window_begins_and_ends_with_its_server(store: Store) {
    let server = store.server("edge-1").await;
    store.server("edge-2").await;
    let window = planned(&store, server.id, 60, 30).await;
    let ear = Arc::new(Ear::default());
    store.database.follow(ear.clone());
    store.database.catch_up().await.unwrap();
    let before = store.log().await.len();
    assert_eq!(store.windows.due(minute(59)).await.unwrap(), []);
    assert_eq!(turn(&store, server.id, 59).await, None);

    assert_eq!(store.windows.due(minute(60)).await.unwrap(), [server.id]);
    let held = turn(&store, server.id, 60).await.unwrap();
    let expected = Server {
        status: ServerStatus::Maintenance,
        revision: server.revision + 1,
        updated_at: minute(60),
        ..server.clone()
    };
    assert_eq!((&held, &store.servers.get(server.id).await.unwrap()), (&expected, &expected));
    assert_eq!(server_status(&store, server.id).await, ServerStatus::Maintenance);
    let running = store.windows.get(window.id).await.unwrap();
    assert_eq!((running.status, running.started_at), (WindowStatus::InProgress, Some(minute(60))));
    assert_eq!(running.back_to, Some(ServerStatus::Online));
    assert_eq!(turn(&store, server.id, 60).await, None, "twice is once");
    assert_eq!(store.windows.due(minute(89)).await.unwrap(), []);

    assert_eq!(store.windows.due(minute(90)).await.unwrap(), [server.id]);
    turn(&store, server.id, 91).await.unwrap();
    assert_eq!(server_status(&store, server.id).await, ServerStatus::Online);
    let over = store.windows.get(window.id).await.unwrap();
    assert_eq!((over.status, over.ended_at, over.back_to), (WindowStatus::Completed, Some(minute(91)), None));
    assert_eq!(store.windows.due(minute(10_000)).await.unwrap(), []);
    assert_eq!(*ear.0.lock().unwrap(), [ServerStatus::Maintenance, ServerStatus::Online]);
    let actions: Vec<_> = store.log().await.into_iter().skip(before).map(|row| row.entry.action).collect();
    let expected =
        ["maintenance.start", "server.enter_maintenance", "maintenance.complete", "server.leave_maintenance"];
    assert_eq!(actions, expected);
    store.check_chain(before + 4).await;
}

async fn a_window_whose_time_has_come_begins_as_it_is_planned(store: Store) {
    let server = store.server("edge-1").await;
    let change = entry_at("maintenance.create", 70).into();
    let window = store.windows.create(server.id, new_window(60, 30), change).await.unwrap().value;
    assert_eq!((window.status, window.started_at, window.revision), (WindowStatus::InProgress, Some(minute(70)), 2));
    assert_eq!(store.windows.get(window.id).await.unwrap(), window);
    assert_eq!(server_status(&store, server.id).await, ServerStatus::Maintenance);
    let actions = ["server.create", "maintenance.create", "maintenance.start", "server.enter_maintenance"];
    store.check_log(&actions).await;
}

async fn the_last_of_overlapping_windows_lets_the_server_go(store: Store) {
    let server = store.server("edge-1").await;
    for (from, minutes) in [(60, 30), (80, 30), (70, 10)] {
        planned(&store, server.id, from, minutes).await;
    }
    let mut seen = Vec::new();
    for at in [59, 60, 70, 80, 90, 109, 110] {
        turn(&store, server.id, at).await;
        seen.push((at, server_status(&store, server.id).await == ServerStatus::Maintenance));
    }
    let expected = [(59, false), (60, true), (70, true), (80, true), (90, true), (109, true), (110, false)];
    assert_eq!(seen, expected);
    assert_eq!(store.servers.get(server.id).await.unwrap().revision, server.revision + 2);
    assert_eq!(server_status(&store, server.id).await, ServerStatus::Online);
}

async fn a_window_that_is_cancelled_lets_the_server_go(store: Store) {
    let server = store.server("edge-1").await;
    let first = planned(&store, server.id, 0, 60).await;
    let second = planned(&store, server.id, 0, 90).await;
    let third = planned(&store, server.id, 500, 90).await;
    patch(&store, &third, 10, to_status(WindowStatus::Cancelled)).await.unwrap();
    let first = patch(&store, &first, 10, to_status(WindowStatus::Cancelled)).await.unwrap();
    assert_eq!((first.status, first.ended_at), (WindowStatus::Cancelled, Some(minute(10))));
    assert_eq!(server_status(&store, server.id).await, ServerStatus::Maintenance);
    patch(&store, &second, 20, to_status(WindowStatus::Cancelled)).await.unwrap();
    assert_eq!(server_status(&store, server.id).await, ServerStatus::Online);
    let actions: Vec<_> = store.log().await.into_iter().rev().take(4).map(|row| row.entry.action).collect();
    let expected = ["server.leave_maintenance", "maintenance.cancel", "maintenance.cancel", "maintenance.cancel"];
    assert_eq!(actions, expected);
    assert_eq!(store.windows.due(minute(10_000)).await.unwrap(), []);
}

async fn a_missed_window_leaves_its_server_alone(store: Store) {
    let server = store.server("edge-1").await;
    let window = planned(&store, server.id, 60, 30).await;
    assert_eq!(turn(&store, server.id, 90).await, None);
    assert_eq!(store.servers.get(server.id).await.unwrap(), server);
    let missed = store.windows.get(window.id).await.unwrap();
    assert!(missed.was_missed() && missed.ended_at.is_none(), "{missed:?}");
    store.check_log(&["server.create", "maintenance.create", "maintenance.complete"]).await;
}

async fn an_update_from_an_old_revision_is_stale(store: Store) {
    let server = store.server("edge-1").await;
    let window = planned(&store, server.id, 60, 30).await;
    let called = |text: &str| WindowPatch { title: Some(name(text)), ..WindowPatch::default() };
    let after = patch(&store, &window, 1, called("fans")).await.unwrap();
    assert_eq!(store.windows.get(window.id).await.unwrap(), after);
    check_stale(patch(&store, &window, 2, called("boards")).await, 2);
    turn(&store, server.id, 60).await;
    // Who has not seen that it began must not move it.
    let moved = WindowPatch { scheduled_for: Some(minute(500)), ..WindowPatch::default() };
    check_stale(patch(&store, &after, 61, moved).await, 3);
    assert_eq!(server_status(&store, server.id).await, ServerStatus::Maintenance);
}

async fn nobody_changes_the_status_of_a_server_in_a_window(store: Store) {
    let before = store.server("edge-1").await;
    let window = planned(&store, before.id, 0, 30).await;
    let held = store.servers.get(before.id).await.unwrap();
    let change = || Change::from(entry("server.update"));
    let online = held.with_status(ServerStatus::Online, minute(1)).unwrap();
    let reason = check_conflict(store.servers.update(online, change()).await, "maintenance_in_progress");
    assert!(reason.contains(&format!("/maintenance/{}", window.id)), "{reason}");
    let cordoned = held.with_cordon(true, minute(1)).unwrap();
    let held = store.servers.update(cordoned, change()).await.unwrap().value;
    assert_eq!(held.status, ServerStatus::Maintenance);
    patch(&store, &window, 2, to_status(WindowStatus::Completed)).await.unwrap();
    let free = store.servers.get(before.id).await.unwrap();
    assert_eq!((free.status, free.cordoned), (ServerStatus::Online, true));
    let offline = free.with_status(ServerStatus::Offline, minute(3)).unwrap();
    store.servers.update(offline, change()).await.unwrap();

    // Nobody sees by the revision that a window began on what is in maintenance already.
    let maintained = store.servers.get(before.id).await.unwrap().with_status(ServerStatus::Maintenance, minute(4));
    let maintained = store.servers.update(maintained.unwrap(), change()).await.unwrap().value;
    let window = planned(&store, before.id, 0, 30).await;
    assert_eq!(store.servers.get(before.id).await.unwrap(), maintained);
    let online = maintained.with_status(ServerStatus::Online, minute(5)).unwrap();
    check_conflict(store.servers.update(online, change()).await, "maintenance_in_progress");
    patch(&store, &window, 6, to_status(WindowStatus::Completed)).await.unwrap();
    assert_eq!(server_status(&store, before.id).await, ServerStatus::Maintenance, "its operators had it so");
}

async fn windows_go_with_their_server(store: Store) {
    let (server, other) = (store.server("edge-1").await, store.server("edge-2").await);
    let gone = [planned(&store, server.id, 0, 30).await, planned(&store, server.id, 60, 30).await];
    let kept = planned(&store, other.id, 60, 30).await;
    let server = store.servers.get(server.id).await.unwrap();
    let entry = entry_at("server.delete", 1).deleted(&server);
    store.servers.delete(server, entry.into()).await.unwrap();
    for window in gone {
        check_not_found(store.windows.get(window.id).await);
    }
    assert_eq!(store.windows.due(minute(60)).await.unwrap(), [other.id]);
    let next = planned(&store, other.id, 60, 30).await;
    assert!(next.id > kept.id, "an id that audit rows name is not given again");
}

async fn windows_are_found_by_server_status_and_whether_they_are_to_come(store: Store) {
    let (a, b) = (store.server("edge-1").await.id, store.server("edge-2").await.id);
    let mut ids = Vec::new();
    for (server, from) in [(a, 0), (a, 60), (b, 0), (b, 500), (b, 600)] {
        ids.push(planned(&store, server, from, 30).await.id);
    }
    turn(&store, b, 30).await;
    let last = store.windows.get(ids[4]).await.unwrap();
    patch(&store, &last, 31, to_status(WindowStatus::Cancelled)).await.unwrap();
    let check = async |filter: WindowFilter, expected: &[usize]| {
        let found = store.windows.list(filter.clone(), PageRequest::default()).await.unwrap();
        let expected: Vec<_> = expected.iter().map(|n| ids[*n]).collect();
        assert_eq!(found.items.iter().map(|window| window.id).collect::<Vec<_>>(), expected, "{filter:?}");
        assert_eq!(found.total, i64::try_from(expected.len()).unwrap());
    };
    let all = WindowFilter::default();
    check(all.clone(), &[4, 3, 2, 1, 0]).await;
    check(WindowFilter { servers: vec![a], ..all.clone() }, &[1, 0]).await;
    check(WindowFilter { servers: vec![a, b], ..all.clone() }, &[4, 3, 2, 1, 0]).await;
    check(WindowFilter { servers: vec![ServerId(99)], ..all.clone() }, &[]).await;
    check(WindowFilter { upcoming_only: true, ..all.clone() }, &[3, 1, 0]).await;
    for (status, expected) in [
        (WindowStatus::Scheduled, &[3, 1][..]),
        (WindowStatus::InProgress, &[0]),
        (WindowStatus::Completed, &[2]),
        (WindowStatus::Cancelled, &[4]),
    ] {
        check(WindowFilter { status: Some(status), ..all.clone() }, expected).await;
    }
    check(WindowFilter { status: Some(WindowStatus::Completed), upcoming_only: true, ..all }, &[]).await;
}

async fn pages_neither_repeat_nor_skip(store: Store) {
    let server = store.server("edge-1").await.id;
    for _ in 0..5 {
        planned(&store, server, 60, 30).await;
    }
    for limit in [1, 2, 5] {
        let list = |page| store.windows.list(WindowFilter::default(), page);
        let there = list(PageRequest::default()).await.unwrap().items;
        let n = Cell::new(0);
        let meanwhile = || async {
            n.set(n.get() + 1);
            planned(&store, server, 60 + n.get(), 30).await;
        };
        assert_eq!(walk(limit, list, meanwhile).await, there, "{limit} at a time");
    }
}

async fn windows_are_found_by_the_time_that_they_take(store: Store) {
    let (a, b, c) = (store.server("a").await.id, store.server("b").await.id, store.server("c").await.id);
    let long = planned(&store, b, 0, 1440).await;
    let late = planned(&store, a, 60, 30).await;
    let early = planned(&store, a, 50, 30).await;
    planned(&store, c, 60, 30).await;
    let ended = patch(&store, &long, 20, to_status(WindowStatus::Completed)).await.unwrap();
    assert_eq!(ended.span(), Some(Span { from: start(), until: minute(20) }));
    let check = async |from: i64, until: i64, expected: &[WindowId]| {
        let found = store.windows.overlapping(vec![b, a], minute(from), minute(until)).await.unwrap();
        assert_eq!(found.iter().map(|window| window.id).collect::<Vec<_>>(), expected, "{from} to {until}");
    };
    check(-100, 0, &[]).await;
    check(-100, 1, &[long.id]).await;
    check(20, 50, &[]).await;
    check(0, 10_000, &[early.id, late.id, long.id]).await;
    check(79, 80, &[early.id, late.id]).await;
    check(80, 81, &[late.id]).await;
    check(90, 10_000, &[]).await;
    patch(&store, &late, 30, to_status(WindowStatus::Cancelled)).await.unwrap();
    check(80, 81, &[]).await;
    assert_eq!(store.windows.overlapping(Vec::new(), start(), minute(10_000)).await.unwrap(), []);
    let many = (1000..2300).map(ServerId).chain([b]).collect();
    assert_eq!(store.windows.overlapping(many, start(), minute(10_000)).await.unwrap(), [ended]);
}

async fn whoever_ends_a_window_first_ends_it_alone(store: Store) {
    let server = store.server("edge-1").await;
    let window = planned(&store, server.id, 0, 30).await;
    let store = Arc::new(store);
    let other = Arc::new(store.second_process());
    let racing = at_once((0..8).map(|n| {
        let (store, other, window) = (store.clone(), other.clone(), window.clone());
        async move {
            let process: &Process = if n % 2 == 0 { &store } else { &other };
            if n < 4 {
                let ended = patch(process, &window, 31, to_status(WindowStatus::Cancelled)).await;
                return match ended {
                    Err(Error::Stale { .. }) => false,
                    ended => ended.is_ok(),
                };
            }
            let by = entry_at("maintenance.update", 31);
            process.windows.turn(window.server_id, Reach::NoAgent, by).await.unwrap().is_some()
        }
    }));
    assert_eq!(racing.await.into_iter().filter(|ended| *ended).count(), 1);
    let free = store.servers.get(server.id).await.unwrap();
    assert_eq!((free.status, free.revision), (ServerStatus::Online, server.revision + 2));
    assert!(!store.windows.get(window.id).await.unwrap().is_open());
    store.check_chain(6).await;
}

use super::*;
use crate::{
    clock::Timestamp,
    fleet::{Architecture, MockServers, ServerStatus},
    identity::{Role, Room, Scopes},
    ids::PoolId,
    patch::Patch,
    testing::{START, TestClock, alice, name, once},
    text::Tags,
    units::Resources,
};
use chrono::TimeDelta;
use std::{collections::BTreeMap, sync::Mutex};

const ID: ServerId = ServerId(7);

fn new_server() -> NewServer {
    NewServer {
        name: name("edge-1"),
        architecture: Architecture::Arm64,
        status: ServerStatus::Online,
        capacity: Resources { cpu_millis: 8000, memory_mib: 16_384, storage_mib: 102_400, gpus: 2 },
        gpu_model: Some("H100".to_owned()),
        location: Some("Rack 3".to_owned()),
        cluster: Some("north".to_owned()),
        zone: Some("a".to_owned()),
        pool_id: Some(PoolId(3)),
        tags: Tags::parse(pairs(&[("env", "prod"), ("team", "core")])).unwrap(),
    }
}

fn server(revision: i64) -> Server {
    Server { revision, ..new_server().into_server(ID, START) }
}

fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn stale() -> Error {
    Error::Stale { what: "server 7".to_owned(), current: 99 }
}

/// A service over this mock, where no key was used before.
fn service(mut servers: MockServers) -> ServerService {
    servers.expect_answered().returning(|_, _| Ok(None));
    let clock = TestClock::start();
    clock.advance(TimeDelta::minutes(5));
    ServerService::new(Arc::new(servers), clock)
}

#[tokio::test]
async fn a_cordon_is_answered_again_though_its_server_is_gone() {
    // Without further expectations the mock fails the test if the server is looked for.
    let mut servers = MockServers::new();
    servers.expect_answered().times(2).returning(|_, _| Ok(Some(server(2))));
    let fleet = ServerService::new(Arc::new(servers), TestClock::start());
    let expected = Done { value: server(2), replayed: true };
    assert_eq!(fleet.server_cordon(&alice(Role::Operator), ID, Some(once())).await.unwrap(), expected);
    assert_eq!(fleet.server_uncordon(&alice(Role::Operator), ID, Some(once())).await.unwrap(), expected);
}

fn moved_to(place: &str) -> ServerPatch {
    ServerPatch { location: Patch::Set(place.to_owned()), ..ServerPatch::default() }
}

/// Answers a write as the database does, and keeps what went with it.
fn written(mock: &mut MockServers) -> Arc<Mutex<Vec<(Server, Change)>>> {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&kept);
    mock.expect_update().returning(move |server, change| {
        keep.lock().unwrap().push((server.clone(), change));
        Ok(Done { value: server, replayed: false })
    });
    kept
}

#[tokio::test]
async fn who_may_not_change_servers_changes_nothing() {
    let pools_only = crate::identity::Actor { scopes: Scopes::only([Room::Pools]), ..alice(Role::Operator) };
    // A mock without expectations fails the test at the first call.
    let fleet = service(MockServers::new());
    for actor in [alice(Role::Viewer), alice(Role::Approver), pools_only] {
        let outcomes = [
            fleet.server_create(&actor, new_server(), None).await.err(),
            fleet.server_update(&actor, ID, None, moved_to("Rack 4")).await.err(),
            fleet.server_delete(&actor, ID, None).await.err(),
            fleet.server_cordon(&actor, ID, None).await.err(),
            fleet.server_uncordon(&actor, ID, None).await.err(),
        ];
        for outcome in outcomes {
            assert!(matches!(outcome, Some(Error::Forbidden { .. })), "{outcome:?}");
        }
    }
}

#[tokio::test]
async fn who_may_not_see_the_fleet_reads_nothing() {
    let actor = crate::identity::Actor { scopes: Scopes::only([Room::Pools]), ..alice(Role::Admin) };
    let fleet = service(MockServers::new());
    let page = PageRequest::default();
    let listed = fleet.server_list(&actor, ServerFilter::default(), ServerSort::NEWEST_FIRST, page).await;
    assert!(matches!(listed, Err(Error::Forbidden { .. })));
    assert!(matches!(fleet.server_get(&actor, ID).await, Err(Error::Forbidden { .. })));
}

#[tokio::test]
async fn a_creation_carries_its_entry_and_its_key() {
    let mut mock = MockServers::new();
    mock.expect_create().times(1).returning(|server, change| {
        let entry = &change.entry;
        assert_eq!((entry.action.as_str(), entry.actor.as_str()), ("server.create", "user:alice"));
        assert_eq!(entry.request_id.as_deref(), Some("r-1"));
        assert_eq!(change.once, Some(once()));
        Ok(Done { value: server.into_server(ID, entry.created_at), replayed: true })
    });
    let done = service(mock).server_create(&alice(Role::Operator), new_server(), Some(once())).await.unwrap();
    assert_eq!((done.value.id, done.replayed), (ID, true));
}

#[tokio::test]
async fn an_update_without_a_revision_starts_again_from_the_newest_state() {
    let mut mock = MockServers::new();
    let mut revision = 1;
    mock.expect_get().times(3).returning(move |_| {
        revision += 1;
        Ok(Server { zone: Some(format!("zone-{revision}")), ..server(revision) })
    });
    let mut tries = 0;
    mock.expect_update().times(3).returning(move |server, change| {
        tries += 1;
        assert_eq!(change.entry.after, Some(serde_json::to_value(&server).unwrap()));
        if tries < 3 { Err(stale()) } else { Ok(Done { value: server, replayed: false }) }
    });
    let after = service(mock).server_update(&alice(Role::Operator), ID, None, moved_to("Rack 4")).await.unwrap();
    assert_eq!(after.revision, 5, "one above the newest revision that was read");
    assert_eq!((after.location.as_deref(), after.zone.as_deref()), (Some("Rack 4"), Some("zone-4")));
}

#[tokio::test]
async fn an_update_gives_up_when_others_are_always_faster() {
    let mut mock = MockServers::new();
    mock.expect_get().times(TRIES).returning(|_| Ok(server(1)));
    mock.expect_update().times(TRIES).returning(|_, _| Err(stale()));
    let outcome = service(mock).server_update(&alice(Role::Operator), ID, None, moved_to("Rack 4")).await;
    assert!(matches!(outcome, Err(Error::Conflict { code: "busy", .. })), "{outcome:?}");
}

#[tokio::test]
async fn an_update_at_a_revision_is_tried_once() {
    let mut mock = MockServers::new();
    mock.expect_get().times(1).returning(|_| Ok(server(4)));
    mock.expect_update().times(1).returning(|_, _| Err(stale()));
    let outcome = service(mock).server_update(&alice(Role::Operator), ID, Some(4), moved_to("Rack 4")).await;
    assert!(matches!(outcome, Err(Error::Stale { .. })), "{outcome:?}");
}

#[tokio::test]
async fn a_change_meant_for_another_revision_writes_nothing() {
    let mut mock = MockServers::new();
    mock.expect_get().times(2).returning(|_| Ok(server(4)));
    let fleet = service(mock);
    let updated = fleet.server_update(&alice(Role::Operator), ID, Some(3), moved_to("Rack 4")).await.err();
    let deleted = fleet.server_delete(&alice(Role::Operator), ID, Some(5)).await.err();
    for outcome in [updated, deleted] {
        assert!(matches!(outcome, Some(Error::Stale { current: 4, .. })), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_refused_write_is_not_tried_again() {
    let mut mock = MockServers::new();
    mock.expect_get().times(1).returning(|_| Ok(server(1)));
    mock.expect_update().times(1).returning(|_, _| Err(Error::conflict("name_taken", "there is an edge-1 already")));
    let outcome = service(mock).server_update(&alice(Role::Operator), ID, None, moved_to("Rack 4")).await;
    assert!(matches!(outcome, Err(Error::Conflict { code: "name_taken", .. })), "{outcome:?}");
}

#[tokio::test]
async fn an_update_is_recorded_with_before_and_after() {
    let mut mock = MockServers::new();
    mock.expect_get().returning(|_| Ok(server(1)));
    let written = written(&mut mock);
    service(mock).server_update(&alice(Role::Admin), ID, Some(1), moved_to("Rack 4")).await.unwrap();
    let (after, Change { entry, once }) = written.lock().unwrap().remove(0);
    assert_eq!((entry.action.as_str(), entry.target.as_deref()), ("server.update", Some("server:7")));
    assert_eq!((entry.actor.as_str(), entry.request_id.as_deref()), ("user:alice", Some("r-1")));
    assert_eq!(entry.before, Some(serde_json::to_value(server(1)).unwrap()));
    assert_eq!(entry.after, Some(serde_json::to_value(&after).unwrap()));
    assert_eq!((entry.created_at, after.updated_at), (START + TimeDelta::minutes(5), START + TimeDelta::minutes(5)));
    assert_eq!((after.revision, after.created_at, once), (2, START, None));
}

#[tokio::test]
async fn cordoning_and_uncordoning_are_recorded_and_change_nothing_else() {
    for (operation, cordoned) in [("server.cordon", true), ("server.uncordon", false)] {
        let mut mock = MockServers::new();
        let before = Server { cordoned: !cordoned, ..server(1) };
        let found = before.clone();
        mock.expect_get().returning(move |_| Ok(found.clone()));
        let written = written(&mut mock);
        let (fleet, actor) = (service(mock), alice(Role::Operator));
        let done = if cordoned {
            fleet.server_cordon(&actor, ID, Some(once())).await.unwrap()
        } else {
            fleet.server_uncordon(&actor, ID, Some(once())).await.unwrap()
        };
        let expected = Server { cordoned, revision: 2, updated_at: START + TimeDelta::minutes(5), ..before.clone() };
        assert_eq!(done, Done { value: expected, replayed: false });
        let (_, change) = written.lock().unwrap().remove(0);
        assert_eq!((change.entry.action.as_str(), change.entry.target.as_deref()), (operation, Some("server:7")));
        assert_eq!(change.entry.before.unwrap()["cordoned"], !cordoned);
        assert_eq!(change.entry.after.unwrap()["cordoned"], cordoned);
        assert_eq!(change.once, Some(once()));
    }
}

#[tokio::test]
async fn cordoning_a_cordoned_server_writes_nothing() {
    let mut mock = MockServers::new();
    mock.expect_get().times(1).returning(|_| Ok(Server { cordoned: true, ..server(3) }));
    mock.expect_confirm().times(1).returning(|server, change| {
        assert_eq!(change.once, Some(once()), "a repetition of this gets this answer");
        Ok(Done { value: server, replayed: false })
    });
    let done = service(mock).server_cordon(&alice(Role::Operator), ID, Some(once())).await.unwrap();
    assert_eq!((done.value.cordoned, done.value.revision, done.replayed), (true, 3, false));

    let mut mock = MockServers::new();
    mock.expect_get().times(1).returning(|_| Ok(server(3)));
    let done = service(mock).server_uncordon(&alice(Role::Operator), ID, None).await.unwrap();
    assert_eq!((done.value.cordoned, done.value.revision), (false, 3));
}

#[tokio::test]
async fn a_removal_is_recorded_with_what_was_there() {
    let mut mock = MockServers::new();
    mock.expect_get().returning(|_| Ok(server(2)));
    mock.expect_delete().times(1).returning(|removed, change| {
        assert_eq!(removed, server(2));
        assert_eq!((change.entry.action.as_str(), change.entry.target.as_deref()), ("server.delete", Some("server:7")));
        assert_eq!(change.entry.before, Some(serde_json::to_value(removed).unwrap()));
        assert_eq!(change.entry.after, None);
        Ok(Done { value: (), replayed: false })
    });
    service(mock).server_delete(&alice(Role::Operator), ID, Some(2)).await.unwrap();
}

#[tokio::test]
async fn a_patch_that_makes_no_valid_server_writes_nothing() {
    let mut mock = MockServers::new();
    let reserved = Resources { cpu_millis: 2000, ..Resources::default() };
    mock.expect_get().times(1).returning(move |_| Ok(Server { reserved, ..server(1) }));
    let patch = ServerPatch { total_cpu_millis: Some(1999), ..ServerPatch::default() };
    let outcome = service(mock).server_update(&alice(Role::Operator), ID, None, patch).await;
    assert!(matches!(outcome, Err(Error::Invalid { .. })), "{outcome:?}");
}

#[track_caller]
fn check_patch(patch: ServerPatch, expected: impl FnOnce(Server) -> Server) {
    let now: Timestamp = START + TimeDelta::minutes(1);
    let before = Server { reserved: Resources { gpus: 1, ..Resources::default() }, cordoned: true, ..server(1) };
    let after = before.patched(patch, now).unwrap();
    assert_eq!(after, expected(Server { revision: 2, updated_at: now, ..before }));
}

fn tag_changes(changes: &[(&str, Option<&str>)]) -> Patch<BTreeMap<String, Option<String>>> {
    Patch::Set(changes.iter().map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned))).collect())
}

#[test]
fn a_patch_keeps_what_it_does_not_mention() {
    check_patch(ServerPatch::default(), |before| before);
    check_patch(moved_to("Rack 4"), |before| Server { location: Some("Rack 4".to_owned()), ..before });
    let patch = ServerPatch {
        name: Some(name("edge-2")),
        architecture: Some(Architecture::Riscv64),
        status: Some(ServerStatus::Maintenance),
        ..ServerPatch::default()
    };
    check_patch(patch, |before| Server {
        name: name("edge-2"),
        architecture: Architecture::Riscv64,
        status: ServerStatus::Maintenance,
        ..before
    });
    let patch = ServerPatch { total_memory_mib: Some(1), ..ServerPatch::default() };
    check_patch(patch, |before| Server { capacity: Resources { memory_mib: 1, ..before.capacity }, ..before });
}

#[test]
fn null_clears_what_need_not_have_a_value() {
    let patch = ServerPatch {
        gpu_model: Patch::Clear,
        location: Patch::Clear,
        cluster: Patch::Clear,
        zone: Patch::Clear,
        tags: Patch::Clear,
        ..ServerPatch::default()
    };
    check_patch(patch, |before| Server {
        gpu_model: None,
        location: None,
        cluster: None,
        zone: None,
        tags: Tags::default(),
        ..before
    });
}

#[test]
fn tags_are_merged() {
    let check = |changes: &[(&str, Option<&str>)], expected: &[(&str, &str)]| {
        let patch = ServerPatch { tags: tag_changes(changes), ..ServerPatch::default() };
        check_patch(patch, |before| Server { tags: Tags::parse(pairs(expected)).unwrap(), ..before });
    };
    check(&[], &[("env", "prod"), ("team", "core")]);
    check(&[("env", Some("test")), ("new", Some(""))], &[("env", "test"), ("new", ""), ("team", "core")]);
    check(&[("env", None), ("unknown", None)], &[("team", "core")]);
}

#[test]
fn a_capacity_cannot_shrink_below_what_is_reserved() {
    let reserved = Resources { cpu_millis: 4000, memory_mib: 1024, storage_mib: 2048, gpus: 1 };
    let busy = Server { reserved, ..server(1) };
    let patch = |cpu, memory, storage, gpus| ServerPatch {
        total_cpu_millis: Some(cpu),
        total_memory_mib: Some(memory),
        total_storage_mib: Some(storage),
        total_gpus: Some(gpus),
        tags: tag_changes(&[("not a key", Some("x"))]),
        ..ServerPatch::default()
    };
    let exact = ServerPatch { tags: Patch::Keep, ..patch(4000, 1024, 2048, 1) };
    assert_eq!(busy.patched(exact, START).unwrap().available(), Resources::default());
    let refused = busy.patched(patch(3999, 1023, 2047, 0), START);
    let Err(Error::Invalid { errors }) = refused else { panic!("{refused:?}") };
    let fields: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
    assert_eq!(fields, ["total_cpu", "total_memory", "total_storage", "total_gpu", "tags"]);
    let refused = busy.patched(ServerPatch { total_gpus: Some(0), ..ServerPatch::default() }, START);
    assert!(matches!(refused, Err(Error::Invalid { errors }) if errors[0].field == "total_gpu"));
}

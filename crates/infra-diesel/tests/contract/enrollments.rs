//! The port `Enrollments`.

use crate::{
    on_both,
    store::{
        Process, Store, at, at_once, change, check_conflict, check_not_found, entry_at, inventory, millis, new_agent,
        new_enrollment, new_server, new_task, once, placement, resources, tags, walk,
    },
};
use domain::{
    Error, Result,
    change::Done,
    fleet::{
        AgentAccount, Agents, Architecture, Enrollment, EnrollmentRequest, Enrollments, NewAgent, NewEnrollment,
        NewServer, Server, ServerFilter, ServerSort, ServerStatus, Servers,
    },
    identity::{Credential, Sessions},
    ids::{EnrollmentId, PoolId, ServerId},
    page::PageRequest,
    pools::Pools,
    scheduling::{NewTask, Placed, TaskSpec, Tasks},
};
use std::{cell::Cell, fmt::Debug, sync::Arc};

on_both!(
    a_join_token_is_read_back_as_it_was_made,
    a_join_token_is_for_a_pool_that_exists,
    what_is_not_there_is_not_found,
    a_join_token_is_made_once_under_its_key,
    pages_neither_repeat_nor_skip,
    a_machine_that_joins_becomes_a_server_with_an_agent,
    a_join_token_is_checked_again_when_it_is_used,
    nobody_joins_with_a_token_that_was_deleted,
    of_machines_that_want_the_last_use_one_joins,
    of_machines_of_one_name_one_joins,
    a_join_that_fails_leaves_nothing_behind,
    a_registered_server_becomes_the_machines,
    a_server_that_may_be_another_machine_is_left_alone,
    an_agent_that_was_never_heard_of_gets_another_token,
);

/// A token with this much of it different.
async fn made(store: &Store, text: &str, request: impl FnOnce(&mut EnrollmentRequest)) -> Enrollment {
    let mut new = new_enrollment(text);
    request(&mut new.request);
    store.enrollments.create(new, change("enrollment.create")).await.unwrap().value
}

async fn uses(store: &Store, enrollment: &Enrollment) -> u32 {
    store.enrollments.get(enrollment.id).await.unwrap().uses
}

async fn servers(process: &Process) -> Vec<Server> {
    let sort = ServerSort::parse("id").unwrap();
    process.list(ServerFilter::default(), sort, PageRequest::default()).await.unwrap().items
}

#[track_caller]
fn check_unauthenticated<T: Debug>(outcome: Result<T>) -> String {
    match outcome {
        Err(Error::Unauthenticated { reason }) => reason,
        other => panic!("expected that the token opens nothing: {other:?}"),
    }
}

async fn a_join_token_is_read_back_as_it_was_made(store: Store) {
    let pool = store.pool("edge").await;
    let plain = new_enrollment("plain");
    let full = EnrollmentRequest {
        pool_id: Some(pool.id),
        tags: tags(&[("rack", "7"), ("team", "")]),
        max_uses: 10_000,
        ..new_enrollment("full").request
    };
    for new in [plain, NewEnrollment { request: full, ..new_enrollment("full") }] {
        let done = store.enrollments.create(new.clone(), entry_at("enrollment.create", 5).into()).await.unwrap();
        let enrollment = Enrollment {
            id: done.value.id,
            name: new.request.name,
            pool_id: new.request.pool_id,
            tags: new.request.tags,
            max_uses: new.request.max_uses,
            uses: 0,
            expires_at: at(3600),
            created_by: "user:alice".to_owned(),
            created_at: at(5),
        };
        assert_eq!(done, Done { value: enrollment.clone(), replayed: false });
        assert_eq!(store.enrollments.get(enrollment.id).await.unwrap(), enrollment);
        assert_eq!(store.enrollments.find(&new.secret_digest).await.unwrap(), Some(enrollment.clone()));
        let row = store.last_row().await;
        assert_eq!(row.entry.target, Some(format!("enrollment:{}", enrollment.id)));
        assert_eq!(row.entry.after, Some(serde_json::to_value(&enrollment).unwrap()));
        assert!(!serde_json::to_string(&row).unwrap().contains(&new.secret_digest), "no digest in the log");
    }
    assert_eq!(store.enrollments.find("join-other").await.unwrap(), None);
    let opened = store.sessions.find_credential("join-plain").await.unwrap();
    assert_eq!(opened, None, "whoever has it can join, and do nothing else");
    store.check_log(&["pool.create", "enrollment.create", "enrollment.create"]).await;
}

async fn a_join_token_is_for_a_pool_that_exists(store: Store) {
    let mut new = new_enrollment("lost");
    new.request.pool_id = Some(PoolId(7));
    let refused = store.enrollments.create(new, change("enrollment.create")).await;
    let Err(Error::Invalid { errors }) = refused else { panic!("{refused:?}") };
    assert_eq!(errors[0].field, "pool_id");
    store.check_log(&[]).await;
}

async fn what_is_not_there_is_not_found(store: Store) {
    check_not_found(store.enrollments.get(EnrollmentId(1)).await);
    let enrollment = store.enrollment("rack").await;
    let entry = entry_at("enrollment.delete", 9).deleted(&enrollment);
    store.enrollments.delete(enrollment.clone(), entry.into()).await.unwrap();
    check_not_found(store.enrollments.get(enrollment.id).await);
    check_not_found(store.enrollments.delete(enrollment.clone(), change("enrollment.delete")).await);
    assert_eq!(store.enrollments.find("join-rack").await.unwrap(), None);
    assert!(store.enrollment("rack").await.id > enrollment.id, "an id that audit rows name is not given again");
    store.check_log(&["enrollment.create", "enrollment.delete", "enrollment.create"]).await;
}

async fn a_join_token_is_made_once_under_its_key(store: Store) {
    let create = || store.enrollments.create(new_enrollment("rack"), once("enrollment.create", "k-1", 0));
    let first = create().await.unwrap();
    assert!(!first.replayed);
    assert_eq!(create().await.unwrap(), Done { value: first.value, replayed: true });
    store.check_log(&["enrollment.create"]).await;
}

async fn pages_neither_repeat_nor_skip(store: Store) {
    for n in 0..5 {
        store.enrollment(&format!("rack-{n}")).await;
    }
    for limit in [1, 2, 5] {
        let list = |page| store.enrollments.list(page);
        let there = list(PageRequest::default()).await.unwrap();
        assert!(there.items.windows(2).all(|pair| pair[0].id > pair[1].id), "newest first");
        assert_eq!(there.total, i64::try_from(there.items.len()).unwrap());
        let n = Cell::new(0);
        let meanwhile = || async {
            n.set(n.get() + 1);
            store.enrollment(&format!("new-{limit}-{}", n.get())).await;
        };
        assert_eq!(walk(limit, list, meanwhile).await, there.items, "{limit} at a time");
    }
}

async fn a_machine_that_joins_becomes_a_server_with_an_agent(store: Store) {
    assert_eq!(servers(&store).await, []);
    let pool = store.pool("edge").await;
    let enrollment = made(&store, "rack", |request| {
        request.pool_id = Some(pool.id);
        request.tags = tags(&[("rack", "7")]);
    })
    .await;
    let machine = NewServer { gpu_model: Some("H100".to_owned()), ..new_server("edge-1") };
    let change = entry_at("agent.enroll", 60).into();
    let done =
        store.enrollments.join(enrollment.id, machine.clone(), inventory(), new_agent("edge-1"), change).await.unwrap();
    let server = done.value;
    let admitted = enrollment.admitted(machine, inventory(), at(60));
    assert_eq!(server, Server { id: server.id, ..admitted });
    assert_eq!((server.pool_id, &server.tags), (Some(pool.id), &enrollment.tags));
    assert_eq!(store.servers.get(server.id).await.unwrap(), server);
    assert_eq!(servers(&store).await, std::slice::from_ref(&server));

    let account = AgentAccount { server_id: server.id, place: "place-edge-1".to_owned(), enrolled_at: at(60) };
    assert_eq!(store.agents.get(server.id).await.unwrap(), Some(account));
    let credential = Credential::Agent { server: server.id, name: "edge-1".to_owned() };
    assert_eq!(store.sessions.find_credential("agent-edge-1").await.unwrap(), Some(credential));
    let used = store.enrollments.get(enrollment.id).await.unwrap();
    assert_eq!(used, Enrollment { uses: 1, ..enrollment });
    let row = store.last_row().await;
    assert_eq!(row.entry.target, Some(format!("server:{}", server.id)));
    assert_eq!((row.entry.before, row.entry.after), (None, Some(serde_json::to_value(&server).unwrap())));
    store.check_log(&["pool.create", "enrollment.create", "agent.enroll"]).await;
}

async fn a_join_token_is_checked_again_when_it_is_used(store: Store) {
    let enrollment = made(&store, "rack", |request| request.max_uses = 2).await;
    let join = |name: &'static str, seconds| {
        let change = entry_at("agent.enroll", seconds).into();
        store.enrollments.join(enrollment.id, new_server(name), inventory(), new_agent(name), change)
    };
    let reason = check_unauthenticated(join("late", 3600).await);
    assert!(reason.contains("\"rack\" expired"), "{reason}");
    join("edge-1", 3599).await.unwrap();
    join("edge-2", 0).await.unwrap();
    let reason = check_unauthenticated(join("edge-3", 1).await);
    assert!(reason.contains("good for 2 servers"), "{reason}");
    assert_eq!((uses(&store, &enrollment).await, servers(&store).await.len()), (2, 2));
    store.check_log(&["enrollment.create", "agent.enroll", "agent.enroll"]).await;
}

async fn nobody_joins_with_a_token_that_was_deleted(store: Store) {
    let enrollment = store.enrollment("rack").await;
    let server = store.join(&enrollment, "edge-1").await.unwrap();
    let found = store.enrollments.find("join-rack").await.unwrap().unwrap();
    store.second_process().enrollments.delete(enrollment, change("enrollment.delete")).await.unwrap();
    let reason = check_unauthenticated(store.join(&found, "edge-2").await);
    assert!(reason.contains("POST /enrollments"), "{reason}");
    assert_eq!(servers(&store).await, std::slice::from_ref(&server), "who joined with it stays");
    assert!(store.agents.get(server.id).await.unwrap().is_some());
    store.check_log(&["enrollment.create", "agent.enroll", "enrollment.delete"]).await;
}

fn two(store: &Store) -> [Arc<Process>; 2] {
    [Arc::new(store.second_process()), Arc::new(store.second_process())]
}

async fn of_machines_that_want_the_last_use_one_joins(store: Store) {
    let processes = two(&store);
    for round in 0..10 {
        let enrollment = made(&store, &format!("rack-{round}"), |request| request.max_uses = 3).await;
        let outcomes = at_once((0..8).map(|n| {
            let (process, enrollment) = (Arc::clone(&processes[n % 2]), enrollment.clone());
            async move { process.join(&enrollment, &format!("edge-{round}-{n}")).await }
        }));
        let (joined, refused): (Vec<_>, Vec<_>) = outcomes.await.into_iter().partition(Result::is_ok);
        assert_eq!((joined.len(), uses(&store, &enrollment).await), (3, 3), "round {round}");
        for outcome in refused {
            check_unauthenticated(outcome);
        }
        assert_eq!(servers(&store).await.len(), 3 * (round + 1));
        assert_eq!(store.agents.servers().await.unwrap().len(), 3 * (round + 1));
    }
    store.check_chain(10 + 30).await;
}

async fn of_machines_of_one_name_one_joins(store: Store) {
    let processes = two(&store);
    let enrollment = store.enrollment("rack").await;
    for round in 0..10 {
        let outcomes = at_once((0..6).map(|n| {
            let (process, id) = (Arc::clone(&processes[n % 2]), enrollment.id);
            let agent = NewAgent { token_digest: format!("agent-{round}-{n}"), place: "here".to_owned() };
            let machine = new_server(&format!("edge-{round}"));
            async move { process.enrollments.join(id, machine, inventory(), agent, change("agent.enroll")).await }
        }));
        let (joined, refused): (Vec<_>, Vec<_>) = outcomes.await.into_iter().partition(Result::is_ok);
        assert_eq!(joined.len(), 1, "round {round}");
        for outcome in refused {
            let reason = check_conflict(outcome, "name_taken");
            assert!(reason.contains("has an agent"), "{reason}");
        }
    }
    assert_eq!((uses(&store, &enrollment).await, servers(&store).await.len()), (10, 10));
    store.check_chain(1 + 10).await;
}

async fn a_join_that_fails_leaves_nothing_behind(store: Store) {
    let pool = store.pool("edge").await;
    let lost = made(&store, "lost", |request| request.pool_id = Some(pool.id)).await;
    store.pools.delete(pool, change("pool.delete")).await.unwrap();
    let enrollment = store.enrollment("rack").await;
    let first = store.join(&enrollment, "edge-1").await.unwrap();
    let registered = store.server("edge-2").await;
    let before = store.log().await.len();

    let reason = check_conflict(store.join(&lost, "edge-3").await, "pool_gone");
    assert!(reason.contains("\"lost\""), "{reason}");
    check_conflict(store.join_as(&enrollment, "edge-1", new_agent("another")).await, "name_taken");
    // The agent's row is the last of all to be written, and refused for a token that is another's.
    for name in ["edge-2", "edge-3"] {
        let change = entry_at("agent.enroll", 60).into();
        let twin = store.enrollments.join(enrollment.id, new_server(name), inventory(), new_agent("edge-1"), change);
        assert!(matches!(twin.await, Err(Error::Internal { .. })), "{name}");
    }
    assert_eq!((uses(&store, &lost).await, uses(&store, &enrollment).await), (0, 1));
    assert_eq!(servers(&store).await, [first.clone(), registered.clone()]);
    assert_eq!(store.servers.get(registered.id).await.unwrap(), registered);
    assert_eq!(store.agents.servers().await.unwrap(), [first.id]);
    store.check_chain(before).await;
}

async fn a_registered_server_becomes_the_machines(store: Store) {
    let (pool, other) = (store.pool("edge").await, store.pool("other").await);
    let registered = NewServer {
        status: ServerStatus::Provisioning,
        capacity: resources(1),
        gpu_model: Some("H100".to_owned()),
        location: Some("Rack 7".to_owned()),
        cluster: Some("west".to_owned()),
        zone: Some("west-1a".to_owned()),
        pool_id: Some(pool.id),
        tags: tags(&[("env", "prod")]),
        ..new_server("edge-1")
    };
    let registered = store.servers.create(registered, change("server.create")).await.unwrap().value;
    let cordoned = registered.with_cordon(true, at(1)).unwrap();
    let before = store.servers.update(cordoned, change("server.cordon")).await.unwrap().value;
    assert_eq!(servers(&store).await, std::slice::from_ref(&before));
    let enrollment = made(&store, "rack", |request| {
        request.pool_id = Some(other.id);
        request.tags = tags(&[("env", "test"), ("rack", "7")]);
    })
    .await;

    let after = store.join(&enrollment, "edge-1").await.unwrap();
    let expected = Server {
        status: ServerStatus::Online,
        capacity: new_server("edge-1").capacity,
        tags: tags(&[("env", "prod"), ("rack", "7")]),
        inventory: inventory(),
        revision: before.revision + 1,
        updated_at: at(60),
        ..before.clone()
    };
    assert_eq!(after, expected);
    assert_eq!(store.servers.get(before.id).await.unwrap(), after);
    assert_eq!(servers(&store).await, std::slice::from_ref(&after));
    let row = store.last_row().await;
    assert_eq!(row.entry.before, Some(serde_json::to_value(&before).unwrap()));
    assert_eq!(row.entry.after, Some(serde_json::to_value(&after).unwrap()));
    assert_eq!((uses(&store, &enrollment).await, store.agents.servers().await.unwrap()), (1, vec![after.id]));
    let opened = store.sessions.find_credential("agent-edge-1").await.unwrap();
    assert_eq!(opened, Some(Credential::Agent { server: after.id, name: "edge-1".to_owned() }));
}

async fn a_server_that_may_be_another_machine_is_left_alone(store: Store) {
    let enrollment = store.enrollment("rack").await;
    let refused = async |server: ServerId, name: &str, words: &str| {
        let before = store.servers.get(server).await.unwrap();
        let joined = store.join_as(&enrollment, name, new_agent("another")).await;
        let reason = check_conflict(joined, "name_taken");
        assert!(reason.contains(words) && reason.contains("give this machine another name"), "{reason}");
        assert_eq!(store.servers.get(server).await.unwrap(), before);
    };
    let theirs = store.join(&enrollment, "theirs").await.unwrap();
    refused(theirs.id, "theirs", "has an agent").await;

    let busy = store.server("busy").await;
    let spec = TaskSpec { demand: millis(0), ..new_task("light").spec };
    let task = store.tasks.create(NewTask { spec }, change("task.create")).await.unwrap().value;
    assert_eq!(store.tasks.place(vec![placement(&task, busy.id)]).await.unwrap(), [Placed::Held]);
    refused(busy.id, "busy", "\"light\"").await;

    let reserved = store.server("reserved").await;
    store.sql(&format!("UPDATE servers SET reserved_gpus = 1 WHERE id = {}", reserved.id));
    refused(reserved.id, "reserved", "check the ledger").await;

    let arm = NewServer { architecture: Architecture::Arm64, ..new_server("arm") };
    let arm = store.servers.create(arm, change("server.create")).await.unwrap().value;
    refused(arm.id, "arm", "arm64").await;
    assert_eq!((uses(&store, &enrollment).await, store.agents.servers().await.unwrap()), (1, vec![theirs.id]));
}

async fn an_agent_that_was_never_heard_of_gets_another_token(store: Store) {
    let enrollment = made(&store, "rack", |request| request.max_uses = 1).await;
    let joined = store.join(&enrollment, "edge-1").await.unwrap();
    let again = || NewAgent { token_digest: "agent-again".to_owned(), ..new_agent("edge-1") };
    assert_eq!(store.join_as(&enrollment, "edge-1", again()).await.unwrap(), joined);
    let opened = async |digest: &str| store.sessions.find_credential(digest).await.unwrap();
    assert_eq!(opened("agent-edge-1").await, None, "its answer was lost");
    let agent = Credential::Agent { server: joined.id, name: "edge-1".to_owned() };
    assert_eq!(opened("agent-again").await, Some(agent.clone()));
    assert_eq!((uses(&store, &enrollment).await, servers(&store).await), (1, vec![joined.clone()]));
    let row = store.last_row().await;
    assert_eq!(row.entry.target, Some(format!("server:{}", joined.id)));

    store.agents.touch(vec![(joined.id, at(61))]).await.unwrap();
    check_unauthenticated(store.join_as(&enrollment, "edge-1", new_agent("edge-1")).await);
    assert_eq!(opened("agent-again").await, Some(agent));
}

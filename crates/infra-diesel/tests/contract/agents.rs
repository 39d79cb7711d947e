//! The port `Agents`, and what an agent's token opens.

use crate::{
    on_both,
    store::{
        Process, Store, agents_task, at, change, check_conflict, check_not_found, check_stale, entry_at, inventory,
        millis, placement, resources, server_in,
    },
    tasks::{check_reserved, write},
};
use domain::{
    change::Done,
    clock::Timestamp,
    feed::{Fact, Follower, State},
    fleet::{
        AgentAccount, Agents, Architecture, Driver, Inventory, Server, ServerFilter, ServerSort, ServerStatus, Servers,
    },
    identity::{Credential, Sessions},
    ids::ServerId,
    page::PageRequest,
    scheduling::{AttemptEnd, AttemptStatus, AttemptStep, Placed, Tasks},
    text::Tags,
    units::Resources,
};
use std::sync::{Arc, Mutex};

on_both!(
    an_agent_is_found_by_its_server,
    a_report_writes_what_the_machine_says_and_nothing_else,
    a_report_from_an_old_revision_is_stale,
    a_report_that_leaves_too_little_for_what_came_meanwhile_is_stale,
    where_an_agent_runs_is_noted_alone,
    when_agents_were_heard_of_only_goes_forward,
    a_thousand_agents_are_noted_at_once,
    who_follows_hears_when_agents_were_heard_of,
    an_agents_token_opens_its_server_and_nothing_once_that_is_deleted,
    what_an_agents_token_opened_is_forgotten_with_what_happens_to_its_server,
    a_server_with_work_keeps_its_agent,
    operators_go_on_to_decide_about_a_server_with_an_agent,
);

async fn listed(process: &Process, id: ServerId) -> Server {
    let page = process.list(ServerFilter::default(), ServerSort::NEWEST_FIRST, PageRequest::default()).await.unwrap();
    page.items.into_iter().find(|server| server.id == id).unwrap()
}

fn agent_of(server: &Server) -> Credential {
    Credential::Agent { server: server.id, name: server.name.to_string() }
}

async fn an_agent_is_found_by_its_server(store: Store) {
    let plain = store.server("plain").await;
    let (one, two) = (store.joined("one").await, store.joined("two").await);
    assert_eq!(store.agents.get(plain.id).await.unwrap(), None);
    assert_eq!(store.agents.get(ServerId(99)).await.unwrap(), None);
    let account = AgentAccount { server_id: two.id, place: "place-two".to_owned(), enrolled_at: at(60) };
    assert_eq!(store.agents.get(two.id).await.unwrap(), Some(account));
    assert_eq!(store.agents.servers().await.unwrap(), [one.id, two.id]);
}

/// Every member different, at the next revision.
fn turned(server: &Server) -> Server {
    let name = crate::store::name("other");
    Server {
        name,
        architecture: Architecture::Riscv64,
        status: ServerStatus::Offline,
        capacity: Resources { cpu_millis: 64_000, memory_mib: 1 << 20, storage_mib: 1 << 30, gpus: 8 },
        reserved: millis(7),
        gpu_model: Some("H100".to_owned()),
        location: Some("Rack 7".to_owned()),
        cluster: Some("west".to_owned()),
        zone: Some("west-1a".to_owned()),
        pool_id: None,
        tags: Tags::parse([("env".to_owned(), "test".to_owned())].into()).unwrap(),
        cordoned: true,
        inventory: Inventory {
            emulated_architectures: vec![Architecture::X86_64, Architecture::Arm64],
            drivers: vec![Driver::Exec],
            os: None,
            kernel: Some("6.12".to_owned()),
            agent_version: Some("0.2.0".to_owned()),
            last_seen_at: Some(at(999)),
        },
        revision: server.revision + 1,
        updated_at: at(90),
        ..server.clone()
    }
}

async fn a_report_writes_what_the_machine_says_and_nothing_else(store: Store) {
    let pool = store.pool("edge").await;
    let server = store.servers.create(server_in(pool.id, "edge-1"), change("server.create")).await.unwrap().value;
    let before = store.joined("edge-1").await;
    assert_eq!((before.id, before.pool_id), (server.id, Some(pool.id)));
    let task = store.task("night").await;
    assert_eq!(store.tasks.place(vec![placement(&task, server.id)]).await.unwrap(), [Placed::Held]);
    let told = turned(&before);
    let expected = Server {
        architecture: told.architecture,
        status: told.status,
        capacity: told.capacity,
        gpu_model: told.gpu_model.clone(),
        inventory: Inventory { last_seen_at: before.inventory.last_seen_at, ..told.inventory.clone() },
        revision: told.revision,
        updated_at: told.updated_at,
        reserved: millis(1000),
        ..before.clone()
    };
    listed(&store, server.id).await;
    let entry = entry_at("server.report", 90).moved(&told, before.condition(), told.condition());
    let done = store.agents.report(told, Some("elsewhere".to_owned()), entry.clone().into()).await.unwrap();
    assert_eq!(done, Done { value: expected.clone(), replayed: false });
    assert_eq!(store.servers.get(server.id).await.unwrap(), expected);
    assert_eq!(listed(&store, server.id).await, expected);
    assert_eq!(store.agents.get(server.id).await.unwrap().unwrap().place, "elsewhere");
    assert_eq!(store.last_row().await.entry, entry);
    check_reserved(&store, server.id, millis(1000)).await;

    // What cannot be told any more is unknown again, and an agent stays where it is unless it says so.
    let bare = Server { gpu_model: None, inventory: Inventory::default(), revision: 4, ..expected };
    let after = store.agents.report(bare.clone(), None, change("server.report")).await.unwrap().value;
    let inventory = Inventory { last_seen_at: before.inventory.last_seen_at, ..Inventory::default() };
    assert_eq!(after, Server { inventory, ..bare });
    assert_eq!(store.servers.get(server.id).await.unwrap(), after);
    assert_eq!(store.agents.get(server.id).await.unwrap().unwrap().place, "elsewhere");
}

async fn a_report_from_an_old_revision_is_stale(store: Store) {
    let server = store.joined("edge-1").await;
    let report = |server: &Server| {
        let place = Some("elsewhere".to_owned());
        store.agents.report(turned(server), place, change("server.report"))
    };
    let cordoned = server.with_cordon(true, at(70)).unwrap();
    let cordoned = store.servers.update(cordoned, change("server.cordon")).await.unwrap().value;
    check_stale(report(&server).await, 2);
    check_stale(report(&Server { revision: 7, ..server.clone() }).await, 2);
    check_not_found(report(&Server { id: ServerId(99), ..server.clone() }).await);
    // A server without an agent has nobody who would report from somewhere.
    let plain = store.server("plain").await;
    check_not_found(report(&plain).await);
    assert_eq!(store.servers.get(plain.id).await.unwrap(), plain);
    assert_eq!(store.servers.get(server.id).await.unwrap(), cordoned);
    assert_eq!(store.agents.get(server.id).await.unwrap().unwrap().place, "place-edge-1");
    store.check_log(&["enrollment.create", "agent.enroll", "server.cordon", "server.create"]).await;
}

async fn a_report_that_leaves_too_little_for_what_came_meanwhile_is_stale(store: Store) {
    let server = store.joined("edge-1").await;
    let shrunk = Server { capacity: resources(500), ..turned(&server) };
    let task = store.task("night").await;
    assert_eq!(store.tasks.place(vec![placement(&task, server.id)]).await.unwrap(), [Placed::Held]);
    check_stale(store.agents.report(shrunk.clone(), None, change("server.report")).await, 1);
    // Computed again from what is so now, it goes through.
    let enough = Server { capacity: resources(1000), ..shrunk };
    store.agents.report(enough, None, change("server.report")).await.unwrap();
    check_reserved(&store, server.id, millis(1000)).await;
}

async fn where_an_agent_runs_is_noted_alone(store: Store) {
    let server = store.joined("edge-1").await;
    let moved = |id| store.agents.moved(id, "elsewhere".to_owned(), change("agent.move"));
    assert_eq!(moved(server.id).await.unwrap(), Done { value: (), replayed: false });
    assert_eq!(store.agents.get(server.id).await.unwrap().unwrap().place, "elsewhere");
    assert_eq!(store.servers.get(server.id).await.unwrap(), server);
    let plain = store.server("plain").await;
    check_not_found(moved(plain.id).await);
    check_not_found(moved(ServerId(99)).await);
    store.check_log(&["enrollment.create", "agent.enroll", "agent.move", "server.create"]).await;
}

async fn when_agents_were_heard_of_only_goes_forward(store: Store) {
    let (one, two, plain) = (store.joined("one").await, store.joined("two").await, store.server("plain").await);
    let other = store.second_process();
    let seen = async |server: &Server| {
        let stored = store.servers.get(server.id).await.unwrap();
        let inventory = Inventory { last_seen_at: server.inventory.last_seen_at, ..stored.inventory.clone() };
        assert_eq!(Server { inventory, ..stored.clone() }, *server, "nothing else is different");
        assert_eq!(listed(&store, server.id).await, stored, "lists show it too");
        assert_eq!(other.servers.get(server.id).await.unwrap(), stored);
        stored.inventory.last_seen_at
    };
    let touch = async |heard: &[(&Server, i64)]| {
        let heard: Vec<_> = heard.iter().map(|(server, seconds)| (server.id, at(*seconds))).collect();
        store.agents.touch(heard).await.unwrap();
    };
    assert_eq!((seen(&one).await, seen(&plain).await), (Some(at(60)), None));
    touch(&[(&one, 90), (&plain, 90)]).await;
    assert_eq!((seen(&one).await, seen(&two).await, seen(&plain).await), (Some(at(90)), Some(at(60)), Some(at(90))));
    touch(&[(&one, 89), (&two, 59), (&plain, 91)]).await;
    assert_eq!((seen(&one).await, seen(&two).await, seen(&plain).await), (Some(at(90)), Some(at(60)), Some(at(91))));
    touch(&[(&one, 99), (&one, 100), (&one, 98)]).await;
    assert_eq!(seen(&one).await, Some(at(100)));
    store.agents.touch(vec![(ServerId(99), at(100))]).await.unwrap();
    touch(&[]).await;
    let actions = ["enrollment.create", "agent.enroll", "enrollment.create", "agent.enroll", "server.create"];
    store.check_log(&actions).await;
}

async fn a_thousand_agents_are_noted_at_once(store: Store) {
    let columns = "name, architecture, status, cpu_millis, memory_mib, storage_mib, gpus, tags, revision, \
                   created_at_us, updated_at_us";
    let rows: Vec<String> =
        (0..1000).map(|n| format!("('edge-{n}', 'arm64', 'online', 1, 1, 1, 1, '{{}}', 1, 0, 0)")).collect();
    store.sql(&format!("INSERT INTO servers ({columns}) VALUES {}", rows.join(", ")));
    let told = Arc::new(Told::default());
    store.database.follow(told.clone());
    store.tasks.catch_up().await.unwrap();
    let heard = (1..=1000).map(|id| (ServerId(id), at(id))).collect();
    store.agents.touch(heard).await.unwrap();
    assert_eq!(told.seen().len(), 1000);
    for id in [1, 500, 1000] {
        assert_eq!(listed_seen(&store, ServerId(id)).await, Some(at(id)));
    }
}

async fn listed_seen(store: &Store, id: ServerId) -> Option<Timestamp> {
    store.servers.get(id).await.unwrap().inventory.last_seen_at
}

/// Remembers what it was told.
#[derive(Default)]
struct Told(Mutex<Vec<Fact>>);

impl Follower for Told {
    fn reset(&self, _: &State) {
        self.0.lock().unwrap().clear();
    }

    fn follow(&self, facts: &[Fact]) {
        self.0.lock().unwrap().extend(facts.to_vec());
    }
}

impl Told {
    fn seen(&self) -> Vec<Fact> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

async fn who_follows_hears_when_agents_were_heard_of(store: Store) {
    let (one, two) = (store.joined("one").await, store.joined("two").await);
    let told = Arc::new(Told::default());
    store.database.follow(told.clone());
    store.tasks.catch_up().await.unwrap();
    store.agents.touch(vec![(two.id, at(70)), (one.id, at(59)), (ServerId(99), at(70))]).await.unwrap();
    assert_eq!(told.seen(), [Fact::ServerSeen(two.id, at(70))], "of what did not change, nothing is told");
    store.agents.touch(vec![(two.id, at(70))]).await.unwrap();
    assert_eq!(told.seen(), []);
}

async fn an_agents_token_opens_its_server_and_nothing_once_that_is_deleted(store: Store) {
    let (server, other) = (store.joined("edge-1").await, store.joined("edge-2").await);
    let find = async |digest| store.sessions.find_credential(digest).await.unwrap();
    for _ in 0..2 {
        assert_eq!(find("agent-edge-1").await, Some(agent_of(&server)));
    }
    assert_eq!((find("place-edge-1").await, find("agent-edge-9").await), (None, None));
    store.servers.delete(server.clone(), change("server.delete")).await.unwrap();
    assert_eq!(find("agent-edge-1").await, None);
    assert_eq!(find("agent-edge-2").await, Some(agent_of(&other)));
    assert_eq!(store.agents.get(server.id).await.unwrap(), None);
    assert_eq!(store.agents.servers().await.unwrap(), [other.id]);
    // The name is free, and the same machine can join anew.
    let again = store.join(&store.enrollment("again").await, "edge-1").await.unwrap();
    assert!(again.id > server.id);
    assert_eq!(find("agent-edge-1").await, Some(agent_of(&again)));
}

/// Each of these would go on for minutes if only time ended what is remembered of an agent's token.
async fn what_an_agents_token_opened_is_forgotten_with_what_happens_to_its_server(store: Store) {
    let (one, two) = (store.joined("edge-1").await, store.joined("edge-2").await);
    store.tasks.catch_up().await.unwrap();
    let find = async |digest| store.sessions.find_credential(digest).await.unwrap();
    assert_eq!((find("agent-edge-1").await, find("agent-edge-2").await), (Some(agent_of(&one)), Some(agent_of(&two))));
    let renamed = Server { name: crate::store::name("west-1"), revision: 2, updated_at: at(70), ..one.clone() };
    store.servers.update(renamed.clone(), change("server.update")).await.unwrap();
    assert_eq!(find("agent-edge-1").await, Some(agent_of(&renamed)), "audit rows name it as it is called");
    // Another process, and the next write of this one.
    store.second_process().servers.delete(two.clone(), change("server.delete")).await.unwrap();
    store.agents.touch(vec![(one.id, at(80))]).await.unwrap();
    assert_eq!(find("agent-edge-2").await, None);
    assert_eq!(find("agent-edge-1").await, Some(agent_of(&renamed)));
}

async fn a_server_with_work_keeps_its_agent(store: Store) {
    let server = store.joined("edge-1").await;
    let task = store.tasks.create(agents_task("night"), change("task.create")).await.unwrap().value;
    assert_eq!(store.tasks.place(vec![placement(&task, server.id)]).await.unwrap(), [Placed::Held]);
    let delete = || store.servers.delete(server.clone(), change("server.delete"));
    check_conflict(delete().await, "server_in_use");
    assert!(store.agents.get(server.id).await.unwrap().is_some());
    assert_eq!(store.sessions.find_credential("agent-edge-1").await.unwrap(), Some(agent_of(&server)));
    // An operation that is open though nothing is held: not by any way that there is, but it is looked for.
    let task = store.tasks.get(task.id).await.unwrap();
    let end = AttemptStep::End(AttemptEnd::by_hand(AttemptStatus::Cancelled, None));
    write(&store, &task, task.cancelled(at(70)).unwrap(), end).await;
    store.sql("UPDATE operations SET finished_at_us = NULL, state = 'running'");
    let reason = check_conflict(delete().await, "server_in_use");
    assert!(reason.contains("open operation"), "{reason}");
    store.sql("UPDATE operations SET finished_at_us = 1, state = 'failed'");
    delete().await.unwrap();
}

async fn operators_go_on_to_decide_about_a_server_with_an_agent(store: Store) {
    let server = store.joined("edge-1").await;
    let maintained = Server {
        name: crate::store::name("west-1"),
        status: ServerStatus::Maintenance,
        inventory: Inventory::default(),
        revision: 2,
        updated_at: at(70),
        ..server.clone()
    };
    let after = store.servers.update(maintained.clone(), change("server.update")).await.unwrap().value;
    assert_eq!(after, Server { inventory: inventory(), ..maintained });
    assert_eq!(store.servers.get(server.id).await.unwrap(), after);
    assert_eq!(store.agents.servers().await.unwrap(), [server.id]);
    assert_eq!(store.sessions.find_credential("agent-edge-1").await.unwrap(), Some(agent_of(&after)));
}

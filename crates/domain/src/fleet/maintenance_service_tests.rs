use super::*;
use crate::{
    clock::Timestamp,
    fleet::{AgentAccount, Architecture, MockAgents, MockMaintenanceWindows, MockServers, NewServer, WindowStatus},
    identity::{Role, Room, Scopes},
    testing::{START, TestClock, alice, name, once},
    text::Tags,
    units::Resources,
};
use chrono::TimeDelta;
use std::{sync::Mutex, time::Duration};

const SERVER: ServerId = ServerId(5);
const ID: WindowId = WindowId(7);
const GRACE: Duration = Duration::from_secs(30);

fn at(minutes: i64) -> Timestamp {
    START + TimeDelta::minutes(minutes)
}

fn new_window(from: i64) -> NewWindow {
    NewWindow { title: name("disks"), description: None, scheduled_for: at(from), duration_minutes: 30 }
}

fn window(revision: i64) -> Window {
    Window { revision, ..new_window(100).into_window(ID, SERVER, "user:alice".to_owned(), START) }
}

fn running() -> Window {
    window(1).begun(ServerStatus::Online, at(100))
}

fn server(status: ServerStatus) -> Server {
    let new = NewServer {
        name: name("edge-1"),
        architecture: Architecture::Arm64,
        status,
        capacity: Resources::default(),
        gpu_model: None,
        location: None,
        cluster: None,
        zone: None,
        pool_id: None,
        tags: Tags::default(),
    };
    new.into_server(SERVER, START)
}

fn ended() -> WindowPatch {
    WindowPatch { status: Some(WindowStatus::Completed), ..WindowPatch::default() }
}

/// What a service is made of, before it is one.
struct Parts {
    windows: MockMaintenanceWindows,
    servers: MockServers,
    agents: MockAgents,
    presence: Arc<Presence>,
    clock: Arc<TestClock>,
}

impl Parts {
    fn at(minute: i64) -> Self {
        let clock = TestClock::start();
        clock.advance(TimeDelta::minutes(minute));
        Self {
            windows: MockMaintenanceWindows::new(),
            servers: MockServers::new(),
            agents: MockAgents::new(),
            presence: Arc::new(Presence::new(GRACE, Duration::ZERO)),
            clock,
        }
    }

    /// With this server, which has an agent or not.
    fn with_server(mut self, server: Server, agent: bool) -> Self {
        self.servers.expect_get().returning(move |_| Ok(server.clone()));
        let account = |server_id| AgentAccount { server_id, place: "here".to_owned(), enrolled_at: START };
        self.agents.expect_get().returning(move |server_id| Ok(agent.then(|| account(server_id))));
        self
    }

    fn service(self) -> MaintenanceService {
        MaintenanceService::new(MaintenancePorts {
            windows: Arc::new(self.windows),
            servers: Arc::new(self.servers),
            agents: Arc::new(self.agents),
            presence: self.presence,
            clock: self.clock,
        })
    }
}

fn hear(presence: &Presence, clock: &TestClock) {
    assert!(presence.open(SERVER, "session", "here", clock.uptime(), clock.now()));
}

#[tokio::test]
async fn who_may_not_maintain_servers_changes_nothing_and_reads_nothing() {
    let service = Parts::at(0).service();
    let pools_only = Actor { scopes: Scopes::only([Room::Pools]), ..alice(Role::Admin) };
    for actor in [alice(Role::Viewer), alice(Role::Approver), pools_only.clone()] {
        let outcomes = [
            service.maintenance_create(&actor, SERVER, new_window(100), None).await.err(),
            service.maintenance_update(&actor, ID, None, ended()).await.err(),
        ];
        for outcome in outcomes {
            assert!(matches!(outcome, Some(Error::Forbidden { .. })), "{outcome:?}");
        }
    }
    let listed = service.maintenance_list(&pools_only, WindowFilter::default(), PageRequest::default()).await;
    assert!(matches!(listed, Err(Error::Forbidden { .. })));
    assert!(matches!(service.maintenance_get(&pools_only, ID).await, Err(Error::Forbidden { .. })));
}

#[tokio::test]
async fn a_planned_window_is_recorded() {
    let mut parts = Parts::at(0);
    parts.windows.expect_create().times(1).returning(|server, window, change| {
        assert_eq!((change.entry.action.as_str(), change.once), ("maintenance.create", Some(once())));
        let window = window.into_window(ID, server, change.entry.actor, change.entry.created_at);
        Ok(Done { value: window, replayed: true })
    });
    let service = parts.service();
    let done = service.maintenance_create(&alice(Role::Operator), SERVER, new_window(100), Some(once())).await.unwrap();
    assert_eq!(done, Done { value: window(1), replayed: true });
}

/// Ends the window, and tells the action that is recorded and how its server can be reached.
async fn end(mut parts: Parts) -> (String, Reach) {
    let told = Arc::new(Mutex::new(None));
    let seen = told.clone();
    parts.windows.expect_get().returning(|_| Ok(running()));
    parts.windows.expect_update().times(1).returning(move |window, reach, change| {
        *seen.lock().unwrap() = Some((change.entry.action, reach));
        Ok(Done { value: window, replayed: false })
    });
    let after = parts.service().maintenance_update(&alice(Role::Operator), ID, None, ended()).await.unwrap();
    assert_eq!(after.status, WindowStatus::Completed);
    told.lock().unwrap().take().unwrap()
}

#[tokio::test]
async fn an_agent_is_looked_for_here_and_in_what_other_processes_noted() {
    let held = server(ServerStatus::Maintenance);
    let complete = |reach| ("maintenance.complete".to_owned(), reach);
    assert_eq!(end(Parts::at(110).with_server(held.clone(), false)).await, complete(Reach::NoAgent));
    assert_eq!(end(Parts::at(110).with_server(held.clone(), true)).await, complete(Reach::Silent));
    let parts = Parts::at(110).with_server(held.clone(), true);
    hear(&parts.presence, &parts.clock);
    assert_eq!(end(parts).await, complete(Reach::Heard));
    let mut noted = held;
    for (seconds, reach) in [(29, Reach::Heard), (30, Reach::Silent)] {
        noted.inventory.last_seen_at = Some(at(110) - TimeDelta::seconds(seconds));
        assert_eq!(end(Parts::at(110).with_server(noted.clone(), true)).await, complete(reach));
    }
}

#[tokio::test]
async fn an_agent_that_comes_while_its_server_is_let_go_is_noticed() {
    let mut parts = Parts::at(110).with_server(server(ServerStatus::Offline), true);
    let (presence, clock) = (parts.presence.clone(), parts.clock.clone());
    parts.windows.expect_due().returning(|_| Ok(vec![SERVER]));
    parts.windows.expect_turn().times(1).returning(move |_, reach, by| {
        assert_eq!((reach, by.actor.as_str()), (Reach::Silent, "system:fleet"));
        hear(&presence, &clock);
        Ok(Some(server(ServerStatus::Offline)))
    });
    parts.agents.expect_report().times(1).returning(|server, place, change| {
        assert_eq!((server.status, server.revision, place), (ServerStatus::Online, 2, None));
        assert_eq!(change.entry.action, "server.report");
        Ok(Done { value: server, replayed: false })
    });
    parts.service().maintenance_turn().await.unwrap();
}

#[tokio::test]
async fn windows_of_a_server_that_is_gone_keep_no_others_from_their_time() {
    let mut parts = Parts::at(110);
    parts.servers.expect_get().returning(|id| match id {
        SERVER => Ok(server(ServerStatus::Online)),
        gone => Err(Error::not_found("server", gone)),
    });
    parts.agents.expect_get().returning(|_| Ok(None));
    parts.windows.expect_due().returning(|_| Ok(vec![ServerId(4), SERVER]));
    parts.windows.expect_turn().times(1).returning(|server, _, _| {
        assert_eq!(server, SERVER);
        Ok(None)
    });
    let service = parts.service();
    assert!(service.maintenance_is_due().await.unwrap());
    service.maintenance_turn().await.unwrap();
}

fn stale() -> Error {
    Error::Stale { what: "maintenance window 7".to_owned(), current: 99 }
}

#[tokio::test]
async fn a_change_without_a_revision_starts_again_from_the_newest_state() {
    let mut parts = Parts::at(0).with_server(server(ServerStatus::Online), false);
    let mut revision = 1;
    parts.windows.expect_get().times(2).returning(move |_| {
        revision += 1;
        Ok(window(revision))
    });
    let mut tries = 0;
    parts.windows.expect_update().times(2).returning(move |window, _, _| {
        tries += 1;
        if tries < 2 { Err(stale()) } else { Ok(Done { value: window, replayed: false }) }
    });
    let patch = WindowPatch { title: Some(name("fans")), ..WindowPatch::default() };
    let after = parts.service().maintenance_update(&alice(Role::Operator), ID, None, patch).await.unwrap();
    assert_eq!((after.revision, after.title), (4, name("fans")));
}

#[tokio::test]
async fn a_change_at_a_revision_is_tried_once_and_only_there() {
    let mut parts = Parts::at(0).with_server(server(ServerStatus::Online), false);
    parts.windows.expect_get().times(2).returning(|_| Ok(window(4)));
    parts.windows.expect_update().times(1).returning(|_, _, _| Err(stale()));
    let service = parts.service();
    for revision in [4, 3] {
        let patch = WindowPatch { title: Some(name("fans")), ..WindowPatch::default() };
        let outcome = service.maintenance_update(&alice(Role::Operator), ID, Some(revision), patch).await;
        assert!(matches!(outcome, Err(Error::Stale { .. })), "{outcome:?}");
    }
}

use super::*;
use crate::{
    change::Done,
    fleet::{
        AgentAccount, Enrollment, MockAgents, MockEnrollments, MockOperations, MockServers, ServerStatus,
        protocol::ResultReport,
    },
    identity::{Role, Scopes},
    ids::EnrollmentId,
    scheduling::MockTasks,
    testing::{CountingEntropy, START, TestClock, alice, name},
    text::Tags,
    units::Resources,
};
use chrono::TimeDelta;
use std::{sync::Mutex, time::Duration};

const HERE: ServerId = ServerId(5);

fn report() -> InventoryReport {
    InventoryReport {
        architecture: "x86_64".to_owned(),
        capacity: Resources { cpu_millis: 8000, ..Resources::default() },
        gpu_model: None,
        emulated_architectures: Vec::new(),
        drivers: Vec::new(),
        os: None,
        kernel: None,
        agent_version: "0.1.0".to_owned(),
    }
}

fn server() -> Server {
    let new = report().new_server(name("edge-1")).unwrap();
    Server { inventory: report().inventory(Some(START)), ..new.into_server(HERE, START) }
}

fn agent() -> Actor {
    Actor {
        principal: Principal::Agent { server: HERE, name: "edge-1".to_owned() },
        on_behalf_of: None,
        role: Role::Agent,
        scopes: Scopes::all(),
        request_id: None,
    }
}

/// What a service is made of, before it is one.
struct Parts {
    servers: MockServers,
    agents: MockAgents,
    enrollments: MockEnrollments,
    tasks: MockTasks,
    clock: Arc<TestClock>,
}

impl Parts {
    /// An agent that has joined, on a server that nothing runs on.
    fn joined() -> Self {
        let mut agents = MockAgents::new();
        agents
            .expect_get()
            .returning(|server_id| Ok(Some(AgentAccount { server_id, place: "here".to_owned(), enrolled_at: START })));
        agents.expect_servers().returning(|| Ok(vec![HERE]));
        let mut tasks = MockTasks::new();
        tasks.expect_held_on().returning(|_| Ok(Vec::new()));
        Self {
            servers: MockServers::new(),
            agents,
            enrollments: MockEnrollments::new(),
            tasks,
            clock: TestClock::start(),
        }
    }

    fn service(self) -> AgentService {
        let mut operations = MockOperations::new();
        operations.expect_catch_up().returning(|| Ok(()));
        AgentService::new(AgentPorts {
            servers: Arc::new(self.servers),
            agents: Arc::new(self.agents),
            enrollments: Arc::new(self.enrollments),
            operations: Arc::new(operations),
            tasks: Arc::new(self.tasks),
            mailbox: Arc::new(Mailbox::new(Box::new(|_| {}))),
            presence: Arc::new(Presence::new(Duration::from_secs(30), Duration::ZERO)),
            clock: self.clock,
            entropy: Arc::new(CountingEntropy::default()),
            installation: "abc".into(),
        })
    }
}

fn session(session: &str, place: &str) -> SessionRequest {
    SessionRequest { session: session.to_owned(), place: place.to_owned(), protocols: vec![1], inventory: report() }
}

async fn poll(service: &AgentService, actor: &Actor, session: &str) -> Result<Deliveries> {
    let server = service.heard(actor, identity::Operation::AgentPoll, session)?;
    service.due(server, session).await
}

#[tokio::test]
async fn only_an_agent_speaks_for_a_server() {
    let service = Parts::joined().service();
    for actor in [alice(Role::Admin), Actor::system("x")] {
        let refused = service.agent_session(&actor, session("one", "here")).await;
        assert!(matches!(refused, Err(Error::Forbidden { .. })), "{refused:?}");
        assert!(matches!(poll(&service, &actor, "one").await, Err(Error::Forbidden { .. })));
    }
}

#[tokio::test]
async fn a_session_that_says_nothing_new_writes_nothing() {
    let mut parts = Parts::joined();
    parts.servers.expect_get().returning(|_| Ok(server()));
    let service = parts.service();
    let opened = service.agent_session(&agent(), session("one", "here")).await.unwrap();
    assert_eq!((opened.server_id, opened.protocol, &*opened.installation), (HERE, 1, "abc"));
    assert!(matches!(poll(&service, &agent(), "two").await, Err(Error::Conflict { code: "session_gone", .. })));
    assert!(poll(&service, &agent(), "one").await.unwrap().operations.is_empty());
}

#[tokio::test]
async fn to_look_what_there_is_to_tell_is_no_sign_of_life() {
    let mut parts = Parts::joined();
    parts.servers.expect_get().returning(|_| Ok(server()));
    let clock = parts.clock.clone();
    let service = parts.service();
    service.agent_session(&agent(), session("one", "here")).await.unwrap();
    clock.advance(TimeDelta::seconds(29));
    service.due(HERE, "one").await.unwrap();
    assert!(matches!(service.due(HERE, "two").await, Err(Error::Conflict { code: "session_gone", .. })));
    assert_eq!(service.there(), [HERE]);
    clock.advance(TimeDelta::seconds(1));
    assert_eq!(service.there(), []);
    assert!(matches!(service.due(HERE, "one").await, Err(Error::Conflict { code: "session_gone", .. })));
}

#[tokio::test]
async fn a_copy_is_told_that_it_is_one() {
    let mut parts = Parts::joined();
    parts.servers.expect_get().returning(|_| Ok(server()));
    let service = parts.service();
    service.agent_session(&agent(), session("one", "here")).await.unwrap();
    let refused = service.agent_session(&agent(), session("two", "there")).await;
    assert!(matches!(refused, Err(Error::Conflict { code: "agent_already_running", .. })));
    assert!(poll(&service, &agent(), "one").await.is_ok(), "the first goes on");
}

#[tokio::test]
async fn versions_that_do_not_meet_are_named() {
    let service = Parts::joined().service();
    let request = SessionRequest { protocols: vec![98, 99], ..session("one", "here") };
    let Err(Error::Conflict { code: "protocol_unsupported", reason }) = service.agent_session(&agent(), request).await
    else {
        panic!("they do not meet")
    };
    assert!(reason.contains("[98, 99]") && reason.contains("[1]"), "{reason}");
}

#[tokio::test]
async fn silence_is_noticed_after_the_grace_period_and_a_clock_that_is_set_changes_nothing() {
    let mut parts = Parts::joined();
    let clock = parts.clock.clone();
    let stored = Arc::new(Mutex::new(server()));
    let (shown, kept) = (stored.clone(), stored.clone());
    parts.servers.expect_get().returning(move |_| Ok(shown.lock().unwrap().clone()));
    parts.agents.expect_report().times(1).returning(move |server, _, change| {
        assert_eq!(change.entry.action, "server.lost");
        *kept.lock().unwrap() = server.clone();
        Ok(Done { value: server, replayed: false })
    });
    let service = parts.service();
    service.agent_session(&agent(), session("one", "here")).await.unwrap();
    clock.advance(TimeDelta::seconds(29));
    service.agents_watch().await.unwrap();
    assert_eq!(stored.lock().unwrap().status, ServerStatus::Online);
    clock.advance(TimeDelta::seconds(1));
    service.agents_watch().await.unwrap();
    service.agents_watch().await.unwrap();
    assert_eq!(stored.lock().unwrap().status, ServerStatus::Offline);
}

#[tokio::test]
async fn a_changed_architecture_is_recorded_in_words() {
    let mut parts = Parts::joined();
    parts.servers.expect_get().returning(|_| Ok(server()));
    parts.agents.expect_report().times(1).returning(|server, place, change| {
        assert_eq!(change.entry.message.as_deref(), Some("its architecture was x86_64 and is arm64"));
        assert_eq!(place.as_deref(), Some("there"));
        Ok(Done { value: server, replayed: false })
    });
    let inventory = InventoryReport { architecture: "aarch64".to_owned(), ..report() };
    let request = SessionRequest { inventory, ..session("one", "there") };
    parts.service().agent_session(&agent(), request).await.unwrap();
}

fn enrollment() -> Enrollment {
    Enrollment {
        id: EnrollmentId(1),
        name: name("rack 4"),
        pool_id: None,
        tags: Tags::default(),
        max_uses: 1,
        uses: 0,
        expires_at: START + TimeDelta::hours(1),
        created_by: "user:alice".to_owned(),
        created_at: START,
    }
}

async fn enroll(found: Option<Enrollment>) -> Result<Enrolled> {
    let mut parts = Parts::joined();
    parts.enrollments.expect_find().returning(move |_| Ok(found.clone()));
    parts.enrollments.expect_join().returning(|_, new, _, agent, change| {
        assert_eq!((agent.place.as_str(), agent.token_digest.len()), ("here", 64));
        assert_eq!(change.entry.on_behalf_of.as_deref(), Some("user:alice"));
        Ok(Done { value: new.into_server(HERE, START), replayed: false })
    });
    let request = EnrollRequest {
        join_token: "slj_x".to_owned(),
        name: name("edge-1"),
        place: "here".to_owned(),
        protocols: vec![1],
        inventory: report(),
    };
    parts.service().agent_enroll(request, None).await
}

#[tokio::test]
async fn only_a_known_join_token_opens_the_door() {
    let joined = enroll(Some(enrollment())).await.unwrap();
    assert!(joined.token.starts_with("sla_") && joined.server_id == HERE);
    assert!(matches!(enroll(None).await, Err(Error::Unauthenticated { .. })));
}

#[test]
fn a_result_is_flat_on_the_wire() {
    let text = r#"{"session":"one","ending":"failed","exit_code":3,"reason":"exit_code"}"#;
    let report: ResultReport = serde_json::from_str(text).unwrap();
    assert_eq!((report.end.exit_code, report.session.as_str()), (Some(3), "one"));
}

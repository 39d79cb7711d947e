use super::*;
use crate::{
    change::Done,
    containers::{ContainerAction, EngineId, wire::ContainerOrder},
    feed::{Fact, Follower},
    fleet::{AgentPorts, Mailbox, MockAgents, MockEnrollments, MockOperations, MockServers, Presence},
    ids::ContainerId,
    scheduling::MockTasks,
    testing::{CountingEntropy, START, TestClock},
};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

const HERE: ServerId = ServerId(5);
const ID: OperationId = OperationId(9);

fn stop() -> Operation {
    let order = ContainerOrder {
        engine_id: EngineId::parse("abc").unwrap(),
        action: ContainerAction::Stop { grace_seconds: None },
    };
    let deed = Deed::Container { container_id: ContainerId(3), name: "web".to_owned(), order };
    Operation { id: ID, ..Operation::to_do(HERE, deed, START) }
}

/// A service over one operation, which is written as the database would.
struct App {
    service: AgentService,
    stored: Arc<Mutex<Operation>>,
    clock: Arc<TestClock>,
    actions: Arc<Mutex<Vec<String>>>,
}

impl App {
    fn with(operation: Operation) -> Self {
        let (clock, stored) = (TestClock::start(), Arc::new(Mutex::new(operation.clone())));
        let mailbox = Arc::new(Mailbox::new(Box::new(|_| {})));
        mailbox.follow(&[Fact::Operation(Arc::new(operation))]);
        let actions = Arc::<Mutex<Vec<String>>>::default();
        let mut operations = MockOperations::new();
        let found = stored.clone();
        operations.expect_get().returning(move |_| Ok(found.lock().unwrap().clone()));
        let (written, told, heard) = (stored.clone(), mailbox.clone(), actions.clone());
        operations.expect_update().returning(move |before, after, change| {
            let mut stored = written.lock().unwrap();
            assert_eq!(stored.state, before.state);
            *stored = after.clone();
            heard.lock().unwrap().push(change.entry.action);
            told.follow(&[Fact::Operation(Arc::new(after.clone()))]);
            Ok(Done { value: after, replayed: false })
        });
        let service = AgentService::new(AgentPorts {
            servers: Arc::new(MockServers::new()),
            agents: Arc::new(MockAgents::new()),
            enrollments: Arc::new(MockEnrollments::new()),
            operations: Arc::new(operations),
            tasks: Arc::new(MockTasks::new()),
            mailbox,
            presence: Arc::new(Presence::new(Duration::from_mins(1), Duration::ZERO)),
            clock: clock.clone(),
            entropy: Arc::new(CountingEntropy::default()),
            installation: "abc".into(),
        });
        Self { service, stored, clock, actions }
    }

    fn stored(&self) -> Operation {
        self.stored.lock().unwrap().clone()
    }

    fn told(&self) -> Vec<OperationId> {
        let due = self.service.mailbox().take(HERE, "s", Duration::from_secs(1));
        due.begin.iter().map(|operation| operation.id).collect()
    }

    async fn end(&self, ending: Ending) -> Result<()> {
        let end = End { finished_at: Some(START), ..End::without_code(ending, "as the agent says") };
        self.service.operation_ended(&Actor::system("agent"), HERE, ID, &end).await
    }
}

#[tokio::test]
async fn what_was_told_to_nobody_in_time_was_not_done() {
    let app = App::with(stop());
    app.clock.advance(PATIENCE - TimeDelta::seconds(1));
    app.service.deeds_expire().await.unwrap();
    assert_eq!(app.stored().state, OperationState::Queued);
    let deed = stop().deed.unwrap();
    let delivery = app.service.deed_delivery(&app.stored(), &deed).unwrap();
    assert_eq!(delivery.expires_in_seconds, 1, "what is left of its time");
    app.clock.advance(TimeDelta::seconds(1));
    assert!(app.service.deed_delivery(&app.stored(), &deed).is_none());
    app.service.deeds_expire().await.unwrap();
    assert_eq!(app.stored().state, OperationState::Expired);
    assert!(app.stored().result.unwrap().detail.unwrap().contains("nothing was done"));
    app.service.deeds_expire().await.unwrap();
    assert_eq!(*app.actions.lock().unwrap(), ["operation.ended"]);
}

#[tokio::test]
async fn what_was_told_may_have_been_done_and_its_agents_word_counts_whenever_it_comes() {
    let app = App::with(stop());
    assert_eq!(app.told(), [ID]);
    app.clock.advance(PATIENCE);
    app.service.deeds_expire().await.unwrap();
    assert_eq!(app.stored().state, OperationState::Unknown);
    app.end(Ending::Completed).await.unwrap();
    assert_eq!(app.stored().state, OperationState::Succeeded);
    app.end(Ending::Completed).await.unwrap();
    assert_eq!(*app.actions.lock().unwrap(), ["operation.ended", "operation.ended"]);
    let late = app.end(Ending::Failed).await;
    assert!(matches!(late, Err(Error::Conflict { code: "operation_closed", .. })), "{late:?}");
}

#[tokio::test]
async fn what_a_lost_agent_was_doing_has_an_end() {
    let app = App::with(stop().begun(START).unwrap());
    app.clock.advance(PATIENCE);
    app.service.deeds_expire().await.unwrap();
    assert_eq!(app.stored().state, OperationState::Running, "it may take as long as it takes");
    app.service.deeds_lose(ServerId(6)).await.unwrap();
    assert_eq!(app.stored().state, OperationState::Running, "that is another server");
    app.service.deeds_lose(HERE).await.unwrap();
    assert_eq!(app.stored().state, OperationState::Unknown);
    app.end(Ending::Failed).await.unwrap();
    assert_eq!(app.stored().state, OperationState::Failed);
}

#[tokio::test]
async fn reports_of_another_server_change_nothing() {
    let app = App::with(stop());
    let report = app.service.operation_started(&Actor::system("agent"), ServerId(6), ID).await;
    assert!(matches!(report, Err(Error::NotFound { .. })));
    app.service.operation_started(&Actor::system("agent"), HERE, ID).await.unwrap();
    app.service.operation_started(&Actor::system("agent"), HERE, ID).await.unwrap();
    assert_eq!((app.stored().state, app.actions.lock().unwrap().len()), (OperationState::Running, 1));
}

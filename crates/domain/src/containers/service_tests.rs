use super::*;
use crate::{
    audit::MockAuditLog,
    containers::{
        EngineId, MockContainers, MockEngines, Observed, PruneRequest, PruneScope, RunsTask, wire::ListedImage,
    },
    fleet::{MockOperations, MockServers, operations::OperationState},
    identity::{Role, Scopes},
    ids::TaskId,
    scheduling::fixtures,
    testing::{START, TestClock, alice, once},
    units::Resources,
};
use mockall::predicate::eq;
use std::time::Duration;

const HERE: ServerId = ServerId(5);
const ID: ContainerId = ContainerId(12);

fn container(runs: Option<RunsTask>) -> Container {
    let observed: Observed = serde_json::from_value(json!({
        "engine_id": "abc", "name": "web", "image": "web:1", "state": "running",
    }))
    .unwrap();
    Container { id: ID, server_id: HERE, observed: Observed { runs, ..observed }, usage: None, reported_at: START }
}

fn ours() -> Container {
    container(Some(RunsTask { task_id: TaskId(7), attempt: 1 }))
}

struct Doubles {
    containers: MockContainers,
    operations: MockOperations,
    engines: MockEngines,
    servers: MockServers,
    log: MockAuditLog,
    is_there: bool,
}

impl Doubles {
    fn showing(container: Container) -> Self {
        let mut containers = MockContainers::new();
        containers.expect_get().with(eq(ID)).returning(move |_| Ok(container.clone()));
        Self { containers, ..Self::none() }
    }

    fn none() -> Self {
        Self {
            containers: MockContainers::new(),
            operations: MockOperations::new(),
            engines: MockEngines::new(),
            servers: MockServers::new(),
            log: MockAuditLog::new(),
            is_there: true,
        }
    }

    fn service(self) -> ContainerService {
        let clock = TestClock::start();
        let presence = Presence::new(Duration::from_mins(1), clock.uptime());
        if self.is_there {
            let _ = presence.open(HERE, "session", "place", clock.uptime(), START);
        }
        ContainerService::new(ContainerPorts {
            containers: Arc::new(self.containers),
            operations: Arc::new(self.operations),
            engines: Arc::new(self.engines),
            servers: Arc::new(self.servers),
            presence: Arc::new(presence),
            log: Arc::new(self.log),
            seal: Seal::new(&[7; 32]),
            clock,
        })
    }
}

fn stop() -> ContainerAction {
    ContainerAction::Stop { grace_seconds: None }
}

#[tokio::test]
async fn an_order_is_recorded_with_who_where_and_whether_it_was_forced() {
    let mut doubles = Doubles::showing(container(None));
    doubles.operations.expect_create().once().returning(|operation, change| {
        assert_eq!((operation.server_id, operation.state), (HERE, OperationState::Queued));
        let entry = change.entry;
        assert_eq!((entry.action.as_str(), entry.target.as_deref()), ("container.stop", Some("container:12")));
        let after = entry.after.unwrap();
        assert_eq!((&after["force"], &after["server_id"], &after["name"]), (&json!(true), &json!(5), &json!("web")));
        assert!(entry.message.unwrap().starts_with("forced"));
        Ok(Done { value: operation, replayed: false })
    });
    let service = doubles.service();
    service.container_act(&alice(Role::Operator), ID, stop(), Insistence::Force, None).await.unwrap();
}

#[tokio::test]
async fn a_refused_order_reaches_nobody() {
    let code = async |doubles: Doubles, insistence| {
        let outcome = doubles.service().container_act(&alice(Role::Operator), ID, stop(), insistence, None).await;
        match outcome.unwrap_err() {
            Error::Conflict { code, .. } => code,
            Error::Unavailable { .. } => "unavailable",
            other => panic!("{other}"),
        }
    };
    assert_eq!(code(Doubles::showing(container(None)), Insistence::None).await, "container_foreign");
    let away = Doubles { is_there: false, ..Doubles::showing(ours()) };
    assert_eq!(code(away, Insistence::None).await, "unavailable");
}

#[tokio::test]
async fn a_request_that_is_repeated_gets_its_first_answer_whatever_became_of_the_container() {
    let mut doubles = Doubles::none();
    doubles.containers.expect_get().returning(|id| Err(Error::not_found("container", id)));
    let deed = Deed::Container {
        container_id: ID,
        name: "web".to_owned(),
        order: ContainerOrder { engine_id: EngineId::parse("abc").unwrap(), action: stop() },
    };
    let first = Operation::to_do(HERE, deed, START);
    let kept = first.clone();
    doubles.operations.expect_answered().returning(move |_, _| Ok(Some(kept.clone())));
    let (service, operator) = (doubles.service(), alice(Role::Operator));
    let act = service.container_act(&operator, ID, stop(), Insistence::None, Some(once())).await;
    assert_eq!(act.unwrap(), Done { value: first, replayed: true });
    let act = service.container_act(&operator, ID, stop(), Insistence::None, None).await;
    assert!(matches!(act, Err(Error::NotFound { .. })));
}

#[tokio::test]
async fn who_may_not_changes_nothing_and_looks_into_nothing() {
    let service = Doubles::none().service();
    let viewer = alice(Role::Viewer);
    let elsewhere = Actor { scopes: Scopes::only([identity::Room::Fleet]), ..alice(Role::Admin) };
    let exec = ExecQuery {
        engine_id: EngineId::parse("abc").unwrap(),
        command: vec!["sh".to_owned()],
        tty: false,
        user: None,
        folder: None,
        size: None,
    };
    for who in [&viewer, &elsewhere] {
        let act = service.container_act(who, ID, stop(), Insistence::Force, None).await;
        assert!(matches!(act, Err(Error::Forbidden { .. })));
        let exec = service.exec_begin(who, ID, &exec, Insistence::Force).await;
        assert!(matches!(exec, Err(Error::Forbidden { .. })));
    }
    assert!(matches!(service.container_get(&elsewhere, ID).await, Err(Error::Forbidden { .. })));
}

fn image(id: &str) -> ListedImage {
    ListedImage {
        id: id.to_owned(),
        names: Vec::new(),
        digests: Vec::new(),
        platform: None,
        size_bytes: 10,
        created_at: None,
        used_by: Vec::new(),
    }
}

#[tokio::test]
async fn images_are_removed_as_they_were_planned_or_not_at_all() {
    let request = PruneRequest { server: HERE, scope: PruneScope::Dangling, older_than: None };
    let with = |ids: &'static [&str]| {
        let mut doubles = Doubles::none();
        doubles.servers.expect_get().returning(|id| Ok(fixtures::server(id.0, Resources::default())));
        doubles.engines.expect_images().returning(|_| Ok(ids.iter().map(|id| image(id)).collect()));
        doubles.operations.expect_create().returning(|operation, _| Ok(Done { value: operation, replayed: false }));
        doubles.service()
    };
    let operator = alice(Role::Operator);
    let (plan, token) = with(&["a", "b"]).image_prune_plan(&operator, request).await.unwrap();
    assert_eq!(plan.frees_at_most_bytes, 20);
    let done = with(&["b", "a"]).image_prune(&operator, request, Some(&token), None).await.unwrap();
    let Some(Deed::ImagePrune(prune)) = done.value.deed else { panic!("{:?}", done.value) };
    assert_eq!(prune.ids, ["a", "b"]);
    let stale = with(&["a", "b", "c"]).image_prune(&operator, request, Some(&token), None).await;
    assert!(matches!(stale, Err(Error::Conflict { code: "plan_stale", .. })));
    let nothing = with(&[]).image_prune(&operator, request, None, None).await;
    assert!(matches!(nothing, Err(Error::Conflict { code: "nothing_to_do", .. })));
}

#[tokio::test]
async fn what_engines_say_is_cut_and_cleaned_before_it_is_kept() {
    let mut doubles = Doubles::none();
    doubles.containers.expect_report().once().returning(|server, report, _| {
        assert_eq!(server, HERE);
        let told = &report.containers[0];
        assert_eq!(told.name, "we\u{fffd}b");
        assert_eq!(told.image.chars().count(), 1000);
        assert!(told.labels.len() <= 100);
        Ok(())
    });
    let mut observed = container(None).observed;
    observed.name = "we\u{1b}b".to_owned();
    observed.image = "x".repeat(5000);
    observed.labels = (0..500).map(|n| (format!("l{n}"), "v".to_owned())).collect();
    let report = |containers| ContainerReport {
        session: String::new(),
        containers,
        gone: Vec::new(),
        present: None,
        usage: None,
    };
    let service = doubles.service();
    service.containers_reported(HERE, report(vec![observed.clone()])).await.unwrap();
    let many = service.containers_reported(HERE, report(vec![observed; 101])).await;
    assert!(matches!(many, Err(Error::Invalid { .. })));
}

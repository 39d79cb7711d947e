//! Backups, restores and copies bring everything that is about agents, and ids go on after it.

use crate::{
    alerts, containers, maintenance, on_both,
    store::{Process, Store, agents_task, at, change, entry, placement, seal},
    tasks::write,
};
use domain::{
    containers::{ContainerFilter, Containers},
    fleet::{
        Agents, Architecture, Enrollments, MaintenanceWindows, Operations, Servers, WindowFilter,
        operations::{Operation, OperationFilter, OperationState},
        protocol::Ending,
    },
    identity::Sessions,
    ids::ServerId,
    observability::{
        Metric, Readings, Sample, Samples,
        alerts::{AlertRules, Alerts},
    },
    page::{Page, PageRequest},
    scheduling::{AttemptEnd, AttemptStep, Task, TaskFilter, Tasks},
};
use infra_diesel::{DatabaseOptions, DatabaseUrl, DieselSamples, backup, copy, restore};

on_both!(
    a_copy_has_what_is_about_agents,
    a_backup_and_a_restore_have_what_is_about_agents,
    samples_go_along_with_a_copy_and_a_backup,
    a_backup_without_samples_leaves_them_as_they_are,
);

/// A used token, its server with its agent, and two operations, of which one is open.
async fn fill(store: &Store) {
    let server = store.joined("edge-1").await;
    store.enrollment("unused").await;
    for _ in 0..2 {
        maintenance::planned(store, server.id, 60, 30).await;
    }
    let gone = store.rules.all().await.unwrap().remove(0);
    store.rules.delete(gone, change("alert_rule.delete")).await.unwrap();
    let rule = alerts::rule(store, "hot").await;
    alerts::fired(store, &rule, server.id.0, 10).await;
    store.containers.report(server.id, containers::report(&[("a", "web"), ("b", "db")]), at(66)).await.unwrap();
    for n in 0..2 {
        let task = store.tasks.create(agents_task(&format!("task-{n}")), change("task.create")).await.unwrap().value;
        store.tasks.place(vec![placement(&task, server.id)]).await.unwrap();
        let task = store.tasks.get(task.id).await.unwrap();
        let running = Task { barred: Architecture::Riscv64.into(), ..task.found_running(at(70)).unwrap() };
        let running = write(store, &task, running, AttemptStep::Start).await;
        if n == 0 {
            let end = crate::operations::end(Ending::Completed);
            let after = running.ended_by(&end, false, at(80)).unwrap();
            let step = AttemptStep::End(AttemptEnd::told_by(&end, false));
            write(store, &running, after, step).await;
        }
    }
}

async fn operations(process: &Process) -> Vec<Operation> {
    process.operations.list(OperationFilter::default(), PageRequest::default()).await.unwrap().items
}

async fn check_same(store: &Store, there: &Process) {
    let tokens = async |process: &Process| process.enrollments.list(PageRequest::default()).await.unwrap();
    assert_eq!(tokens(there).await, tokens(store).await);
    let [server] = store.agents.servers().await.unwrap().try_into().unwrap();
    assert_eq!(there.agents.servers().await.unwrap(), [server]);
    assert_eq!(there.agents.get(server).await.unwrap(), store.agents.get(server).await.unwrap());
    assert_eq!(there.servers.get(server).await.unwrap(), store.servers.get(server).await.unwrap());
    assert!(there.sessions.find_credential("agent-edge-1").await.unwrap().is_some());
    let tasks = async |process: &Process| process.tasks.list(TaskFilter::default(), PageRequest::default()).await;
    assert_eq!(tasks(there).await.unwrap().items, tasks(store).await.unwrap().items);
    let windows =
        async |process: &Process| process.windows.list(WindowFilter::default(), PageRequest::default()).await.unwrap();
    assert_eq!(windows(there).await, windows(store).await);
    assert_eq!(there.rules.all().await.unwrap(), store.rules.all().await.unwrap());
    let [alert] = store.alerts.open().await.unwrap().try_into().unwrap();
    assert_eq!(there.alerts.history(alert.id).await.unwrap(), store.alerts.history(alert.id).await.unwrap());
    assert_eq!(there.alerts.open().await.unwrap(), [alert]);
    let containers = async |process: &Process| {
        process.containers.list(ContainerFilter::default(), PageRequest::default()).await.unwrap()
    };
    assert_eq!(containers(there).await.total, 2);
    assert_eq!(containers(there).await, containers(store).await);
    let found = operations(there).await;
    assert_eq!(found, operations(store).await);
    let states: Vec<_> = found.iter().map(|operation| operation.state).collect();
    assert_eq!(states, [OperationState::Running, OperationState::Succeeded]);
    assert_eq!(there.tasks.ledger_check().await.unwrap(), []);

    // Ids go on after those that came with the copy.
    assert_eq!(there.enrollment("next").await.id.0, 3);
    assert_eq!(maintenance::planned(there, server, 60, 30).await.id.0, 3);
    let rule = alerts::rule(there, "next").await;
    assert_eq!((rule.id.0, alerts::fired(there, &rule, server.0, 10).await.id.0), (11, 2));
    let task = there.tasks.create(agents_task("next"), change("task.create")).await.unwrap().value;
    there.tasks.place(vec![placement(&task, server)]).await.unwrap();
    assert_eq!(operations(there).await[0].id.0, 3);
}

async fn a_copy_has_what_is_about_agents(store: Store) {
    fill(&store).await;
    let directory = tempfile::tempdir().unwrap();
    let targets = [DatabaseUrl::Sqlite(directory.path().join("copy.db")), crate::store::fresh_postgres()];
    for target in targets {
        copy(&store.url, &target).unwrap();
        check_same(&store, &Process::open(&target)).await;
    }
}

async fn a_backup_and_a_restore_have_what_is_about_agents(store: Store) {
    fill(&store).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("backup.db");
    backup(&store.url, &file).unwrap();
    for other in [Store::sqlite(), Store::postgres()] {
        // What was there goes: another agent, and what it was told.
        let server = other.joined("other").await;
        other.tasks.create_placed(agents_task("other"), server.id, change("task.create")).await.unwrap();
        restore(&file, &other.url, &seal(), &entry("restore")).unwrap();
        check_same(&store, &other.second_process()).await;
    }
}

/// Samples of a server, of which some are in columns.
async fn measure(url: &DatabaseUrl, server: ServerId, minutes: i64) -> DieselSamples {
    let samples = DieselSamples::open(url, DatabaseOptions::default()).unwrap();
    let sample = |n| Sample { at: at(n * 60), readings: Readings::default().with(Metric::CpuUsage, 1.5) };
    for range in [0..minutes - 5, minutes - 5..minutes] {
        samples.store(server, range.map(sample).collect()).await.unwrap();
    }
    samples
}

async fn measured(samples: &DieselSamples, server: ServerId) -> Page<Sample> {
    samples.list(server, PageRequest { limit: 1000, after: None }).await.unwrap()
}

async fn samples_go_along_with_a_copy_and_a_backup(store: Store) {
    let server = store.server("edge-1").await.id;
    let expected = measured(&measure(&store.url, server, 300).await, server).await;
    assert_eq!(expected.total, 300);
    let directory = tempfile::tempdir().unwrap();
    for target in [DatabaseUrl::Sqlite(directory.path().join("copy.db")), crate::store::fresh_postgres()] {
        let report = copy(&store.url, &target).unwrap();
        assert!(report.tables.contains(&("samples", 5)), "{report:?}");
        let samples = DieselSamples::open(&target, DatabaseOptions::default()).unwrap();
        assert_eq!(measured(&samples, server).await, expected);
        // What is there is not overwritten.
        assert!(copy(&store.url, &target).is_err());
    }
    let file = directory.path().join("backup.db");
    backup(&store.url, &file).unwrap();
    for other in [Store::sqlite(), Store::postgres()] {
        let samples = measure(&other.url, ServerId(99), 10).await;
        restore(&file, &other.url, &seal(), &entry("restore")).unwrap();
        assert_eq!(measured(&samples, server).await, expected);
        assert_eq!(measured(&samples, ServerId(99)).await.total, 0);
    }
    let names = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let mut left: Vec<_> = names.filter(|name| !name.to_string_lossy().starts_with("copy")).collect();
    left.sort();
    assert_eq!(left, ["backup.db", "backup.samples.db"]);
}

async fn a_backup_without_samples_leaves_them_as_they_are(store: Store) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("backup.db");
    backup(&store.url, &file).unwrap();
    std::fs::remove_file(directory.path().join("backup.samples.db")).unwrap();
    let samples = measure(&store.url, ServerId(1), 10).await;
    restore(&file, &store.url, &seal(), &entry("restore")).unwrap();
    assert_eq!(measured(&samples, ServerId(1)).await.total, 10);
}

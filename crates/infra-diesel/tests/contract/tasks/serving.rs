//! The service of tasks on a real database: what its callers are promised about keys and plans.

use crate::{
    on_both,
    store::{Process, Store, at, millis, new_task, once, seal},
};
use async_trait::async_trait;
use domain::{
    Error, Result,
    audit::AuditLog,
    change::{Done, Once},
    clock::{Clock, Timestamp},
    containers::{EngineImage, Engines, ImageName, ImageService, ImageTruth, Registries, RegistryFailure},
    identity::Actor,
    ids::{ServerId, TaskId},
    scheduling::{Desk, Success, Task, TaskPorts, TaskService, TaskSpec, TaskStatus, Tasks},
};
use infra_diesel::DieselTasks;
use std::{sync::Arc, time::Duration};

on_both!(
    what_was_done_to_a_task_is_answered_again_under_its_key,
    a_dispatch_is_answered_again_under_its_key,
    a_dispatch_that_came_late_is_answered_again_under_its_key,
    a_task_posted_by_plan_is_answered_again_under_its_key,
    a_plan_is_carried_out_as_it_was_shown_or_not_at_all,
);

struct Noon;

impl Clock for Noon {
    fn now(&self) -> Timestamp {
        at(60)
    }

    fn uptime(&self) -> Duration {
        Duration::from_mins(1)
    }
}

/// None of these tasks has an image.
struct Nobody;

#[async_trait]
impl Registries for Nobody {
    async fn look_up(&self, name: &ImageName) -> Result<ImageTruth, RegistryFailure> {
        unreachable!("{name}")
    }
}

#[async_trait]
impl Engines for Nobody {
    async fn look_up(&self, name: &ImageName) -> Vec<(ServerId, EngineImage)> {
        unreachable!("{name}")
    }

    async fn images(&self, _: ServerId) -> domain::Result<Vec<domain::containers::wire::ListedImage>> {
        Ok(Vec::new())
    }
}

fn service(process: &Process) -> (TaskService, Arc<Desk>) {
    let (tasks, desk) = (Arc::new(DieselTasks::new(process.database.clone())), process.desk());
    let images = Arc::new(ImageService::new(Arc::new(Nobody), Arc::new(Nobody)));
    (TaskService::new(TaskPorts { tasks, desk: desk.clone(), images, clock: Arc::new(Noon), seal: seal() }), desk)
}

fn actor() -> Actor {
    Actor::system("test")
}

fn key(text: &str) -> Option<Once> {
    once("", text, 0).once
}

#[track_caller]
fn check_replayed(again: Result<Done<Task>>, first: &Task) {
    assert_eq!(again.expect("what was done is answered again"), Done { value: first.clone(), replayed: true });
}

/// A task that was dispatched.
async fn scheduled(tasks: &TaskService, name: &str) -> TaskId {
    let task = tasks.task_create(&actor(), new_task(name).spec, None, None).await.unwrap().value;
    tasks.task_dispatch(&actor(), task.id, None, None).await.unwrap().value.id
}

async fn what_was_done_to_a_task_is_answered_again_under_its_key(store: Store) {
    store.server("edge-1").await;
    let (tasks, _) = service(&store);
    let (id, actor) = (scheduled(&tasks, "night").await, actor());
    let start = || tasks.task_start(&actor, id, key("start"));
    let started = start().await.unwrap().value;
    check_replayed(start().await, &started);
    let complete = || tasks.task_complete(&actor, id, Success::No, key("complete"));
    let failed = complete().await.unwrap().value;
    check_replayed(complete().await, &failed);
    let retry = || tasks.task_retry(&actor, id, key("retry"));
    let retried = retry().await.unwrap().value;
    check_replayed(retry().await, &retried);
    let cancel = || tasks.task_cancel(&actor, id, key("cancel"));
    let cancelled = cancel().await.unwrap().value;
    check_replayed(cancel().await, &cancelled);
    check_replayed(start().await, &started);
    assert_eq!(store.tasks.get(id).await.unwrap(), cancelled);
    assert_eq!(store.tasks.ledger_check().await.unwrap(), []);
}

async fn a_dispatch_is_answered_again_under_its_key(store: Store) {
    let server = store.server("edge-1").await;
    let ((tasks, desk), actor) = (service(&store), actor());
    let id = tasks.task_create(&actor, new_task("night").spec, None, None).await.unwrap().value.id;
    let dispatch = || tasks.task_dispatch(&actor, id, None, key("dispatch"));
    let placed = dispatch().await.unwrap().value;
    assert_eq!(dispatch().await.unwrap().value, placed);
    tasks.task_start(&actor, id, None).await.unwrap();
    check_replayed(dispatch().await, &placed);
    let free = desk.with(|engine| engine.fleet().free(server.id)).unwrap();
    assert_eq!(free.cpu_millis, 3000, "what was claimed for a replay is given back");
}

async fn a_dispatch_that_came_late_is_answered_again_under_its_key(store: Store) {
    store.server("edge-1").await;
    let ((tasks, _), actor) = (service(&store), actor());
    let id = scheduled(&tasks, "night").await;
    let before = store.audit.head().await.unwrap();
    let dispatch = || tasks.task_dispatch(&actor, id, None, key("dispatch"));
    let found = dispatch().await.unwrap().value;
    assert_eq!((found.status, store.audit.head().await.unwrap()), (TaskStatus::Scheduled, before), "it was so already");
    tasks.task_start(&actor, id, None).await.unwrap();
    check_replayed(dispatch().await, &found);
}

async fn a_task_posted_by_plan_is_answered_again_under_its_key(store: Store) {
    let server = store.server("edge-1").await;
    let ((tasks, desk), actor) = (service(&store), actor());
    let spec = TaskSpec { demand: millis(3000), ..new_task("night").spec };
    let plan_token = tasks.task_dry_run(&actor, spec.clone()).await.unwrap().plan_token;
    let create = || tasks.task_create(&actor, spec.clone(), Some(&plan_token), key("create"));
    let created = create().await.unwrap().value;
    assert_eq!((created.status, created.server_id), (TaskStatus::Scheduled, Some(server.id)));
    check_replayed(create().await, &created);
    let free = desk.with(|engine| engine.fleet().free(server.id)).unwrap();
    assert_eq!(free.cpu_millis, 1000);
    store.check_log(&["server.create", "task.create"]).await;
}

async fn a_plan_is_carried_out_as_it_was_shown_or_not_at_all(store: Store) {
    let (first, second) = (store.server("edge-1").await, store.server("edge-2").await);
    let other = store.second_process();
    let (tasks, desk) = service(&store);
    let spec = new_task("night").spec;
    let plan = || async { tasks.task_dry_run(&actor(), spec.clone()).await.unwrap() };
    let shown = plan().await;
    let placed = other.tasks.create_placed(new_task("elsewhere"), second.id, crate::store::change("task.create"));
    placed.await.unwrap();
    let task = tasks.task_create(&actor(), spec.clone(), Some(&shown.plan_token), None).await.unwrap().value;
    assert_eq!(shown.plan.placement.map(|(server, _)| server), Some(first.id));
    assert_eq!(task.server_id, Some(first.id), "what happens elsewhere does not matter");

    let shown = plan().await;
    let server = shown.plan.placement.unwrap().0;
    let taken = other.tasks.create_placed(new_task("faster"), server, crate::store::change("task.create"));
    taken.await.unwrap();
    let refused = tasks.task_create(&actor(), spec.clone(), Some(&shown.plan_token), None).await;
    assert!(matches!(refused, Err(Error::Conflict { code: "plan_stale", .. })), "{refused:?}");
    assert_eq!(desk.with(|engine| engine.claim_count()), 0);
    assert_eq!(store.tasks.ledger_check().await.unwrap(), []);
    store.check_chain(5).await;
}

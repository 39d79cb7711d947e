//! Tasks whose image is looked up before they are stored.

use super::*;
use crate::{
    containers::{ImageTruth, Platform, RegistryFailure},
    scheduling::TaskDriver,
};

fn of_image() -> TaskSpec {
    TaskSpec { driver: TaskDriver::Docker, image: Some("acme/web:1".to_owned()), ..spec(cores(1)) }
}

fn truth() -> ImageTruth {
    ImageTruth::pulled("sha256:1", vec![Platform::of(crate::fleet::Architecture::Riscv64)])
}

fn registry(times: usize) -> MockRegistries {
    let mut registry = MockRegistries::new();
    registry.expect_look_up().times(times).returning(|name| {
        assert_eq!(name.as_str(), "acme/web:1");
        Ok(truth())
    });
    registry
}

fn storing(check: impl Fn(&TaskSpec, &AuditEntry) + Send + 'static) -> MockTasks {
    let mut mock = MockTasks::new();
    mock.expect_answered().returning(|_, _| Ok(None));
    mock.expect_create().times(1).returning(move |new, change| {
        check(&new.spec, &change.entry);
        Ok(Done { value: new.into_task(ID, START), replayed: false })
    });
    mock
}

#[tokio::test]
async fn what_the_image_is_is_kept_with_the_task_and_shown_by_the_dry_run() {
    let mock = storing(|spec, entry| {
        assert_eq!((&spec.image_truth, &entry.message), (&Some(truth()), &None));
    });
    let tasks = service_asking(registry(1), Arc::new(mock), &desk(4, &[]));
    tasks.task_create(&operator(), of_image(), None, Some(once())).await.unwrap();
    let mut mock = MockTasks::new();
    mock.expect_catch_up().returning(|| Ok(()));
    let tasks = service_asking(registry(1), Arc::new(mock), &desk(4, &[]));
    let plan = tasks.task_dry_run(&operator(), of_image()).await.unwrap().plan;
    assert_eq!(plan.reasons(&plan.candidates[0])[0].detail, "is x86_64, the task's image has linux/riscv64");
}

#[tokio::test]
async fn what_was_answered_before_is_answered_again_though_no_registry_answers() {
    let mut mock = MockTasks::new();
    mock.expect_answered().times(1).returning(|_, _| Ok(Some(pending())));
    let tasks = service_asking(MockRegistries::new(), Arc::new(mock), &desk(4, &[]));
    let done = tasks.task_create(&operator(), of_image(), None, Some(once())).await.unwrap();
    assert_eq!(done, Done { value: pending(), replayed: true });
}

#[tokio::test]
async fn nothing_is_stored_while_nobody_knows_what_the_image_is() {
    let mut registry = MockRegistries::new();
    let silent = || RegistryFailure::Silent("the registry docker.io does not answer".to_owned());
    registry.expect_look_up().returning(move |_| Err(silent()));
    let mut engines = MockEngines::new();
    engines.expect_look_up().returning(|_| Vec::new());
    let images = Arc::new(ImageService::new(Arc::new(registry), Arc::new(engines)));
    let (tasks, desk) = (Arc::new(MockTasks::new()), desk(4, &[]));
    let tasks =
        TaskService::new(TaskPorts { tasks, desk, images, clock: TestClock::start(), seal: Seal::new(&[7; 32]) });
    for outcome in [
        tasks.task_create(&operator(), of_image(), None, None).await.err(),
        tasks.task_dry_run(&operator(), of_image()).await.err(),
    ] {
        assert!(matches!(outcome, Some(Error::Unavailable { .. })), "{outcome:?}");
    }
}

#[tokio::test]
async fn taking_the_users_word_for_it_is_recorded() {
    let word = || TaskSpec { verify_image: false, ..of_image() };
    let mock = storing(|spec, entry| {
        assert_eq!(spec.image_truth, None);
        assert!(entry.message.as_ref().is_some_and(|message| message.contains("was not looked up")), "{entry:?}");
    });
    let tasks = service_asking(MockRegistries::new(), Arc::new(mock), &desk(4, &[]));
    tasks.task_create(&operator(), word(), None, None).await.unwrap();
}

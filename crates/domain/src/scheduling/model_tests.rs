use super::*;
use crate::scheduling::{
    Environment,
    fixtures::{cores, spec, task},
};

fn with_secret() -> Task {
    let env = Environment::parse([("DB_PASSWORD".to_owned(), "hunter-55".to_owned())].into()).unwrap();
    task(7, TaskSpec { env, image: Some("Registry/Render:2".to_owned()), ..spec(cores(1)) })
}

#[test]
fn states_are_told_apart_by_what_they_mean() {
    let check = |status: TaskStatus, live: bool, holds: bool| {
        assert_eq!((status.is_live(), status.holds()), (live, holds), "{status}");
    };
    check(TaskStatus::Pending, true, false);
    check(TaskStatus::Scheduled, true, true);
    check(TaskStatus::Running, true, true);
    check(TaskStatus::Unknown, true, true);
    check(TaskStatus::Completed, false, false);
    check(TaskStatus::Failed, false, false);
    check(TaskStatus::Cancelled, false, false);
}

#[test]
fn words_read_back() {
    for status in TaskStatus::ALL {
        assert_eq!(TaskStatus::parse(status.as_str()), Some(*status));
        assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
    }
    for status in AttemptStatus::ALL {
        assert_eq!(AttemptStatus::parse(status.as_str()), Some(*status));
    }
    assert_eq!(TaskStatus::parse("Pending"), None);
}

#[test]
fn a_task_is_shown_without_the_values_of_its_environment() {
    let task = with_secret();
    let (shown, printed) = (serde_json::to_string(&task).unwrap(), format!("{task:?}"));
    for text in [&shown, &printed] {
        assert!(!text.contains("hunter-55") && text.contains("DB_PASSWORD"), "{text}");
    }
    let read: Task = serde_json::from_str(&shown).unwrap();
    // Answers that were kept by the version before do not have it.
    assert_eq!(serde_json::from_str::<Task>(&shown.replace(r#""barred":[],"#, "")).unwrap(), read);
    assert_eq!(read, Task { spec: Arc::new(task.spec.redacted()), ..task });
}

#[test]
fn the_stored_spec_comes_back_with_the_values_of_its_environment() {
    let spec = with_secret().spec;
    let stored = serde_json::to_string(&*spec).unwrap();
    assert!(stored.contains("hunter-55"));
    assert_eq!(serde_json::from_str::<TaskSpec>(&stored).unwrap(), *spec);
}

#[test]
fn a_keyword_is_looked_for_in_name_and_image() {
    assert_eq!(with_secret().search_text(), "render\nregistry/render:2");
    assert_eq!(with_secret().target(), "task:7");
}

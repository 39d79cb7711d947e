use super::*;
use crate::{
    scheduling::fixtures::{cores, spec, tags, task, urgent},
    testing::START,
};
use chrono::TimeDelta;

const PATIENCE: TimeDelta = TimeDelta::minutes(10);

fn queue(specs: impl IntoIterator<Item = TaskSpec>) -> Queue {
    let mut queue = Queue::default();
    for (id, spec) in (1..).zip(specs) {
        queue.enter(TaskId(id), Waiting::of(&task(id, spec), PATIENCE));
    }
    queue
}

/// The tasks in the order in which they are next.
fn drain(mut queue: Queue) -> Vec<i64> {
    std::iter::from_fn(|| {
        let (_, id) = queue.next_ready()?;
        queue.leave(id).map(|_| id.0)
    })
    .collect()
}

#[test]
fn tasks_that_need_the_same_share_a_class_whatever_else_they_are() {
    let labelled = |value: &str| TaskSpec { labels: tags(&[("zone", value)]), ..spec(cores(1)) };
    let queue = queue([
        spec(cores(1)),
        TaskSpec { deadline: Some(START), ..urgent(5, cores(1)) },
        spec(cores(2)),
        labelled("a"),
        labelled("b"),
        labelled("a"),
    ]);
    let classes: Vec<_> = (1..=6).map(|id| queue.class_of(TaskId(id)).unwrap()).collect();
    assert_eq!(classes, [0, 0, 1, 2, 3, 2]);
}

#[test]
fn the_first_of_all_ready_classes_is_next() {
    let specs =
        || [urgent(3, cores(1)), urgent(4, cores(2)), urgent(5, cores(1)), urgent(1, cores(2)), urgent(4, cores(1))];
    assert_eq!(drain(queue(specs())), [3, 2, 5, 1, 4]);
    let mut sleeping = queue(specs());
    sleeping.sleep(sleeping.class_of(TaskId(1)).unwrap(), 7);
    assert_eq!(drain(sleeping), [2, 4]);
}

#[test]
fn a_task_that_joins_a_sleeping_class_sleeps_too() {
    let mut queue = queue([spec(cores(1))]);
    let class = queue.class_of(TaskId(1)).unwrap();
    queue.sleep(class, 7);
    queue.enter(TaskId(2), Waiting::of(&task(2, urgent(5, cores(1))), PATIENCE));
    assert_eq!(queue.next_ready(), None);
    queue.wake(class, 7);
    assert_eq!(queue.next_ready(), Some((class, TaskId(2))));
}

#[test]
fn a_class_ends_with_its_last_task() {
    let mut queue = queue([spec(cores(1)), spec(cores(1))]);
    let class = queue.class_of(TaskId(1)).unwrap();
    queue.sleep(class, 7);
    assert!(queue.leave(TaskId(1)).is_some() && queue.class(class).is_some());
    assert!(queue.leave(TaskId(2)).is_some() && queue.class(class).is_none());
    assert!(queue.leave(TaskId(2)).is_none());
    queue.enter(TaskId(3), Waiting::of(&task(3, spec(cores(1))), PATIENCE));
    assert_eq!(queue.next_ready(), Some((class, TaskId(3))), "a new one in its place, which was never judged");
}

#[test]
fn asks_go_by_the_longest_wait_and_can_be_put_off() {
    let mut queue = queue([spec(cores(1)), spec(cores(1)), spec(cores(1))]);
    let at = |minute| START + TimeDelta::minutes(minute);
    assert_eq!(queue.next_ask(), Some((at(10), TaskId(1))));
    queue.ask_later(TaskId(1), at(20), None);
    assert_eq!(queue.next_ask(), Some((at(10), TaskId(2))));
    queue.park(TaskId(2));
    assert_eq!((queue.next_ask(), queue.parked_count()), (Some((at(10), TaskId(3))), 1));
    queue.set_apart(TaskId(3));
    assert_eq!(queue.next_ask(), Some((at(20), TaskId(1))));
    queue.unpark();
    assert_eq!(queue.next_ask(), Some((at(10), TaskId(2))));
    queue.leave(TaskId(2));
    queue.put_back(TaskId(3));
    assert_eq!(queue.next_ask(), Some((at(10), TaskId(3))));
}

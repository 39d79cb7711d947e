use super::*;
use crate::{
    containers::ImageTruth,
    pools::{PoolState, Quotas},
    scheduling::{
        ArchitectureNeed,
        fixtures::{cores, cpu_quota, millis, pool, server, spec, tags, task, urgent},
        world::World,
    },
    testing::START,
};
use crate::{fleet::Architecture, scheduling::Success};

fn minutes(minutes: i64) -> TimeDelta {
    TimeDelta::minutes(minutes)
}

/// An engine with one server of so many cores.
fn engine(each: i64) -> Engine {
    let mut engine = Engine::default();
    engine.server(&server(1, cores(each)));
    engine
}

fn decided(decisions: &[Decision]) -> Vec<i64> {
    decisions.iter().map(|decision| decision.task.0).collect()
}

#[test]
fn the_queue_goes_by_priority_then_deadline_then_age() {
    let mut engine = engine(100);
    let due = |minute| Some(START + minutes(minute));
    let tasks = [
        urgent(3, cores(1)),
        TaskSpec { deadline: due(20), ..urgent(3, cores(2)) },
        TaskSpec { deadline: due(10), ..urgent(3, cores(3)) },
        urgent(5, cores(1)),
        TaskSpec { deadline: due(5), ..urgent(1, cores(1)) },
        urgent(3, cores(1)),
        urgent(5, cores(2)),
    ];
    for (id, spec) in (1..).zip(tasks) {
        engine.task(&task(id, spec));
    }
    let mut order = decided(&engine.next(START, 2));
    order.extend(decided(&engine.next(START, 100)));
    assert_eq!(order, [4, 7, 3, 2, 1, 6, 5]);
}

#[test]
fn a_task_that_does_not_fit_blocks_nobody() {
    let mut world = World::of(&[4]);
    let large = world.post(urgent(5, cores(8)));
    world.post(urgent(1, cores(3)));
    world.post(urgent(1, cores(2)));
    world.post(urgent(1, cores(1)));
    assert_eq!(world.settle(), [(2, 1), (4, 1)]);
    assert_eq!(world.status(large), TaskStatus::Pending);
}

#[test]
fn tasks_whose_images_are_elsewhere_do_not_wait_for_one_another() {
    let mut world = World::of(&[1, 1]);
    let on = |server: i64| {
        let truth = ImageTruth { servers: vec![ServerId(server)], ..ImageTruth::default() };
        TaskSpec { image_truth: Some(truth), ..spec(cores(1)) }
    };
    for server in [1, 1, 2, 2] {
        world.post(on(server));
    }
    assert_eq!(world.settle(), [(1, 1), (3, 2)]);
}

#[test]
fn a_decision_counts_with_those_before_it() {
    let mut engine = engine(2);
    for id in 1..=3 {
        engine.task(&task(id, spec(cores(1))));
    }
    let decisions = engine.next(START, 100);
    let expected =
        |task| Decision { task: TaskId(task), revision: 1, attempt: 1, server: ServerId(1), demand: cores(1) };
    assert_eq!(decisions, [expected(1), expected(2)]);
    assert_eq!((engine.waiting_count(), engine.claim_count()), (1, 2));
    assert_eq!(engine.fleet().free(ServerId(1)), Some(Resources::default()));
    assert!(engine.next(START, 100).is_empty() && !engine.has_work());
}

#[test]
fn a_decision_that_is_given_up_is_taken_again() {
    let mut engine = engine(1);
    engine.task(&task(1, spec(cores(1))));
    let first = engine.next(START, 100);
    engine.unclaim(TaskId(1));
    assert!(engine.has_work());
    assert_eq!(engine.next(START, 100), first);
    // Where the world had moved, that is taken first.
    engine.server_reserved(ServerId(1), cores(1));
    engine.unclaim(TaskId(1));
    assert!(engine.next(START, 100).is_empty());
    engine.server_reserved(ServerId(1), cores(0));
    assert_eq!(engine.next(START, 100), first);
}

#[test]
fn a_commit_takes_the_place_of_its_claim() {
    let check = |commit: fn(&mut Engine, &Task)| {
        let mut engine = engine(4);
        let pending = task(1, spec(cores(3)));
        engine.task(&pending);
        engine.next(START, 1);
        commit(&mut engine, &pending.placed(ServerId(1), START).unwrap());
        assert_eq!(engine.fleet().free(ServerId(1)), Some(cores(1)));
        assert_eq!((engine.waiting_count(), engine.claim_count()), (0, 0));
    };
    check(|engine, task| {
        engine.task(task);
        engine.server_reserved(ServerId(1), cores(3));
    });
    check(|engine, task| {
        engine.server_reserved(ServerId(1), cores(3));
        engine.task(task);
    });
}

#[test]
fn what_is_older_than_what_is_known_changes_nothing() {
    let mut engine = engine(4);
    let pending = task(1, TaskSpec { max_attempts: 2, ..spec(cores(3)) });
    engine.task(&pending);
    engine.next(START, 1);
    engine.task(&pending);
    assert_eq!(engine.claim_count(), 1, "the news of its creation comes after it was decided about");
    let failed = pending.placed(ServerId(1), START).unwrap().started(START).unwrap();
    let failed = failed.completed(Success::No, START).unwrap();
    engine.task(&failed);
    assert_eq!((engine.claim_count(), engine.waiting_count()), (0, 1));
    engine.task(&pending);
    let [decision] = engine.next(START, 1).try_into().unwrap();
    assert_eq!((decision.revision, decision.attempt), (failed.revision, 2));
    engine.task(&failed.cancelled(START).unwrap());
    assert_eq!((engine.claim_count(), engine.waiting_count()), (0, 0));
    assert_eq!(engine.fleet().free(ServerId(1)), Some(cores(4)));
}

#[test]
fn a_task_past_its_deadline_is_told_until_it_is_dealt_with_and_not_placed() {
    let mut engine = engine(1);
    let at = |minute| TaskSpec { deadline: Some(START + minutes(minute)), ..spec(cores(2)) };
    let tasks = [task(1, at(5)), task(2, at(3)), task(3, spec(cores(1)))];
    engine.task(&tasks[0]);
    engine.task(&tasks[1]);
    assert!(engine.next(START, 100).is_empty());
    assert_eq!(engine.wake_at(START), Some(START + minutes(3)));
    assert!(engine.expired(START + minutes(2), 100).is_empty());
    engine.server(&server(1, cores(8)));
    assert_eq!(decided(&engine.next(START + minutes(3), 100)), [1]);
    assert_eq!(engine.expired(START + minutes(3), 100), [TaskId(2)]);
    assert_eq!(engine.wake_at(START + minutes(3)), Some(START + minutes(3)));
    engine.task(&tasks[1].expired(START + minutes(3)).unwrap());
    assert!(engine.expired(START + minutes(9), 100).is_empty(), "the first is decided about");
    assert_eq!(engine.wake_at(START + minutes(9)), None);
}

#[test]
fn a_sleeping_task_wakes_when_its_server_gets_better() {
    let arm64 = TaskSpec { architecture: ArchitectureNeed::Only(Architecture::Arm64), ..spec(cores(1)) };
    let check = |spec: TaskSpec, change: fn(&mut Server)| {
        let mut world = World::of(&[2, 2]);
        let changed = world.servers[&ServerId(2)].clone();
        world.server(Server { cordoned: true, ..world.servers[&ServerId(1)].clone() });
        world.post(spec);
        assert!(world.settle().is_empty());
        let mut after = changed.clone();
        change(&mut after);
        world.server(after);
        assert_eq!(world.settle(), [(1, 2)]);
    };
    check(spec(cores(3)), |server| server.capacity = cores(3));
    check(TaskSpec { labels: tags(&[("zone", "a")]), ..spec(cores(1)) }, |server| server.tags = tags(&[("zone", "a")]));
    check(arm64, |server| server.architecture = Architecture::Arm64);
    check(TaskSpec { driver: crate::scheduling::TaskDriver::Exec, ..spec(cores(1)) }, |server| {
        server.inventory.drivers = vec![crate::fleet::Driver::Exec];
    });
}

#[test]
fn a_sleeping_task_wakes_when_its_pool_gets_better() {
    let check = |before: crate::pools::Pool, after: crate::pools::Pool| {
        let mut world = World::of(&[4]);
        world.pool(before);
        world.server(Server { pool_id: Some(PoolId(1)), ..server(1, cores(4)) });
        world.post(spec(cores(2)));
        assert!(world.settle().is_empty());
        world.pool(after);
        assert_eq!(world.settle(), [(1, 1)]);
    };
    let open = |quotas| pool(1, quotas);
    check(open(cpu_quota(1999)), open(cpu_quota(2000)));
    check(open(cpu_quota(1999)), open(Quotas::default()));
    check(crate::pools::Pool { state: PoolState::Saturated, ..open(cpu_quota(4000)) }, open(cpu_quota(4000)));
}

#[test]
fn a_hundred_thousand_tasks_that_fit_nowhere_cost_nothing_until_something_helps() {
    let check = |demand: fn(i64) -> i64, most: u64| {
        let mut world = World::of(&[4; 20]);
        let running: Vec<_> = (0..80).map(|_| world.post(spec(cores(1)))).collect();
        assert_eq!(world.settle().len(), 80);
        for n in 0..100_000 {
            world.post(spec(millis(demand(n))));
        }
        assert!(world.settle().is_empty());
        let before = world.engine.judgements();
        world.settle();
        assert_eq!(world.engine.judgements(), before, "nothing changed");
        world.end(running[7]);
        let placed = world.settle().len();
        let judged = world.engine.judgements() - before;
        assert!(judged <= most, "{judged} judgements for one completion that let {placed} start");
    };
    // All the same and too large; each different and too large; all the same, one of which fits.
    check(|_| 2000, 0);
    check(|n| 1001 + n, 0);
    check(|_| 1000, 2);
    // Each different, and each would fit alone: one look at one server for each.
    check(|n| 600 + n % 400, 401);
}

#[test]
fn a_task_can_be_dispatched_before_its_turn() {
    let mut engine = engine(2);
    for id in 1..=2 {
        engine.task(&task(id, urgent(5, cores(2))));
    }
    let late = task(3, urgent(1, cores(2)));
    let decision = engine.dispatch(&late).unwrap();
    assert_eq!((decision.task, decision.server), (TaskId(3), ServerId(1)));
    assert_eq!(engine.dispatch(&late), Some(decision), "a second time is the same decision");
    assert_eq!(engine.dispatch(&task(4, spec(cores(1)))), None);
    assert!(engine.next(START, 100).is_empty(), "its room is taken");
    assert_eq!(engine.dispatch(&late.placed(ServerId(1), START).unwrap()), None);
}

#[test]
fn room_can_be_claimed_for_a_task_that_is_not_stored_yet() {
    let mut engine = engine(2);
    let (server, _) = engine.claim_for(&spec(cores(2))).unwrap();
    assert_eq!((server, engine.claim_for(&spec(cores(1)))), (ServerId(1), None));
    engine.unclaim_room(server, cores(2));
    assert!(engine.claim_for(&spec(cores(1))).is_some());
}

#[test]
fn a_reset_keeps_the_claims_of_what_is_still_pending() {
    let mut engine = engine(4);
    let (kept, gone) = (task(1, spec(cores(1))), task(2, spec(cores(2))));
    engine.task(&kept);
    engine.task(&gone);
    assert_eq!(engine.next(START, 100).len(), 2);
    engine.reset([&server(1, cores(4))], [], [&kept, &task(3, spec(cores(4)))]);
    assert_eq!((engine.claim_count(), engine.waiting_count()), (1, 1));
    assert_eq!(engine.fleet().free(ServerId(1)), Some(cores(3)));
    assert!(engine.next(START, 100).is_empty());
    engine.task_gone(TaskId(1));
    assert_eq!(decided(&engine.next(START, 100)), [3]);
}

#[test]
fn a_server_that_goes_takes_its_claims_along() {
    let mut engine = engine(4);
    engine.task(&task(1, spec(cores(1))));
    engine.next(START, 100);
    engine.server_gone(ServerId(1));
    engine.unclaim(TaskId(1));
    assert!(engine.next(START, 100).is_empty());
    engine.server(&server(1, cores(4)));
    assert_eq!(decided(&engine.next(START, 100)), [1]);
    assert_eq!(engine.fleet().free(ServerId(1)), Some(cores(3)));
}

use super::*;
use crate::{
    fleet::Server,
    ids::{PoolId, ServerId},
    pools::PoolState,
    scheduling::{
        TaskSpec, TaskStatus,
        fixtures::{cores, cpu_quota, pool, server, spec, urgent},
        world::World,
    },
    testing::START,
};

const PATIENCE: TimeDelta = super::super::PATIENCE;

fn minutes(minutes: i64) -> TimeDelta {
    TimeDelta::minutes(minutes)
}

/// An endless stream of tasks: three times as many wait as fit, and each runs for five to seven minutes.
struct Stream {
    world: World,
    load: TaskSpec,
    waiting: i64,
    running: Vec<(i64, TaskId)>,
    minute: i64,
}

impl Stream {
    fn new(world: World, load: TaskSpec) -> Self {
        let mut stream = Self { world, load, waiting: 0, running: Vec::new(), minute: 0 };
        stream.step();
        stream
    }

    fn step(&mut self) {
        let capacity: i64 = self.world.servers.values().map(|server| server.capacity.cpu_millis).sum();
        while self.waiting < 3 * capacity / self.load.demand.cpu_millis {
            self.world.post(self.load.clone());
            self.waiting += 1;
        }
        for (id, _) in self.world.settle() {
            self.waiting -= i64::from(*self.world.tasks[&TaskId(id)].spec == self.load);
            self.running.push((self.minute + 5 + id % 3, TaskId(id)));
        }
        let minute = self.minute;
        for (_, id) in self.running.extract_if(.., |(until, _)| *until <= minute) {
            self.world.end(id);
        }
        self.world.pass(minutes(1));
        self.minute += 1;
    }

    /// After how many minutes a task is placed that is posted now.
    fn minutes_until_placed(&mut self, spec: TaskSpec, most: i64) -> Option<i64> {
        let id = self.world.post(spec);
        (0..most).find(|_| {
            self.step();
            self.world.status(id) != TaskStatus::Pending
        })
    }
}

#[test]
fn a_large_task_is_placed_under_an_endless_stream_of_small_ones() {
    for servers in [&[4][..], &[4, 4, 4], &[2, 4, 8]] {
        let mut stream = Stream::new(World::of(servers), urgent(5, cores(1)));
        let minute = stream.minutes_until_placed(spec(cores(4)), 60);
        assert!(minute.is_some_and(|minute| (9..=30).contains(&minute)), "{servers:?}: {minute:?}");
    }
}

#[test]
fn a_task_of_low_priority_is_placed_under_an_endless_stream_of_urgent_ones() {
    for size in [1, 4] {
        let mut stream = Stream::new(World::of(&[4]), urgent(5, cores(size)));
        let minute = stream.minutes_until_placed(urgent(1, cores(size)), 60);
        assert!(minute.is_some_and(|minute| (9..=20).contains(&minute)), "{size} cores: {minute:?}");
    }
}

#[test]
fn a_task_waits_for_the_quota_of_its_pool_but_not_for_ever() {
    let mut world = World::of(&[]);
    world.pool(pool(1, cpu_quota(4000)));
    for id in 1..=2 {
        world.server(Server { pool_id: Some(PoolId(1)), ..server(id, cores(4)) });
    }
    let minute = Stream::new(world, urgent(5, cores(1))).minutes_until_placed(spec(cores(4)), 90);
    assert!(minute.is_some_and(|minute| (9..=60).contains(&minute)), "{minute:?}");
}

#[test]
fn every_one_of_many_large_tasks_is_placed() {
    let mut stream = Stream::new(World::of(&[4, 4]), urgent(5, cores(1)));
    let large: Vec<TaskId> = (0..12).map(|_| stream.world.post(urgent(1, cores(3)))).collect();
    for _ in 0..120 {
        stream.step();
    }
    for id in large {
        assert_ne!(stream.world.status(id), TaskStatus::Pending, "task {id}");
    }
}

#[test]
fn what_runs_for_hours_delays_a_large_task_but_does_not_stop_it() {
    let mut world = World::of(&[4, 4]);
    let long: Vec<TaskId> = (0..4).map(|_| world.post(spec(cores(1)))).collect();
    world.settle();
    let mut stream = Stream::new(world, urgent(5, cores(1)));
    let large = stream.world.post(urgent(1, cores(4)));
    for _ in 0..180 {
        stream.step();
    }
    assert_eq!(stream.world.status(large), TaskStatus::Pending);
    for id in long {
        stream.world.end(id);
    }
    let minute = (0..360).find(|_| {
        stream.step();
        stream.world.status(large) != TaskStatus::Pending
    });
    assert!(minute.is_some(), "{:?}", stream.world.engine.holds);
}

/// A server of four cores on which three tasks of one core run, and a task of four cores that holds it since `PATIENCE`.
fn held() -> (World, TaskId) {
    let mut world = World::of(&[4]);
    for _ in 0..3 {
        world.post(spec(cores(1)));
    }
    world.settle();
    let holder = world.post(spec(cores(4)));
    world.settle();
    world.pass(PATIENCE);
    assert_eq!(world.engine.wake_at(world.now), Some(world.now));
    assert!(world.settle().is_empty());
    (world, holder)
}

#[test]
fn what_is_held_is_refused_to_others_with_the_reason() {
    let (mut world, holder) = held();
    let other = world.post(urgent(5, cores(1)));
    assert!(world.settle().is_empty());
    let plan = world.engine.plan_of(&world.tasks[&other]);
    let reasons = plan.reasons(&plan.candidates[0]);
    assert_eq!(reasons[0].code, "held");
    assert_eq!(reasons[0].detail, "is kept free for task 4, which has waited longest");
    let plan = world.engine.plan_of(&world.tasks[&holder]);
    assert_eq!(plan.reasons(&plan.candidates[0])[0].code, "insufficient_cpu", "not held against the holder");
    assert_eq!(world.engine.claim_for(&spec(cores(1))), None);
}

#[test]
fn a_hold_ends_when_its_task_is_placed_or_leaves() {
    let (mut world, _) = held();
    let other = world.post(spec(cores(1)));
    for id in 1..=3 {
        world.end(TaskId(id));
    }
    assert_eq!(world.settle(), [(4, 1)]);
    world.end(TaskId(4));
    assert_eq!(world.settle(), [(other.0, 1)]);

    let (mut world, holder) = held();
    let other = world.post(spec(cores(1)));
    world.end(holder);
    assert_eq!(world.settle(), [(other.0, 1)]);
}

#[test]
fn a_hold_ends_when_nothing_becomes_free_and_is_taken_again_after_a_rest() {
    let (mut world, _) = held();
    let other = world.post(spec(cores(1)));
    // It had waited ten minutes, so the hold lasts ten minutes, and so does the rest.
    world.pass(minutes(9));
    assert!(world.settle().is_empty());
    assert_eq!(world.engine.wake_at(world.now), Some(START + minutes(20)));
    world.pass(minutes(1));
    assert_eq!(world.settle(), [(other.0, 1)], "others get their share");
    world.end(other);
    world.pass(minutes(9));
    let another = world.post(spec(cores(1)));
    assert_eq!(world.settle(), [(another.0, 1)]);
    world.end(another);
    world.pass(minutes(1));
    world.post(spec(cores(1)));
    assert!(world.settle().is_empty(), "it is held again");
    // It had waited thirty minutes; one core becomes free meanwhile, so the hold goes on.
    world.pass(minutes(29));
    world.end(TaskId(1));
    world.pass(minutes(1));
    assert!(world.settle().is_empty());
    assert_eq!(world.engine.holds[0].review_at, world.now + minutes(30));
}

#[test]
fn a_hold_in_vain_is_followed_by_one_elsewhere() {
    let mut world = World::of(&[4, 4]);
    let services: Vec<TaskId> = [2, 2, 1, 2].map(|size| world.post(spec(cores(size)))).to_vec();
    world.settle();
    let holder = world.post(spec(cores(4)));
    let held_by = |world: &World, server: usize| world.engine.fleet.servers[server].hold != NOT_HELD;
    world.settle();
    world.pass(PATIENCE);
    world.settle();
    let first = usize::from(held_by(&world, 1));
    assert!(held_by(&world, first) && !held_by(&world, 1 - first), "the one where less is missing");
    world.pass(minutes(10));
    world.settle();
    world.pass(minutes(10));
    world.settle();
    assert!(held_by(&world, 1 - first) && !held_by(&world, first));
    assert_eq!(world.status(holder), TaskStatus::Pending);
    assert_eq!(services.len(), 4);
}

#[test]
fn what_can_never_fit_holds_nothing() {
    let mut world = World::of(&[4]);
    world.post(spec(cores(4)));
    world.settle();
    for _ in 0..10 {
        world.post(spec(cores(5)));
    }
    world.post(TaskSpec { pool_id: Some(PoolId(7)), ..spec(cores(1)) });
    world.settle();
    world.pass(PATIENCE);
    world.settle();
    assert!(world.engine.holds.is_empty());
    assert_eq!(world.engine.wake_at(world.now), Some(world.now + PATIENCE), "not looked at again before that");
    world.server(Server { reserved: cores(4), ..server(1, cores(8)) });
    world.pass(PATIENCE);
    world.settle();
    assert_eq!(world.engine.holds.len(), 1, "only one of them can hold the only server");
}

#[test]
fn a_server_that_cannot_be_used_any_more_is_not_held() {
    let (mut world, holder) = held();
    world.server(Server { cordoned: true, ..world.servers[&ServerId(1)].clone() });
    world.settle();
    assert!(world.engine.holds.is_empty());
    world.server(Server { id: ServerId(2), ..server(2, cores(4)) });
    assert_eq!(world.settle(), [(holder.0, 2)]);

    let (mut world, _) = held();
    world.engine.server_gone(ServerId(1));
    world.settle();
    assert!(world.engine.holds.is_empty());
}

#[test]
fn a_saturated_pool_is_not_held() {
    let mut world = World::of(&[]);
    world.pool(pool(1, cpu_quota(4000)));
    world.server(Server { pool_id: Some(PoolId(1)), ..server(1, cores(4)) });
    world.post(spec(cores(1)));
    world.settle();
    let large = world.post(spec(cores(4)));
    world.pass(PATIENCE);
    world.settle();
    assert_eq!(world.engine.holds.len(), 1);
    let open = world.pools[&PoolId(1)].0.clone();
    world.pool(crate::pools::Pool { state: PoolState::Saturated, ..open.clone() });
    world.pass(PATIENCE);
    world.settle();
    assert!(world.engine.holds.is_empty());
    world.end(TaskId(1));
    assert!(world.settle().is_empty());
    world.pool(open);
    assert_eq!(world.settle(), [(large.0, 1)]);
}

#[test]
fn only_a_few_tasks_hold_something_at_a_time_and_the_longest_wait_is_first() {
    let mut world = World::of(&[4; 10]);
    for _ in 0..10 {
        world.post(spec(cores(3)));
    }
    assert_eq!(world.settle().len(), 10);
    for _ in 0..10 {
        world.post(spec(cores(4)));
        world.pass(minutes(1));
    }
    world.pass(PATIENCE);
    world.settle();
    let holders: Vec<i64> = world.engine.fleet.holders.iter().map(|task| task.0).collect();
    assert_eq!(holders, [11, 12, 13, 14]);
    let targets: Vec<Target> = world.engine.holds.iter().map(|hold| hold.target).collect();
    assert_eq!(targets, (1..=4).map(|id| Target::Server(ServerId(id))).collect::<Vec<_>>());
}

//! Whatever happens to tasks in whatever order: counters say what attempts hold, and an operation is open for exactly as
//! long as its attempt holds something.

use super::{Known, end, ended, listed};
use crate::{
    on_both,
    store::{Store, agents_task, at, change, millis, placement, server_in},
    tasks::write,
};
use domain::{
    fleet::{
        Servers,
        operations::{Operation, OperationFilter},
        protocol::Ending,
    },
    ids::ServerId,
    scheduling::{
        Attempt, AttemptEnd, AttemptStatus, AttemptStep, NewTask, Placed, Task, TaskDriver, TaskSpec, TaskStatus, Tasks,
    },
    units::Resources,
};
use std::sync::Arc;

on_both!(a_random_walk_keeps_everything_in_step, another_random_walk_does_so_too);

const STEPS: i64 = 220;
const TASKS: usize = 7;

/// `SplitMix64`: the same numbers in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % u64::try_from(sides).unwrap()).unwrap()
    }
}

struct Walk {
    store: Store,
    dice: Dice,
    servers: [ServerId; 2],
    tasks: Vec<Task>,
    known: Arc<Known>,
}

impl Walk {
    async fn begin(store: Store, seed: u64) -> Self {
        let pool = store.pool("edge").await;
        for name in ["one", "two"] {
            store.servers.create(server_in(pool.id, name), change("server.create")).await.unwrap();
        }
        let servers = [store.joined("one").await.id, store.joined("two").await.id];
        let known = Known::by(&store).await;
        let mut walk = Self { store, dice: Dice(seed), servers, tasks: Vec::new(), known };
        for _ in 0..TASKS {
            let task = walk.posted().await;
            walk.tasks.push(task);
        }
        walk
    }

    async fn posted(&mut self) -> Task {
        let driver = [TaskDriver::Docker, TaskDriver::Exec, TaskDriver::None][self.dice.roll(3)];
        let demand = millis([0, 500, 1500, 2500][self.dice.roll(4)]);
        let spec = TaskSpec { driver, demand, ..agents_task("walker").spec };
        self.store.tasks.create(NewTask { spec }, change("task.create")).await.unwrap().value
    }

    /// Does something to one of the tasks: where it is not allowed, the repository is asked for it all the same.
    async fn step(&mut self, n: i64) {
        let (index, now) = (self.dice.roll(TASKS), at(100 + n));
        let task = self.tasks[index].clone();
        let go_on = Task { revision: task.revision + 1, updated_at: now, ..task.clone() };
        let ending = [Ending::Completed, Ending::Failed, Ending::Cancelled, Ending::Unknown][self.dice.roll(4)];
        let asked = self.dice.roll(2) == 0;
        let (after, step) = match self.dice.roll(10) {
            0..=2 => return self.place(index).await,
            3 => (task.found_running(now).unwrap_or(go_on), AttemptStep::Start),
            4 => (task.cancelling(now).unwrap_or(go_on), AttemptStep::AskEnd),
            5 => (task.lost(now).unwrap_or(go_on), AttemptStep::Lose),
            6 => (task.found(now).unwrap_or(go_on), AttemptStep::Find),
            7 => (task.ended_by(&end(ending), asked, now).unwrap_or(go_on), ended(&end(ending), asked)),
            8 => {
                let end = AttemptEnd::by_hand(AttemptStatus::Cancelled, Some("cancelled"));
                (task.cancelled(now).unwrap_or(go_on), AttemptStep::End(end))
            }
            _ => return self.replace(index).await,
        };
        let stale = self.store.tasks.update(task.clone(), step.clone(), change("task.update")).await;
        assert!(stale.is_err(), "it is at that revision already");
        self.tasks[index] = write(&self.store, &task, after, step).await;
    }

    async fn place(&mut self, index: usize) {
        let task = self.tasks[index].clone();
        if task.status != TaskStatus::Pending {
            return;
        }
        let plan = placement(&task, self.servers[self.dice.roll(2)]);
        let answers = self.store.tasks.place(vec![plan.clone(), plan]).await.unwrap();
        assert_eq!(answers[1], Placed::Moved);
        self.tasks[index] = self.store.tasks.get(task.id).await.unwrap();
    }

    /// Deletes a task that holds nothing, and posts another in its place; what has ended is rather run again.
    async fn replace(&mut self, index: usize) {
        let task = self.tasks[index].clone();
        if let Ok(again) = task.retried(at(99)) {
            self.tasks[index] = write(&self.store, &task, again, AttemptStep::Keep).await;
            return;
        }
        let attempts = self.store.tasks.attempts(task.id).await.unwrap();
        let holds = attempts.iter().any(|attempt| attempt.held);
        assert_eq!(self.store.tasks.delete(task, change("task.delete")).await.is_err(), holds);
        if !holds {
            self.tasks[index] = self.posted().await;
        }
    }

    async fn check(&self, n: i64) {
        assert_eq!(self.store.tasks.ledger_check().await.unwrap(), [], "after step {n}");
        let mut attempts: Vec<(Attempt, bool)> = Vec::new();
        for task in &self.tasks {
            let by_agent = task.spec.driver.needs().is_some();
            let of_task = self.store.tasks.attempts(task.id).await.unwrap();
            assert!(of_task.iter().skip(1).all(|attempt| !attempt.held), "only the newest may hold something");
            attempts.extend(of_task.into_iter().map(|attempt| (attempt, by_agent)));
        }
        for server in self.servers {
            let held = attempts.iter().filter(|(attempt, _)| attempt.held && attempt.server_id == server);
            let sum = held.fold(Resources::default(), |sum, (attempt, _)| sum.plus(attempt.demand));
            assert_eq!(self.store.servers.get(server).await.unwrap().reserved, sum, "after step {n}");
        }
        let mut operations: Vec<Operation> = listed(&self.store, OperationFilter::default()).await;
        operations.reverse();
        for (attempt, by_agent) in &attempts {
            let is_of = |operation: &&Operation| {
                (operation.task_id, operation.attempt) == (Some(attempt.task_id), Some(attempt.number))
            };
            let found: Vec<bool> = operations.iter().filter(is_of).map(|operation| operation.state.is_open()).collect();
            assert_eq!(found, if *by_agent { vec![attempt.held] } else { vec![] }, "after step {n}: {attempt:?}");
        }
        assert_eq!(operations.len(), attempts.iter().filter(|(_, by_agent)| *by_agent).count(), "none is left behind");
        operations.retain(|operation| operation.state.is_open());
        assert_eq!(self.known.open(), operations, "after step {n}");
    }
}

async fn walk(store: Store, seed: u64) {
    let mut walk = Walk::begin(store, seed).await;
    for n in 0..STEPS {
        walk.step(n).await;
        if n % 4 == 0 {
            walk.check(n).await;
        }
    }
    walk.check(STEPS).await;
    let second = Known::by(&walk.store.second_process()).await;
    assert_eq!(second.open(), walk.known.open());
    let rows = walk.store.log().await.len();
    walk.store.check_chain(rows).await;
}

async fn a_random_walk_keeps_everything_in_step(store: Store) {
    walk(store, 7).await;
}

async fn another_random_walk_does_so_too(store: Store) {
    walk(store, 2026).await;
}

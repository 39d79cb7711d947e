use super::*;
use crate::{
    fleet::{
        Architecture, Inventory,
        protocol::{End, Ending},
    },
    scheduling::{
        ArchitectureNeed, TaskDriver, TaskSpec, explain,
        fixtures::{cores, server, spec, task},
        world::World,
    },
};
use Architecture::{Arm64, Riscv64, X86_64};

fn exec_format() -> End {
    End {
        ending: Ending::Failed,
        exit_code: None,
        signal: None,
        reason: Some("exec_format".to_owned()),
        detail: Some("exec /bin/x: Exec format error".to_owned()),
        outcome: None,
        started_at: None,
        finished_at: None,
    }
}

/// A machine with an agent.
fn machine(id: i64, architecture: Architecture, emulated: &[Architecture]) -> Server {
    let drivers = vec![crate::fleet::Driver::Docker];
    let inventory = Inventory { emulated_architectures: emulated.to_vec(), drivers, ..Inventory::default() };
    Server { architecture, inventory, ..server(id, cores(4)) }
}

fn container(need: ArchitectureNeed, allow_emulation: bool) -> TaskSpec {
    let driver = TaskDriver::Docker;
    TaskSpec { architecture: need, allow_emulation, driver, max_attempts: 3, ..spec(cores(1)) }
}

/// What is barred once one more attempt on this server has ended with an exec format error.
#[track_caller]
fn check(task: &Task, host: &Server, expected: &[Architecture]) {
    let now = task.updated_at;
    let after = task.placed(host.id, now).unwrap().ended_by(&exec_format(), false, now).unwrap().barring(host);
    assert_eq!(after.barred, expected.iter().copied().collect());
}

#[test]
fn what_an_attempt_ran_as_is_barred() {
    use ArchitectureNeed::{Only, Universal};
    let host = machine(1, X86_64, &[Arm64, Riscv64]);
    let new = |need, emulation| task(7, container(need, emulation));
    check(&new(Only(X86_64), false), &host, &[X86_64]);
    check(&new(Universal, true), &host, &[X86_64]);
    check(&new(Only(Arm64), true), &host, &[Arm64]);
    // Not what it runs on now, so it was something else that it ran as.
    check(&new(Only(Arm64), false), &host, &[]);
    // Where the native one is barred, it was emulated.
    let again = Task { barred: X86_64.into(), ..new(Universal, true) };
    check(&again, &host, &[X86_64, Arm64, Riscv64]);
    check(&again, &machine(1, X86_64, &[Riscv64]), &[X86_64, Riscv64]);
    check(&again, &machine(1, Arm64, &[X86_64]), &[X86_64, Arm64]);
}

#[test]
fn nothing_is_barred_to_a_task_that_does_not_go_on() {
    let host = machine(1, X86_64, &[]);
    let last = task(7, TaskSpec { max_attempts: 1, ..container(ArchitectureNeed::Only(X86_64), false) });
    check(&last, &host, &[]);
    let running = task(7, container(ArchitectureNeed::Only(X86_64), false)).placed(host.id, last.updated_at).unwrap();
    let asked = running.ended_by(&exec_format(), true, last.updated_at).unwrap().barring(&host);
    assert_eq!((asked.status, asked.barred), (TaskStatus::Cancelled, ArchitectureSet::default()));
    let other = End { reason: Some("image_missing".to_owned()), ..exec_format() };
    let other = running.ended_by(&other, false, last.updated_at).unwrap().barring(&host);
    assert_eq!((other.status, other.barred), (TaskStatus::Pending, ArchitectureSet::default()));
}

/// Ends the attempt of a task, as its agent would.
fn fail(world: &mut World, task: &Task) {
    let host = world.servers[&task.server_id.unwrap()].clone();
    let ended = task.ended_by(&exec_format(), false, world.now).unwrap().barring(&host);
    world.reserve(host.id, crate::units::Resources::default().minus(task.spec.demand));
    world.engine.server_reserved(host.id, world.servers[&host.id].reserved);
    world.engine.task(&ended);
    world.tasks.insert(ended.id, ended);
}

/// Two machines, where a task comes to the first, which it turns out not to be for.
fn failed_on_the_first(second: Server) -> (World, crate::ids::TaskId) {
    let mut world = World::of(&[]);
    world.server(machine(1, X86_64, &[]));
    let id = world.post(container(ArchitectureNeed::Universal, true));
    assert_eq!(world.settle(), [(1, 1)]);
    world.server(second);
    let placed = world.tasks[&id].clone();
    fail(&mut world, &placed);
    (world, id)
}

#[test]
fn the_next_attempt_is_on_another_architecture() {
    let (mut world, id) = failed_on_the_first(machine(2, Arm64, &[]));
    assert_eq!(world.settle(), [(1, 2)]);
    let second = world.tasks[&id].clone();
    assert_eq!((second.attempt, second.barred), (2, X86_64.into()));
    fail(&mut world, &second);
    assert_eq!(world.settle(), []);
    // One is left, and a machine that it may run on comes.
    world.server(machine(3, Riscv64, &[]));
    assert_eq!(world.settle(), [(1, 3)]);
}

#[test]
fn where_all_is_barred_the_task_waits_and_says_so_until_it_is_retried() {
    let (mut world, id) = failed_on_the_first(machine(2, X86_64, &[]));
    assert_eq!(world.settle(), []);
    let waiting = world.tasks[&id].clone();
    assert_eq!((waiting.status, waiting.attempt), (TaskStatus::Pending, 1));
    assert_eq!(world.engine.dispatch(&waiting), None);
    let [reason] = explain(&world.engine.plan_of(&waiting)).try_into().unwrap();
    assert_eq!((reason.code, reason.servers), ("architecture_barred", 2));
    // Tasks that need the same, and to which nothing is barred, go where this one does not.
    let other = world.post((*waiting.spec).clone());
    assert_eq!(world.settle().iter().map(|(task, _)| *task).collect::<Vec<_>>(), [other.0]);
    let retried = waiting.cancelled(world.now).unwrap().retried(world.now).unwrap();
    world.engine.task(&retried);
    world.tasks.insert(id, retried);
    assert_eq!(world.settle().iter().map(|(task, _)| *task).collect::<Vec<_>>(), [id.0]);
}

#[test]
fn what_waits_keeps_its_bars_when_all_is_read_anew() {
    let (mut world, id) = failed_on_the_first(machine(2, X86_64, &[]));
    let World { engine, servers, tasks, .. } = &mut world;
    engine.reset(servers.values(), std::iter::empty(), tasks.values());
    assert_eq!(world.settle(), []);
    assert!(world.engine.plan_of(&world.tasks[&id]).placement.is_none());
    // Also for who asks about one that does not wait any more.
    world.engine.task_gone(id);
    assert!(world.engine.plan_of(&world.tasks[&id]).placement.is_none());
}

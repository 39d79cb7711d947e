use super::*;
use crate::{
    audit::AuditEntry,
    identity::Actor,
    scheduling::{Attempt, NewTask, TaskSpec},
    testing::{START, name},
};

const CORE: Resources = Resources { cpu_millis: 1000, memory_mib: 0, storage_mib: 0, gpus: 0 };

fn placement(task: i64, demand: Resources) -> Placement {
    let pending = NewTask { spec: TaskSpec::new(name("job"), demand) }.into_task(TaskId(task), START);
    let task = pending.placed(ServerId(1), START).unwrap();
    let attempt = Attempt::opened(&task, START).unwrap();
    Placement { task, attempt, entry: AuditEntry::new(&Actor::system("test"), "task.dispatch", START) }
}

fn accounts() -> Accounts {
    let server = ServerAccount {
        architecture: Architecture::Arm64,
        emulated: Vec::new(),
        capacity: CORE.plus(CORE),
        reserved: CORE,
        open: true,
        pool_id: Some(PoolId(9)),
    };
    let quotas = Quotas { cpu_millis: Some(2000), ..Quotas::default() };
    let pool = PoolAccount { quotas, reserved: CORE, open: true };
    Accounts {
        servers: [(ServerId(1), server)].into(),
        pools: [(PoolId(9), pool)].into(),
        pending: [(TaskId(7), 1), (TaskId(8), 1)].into(),
    }
}

/// Changes the accounts and fails unless a core is then given out or not, and counted on the server and in the pool.
#[track_caller]
fn check(change: impl FnOnce(&mut Accounts), expected: Placed) {
    let mut accounts = accounts();
    change(&mut accounts);
    let before = accounts.clone();
    assert_eq!(accounts.take(&placement(7, CORE)), expected);
    if expected == Placed::Moved {
        return assert_eq!(accounts, before, "nothing is taken");
    }
    assert_eq!(accounts.servers[&ServerId(1)].reserved, CORE.plus(CORE));
    assert_eq!(accounts.pools[&PoolId(9)].reserved, CORE.plus(CORE));
    assert_eq!(accounts.take(&placement(7, Resources::default())), Placed::Moved, "a task is placed once");
}

#[test]
fn room_is_taken_only_if_all_is_as_it_was_planned_for() {
    let server = |accounts: &mut Accounts, change: fn(&mut ServerAccount)| {
        change(accounts.servers.get_mut(&ServerId(1)).unwrap());
    };
    let pool = |accounts: &mut Accounts, change: fn(&mut PoolAccount)| {
        change(accounts.pools.get_mut(&PoolId(9)).unwrap());
    };
    check(|_| {}, Placed::Held);
    check(|accounts| server(accounts, |server| server.open = false), Placed::Moved);
    check(|accounts| server(accounts, |server| server.reserved.cpu_millis += 1), Placed::Moved);
    check(|accounts| server(accounts, |server| server.capacity.cpu_millis -= 1), Placed::Moved);
    check(|accounts| pool(accounts, |pool| pool.open = false), Placed::Moved);
    check(|accounts| pool(accounts, |pool| pool.reserved.cpu_millis += 1), Placed::Moved);
    check(|accounts| pool(accounts, |pool| pool.quotas.cpu_millis = Some(1999)), Placed::Moved);
    check(|accounts| pool(accounts, |pool| pool.quotas.memory_mib = Some(0)), Placed::Held);
    check(|accounts| _ = accounts.servers.remove(&ServerId(1)), Placed::Moved);
    check(|accounts| _ = accounts.pending.remove(&TaskId(7)), Placed::Moved);
    check(|accounts| _ = accounts.pending.insert(TaskId(7), 2), Placed::Moved);
}

#[test]
fn what_one_placement_takes_the_next_does_not_get() {
    let mut accounts = accounts();
    assert_eq!(accounts.take(&placement(7, CORE)), Placed::Held);
    assert_eq!(accounts.take(&placement(8, CORE)), Placed::Moved);
}

#[test]
fn a_task_runs_on_what_it_was_compiled_for_and_in_the_pool_that_it_asks_for() {
    use Architecture::{Arm64, Riscv64};
    let check = |need, allow_emulation, emulated: &[Architecture], pool: Option<i64>, expected| {
        let mut accounts = accounts();
        accounts.servers.get_mut(&ServerId(1)).unwrap().emulated = emulated.to_vec();
        let mut placement = placement(7, CORE);
        let spec = TaskSpec {
            architecture: need,
            allow_emulation,
            pool_id: pool.map(PoolId),
            ..TaskSpec::new(name("job"), CORE)
        };
        placement.task.spec = spec.into();
        assert_eq!(accounts.take(&placement), expected, "{need:?} {allow_emulation} {emulated:?} {pool:?}");
    };
    check(ArchitectureNeed::Universal, false, &[], None, Placed::Held);
    check(ArchitectureNeed::Only(Arm64), false, &[], Some(9), Placed::Held);
    check(ArchitectureNeed::Only(Arm64), false, &[], Some(8), Placed::Moved);
    check(ArchitectureNeed::Only(Riscv64), true, &[], None, Placed::Moved);
    check(ArchitectureNeed::Only(Riscv64), false, &[Riscv64], None, Placed::Moved);
    check(ArchitectureNeed::Only(Riscv64), true, &[Riscv64], None, Placed::Held);
}

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
    let server = ServerAccount { capacity: CORE.plus(CORE), reserved: CORE, open: true, pool_id: Some(PoolId(9)) };
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

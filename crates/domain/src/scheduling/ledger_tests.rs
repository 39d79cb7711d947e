use super::*;
use crate::{
    audit::AuditEntry,
    fleet::{Architecture, Driver, ServerStatus},
    identity::Actor,
    pools::PoolState,
    scheduling::{
        ArchitectureNeed, Attempt, Task, TaskDriver, TaskSpec,
        fixtures::{cores, cpu_quota, pool, server, spec, tags, task},
    },
    testing::START,
};

const SERVER: ServerId = ServerId(1);
const POOL: PoolId = PoolId(9);

fn placement_of(id: i64, spec: TaskSpec) -> Placement {
    let task = task(id, spec).placed(SERVER, START).unwrap();
    let attempt = Attempt::opened(&task, START).unwrap();
    Placement { task, attempt, entry: AuditEntry::new(&Actor::system("test"), "task.dispatch", START) }
}

fn placement(id: i64, cpus: i64) -> Placement {
    placement_of(id, spec(cores(cpus)))
}

/// What is locked: one of two cores is reserved, on the server and in the pool's quota of two.
struct Locked {
    servers: Vec<Server>,
    pool: Pool,
    pool_reserved: Resources,
    pending: BTreeMap<TaskId, i64>,
}

impl Locked {
    fn new() -> Self {
        let server = Server {
            architecture: Architecture::Arm64,
            reserved: cores(1),
            pool_id: Some(POOL),
            ..server(SERVER.0, cores(2))
        };
        let pool = pool(POOL.0, cpu_quota(2000));
        let pending = [(TaskId(7), 1), (TaskId(8), 1)].into();
        Self { servers: vec![server], pool, pool_reserved: cores(1), pending }
    }

    fn accounts(self) -> Accounts {
        Accounts::new(&self.servers, &[(self.pool, self.pool_reserved)], self.pending)
    }
}

/// Changes what is locked and fails unless a core is then given out or not, and counted on the server and in the pool.
#[track_caller]
fn check_of(change: impl FnOnce(&mut Locked), placement: &Placement, expected: Placed) {
    let mut locked = Locked::new();
    change(&mut locked);
    let mut accounts = locked.accounts();
    assert_eq!(accounts.take(placement), expected);
    if expected == Placed::Held {
        assert_eq!(accounts.take(placement), Placed::Moved, "a task is placed once");
        let both = Reserved { servers: [(SERVER, cores(2))].into(), pools: [(POOL, cores(2))].into() };
        return assert_eq!(accounts.reserved(), both);
    }
    assert_eq!(accounts.reserved(), Reserved::default(), "nothing is taken");
}

#[track_caller]
fn check(change: impl FnOnce(&mut Locked), expected: Placed) {
    check_of(change, &placement(7, 1), expected);
}

#[test]
fn room_is_taken_only_if_all_is_as_it_was_planned_for() {
    check(|_| {}, Placed::Held);
    check(|locked| locked.servers[0].cordoned = true, Placed::Moved);
    check(|locked| locked.servers[0].status = ServerStatus::Offline, Placed::Moved);
    check(|locked| locked.servers[0].reserved.cpu_millis += 1, Placed::Moved);
    check(|locked| locked.servers[0].capacity.cpu_millis -= 1, Placed::Moved);
    check(|locked| locked.pool.state = PoolState::Saturated, Placed::Moved);
    check(|locked| locked.pool_reserved.cpu_millis += 1, Placed::Moved);
    check(|locked| locked.pool.quotas.cpu_millis = Some(1999), Placed::Moved);
    check(|locked| locked.pool.quotas.memory_mib = Some(0), Placed::Held);
    check(|locked| locked.servers.clear(), Placed::Moved);
    check(|locked| _ = locked.pending.remove(&TaskId(7)), Placed::Moved);
    check(|locked| _ = locked.pending.insert(TaskId(7), 2), Placed::Moved);
}

#[test]
fn what_one_placement_takes_the_next_does_not_get() {
    let mut accounts = Locked::new().accounts();
    assert_eq!(accounts.take(&placement(7, 1)), Placed::Held);
    assert_eq!(accounts.take(&placement(8, 1)), Placed::Moved);
}

#[test]
fn a_task_runs_on_what_it_was_compiled_for_and_in_the_pool_that_it_asks_for() {
    use Architecture::{Arm64, Riscv64};
    let check = |need, allow_emulation, emulated: &[Architecture], pool: Option<i64>, expected| {
        let pool_id = pool.map(PoolId);
        let spec = TaskSpec { architecture: need, allow_emulation, pool_id, ..spec(cores(1)) };
        let emulate = |locked: &mut Locked| {
            locked.servers[0].inventory.emulated_architectures = emulated.to_vec();
        };
        check_of(emulate, &placement_of(7, spec), expected);
    };
    check(ArchitectureNeed::Universal, false, &[], None, Placed::Held);
    check(ArchitectureNeed::Only(Arm64), false, &[], Some(9), Placed::Held);
    check(ArchitectureNeed::Only(Arm64), false, &[], Some(8), Placed::Moved);
    check(ArchitectureNeed::Only(Riscv64), true, &[], None, Placed::Moved);
    check(ArchitectureNeed::Only(Riscv64), false, &[Riscv64], None, Placed::Moved);
    check(ArchitectureNeed::Only(Riscv64), true, &[Riscv64], None, Placed::Held);
}

#[test]
fn a_task_is_not_put_where_it_is_barred() {
    let check = |barred: Architecture, expected| {
        let planned = placement(7, 1);
        let task = Task { barred: barred.into(), ..planned.task };
        check_of(|_| {}, &Placement { task, ..planned }, expected);
    };
    check(Architecture::Arm64, Placed::Moved);
    check(Architecture::X86_64, Placed::Held);
}

#[test]
fn a_task_runs_where_its_driver_and_its_labels_are() {
    let spec = TaskSpec { driver: TaskDriver::Docker, labels: tags(&[("tier", "gold")]), ..spec(cores(1)) };
    let check = |drivers: &[Driver], tier: &str, expected| {
        let change = |locked: &mut Locked| {
            locked.servers[0].inventory.drivers = drivers.to_vec();
            locked.servers[0].tags = tags(&[("tier", tier)]);
        };
        check_of(change, &placement_of(7, spec.clone()), expected);
    };
    check(&[Driver::Docker], "gold", Placed::Held);
    check(&[Driver::Exec], "gold", Placed::Moved);
    check(&[Driver::Docker], "silver", Placed::Moved);
}

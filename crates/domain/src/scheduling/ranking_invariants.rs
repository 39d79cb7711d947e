//! Whatever happens, in whatever order: with rankings, each decision is that of an engine that has none, which is that
//! of a scan of all servers.

use super::*;
use crate::{
    containers::ImageTruth,
    fleet::{Architecture, Server},
    ids::{PoolId, TaskId},
    pools::{Pool, PoolState, PoolStrategy, Quotas},
    scheduling::{
        ArchitectureNeed, Decision, TaskSpec, TaskStatus,
        fixtures::{pool, server, spec, tags, urgent},
        place,
        world::World,
    },
    units::Resources,
};
use chrono::TimeDelta;
use proptest::prelude::*;

const SERVERS: i64 = 12;

/// What a server is changed to.
#[derive(Debug, Clone)]
enum Change {
    Cordon,
    Architecture(Architecture),
    Label(bool),
    Pool(Option<i64>),
    /// It has so much free.
    Free(i64),
    /// It has so much more, none of it free.
    Scale(i64),
    /// What is not a task's is reserved on it, or given back.
    Reserve(i64),
}

#[derive(Debug, Clone)]
enum Event {
    /// So many tasks of each of two classes, in turns.
    Post([u8; 2], usize),
    /// So many decisions, which stay claimed.
    Decide(usize),
    /// Commit what is claimed.
    Commit,
    GiveUp(usize),
    Room(u8),
    NoRoom,
    End(usize),
    Server(usize, Change),
    Register,
    Remove(usize),
    Quota(i64, Option<i64>),
    State(i64, PoolState),
    Strategy(i64, PoolStrategy),
    Forget(i64),
    Pass(i64),
}

fn any_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        Just(Change::Cordon),
        prop_oneof![Just(Architecture::X86_64), Just(Architecture::Arm64)].prop_map(Change::Architecture),
        any::<bool>().prop_map(Change::Label),
        prop::option::of(1..4_i64).prop_map(Change::Pool),
        (0..12_i64).prop_map(Change::Free),
        (1..12_i64).prop_map(Change::Scale),
        (-3..4_i64).prop_map(Change::Reserve),
    ]
}

fn any_event() -> impl Strategy<Value = Event> {
    let which = || 0..16_usize;
    let pools = || 1..4_i64;
    let strategy = prop_oneof![Just(PoolStrategy::Spread), Just(PoolStrategy::Binpack)];
    prop_oneof![
        6 => ([0..6_u8, 0..6_u8], 1..13_usize).prop_map(|(classes, count)| Event::Post(classes, count)),
        16 => (1..7_usize).prop_map(Event::Decide),
        4 => Just(Event::Commit),
        2 => which().prop_map(Event::GiveUp),
        1 => (0..6_u8).prop_map(Event::Room),
        1 => Just(Event::NoRoom),
        10 => which().prop_map(Event::End),
        12 => (which(), any_change()).prop_map(|(which, change)| Event::Server(which, change)),
        1 => Just(Event::Register),
        1 => which().prop_map(Event::Remove),
        2 => (pools(), prop::option::of(0..30_i64)).prop_map(|(pool, quota)| Event::Quota(pool, quota)),
        2 => (pools(), any::<bool>()).prop_map(|(pool, open)| {
            Event::State(pool, if open { PoolState::Open } else { PoolState::Saturated })
        }),
        1 => (pools(), strategy).prop_map(|(pool, strategy)| Event::Strategy(pool, strategy)),
        1 => pools().prop_map(Event::Forget),
        3 => (1..20_i64).prop_map(Event::Pass),
    ]
}

/// Rankings wherever they are possible, of a fleet however small.
fn any_limits() -> impl Strategy<Value = Limits> {
    let room = prop_oneof![4 => Just(1_usize << 20), 1 => 100..400_usize];
    (room, 1..3_usize).prop_map(|(most_entries, share)| Limits {
        least_servers: 0,
        share,
        most_entries,
        least_entries: 0,
    })
}

/// An image that only some servers have.
fn kept() -> ImageTruth {
    ImageTruth { servers: (1..12).step_by(2).map(ServerId).collect(), ..ImageTruth::default() }
}

/// Of the tasks, those of one class.
fn spec_of(class: u8) -> TaskSpec {
    let demand = |cpu_millis, memory_mib, gpus| Resources { cpu_millis, memory_mib, gpus, ..Resources::default() };
    match class {
        0 => spec(demand(1, 0, 0)),
        1 => TaskSpec { required_server_id: Some(ServerId(3)), ..spec(demand(2, 1, 0)) },
        2 => TaskSpec { pool_id: Some(PoolId(2)), ..spec(demand(1, 1, 0)) },
        3 => TaskSpec { labels: tags(&[("zone", "a")]), image_truth: Some(kept()), ..spec(demand(1, 2, 0)) },
        4 => TaskSpec {
            architecture: ArchitectureNeed::Only(Architecture::Arm64),
            allow_emulation: true,
            ..spec(demand(3, 0, 0))
        },
        _ => urgent(4, demand(5, 0, 0)),
    }
}

/// Two worlds in which the same happens: one engine has rankings, the other scans.
struct Twins {
    ranked: World,
    plain: World,
    claimed: Vec<Decision>,
    rooms: Vec<(ServerId, Resources)>,
    registered: i64,
}

impl Twins {
    fn new(limits: Limits) -> Self {
        let mut twins =
            Self { ranked: world(), plain: world(), claimed: Vec::new(), rooms: Vec::new(), registered: SERVERS };
        twins.ranked.engine.queue.rankings.limits = limits;
        twins.plain.engine.queue.rankings.limits.least_servers = usize::MAX;
        twins
    }

    fn both(&mut self, what: impl Fn(&mut World)) {
        what(&mut self.ranked);
        what(&mut self.plain);
    }

    /// Makes one decision, or finds that there is none to make.
    fn decide(&mut self) -> Result<Option<Decision>, TestCaseError> {
        let now = self.ranked.now;
        let decision = self.ranked.engine.next(now, 1).first().copied();
        prop_assert_eq!(decision, self.plain.engine.next(now, 1).first().copied());
        let engine = &self.ranked.engine;
        prop_assert_eq!(engine.has_work(), self.plain.engine.has_work());
        let rankings = &engine.queue.rankings;
        prop_assert!(rankings.room() <= rankings.limits.most_entries);
        prop_assert!(rankings.all.values().all(|ranking| ranking.entries() <= ranking.room));
        let Some(decision) = decision else { return Ok(None) };
        self.claimed.push(decision);
        // If something was kept free for it, it might go where others must not.
        let task = &self.ranked.tasks[&decision.task];
        if engine.patience <= TimeDelta::minutes(1)
            || engine.holds.is_empty() && self.ranked.now - task.updated_at < engine.patience
        {
            let mut before = engine.fleet().clone();
            before.unclaim(decision.server, decision.demand);
            prop_assert_eq!(place(&before, &task.spec).map(|(server, _)| server), Some(decision.server));
        }
        Ok(Some(decision))
    }

    /// Commits what is claimed, as far as it still can be.
    fn commit(&mut self) {
        for decision in std::mem::take(&mut self.claimed) {
            self.both(|world| commit(world, decision));
        }
    }

    fn happen(&mut self, event: &Event) -> Result<(), TestCaseError> {
        match *event {
            Event::Post(classes, count) => self.both(|world| {
                for class in classes.into_iter().cycle().take(2 * count) {
                    world.post(spec_of(class));
                }
            }),
            Event::Decide(count) => {
                for _ in 0..count {
                    self.decide()?;
                }
            }
            Event::Commit => self.commit(),
            Event::GiveUp(which) => {
                if !self.claimed.is_empty() {
                    let decision = self.claimed.swap_remove(which % self.claimed.len());
                    self.both(|world| world.engine.unclaim(decision.task));
                }
            }
            Event::Room(class) => {
                let rooms = [&mut self.ranked, &mut self.plain].map(|world| world.engine.claim_for(&spec_of(class)));
                prop_assert_eq!(rooms[0], rooms[1]);
                self.rooms.extend(rooms[0].map(|(server, _)| (server, spec_of(class).demand)));
            }
            Event::NoRoom => {
                if let Some((server, demand)) = self.rooms.pop() {
                    self.both(|world| world.engine.unclaim_room(server, demand));
                }
            }
            Event::End(which) => self.both(|world| {
                if let Some(id) = world.tasks.keys().nth(which % world.tasks.len().max(1)).copied() {
                    world.end(id);
                }
            }),
            Event::Register => {
                // A number is never used again.
                self.registered += 1;
                let id = self.registered;
                self.both(|world| world.server(server(id, capacity(9))));
            }
            Event::Pass(by) => self.both(|world| world.pass(TimeDelta::minutes(by))),
            _ => self.both(|world| alter(world, event)),
        }
        Ok(())
    }
}

/// What happens to servers and pools.
fn alter(world: &mut World, event: &Event) {
    let alter_pool = |world: &mut World, id: i64, alter: &dyn Fn(&mut Pool)| {
        let mut pool = world.pools[&PoolId(id)].0.clone();
        alter(&mut pool);
        world.pool(pool);
    };
    match event {
        Event::Server(which, change) => {
            let server = world.servers.values().nth(which % world.servers.len().max(1)).cloned();
            if let Some(server) = server {
                change_server(world, server, change);
            }
        }
        Event::Remove(which) => {
            let server = world.servers.values().nth(*which).filter(|server| server.reserved.is_zero());
            if let Some(id) = server.map(|server| server.id) {
                world.servers.remove(&id);
                world.engine.server_gone(id);
            }
        }
        Event::Quota(id, cpu_millis) => {
            alter_pool(world, *id, &|pool| pool.quotas = Quotas { cpu_millis: *cpu_millis, ..Quotas::default() });
        }
        Event::State(id, state) => alter_pool(world, *id, &|pool| pool.state = *state),
        Event::Strategy(id, strategy) => alter_pool(world, *id, &|pool| pool.strategy = *strategy),
        Event::Forget(id) => world.engine.pool_gone(PoolId(*id)),
        _ => {}
    }
}

fn change_server(world: &mut World, mut server: Server, change: &Change) {
    match *change {
        Change::Cordon => server.cordoned = !server.cordoned,
        Change::Architecture(architecture) => server.architecture = architecture,
        Change::Label(label) => server.tags = if label { tags(&[("zone", "a")]) } else { tags(&[]) },
        Change::Pool(pool) => return relocate(world, server, pool.map(PoolId)),
        Change::Free(free) => server.capacity.cpu_millis = server.reserved.cpu_millis + free,
        Change::Scale(more) => {
            server.capacity.memory_mib += more;
            server.reserved.memory_mib += more;
        }
        Change::Reserve(more) => return reserve(world, &server, more),
    }
    world.server(server);
}

fn relocate(world: &mut World, server: Server, to: Option<PoolId>) {
    let (from, held) = (server.pool_id, server.reserved);
    world.server(Server { pool_id: to, ..server });
    reserve_in_pool(world, from, Resources::default().minus(held));
    reserve_in_pool(world, to, held);
}

/// Reserves so much more, or less as far as no task holds it.
fn reserve(world: &mut World, server: &Server, more: i64) {
    let tasks = world.tasks.values().filter(|task| task.server_id == Some(server.id) && task.status.holds());
    let least: i64 = tasks.map(|task| task.spec.demand.cpu_millis).sum();
    let before = server.reserved.cpu_millis;
    let after = (before + more).min(server.capacity.cpu_millis).max(least);
    let change = Resources { cpu_millis: after - before, ..Resources::default() };
    let reserved = server.reserved.plus(change);
    world.engine.server_reserved(server.id, reserved);
    world.servers.insert(server.id, Server { reserved, ..server.clone() });
    reserve_in_pool(world, server.pool_id, change);
}

fn reserve_in_pool(world: &mut World, pool: Option<PoolId>, change: Resources) {
    if let Some(id) = pool {
        let (_, reserved) = world.pools.get_mut(&id).unwrap();
        *reserved = reserved.plus(change);
        world.engine.pool_reserved(id, *reserved);
    }
}

fn commit(world: &mut World, decision: Decision) {
    let pending = world.tasks[&decision.task].status == TaskStatus::Pending;
    if !pending || !world.engine.is_decided(decision.task) {
        return;
    }
    let server = world.servers.get(&decision.server);
    let pool = server.and_then(|server| world.pools.get(&server.pool_id?));
    let fits = server.is_some_and(|server| server.reserved.plus(decision.demand).fits_in(server.capacity));
    let within =
        pool.is_none_or(|(pool, held)| crate::scheduling::fixtures::allowed(pool.quotas, held.plus(decision.demand)));
    if fits && within { world.commit(decision) } else { world.engine.unclaim(decision.task) }
}

fn capacity(cpu_millis: i64) -> Resources {
    Resources { cpu_millis, memory_mib: 12, ..Resources::default() }
}

/// Servers of several sizes, in a pool that spreads, two that pack, and none.
fn world() -> World {
    let mut world = World::of(&[]);
    for id in 1..=3 {
        let strategy = if id == 1 { PoolStrategy::Spread } else { PoolStrategy::Binpack };
        world.pool(Pool { strategy, ..pool(id, Quotas { cpu_millis: Some(40), ..Quotas::default() }) });
    }
    for id in 1..=SERVERS {
        let mut server = server(id, capacity(10 + id % 3 * 2));
        server.pool_id = (id % 4 != 0).then_some(PoolId(id % 4));
        server.inventory.emulated_architectures = if id % 2 == 0 { vec![Architecture::Arm64] } else { Vec::new() };
        world.server(server);
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn with_rankings_every_decision_is_that_of_a_scan(
        limits in any_limits(),
        events in prop::collection::vec(any_event(), 1..120),
    ) {
        let mut twins = Twins::new(limits);
        for event in events {
            twins.happen(&event)?;
        }
        twins.commit();
        for round in 0.. {
            if twins.decide()?.is_none() && !twins.ranked.engine.has_work() {
                break;
            }
            twins.commit();
            prop_assert!(round < 5000, "it never ends");
        }
        for task in twins.ranked.tasks.values().filter(|task| task.status == TaskStatus::Pending) {
            prop_assert_eq!(twins.ranked.engine.plan_of(task).placement, None, "task {} fits and waits", task.id);
        }
    }
}

#[test]
fn the_worlds_of_this_test_have_rankings() {
    let limits = Limits { least_servers: 0, share: 1, most_entries: 1 << 20, least_entries: 0 };
    let mut twins = Twins::new(limits);
    twins.happen(&Event::Post([0, 1], 9)).unwrap();
    twins.happen(&Event::Decide(9)).unwrap();
    assert!(!twins.ranked.engine.queue.rankings.is_empty() && twins.plain.engine.queue.rankings.is_empty());
    assert_eq!(twins.claimed.iter().map(|it| it.task).collect::<Vec<_>>(), (1..=9).map(TaskId).collect::<Vec<_>>());
}

//! Whatever happens, in whatever order: nothing is taken twice, and nothing that fits is left waiting.

use super::*;
use crate::{
    pools::{PoolState, Quotas},
    scheduling::{
        fixtures::{pool, server, spec, tags},
        place,
        world::World,
    },
};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Event {
    Post(Box<TaskSpec>),
    End(usize),
    /// Decide about so many, and give one of them up.
    GiveUp(usize),
    Dispatch(usize),
    Cordon(usize),
    Resize(usize, i64),
    Move(usize, Option<i64>),
    Label(usize, bool),
    Register,
    Remove(usize),
    Quota(i64, Option<i64>),
    Saturate(i64, bool),
    Pass(i64),
}

fn any_spec() -> impl Strategy<Value = TaskSpec> {
    let demand = (1..5_i64, 0..3_i64).prop_map(|(cpu_millis, memory_mib)| Resources {
        cpu_millis,
        memory_mib,
        ..Resources::default()
    });
    let place = (prop::option::weighted(0.2, 1..3_i64), prop::bool::weighted(0.2));
    (demand, 1..6_i64, place).prop_map(|(demand, priority, (pool, labelled))| TaskSpec {
        priority: crate::scheduling::Priority::parse(priority).unwrap(),
        pool_id: pool.map(PoolId),
        labels: if labelled { tags(&[("zone", "a")]) } else { tags(&[]) },
        ..spec(demand)
    })
}

fn any_event() -> impl Strategy<Value = Event> {
    let which = || 0..16_usize;
    prop_oneof![
        8 => any_spec().prop_map(|spec| Event::Post(Box::new(spec))),
        6 => which().prop_map(Event::End),
        2 => (1..4_usize).prop_map(Event::GiveUp),
        1 => which().prop_map(Event::Dispatch),
        1 => which().prop_map(Event::Cordon),
        1 => (which(), 0..8_i64).prop_map(|(which, more)| Event::Resize(which, more)),
        1 => (which(), prop::option::of(1..3_i64)).prop_map(|(which, pool)| Event::Move(which, pool)),
        1 => (which(), any::<bool>()).prop_map(|(which, label)| Event::Label(which, label)),
        1 => Just(Event::Register),
        1 => which().prop_map(Event::Remove),
        1 => (1..3_i64, prop::option::of(0..9_i64)).prop_map(|(pool, quota)| Event::Quota(pool, quota)),
        1 => (1..3_i64, any::<bool>()).prop_map(|(pool, saturated)| Event::Saturate(pool, saturated)),
        3 => (1..20_i64).prop_map(Event::Pass),
    ]
}

fn world() -> World {
    let mut world = World::of(&[]);
    for id in [1, 2] {
        world.pool(pool(id, Quotas { cpu_millis: Some(6), ..Quotas::default() }));
    }
    for id in 1..=4 {
        let capacity = Resources { cpu_millis: 4 + id, memory_mib: 4, ..Resources::default() };
        world.server(Server { pool_id: (id <= 3).then_some(PoolId(1 + id % 2)), ..server(id, capacity) });
    }
    world
}

/// Changes one of the servers.
fn change(world: &mut World, which: usize, change: impl FnOnce(&mut Server)) {
    let server = world.servers.values().nth(which % world.servers.len().max(1)).cloned();
    if let Some(mut server) = server {
        change(&mut server);
        world.server(server);
    }
}

fn happen(world: &mut World, event: Event) {
    let task = |world: &World, which: usize| world.tasks.keys().nth(which % world.tasks.len().max(1)).copied();
    match event {
        Event::Post(spec) => drop(world.post(*spec)),
        Event::End(which) => {
            if let Some(id) = task(world, which) {
                world.end(id);
            }
        }
        Event::GiveUp(limit) => give_up(world, limit),
        Event::Dispatch(which) => {
            let decision = task(world, which).and_then(|id| world.engine.dispatch(&world.tasks[&id]));
            if let Some(decision) = decision {
                world.commit(decision);
            }
        }
        Event::Cordon(which) => change(world, which, |server| server.cordoned = !server.cordoned),
        Event::Resize(which, more) => change(world, which, |server| {
            server.capacity.cpu_millis = server.reserved.cpu_millis + more;
        }),
        Event::Move(which, pool) => relocate(world, which, pool.map(PoolId)),
        Event::Label(which, label) => {
            change(world, which, |server| server.tags = if label { tags(&[("zone", "a")]) } else { tags(&[]) });
        }
        Event::Register => {
            let id = world.servers.keys().last().map_or(1, |id| id.0 + 1);
            let capacity = Resources { cpu_millis: 3, memory_mib: 2, ..Resources::default() };
            world.server(server(id, capacity));
        }
        Event::Remove(which) => {
            let server = world.servers.values().nth(which).filter(|server| server.reserved.is_zero());
            if let Some(id) = server.map(|server| server.id) {
                world.servers.remove(&id);
                world.engine.server_gone(id);
            }
        }
        Event::Quota(id, cpu_millis) => {
            let pool = world.pools[&PoolId(id)].0.clone();
            world.pool(Pool { quotas: Quotas { cpu_millis, ..Quotas::default() }, ..pool });
        }
        Event::Saturate(id, saturated) => {
            let state = if saturated { PoolState::Saturated } else { PoolState::Open };
            let pool = world.pools[&PoolId(id)].0.clone();
            world.pool(Pool { state, ..pool });
        }
        Event::Pass(by) => world.pass(TimeDelta::minutes(by)),
    }
}

fn give_up(world: &mut World, limit: usize) {
    let decisions = world.engine.next(world.now, limit);
    for (place, decision) in decisions.into_iter().enumerate() {
        if place == 0 { world.engine.unclaim(decision.task) } else { world.commit(decision) }
    }
}

/// Moves a server with what runs on it, whatever the quotas say.
fn relocate(world: &mut World, which: usize, to: Option<PoolId>) {
    let Some(server) = world.servers.values().nth(which).cloned() else { return };
    let (from, held) = (server.pool_id, server.reserved);
    world.server(Server { pool_id: to, ..server });
    for (pool, change) in [(from, Resources::default().minus(held)), (to, held)] {
        if let Some(id) = pool {
            let (_, reserved) = world.pools.get_mut(&id).unwrap();
            *reserved = reserved.plus(change);
            world.engine.pool_reserved(id, *reserved);
        }
    }
}

/// What must be true once the engine has nothing to do. That nothing is taken twice, the world checks at each commit.
fn check(world: &World) -> Result<(), TestCaseError> {
    let engine = &world.engine;
    prop_assert_eq!(engine.claim_count(), 0);
    for server in world.servers.values() {
        prop_assert_eq!(engine.fleet().free(server.id), Some(server.available()));
    }
    for (pool, reserved) in world.pools.values() {
        let left = engine.fleet().left(pool.id).unwrap().cpu_millis;
        prop_assert_eq!(left, pool.quotas.cpu_millis.map(|quota| quota - reserved.cpu_millis));
    }
    let pending = world.tasks.values().filter(|task| task.status == TaskStatus::Pending);
    let mut count = 0;
    for task in pending {
        count += 1;
        prop_assert_eq!(engine.plan_of(task).placement, None, "task {} fits and waits", task.id);
        if engine.holds.is_empty() {
            prop_assert_eq!(place(engine.fleet(), &task.spec), None);
        }
    }
    prop_assert_eq!(engine.waiting_count(), count);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn nothing_is_taken_twice_and_nothing_that_fits_waits(events in prop::collection::vec(any_event(), 1..80)) {
        let mut world = world();
        for event in events {
            happen(&mut world, event);
            world.settle();
            check(&world)?;
        }
    }
}

use super::{super::standings, *};
use crate::{
    fleet::Server,
    ids::{PoolId, TaskId},
    pools::{Pool, PoolStrategy},
    scheduling::{
        Decision, Engine, TaskSpec,
        fixtures::{cores, cpu_quota, millis, pool, server, spec, task, urgent},
        place,
        world::World,
    },
    testing::START,
};
use chrono::TimeDelta;

const SERVERS: usize = 320;
/// [`Limits::few`] of so many.
const FEW: u64 = 20;

fn world() -> World {
    World::of(&[32; SERVERS])
}

fn rankings(world: &World) -> &Rankings {
    &world.engine.queue.rankings
}

/// The servers that are judged for so many decisions, which are made, but not committed.
fn judged(engine: &mut Engine, decisions: usize) -> u64 {
    let before = engine.judgements();
    for _ in 0..decisions {
        assert_eq!(engine.next(START, 1).len(), 1);
    }
    engine.judgements() - before
}

fn post(engine: &mut Engine, count: i64, spec: impl Fn(i64) -> TaskSpec) {
    for id in 1..=count {
        engine.task(&task(id, spec(id)));
    }
}

#[test]
fn a_task_of_a_long_queue_has_few_servers_judged() {
    let mut engine = world().engine;
    post(&mut engine, 1000, |id| spec(millis(500 + id % 5 * 250)));
    let twice = 2 * 5 * u64::try_from(SERVERS).unwrap();
    let first = judged(&mut engine, 10);
    assert!((twice..=twice + 50).contains(&first), "{first}");
    let then = judged(&mut engine, 990);
    assert!(then < 990 * 8, "{then} judgements: each decision makes one server worse for five classes");
}

#[test]
fn the_tasks_of_a_queue_that_all_differ_have_no_ranking() {
    let mut engine = world().engine;
    post(&mut engine, 100, |id| spec(millis(500 + id)));
    assert_eq!(judged(&mut engine, 100), 100 * u64::try_from(SERVERS).unwrap());
    assert!(engine.queue.rankings.is_empty());
}

#[test]
fn a_class_that_is_looked_at_too_rarely_has_no_ranking() {
    let check = |classes: i64, expected: bool| {
        let mut engine = world().engine;
        post(&mut engine, classes * 4, |id| spec(millis(500 + id % classes)));
        judged(&mut engine, usize::try_from(classes * 3).unwrap());
        assert_eq!(!engine.queue.rankings.is_empty(), expected, "{classes} classes");
    };
    check(20, true);
    check(21, false);
    let mut few = World::of(&[32; 255]).engine;
    post(&mut few, 10, |_| spec(cores(1)));
    assert_eq!(judged(&mut few, 9), 9 * 255, "few servers are judged faster than a ranking");
}

#[test]
fn a_ranking_ends_with_its_class() {
    let mut world = world();
    post(&mut world.engine, 4, |_| spec(cores(1)));
    judged(&mut world.engine, 3);
    assert_eq!(rankings(&world).all.len(), 1);
    judged(&mut world.engine, 1);
    assert!(rankings(&world).is_empty());

    let mut world = self::world();
    post(&mut world.engine, 4, |_| spec(cores(1)));
    judged(&mut world.engine, 3);
    world.engine.task_gone(TaskId(4));
    assert!(rankings(&world).is_empty());
    // What comes after it in its place begins anew.
    world.engine.task(&task(5, spec(cores(2))));
    assert_eq!(judged(&mut world.engine, 1), 320);
}

#[test]
fn a_ranking_that_is_too_far_behind_is_not_caught_up_with() {
    let mut world = world();
    post(&mut world.engine, 20, |_| spec(cores(1)));
    let claim = |world: &mut World, times: u64| {
        for _ in 0..times {
            world.engine.claim_for(&spec(cores(1))).unwrap();
        }
    };
    judged(&mut world.engine, 3);
    claim(&mut world, FEW - 1);
    let caught_up = judged(&mut world.engine, 1);
    assert!(caught_up <= FEW + 1, "{caught_up}");
    claim(&mut world, FEW);
    assert_eq!(judged(&mut world.engine, 1), 320, "more was claimed");

    // All that became better is told of, and that is too much as well.
    judged(&mut world.engine, 3);
    assert_eq!(rankings(&world).all.len(), 1);
    for id in 300..=320 {
        world.server(server(id, cores(33)));
    }
    assert_eq!(judged(&mut world.engine, 1), 320, "more was changed");
}

#[test]
fn a_ranking_is_for_what_it_was_made_for() {
    let (fleet, moved) = (world().engine.fleet, Changes::default());
    let task = spec(cores(1));
    let mut gist = Gist::of(&task);
    let mut rankings = Rankings::default();
    let mut history = History::default();
    let mut is_ranked = |seniority| {
        gist.seniority = seniority;
        let need = Need::new(&fleet, gist, &task);
        let mut look = Look::new(&fleet, &need, &moved);
        let ranked = rankings.of(0, &mut history, SERVERS, &mut look).is_some();
        history.judged += if ranked { 0 } else { SERVERS };
        ranked
    };
    assert_eq!([2, 2, 2, 1, 1].map(&mut is_ranked), [false, true, true, false, true]);
}

#[test]
fn a_server_that_comes_or_goes_makes_rankings_void() {
    let check = |change: fn(&mut World)| {
        let mut world = world();
        post(&mut world.engine, 20, |_| spec(cores(1)));
        judged(&mut world.engine, 5);
        change(&mut world);
        let expected = place(world.engine.fleet(), &spec(cores(1))).unwrap().0;
        assert_eq!(world.engine.next(START, 1)[0].server, expected);
    };
    check(|world| world.server(server(900, cores(64))));
    check(|world| world.server(server(0, cores(64))));
    check(|world| world.engine.server_gone(ServerId(1)));
    check(|world| world.engine.server_gone(ServerId(6)));
}

/// So many classes of which each needs a pool of its own, with a quota for `each` of its tasks, and servers anywhere.
fn limited(world: &mut World, classes: i64, each: i64) {
    for id in 1..=classes {
        world.pool(pool(id, cpu_quota(each * 1000)));
    }
    for id in 1..=320 {
        world.server(Server { pool_id: Some(PoolId(1 + id % classes)), ..server(id, cores(32)) });
    }
}

fn within(pool: i64) -> TaskSpec {
    TaskSpec { pool_id: Some(PoolId(pool)), ..spec(cores(1)) }
}

#[test]
fn the_memory_of_all_rankings_is_bounded() {
    let mut world = world();
    let limits = &mut world.engine.queue.rankings.limits;
    limits.least_entries = 0;
    limits.most_entries = 3 * limits.room(SERVERS, SERVERS);
    post(&mut world.engine, 200, |id| spec(millis(500 + id % 10)));
    judged(&mut world.engine, 30);
    let had: Vec<usize> = rankings(&world).all.keys().copied().collect();
    assert_eq!(had.len(), 3);
    judged(&mut world.engine, 150);
    let has: Vec<usize> = rankings(&world).all.keys().copied().collect();
    assert_eq!(has, had, "classes that take turns leave each other theirs");

    let mut world = self::world();
    world.engine.queue.rankings.limits.most_entries = 7 << 12;
    post(&mut world.engine, 60, |id| spec(millis(500 + id % 10)));
    judged(&mut world.engine, 50);
    assert_eq!(rankings(&world).all.len(), 7, "however small they are");
}

#[test]
fn a_ranking_that_is_not_used_gives_way_to_one_that_is() {
    let mut world = World::of(&[]);
    limited(&mut world, 2, 5);
    let limits = &mut world.engine.queue.rankings.limits;
    limits.most_entries = limits.least_entries;
    post(&mut world.engine, 20, |id| if id <= 10 { within(1) } else { within(2) });
    judged(&mut world.engine, 4);
    let class = world.engine.queue.class_of(TaskId(10)).unwrap();
    assert!(rankings(&world).all.contains_key(&class));
    judged(&mut world.engine, 5);
    assert!(!rankings(&world).all.contains_key(&class) && !rankings(&world).is_empty());
    // It fits again, without a ranking, and then with one.
    world.pool(pool(1, cpu_quota(20_000)));
    let decided = world.engine.next(START, 6);
    assert_eq!(decided.iter().map(|it| it.task.0).collect::<Vec<_>>(), [6, 7, 8, 9, 10, 15]);
}

#[test]
fn a_class_that_waits_for_a_quota_does_not_have_all_servers_judged_each_time() {
    let mut world = World::of(&[]);
    limited(&mut world, 1, 8);
    let tasks: Vec<TaskId> = (0..100).map(|_| world.post(within(1))).collect();
    assert_eq!(world.settle().len(), 8);
    let before = world.engine.judgements();
    for id in &tasks[..80] {
        world.end(*id);
        assert_eq!(world.settle().len(), 1);
    }
    let judged = world.engine.judgements() - before;
    assert!(judged <= 80 * 12, "{judged}");
}

#[test]
fn entries_that_are_out_of_date_are_bounded() {
    for strategy in [PoolStrategy::Spread, PoolStrategy::Binpack] {
        let mut world = World::of(&[]);
        world.pool(Pool { strategy, ..pool(1, cpu_quota(8_000_000)) });
        for id in 1..=320 {
            world.server(Server { pool_id: Some(PoolId(1)), ..server(id, cores(32)) });
        }
        let mut running: Vec<Decision> = Vec::new();
        for round in 0..6000 {
            let id = world.post(urgent(1 + round % 2, millis(250 + round % 2 * 250)));
            world.engine.task(&world.tasks[&id]);
            // One more than is decided waits, so that the classes do not end.
            if round > 3 {
                let decision = world.engine.next(START, 1)[0];
                world.commit(decision);
                running.push(decision);
            }
            if running.len() > 40 {
                let place = usize::try_from(round * 31 % 40).unwrap();
                world.end(running.swap_remove(place).task);
            }
            for ranking in rankings(&world).all.values() {
                assert!(ranking.entries() <= ranking.room);
                assert!(ranking.room <= standings::most(SERVERS) + 20 || ranking.room == 1 << 12);
            }
        }
        assert!(!rankings(&world).is_empty());
    }
}

#[test]
fn a_hold_is_respected_and_its_end_is_seen() {
    let mut world = World::of(&[4; 256]);
    let running: Vec<TaskId> = (0..256).map(|_| world.post(urgent(5, cores(3)))).collect();
    assert_eq!(world.settle().len(), 256);
    let large = world.post(urgent(1, cores(4)));
    world.settle();
    world.pass(TimeDelta::minutes(11));
    world.settle();
    assert_eq!(world.engine.holds.len(), 1, "the large task holds the first server");
    for _ in 0..300 {
        world.post(urgent(5, cores(1)));
    }
    let placed = |world: &mut World| world.engine.next(world.now, 1).first().map(|decision| decision.server.0);
    for id in 2..=10 {
        assert_eq!(placed(&mut world), Some(id));
    }
    assert!(!rankings(&world).is_empty());
    world.end(large);
    assert_eq!(placed(&mut world), Some(1));
    assert_eq!(placed(&mut world), Some(11));
    assert_eq!(running.len(), 256);
}

use super::*;
use crate::scheduling::fixtures::{cores, cpu_quota, millis, pool, server, tags};

fn inside(id: i64, pool: i64) -> Server {
    Server { pool_id: Some(PoolId(pool)), ..server(id, cores(4)) }
}

/// Two pools of 8 cores quota each, and server 1 in the first of them with a claim of one core.
fn fleet() -> FleetSnapshot {
    let mut fleet = FleetSnapshot::default();
    for id in [1, 2] {
        fleet.upsert_pool(&pool(id, cpu_quota(8000)), Resources::default());
    }
    fleet.upsert_server(&inside(1, 1));
    fleet.claim(ServerId(1), cores(1));
    fleet
}

#[track_caller]
fn check(fleet: &FleetSnapshot, free: i64, left: [i64; 2]) {
    assert_eq!(fleet.free(ServerId(1)), Some(millis(free)));
    assert_eq!([1, 2].map(|id| fleet.left(PoolId(id)).unwrap().cpu_millis.unwrap()), left);
}

/// Whether the server and the first pool became better by a change of [`fleet`].
#[track_caller]
fn check_improved(change: impl FnOnce(&mut FleetSnapshot), server: bool, pool: bool) -> FleetSnapshot {
    let mut fleet = fleet();
    fleet.take_improved();
    change(&mut fleet);
    assert_eq!(fleet.has_improved(), server || pool);
    let improved = fleet.take_improved();
    assert_eq!((!improved.servers.is_empty(), !improved.pools.is_empty()), (server, pool), "{improved:?}");
    assert!(!fleet.has_improved(), "it is told once");
    fleet
}

#[test]
fn what_is_claimed_and_what_is_reserved_are_both_taken() {
    let mut fleet = fleet();
    check(&fleet, 3000, [7000, 8000]);
    fleet.set_server_reserved(ServerId(1), cores(2));
    fleet.set_pool_reserved(PoolId(1), cores(5));
    check(&fleet, 1000, [2000, 8000]);
    fleet.unclaim(ServerId(1), cores(1));
    check(&fleet, 2000, [3000, 8000]);
}

#[test]
fn a_claim_moves_with_its_server() {
    let mut fleet = check_improved(|fleet| fleet.upsert_server(&inside(1, 2)), true, true);
    check(&fleet, 3000, [8000, 7000]);
    fleet.unclaim(ServerId(1), cores(1));
    check(&fleet, 4000, [8000, 8000]);
}

#[test]
fn what_was_claimed_on_a_server_goes_with_it() {
    let mut fleet = check_improved(|fleet| fleet.remove_server(ServerId(1)), false, true);
    assert_eq!((fleet.server_count(), fleet.free(ServerId(1))), (0, None));
    fleet.unclaim(ServerId(1), cores(1));
    assert_eq!(fleet.left(PoolId(1)).unwrap(), cpu_quota(8000));
}

#[test]
fn only_what_can_help_is_an_improvement() {
    let check = |change: fn(&mut Server), expected: bool| {
        let mut server = inside(1, 1);
        change(&mut server);
        check_improved(|fleet| fleet.upsert_server(&server), expected, false);
    };
    check(|_| (), false);
    check(|server| server.reserved = cores(1), false);
    check(|server| server.capacity = cores(5), true);
    check(|server| server.cordoned = true, true);
    check(|server| server.tags = tags(&[("zone", "a")]), true);
    check(|server| server.inventory.drivers = vec![crate::fleet::Driver::Exec], true);
    check(|server| server.location = Some("Rack 3".to_owned()), false);
    check_improved(|fleet| fleet.upsert_server(&inside(2, 1)), true, false);
    check_improved(|fleet| fleet.claim(ServerId(1), cores(1)), false, false);
    check_improved(|fleet| fleet.unclaim(ServerId(1), cores(1)), true, true);
}

#[test]
fn what_is_given_back_and_taken_again_is_no_improvement() {
    let commit = |fleet: &mut FleetSnapshot| {
        fleet.unclaim(ServerId(1), cores(1));
        fleet.set_server_reserved(ServerId(1), cores(1));
        fleet.set_pool_reserved(PoolId(1), cores(1));
    };
    check(&check_improved(commit, false, false), 3000, [7000, 8000]);
    let more = |fleet: &mut FleetSnapshot| {
        fleet.set_server_reserved(ServerId(1), cores(3));
        fleet.unclaim(ServerId(1), cores(1));
        fleet.set_server_reserved(ServerId(1), cores(0));
        fleet.claim(ServerId(1), millis(999));
    };
    check(&check_improved(more, true, true), 3001, [7001, 8000]);
}

#[test]
fn a_pool_improves_when_more_is_left_or_it_opens() {
    let with = |change: fn(&mut Pool)| {
        let mut pool = pool(1, cpu_quota(8000));
        change(&mut pool);
        pool
    };
    let saturated = with(|pool| pool.state = PoolState::Saturated);
    let check = |before: &Pool, after: &Pool, expected: bool| {
        let mut fleet = fleet();
        fleet.upsert_pool(before, Resources::default());
        fleet.take_improved();
        fleet.upsert_pool(after, Resources::default());
        assert_eq!(!fleet.take_improved().pools.is_empty(), expected, "{after:?}");
    };
    let open = with(|_| ());
    check(&open, &open, false);
    check(&open, &with(|pool| pool.quotas = cpu_quota(9000)), true);
    check(&open, &with(|pool| pool.quotas = Quotas::default()), true);
    check(&open, &with(|pool| pool.quotas = cpu_quota(7000)), false);
    check(&open, &saturated, false);
    check(&saturated, &open, true);
    check(&saturated, &saturated, false);
    check_improved(|fleet| fleet.remove_pool(PoolId(1)), false, false);
}

#[test]
fn what_may_rank_better_without_more_room_is_told_once() {
    let packs = |id| Pool { strategy: PoolStrategy::Binpack, ..pool(id, cpu_quota(8000)) };
    let check = |change: fn(&mut FleetSnapshot), where_it_packs: bool, where_it_spreads: bool| {
        for (expected, packing) in [(where_it_packs, true), (where_it_spreads, false)] {
            let mut fleet = fleet();
            if packing {
                fleet.upsert_pool(&packs(1), Resources::default());
            }
            fleet.take_reordered();
            change(&mut fleet);
            assert_eq!(!fleet.take_reordered().is_empty(), expected, "packing: {packing}");
            assert!(fleet.take_reordered().is_empty());
        }
    };
    check(|_| (), false, false);
    check(|fleet| fleet.claim(ServerId(1), cores(1)), true, false);
    check(|fleet| fleet.set_server_reserved(ServerId(1), cores(1)), true, false);
    check(|fleet| fleet.upsert_server(&Server { reserved: cores(1), ..inside(1, 1) }), true, false);
    check(|fleet| fleet.upsert_server(&Server { capacity: cores(3), ..inside(1, 1) }), true, true);
    check(|fleet| fleet.hold_server(ServerId(1), 0), false, false);
    let release = |fleet: &mut FleetSnapshot| {
        fleet.hold_server(ServerId(1), 0);
        fleet.hold_server(ServerId(1), NOT_HELD);
    };
    check(release, true, true);
    check(|fleet| fleet.remove_server(ServerId(1)), false, false);
}

#[test]
fn what_may_change_the_order_of_all_servers_begins_a_generation() {
    let packs = |id| Pool { strategy: PoolStrategy::Binpack, ..pool(id, cpu_quota(8000)) };
    let check = |change: &dyn Fn(&mut FleetSnapshot), expected: bool| {
        let mut fleet = fleet();
        let before = fleet.generation;
        change(&mut fleet);
        assert_eq!(fleet.generation > before, expected);
    };
    check(&|fleet| fleet.upsert_server(&inside(0, 1)), true);
    check(&|fleet| fleet.upsert_server(&inside(1, 2)), false);
    check(&|fleet| fleet.upsert_server(&inside(2, 1)), false);
    check(&|fleet| fleet.remove_server(ServerId(1)), true);
    check(&|fleet| fleet.remove_server(ServerId(2)), false);
    check(&|fleet| fleet.upsert_pool(&packs(1), Resources::default()), true);
    check(&|fleet| fleet.upsert_pool(&pool(1, cpu_quota(1)), Resources::default()), false);
    check(&|fleet| fleet.hold_pool(PoolId(1), 0), false);
    check(&|fleet| fleet.claim(ServerId(1), cores(1)), false);
}

#[test]
fn marks_tell_most_selectors_apart_without_looking_at_tags() {
    let (has, lacks) = (tags(&[("zone", "a"), ("disk", "ssd")]), tags(&[("zone", "b")]));
    let some = tags(&[("zone", "a")]);
    assert_eq!(marks(&some) & marks(&has), marks(&some));
    assert_ne!(marks(&some) & marks(&lacks), marks(&some));
    assert_eq!(marks(&Tags::default()), 0);
}

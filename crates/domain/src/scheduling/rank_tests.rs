use super::*;
use crate::{
    scheduling::{
        FleetSnapshot,
        fixtures::{pool, server, spec},
        place,
    },
    units::Resources,
};
use proptest::prelude::*;

fn resources(cpu_millis: i64, memory_mib: i64) -> Resources {
    Resources { cpu_millis, memory_mib, storage_mib: 0, gpus: 0 }
}

/// Servers 1, 2 … with this (capacity, reserved) each in a pool with this strategy, and where a task goes.
#[track_caller]
fn check(strategy: PoolStrategy, servers: &[(Resources, Resources)], demand: Resources, expected: i64) {
    let mut fleet = FleetSnapshot::default();
    let pool = crate::pools::Pool { strategy, ..pool(1, crate::pools::Quotas::default()) };
    fleet.upsert_pool(&pool, Resources::default());
    for (id, (capacity, reserved)) in (1..).zip(servers) {
        let server = server(id, *capacity);
        fleet.upsert_server(&crate::fleet::Server { reserved: *reserved, pool_id: Some(pool.id), ..server });
    }
    let (found, rank) = place(&fleet, &spec(demand)).unwrap();
    assert_eq!(found, ServerId(expected), "{strategy:?}: {rank:?}");
}

#[test]
fn spreading_goes_where_the_fullest_resource_is_emptiest() {
    let whole = resources(10_000, 10_240);
    let spread = |servers: &[_], demand, expected| check(PoolStrategy::Spread, servers, demand, expected);
    spread(&[(whole, resources(5000, 0)), (whole, resources(4000, 0))], resources(1000, 0), 2);
    // 90 % of memory is worse than 80 % of CPU, whatever the sum.
    spread(&[(whole, resources(0, 8192)), (whole, resources(7000, 7168))], resources(1000, 1024), 2);
    // Memory that the task does not ask for does not crowd it.
    spread(&[(whole, resources(1000, 0)), (whole, resources(0, 9216))], resources(1000, 0), 2);
    // Shares count, not amounts: 3 of 20 cores is less than 2 of 10.
    spread(&[(whole, resources(1000, 0)), (resources(20_000, 10_240), resources(2000, 0))], resources(1000, 0), 2);
    // As full where it matters: then the one that is emptier altogether, then the one with the lower id.
    spread(&[(whole, resources(1000, 1024)), (whole, resources(1000, 0))], resources(1000, 0), 2);
    spread(&[(whole, whole.minus(whole)), (whole, whole.minus(whole))], resources(1000, 0), 1);
}

#[test]
fn packing_goes_where_the_server_is_fullest_and_still_has_room() {
    let whole = resources(10_000, 10_240);
    let pack = |servers: &[_], demand, expected| check(PoolStrategy::Binpack, servers, demand, expected);
    pack(&[(whole, resources(5000, 0)), (whole, resources(4000, 0))], resources(1000, 0), 1);
    pack(&[(whole, resources(9500, 0)), (whole, resources(4000, 0))], resources(1000, 0), 2);
    // Fuller altogether, though its fullest resource is emptier.
    pack(&[(whole, resources(5000, 0)), (whole, resources(4000, 4096))], resources(1000, 1024), 2);
    // Equally full: the one where no resource is used up while the other is left over.
    pack(&[(whole, resources(7000, 1024)), (whole, resources(4000, 4096))], resources(1000, 1024), 2);
}

#[test]
fn an_emulating_server_ranks_below_every_native_one() {
    let (mut ranks, server) = (Vec::new(), ServerId(1));
    for emulated in [1, 0] {
        for first_permille in [1000, 0] {
            ranks.push(Rank { emulated, first_permille, second_permille: 0, server });
        }
    }
    ranks.sort();
    assert_eq!(ranks.iter().map(|rank| rank.emulated).collect::<Vec<_>>(), [0, 0, 1, 1]);
}

proptest! {
    #[test]
    fn multiplying_is_as_exact_as_dividing(capacity in 1_i64..1 << 27, left in 0_i64..1 << 27) {
        let left = left.min(capacity);
        let permille = Scale::of(&[capacity; 4]).left([left; 4])[0];
        prop_assert_eq!(i64::try_from(permille).unwrap(), left * 1000 / capacity);
    }

    #[test]
    fn what_is_left_is_never_more_than_the_whole(capacity: [i64; 4], left: [i64; 4]) {
        prop_assert!(Scale::of(&capacity).left(left).iter().all(|left| *left <= 1000));
    }

    #[test]
    fn scores_are_in_the_order_of_ranks(all in prop::collection::vec((0..2_u64, 0..=1000_u64, 0..=1000_u64), 2)) {
        let scores = [0, 1].map(|i| Score(((all[i].0 << PERMILLE) | all[i].1) << PERMILLE | all[i].2));
        let ranks = scores.map(|score| score.rank(ServerId(1)));
        prop_assert_eq!(scores[0].cmp(&scores[1]), ranks[0].cmp(&ranks[1]));
        let fields = |rank: Rank| (rank.emulated.into(), rank.first_permille.into(), rank.second_permille.into());
        prop_assert_eq!(fields(ranks[0]), all[0]);
    }
}

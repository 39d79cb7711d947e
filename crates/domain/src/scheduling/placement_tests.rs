use super::*;
use crate::{
    containers::{ImageTruth, Platform},
    fleet::{Architecture, Driver, Inventory, Server, ServerStatus},
    ids::PoolId,
    pools::{Pool, PoolState, PoolStrategy, Quotas},
    scheduling::{
        ArchitectureNeed, TaskDriver,
        fixtures::{allowed, cores, cpu_quota, millis, pool, server, spec, tags},
    },
    units::Resources,
};
use proptest::prelude::*;

/// A fleet of one server, and the pool that it may be in.
fn fleet(server: &Server, pool: Option<(&Pool, Resources)>) -> FleetSnapshot {
    let mut fleet = FleetSnapshot::default();
    if let Some((pool, reserved)) = pool {
        fleet.upsert_pool(pool, reserved);
    }
    fleet.upsert_server(server);
    fleet
}

/// What the only server of a fleet says to a task.
#[track_caller]
fn check(fleet: &FleetSnapshot, task: &TaskSpec, expected: &[(&str, &str)]) {
    let plan = plan(fleet, task);
    let reasons = plan.reasons(&plan.candidates[0]);
    let told: Vec<(&str, &str)> = reasons.iter().map(|reason| (reason.code, reason.detail.as_str())).collect();
    assert_eq!(told, expected);
    assert_eq!(plan.candidates[0].fits(), expected.is_empty());
    assert_eq!(plan.placement.is_some(), expected.is_empty());
}

/// What one server of several says to a task.
#[track_caller]
fn check_of(fleet: &FleetSnapshot, task: &TaskSpec, server: ServerId, expected: &[(&str, &str)]) {
    let plan = plan(fleet, task);
    let candidate = plan.candidates.iter().find(|candidate| candidate.server_id == server).unwrap();
    let reasons = plan.reasons(candidate);
    let told: Vec<(&str, &str)> = reasons.iter().map(|reason| (reason.code, reason.detail.as_str())).collect();
    assert_eq!(told, expected);
}

fn only(architecture: Architecture) -> TaskSpec {
    TaskSpec { architecture: ArchitectureNeed::Only(architecture), ..spec(cores(1)) }
}

#[test]
fn a_task_runs_on_its_own_architecture_only() {
    let x86 = fleet(&server(1, cores(4)), None);
    check(&x86, &only(Architecture::X86_64), &[]);
    check(&x86, &spec(cores(1)), &[]);
    let arm64 = only(Architecture::Arm64);
    check(&x86, &arm64, &[("architecture_mismatch", "is x86_64, the task needs arm64")]);
    check(
        &x86,
        &TaskSpec { allow_emulation: true, ..arm64 },
        &[("architecture_mismatch", "is x86_64, the task needs arm64")],
    );
}

#[test]
fn emulation_is_used_only_where_the_task_allows_it() {
    let mut emulating = server(1, cores(4));
    emulating.inventory.emulated_architectures = vec![Architecture::Arm64];
    let (arm64, fleet) = (only(Architecture::Arm64), fleet(&emulating, None));
    let reason = "is x86_64 and could only emulate arm64, which the task does not allow";
    check(&fleet, &arm64, &[("emulation_not_allowed", reason)]);
    check(&fleet, &TaskSpec { allow_emulation: true, ..arm64.clone() }, &[]);
    let mut with_native = fleet;
    with_native.upsert_server(&Server {
        architecture: Architecture::Arm64,
        reserved: millis(2999),
        ..server(2, cores(4))
    });
    let (id, rank) = place(&with_native, &TaskSpec { allow_emulation: true, ..arm64 }).unwrap();
    assert_eq!((id, rank.emulated), (ServerId(2), 0), "the native one, though it is nearly full");
}

fn truth_of(platforms: &[&str]) -> ImageTruth {
    let platforms = platforms.iter().map(|text| Platform::try_from((*text).to_owned()).unwrap());
    ImageTruth::pulled("sha256:1", platforms.collect())
}

/// A task that leaves it to its image what it runs on.
fn of_image(platforms: &[&str]) -> TaskSpec {
    TaskSpec { image_truth: Some(truth_of(platforms)), ..spec(cores(1)) }
}

/// One server of each architecture, by id in the order of [`Architecture::ALL`].
fn mixed() -> FleetSnapshot {
    let mut fleet = FleetSnapshot::default();
    for (id, architecture) in (1..).zip(Architecture::ALL) {
        fleet.upsert_server(&Server { architecture, ..server(id, cores(4)) });
    }
    fleet
}

/// Which servers take a task, and what one of the others says.
fn takers(task: &TaskSpec) -> (Vec<i64>, Option<String>) {
    let plan = plan(&mixed(), task);
    let refused = plan.candidates.iter().find(|candidate| !candidate.fits());
    let told = refused.map(|candidate| plan.reasons(candidate).remove(0).detail);
    let mut taken: Vec<i64> = plan.candidates.iter().filter(|one| one.fits()).map(|one| one.server_id.0).collect();
    taken.sort_unstable();
    (taken, told)
}

#[test]
fn an_image_runs_on_what_it_was_built_for() {
    let check = |platforms: &[&str], taken: &[i64], told: Option<&str>| {
        assert_eq!(takers(&of_image(platforms)), (taken.to_vec(), told.map(str::to_owned)));
    };
    let two = ["linux/amd64", "linux/arm64"];
    check(&two, &[1, 2], Some("is riscv64, the task's image has linux/amd64, linux/arm64"));
    check(
        &["linux/arm/v7", "linux/arm64/v8"],
        &[2],
        Some("is x86_64, the task's image has linux/arm/v7, linux/arm64/v8"),
    );
    let none = ["linux/arm/v5", "linux/arm/v7"];
    check(&none, &[], Some("is x86_64, the task's image has linux/arm/v5, linux/arm/v7"));
    // It does not say.
    check(&[], &[1, 2, 3], None);
    let stated = TaskSpec { architecture: ArchitectureNeed::Only(Architecture::Arm64), ..of_image(&two) };
    assert_eq!(takers(&stated), (vec![2], Some("is x86_64, the task needs arm64".to_owned())));
}

#[test]
fn an_image_that_cannot_be_pulled_runs_where_it_is() {
    let truth = ImageTruth { digest: None, servers: vec![ServerId(2), ServerId(3)], ..truth_of(&["linux/arm64"]) };
    let task = TaskSpec { image_truth: Some(truth), ..spec(cores(1)) };
    let told = "is riscv64, the task's image has linux/arm64";
    assert_eq!(takers(&task), (vec![2], Some(told.to_owned())));
    let mut fleet = mixed();
    fleet.upsert_server(&Server { architecture: Architecture::Arm64, ..server(1, cores(4)) });
    assert_eq!(place(&fleet, &task).map(|(id, _)| id.0), Some(2));
    fleet.remove_server(ServerId(2));
    check_of(
        &fleet,
        &task,
        ServerId(1),
        &[("image_missing", "does not have the task's image, which was found in no registry")],
    );
}

#[test]
fn an_image_is_emulated_only_where_that_is_allowed_and_after_all_native_servers() {
    let mut fleet = mixed();
    let emulating = Inventory { emulated_architectures: vec![Architecture::Riscv64], ..Inventory::default() };
    fleet.upsert_server(&Server { inventory: emulating, ..server(1, cores(4)) });
    let task = TaskSpec { allow_emulation: true, ..of_image(&["linux/riscv64"]) };
    assert_eq!(place(&fleet, &task).map(|(id, rank)| (id.0, rank.emulated)), Some((3, 0)));
    fleet.remove_server(ServerId(3));
    assert_eq!(place(&fleet, &task).map(|(id, rank)| (id.0, rank.emulated)), Some((1, 1)));
    assert_eq!(place(&fleet, &of_image(&["linux/riscv64"])), None);
}

#[test]
fn a_task_with_a_driver_needs_an_agent_that_has_it() {
    let mut docker = server(1, cores(4));
    docker.inventory.drivers = vec![Driver::Docker];
    let with = |driver| TaskSpec { driver, ..spec(cores(1)) };
    check(&fleet(&docker, None), &with(TaskDriver::Docker), &[]);
    check(&fleet(&docker, None), &with(TaskDriver::None), &[]);
    check(
        &fleet(&docker, None),
        &with(TaskDriver::Exec),
        &[("driver_missing", "has no agent that offers the driver exec")],
    );
    check(&fleet(&server(1, cores(4)), None), &with(TaskDriver::None), &[]);
}

#[test]
fn a_server_that_is_not_in_use_takes_no_work() {
    let with = |status, cordoned| fleet(&Server { status, cordoned, ..server(1, cores(4)) }, None);
    let task = spec(cores(1));
    check(&with(ServerStatus::Offline, false), &task, &[("offline", "is offline")]);
    check(&with(ServerStatus::Maintenance, false), &task, &[("maintenance", "is under maintenance")]);
    check(&with(ServerStatus::Provisioning, false), &task, &[("provisioning", "is still being set up")]);
    let cordoned = ("cordoned", "is cordoned: it takes no new work");
    check(&with(ServerStatus::Online, true), &task, &[cordoned]);
    check(&with(ServerStatus::Offline, true), &task, &[("offline", "is offline"), cordoned]);
}

#[test]
fn a_task_stays_in_its_pool_and_among_its_labels() {
    let edge = pool(3, Quotas::default());
    let inside = Server { pool_id: Some(edge.id), tags: tags(&[("zone", "a")]), ..server(1, cores(4)) };
    let fleet = fleet(&inside, Some((&edge, Resources::default())));
    let task = |pool: Option<i64>, pairs: &[(&str, &str)]| TaskSpec {
        pool_id: pool.map(PoolId),
        labels: tags(pairs),
        ..spec(cores(1))
    };
    check(&fleet, &task(None, &[]), &[]);
    check(&fleet, &task(Some(3), &[("zone", "a")]), &[]);
    check(&fleet, &task(Some(4), &[]), &[("pool_mismatch", r#"is in pool "edge", the task must run in pool "4""#)]);
    check(&fleet, &task(None, &[("zone", "b")]), &[("labels_mismatch", "lacks the tag zone=b")]);
    check(
        &fleet,
        &task(None, &[("disk", "ssd"), ("zone", "a"), ("rack", "7")]),
        &[("labels_mismatch", "lacks the tag disk=ssd and rack=7")],
    );
    let mut nowhere = FleetSnapshot::default();
    nowhere.upsert_pool(&edge, Resources::default());
    nowhere.upsert_server(&server(1, cores(4)));
    check(&nowhere, &task(Some(3), &[]), &[("pool_mismatch", r#"is in no pool, the task must run in pool "edge""#)]);
}

#[test]
fn room_and_quota_are_told_with_numbers_for_each_resource() {
    let big = Resources { cpu_millis: 4000, memory_mib: 4096, storage_mib: 10_240, gpus: 2 };
    let small = Resources { cpu_millis: 2500, memory_mib: 1536, storage_mib: 1, gpus: 0 };
    check(
        &fleet(&server(1, small), None),
        &spec(big),
        &[
            ("insufficient_cpu", "needs 4 cores, 2.5 free"),
            ("insufficient_memory", "needs 4 GiB of memory, 1.5 free"),
            ("insufficient_storage", "needs 10 GiB of storage, 0.001 free"),
            ("insufficient_gpu", "needs 2 GPUs, 0 free"),
        ],
    );
    let quotas = Quotas { cpu_millis: Some(12_000), memory_mib: Some(8192), storage_mib: None, gpus: Some(1) };
    let edge = pool(3, quotas);
    let reserved = Resources { cpu_millis: 11_000, memory_mib: 4096, storage_mib: 0, gpus: 0 };
    check(
        &fleet(&Server { pool_id: Some(edge.id), ..server(1, big) }, Some((&edge, reserved))),
        &spec(big),
        &[
            ("quota_cpu", r#"needs 4 cores, 1 of 12 left in the quota of pool "edge""#),
            ("quota_gpu", r#"needs 2 GPUs, 1 of 1 left in the quota of pool "edge""#),
        ],
    );
}

#[test]
fn where_more_is_held_than_there_is_nothing_is_placed() {
    let full = Server { reserved: millis(4500), ..server(1, cores(4)) };
    let nothing = spec(Resources::default());
    check(&fleet(&full, None), &nothing, &[("insufficient_cpu", "has 0.5 cores more reserved than there is")]);
    let edge = pool(3, cpu_quota(1000));
    check(
        &fleet(&Server { pool_id: Some(edge.id), ..server(1, cores(4)) }, Some((&edge, cores(3)))),
        &nothing,
        &[("quota_cpu", r#"is in pool "edge", where 2 cores more is held than its quota allows"#)],
    );
}

#[test]
fn a_pool_that_is_saturated_or_not_known_takes_no_work() {
    let inside = Server { pool_id: Some(PoolId(3)), ..server(1, cores(4)) };
    let saturated = Pool { state: PoolState::Saturated, ..pool(3, Quotas::default()) };
    let detail = r#"is in pool "edge", which takes no new work: its load is above its high watermark"#;
    let known = fleet(&inside, Some((&saturated, Resources::default())));
    check(&known, &spec(cores(1)), &[("pool_saturated", detail)]);
    check(&fleet(&inside, None), &spec(cores(1)), &[("pool_unknown", "is in pool 3, of which nothing is known yet")]);
}

#[test]
fn decimals_fill_a_quota_exactly() {
    let check = |quota: i64, demands: &[i64]| {
        let edge = pool(3, cpu_quota(quota));
        let mut fleet =
            fleet(&Server { pool_id: Some(edge.id), ..server(1, millis(1670)) }, Some((&edge, Resources::default())));
        for demand in demands {
            let (server, _) = place(&fleet, &spec(millis(*demand))).unwrap();
            fleet.claim(server, millis(*demand));
        }
        assert_eq!(fleet.free(ServerId(1)), Some(millis(1670 - quota)));
        assert_eq!(fleet.left(PoolId(3)), Some(cpu_quota(0)));
        let more = plan(&fleet, &spec(millis(1)));
        let told = more.reasons(&more.candidates[0]).pop().unwrap().detail;
        assert_eq!(told, format!(r#"needs 0.001 cores, 0 of {} left in the quota of pool "edge""#, told_cores(quota)));
    };
    check(1670, &[1670]);
    check(1670, &[670, 1000]);
    check(1000, &[100; 10]);
    check(300, &[100, 200]);
}

fn told_cores(millis: i64) -> f64 {
    crate::units::cores(millis)
}

#[test]
fn candidates_are_the_best_first_and_then_the_nearest_miss() {
    let mut fleet = FleetSnapshot::default();
    let offline = |id| Server { status: ServerStatus::Offline, ..server(id, cores(8)) };
    fleet.upsert_server(&Server { cordoned: true, ..offline(1) });
    fleet.upsert_server(&Server { reserved: cores(1), ..server(2, cores(4)) });
    fleet.upsert_server(&Server { reserved: millis(500), ..server(3, cores(4)) });
    fleet.upsert_server(&server(4, cores(3)));
    fleet.upsert_server(&offline(5));
    fleet.upsert_server(&server(6, cores(4)));
    fleet.upsert_server(&server(7, cores(8)));
    let plan = plan(&fleet, &spec(cores(4)));
    let order: Vec<i64> = plan.candidates.iter().map(|candidate| candidate.server_id.0).collect();
    // 7 and 6 fit; 3 lacks half a core, 2 a whole one; 5 may come back; 4 will never have enough; 1 has two reasons.
    assert_eq!(order, [7, 6, 3, 2, 5, 4, 1]);
}

fn any_resources() -> impl Strategy<Value = Resources> {
    (0..4_i64, 0..4_i64, 0..3_i64, 0..2_i64).prop_map(|(cpu_millis, memory_mib, storage_mib, gpus)| Resources {
        cpu_millis,
        memory_mib,
        storage_mib,
        gpus,
    })
}

pub(super) fn any_architecture() -> impl Strategy<Value = Architecture> {
    prop::sample::select(Architecture::ALL.to_vec())
}

fn any_tags() -> impl Strategy<Value = crate::text::Tags> {
    prop::sample::subsequence(vec![("a", "1"), ("b", "1"), ("b", "2")], 0..=2).prop_map(|pairs| tags(&pairs))
}

fn any_server() -> impl Strategy<Value = Server> {
    let agent = (
        prop::sample::subsequence(Architecture::ALL.to_vec(), 0..=2),
        prop::sample::subsequence(vec![Driver::Docker, Driver::Exec], 0..=2),
    );
    let status = prop_oneof![4 => Just(ServerStatus::Online), 1 => prop::sample::select(ServerStatus::ALL.to_vec())];
    let place = (prop::option::of(1..3_i64), any_tags(), prop::bool::weighted(0.1));
    (any_architecture(), agent, status, place, any_resources(), any_resources()).prop_map(
        |(architecture, (emulated, drivers), status, (pool, tags, cordoned), capacity, reserved)| {
            let mut server = Server { architecture, status, reserved, tags, cordoned, ..server(0, capacity) };
            server.pool_id = pool.map(PoolId);
            server.inventory.emulated_architectures = emulated;
            server.inventory.drivers = drivers;
            server
        },
    )
}

fn any_pool() -> impl Strategy<Value = (Pool, Resources)> {
    let quota = || prop::option::of(0..6_i64);
    let strategy = prop::sample::select(vec![PoolStrategy::Spread, PoolStrategy::Binpack]);
    (quota(), quota(), strategy, prop::bool::weighted(0.1), any_resources()).prop_map(
        |(cpu_millis, memory_mib, strategy, saturated, reserved)| {
            let quotas = Quotas { cpu_millis, memory_mib, ..Quotas::default() };
            let state = if saturated { PoolState::Saturated } else { PoolState::Open };
            (Pool { strategy, state, ..pool(0, quotas) }, reserved)
        },
    )
}

pub(super) fn any_task() -> impl Strategy<Value = TaskSpec> {
    let need = prop::option::of(any_architecture())
        .prop_map(|only| only.map_or(ArchitectureNeed::Universal, ArchitectureNeed::Only));
    let driver = prop::sample::select(TaskDriver::ALL.to_vec());
    let image = prop::option::weighted(0.4, any_image());
    (need, any::<bool>(), driver, prop::option::of(1..4_i64), any_tags(), any_resources(), image).prop_map(
        |(architecture, allow_emulation, driver, pool, labels, demand, image_truth)| {
            let pool_id = pool.map(PoolId);
            TaskSpec { architecture, driver, image_truth, pool_id, labels, allow_emulation, ..spec(demand) }
        },
    )
}

fn any_image() -> impl Strategy<Value = ImageTruth> {
    let servers = prop::collection::btree_set((1..9_i64).prop_map(ServerId), 0..4);
    (prop::collection::vec(any_architecture().prop_map(Platform::of), 0..3), servers).prop_map(
        |(platforms, servers)| ImageTruth {
            platforms,
            servers: servers.into_iter().collect(),
            ..ImageTruth::default()
        },
    )
}

/// Servers are numbered from 1 in their order, and there are two pools.
pub(super) fn any_fleet() -> impl Strategy<Value = (Vec<Server>, Vec<(Pool, Resources)>)> {
    (prop::collection::vec(any_server(), 0..8), prop::collection::vec(any_pool(), 2)).prop_map(|(servers, pools)| {
        let servers = (1..).zip(servers).map(|(id, server)| Server { id: ServerId(id), ..server }).collect();
        (servers, (1..).zip(pools).map(|(id, (pool, held))| (Pool { id: PoolId(id), ..pool }, held)).collect())
    })
}

pub(super) fn snapshot<'a>(
    servers: impl IntoIterator<Item = &'a Server>,
    pools: &[(Pool, Resources)],
) -> FleetSnapshot {
    let mut fleet = FleetSnapshot::default();
    for (pool, reserved) in pools {
        fleet.upsert_pool(pool, *reserved);
    }
    for server in servers {
        fleet.upsert_server(server);
    }
    fleet
}

/// Whether a server takes a task, said once more and as plainly as possible.
pub(super) fn takes(server: &Server, pools: &[(Pool, Resources)], task: &TaskSpec) -> bool {
    let image = task.image_truth.as_ref();
    let is_there = image.is_none_or(|image| image.servers.is_empty() || image.servers.contains(&server.id));
    let runs = |one: Architecture| {
        let stated = [ArchitectureNeed::Universal, ArchitectureNeed::Only(one)].contains(&task.architecture);
        let has = |image: &ImageTruth| image.platforms.is_empty() || image.platforms.contains(&Platform::of(one));
        stated && image.is_none_or(has)
    };
    let emulated = || server.inventory.emulated_architectures.iter().any(|one| runs(*one));
    let architecture = runs(server.architecture) || (task.allow_emulation && emulated());
    let driver = task.driver.needs().is_none_or(|driver| server.inventory.drivers.contains(&driver));
    let labels = task.labels.iter().all(|pair| server.tags.iter().any(|tag| tag == pair));
    let in_pool = task.pool_id.is_none_or(|id| server.pool_id == Some(id));
    let room = server.reserved.plus(task.demand).fits_in(server.capacity);
    let pool_takes = server.pool_id.is_none_or(|id| {
        let (pool, reserved) = pools.iter().find(|(pool, _)| pool.id == id).unwrap();
        pool.state == PoolState::Open && allowed(pool.quotas, reserved.plus(task.demand))
    });
    architecture && is_there && driver && labels && in_pool && room && pool_takes && server.schedulable()
}

proptest! {
    #[test]
    fn a_server_fits_exactly_if_every_rule_is_satisfied((servers, pools) in any_fleet(), task in any_task()) {
        let plan = plan(&snapshot(&servers, &pools), &task);
        prop_assert_eq!(plan.candidates.len(), servers.len());
        for candidate in &plan.candidates {
            let server = servers.iter().find(|server| server.id == candidate.server_id).unwrap();
            prop_assert_eq!(candidate.fits(), takes(server, &pools, &task), "{:?}", plan.reasons(candidate));
            prop_assert_eq!(candidate.fits(), candidate.reasons.is_empty());
        }
    }

    #[test]
    fn the_fast_path_finds_what_the_plan_finds((servers, pools) in any_fleet(), task in any_task()) {
        let fleet = snapshot(&servers, &pools);
        let plan = plan(&fleet, &task);
        prop_assert_eq!(place(&fleet, &task), plan.placement);
        let ranks: Vec<Rank> = plan.candidates.iter().filter_map(|candidate| candidate.rank).collect();
        prop_assert!(ranks.is_sorted());
        prop_assert_eq!(ranks.first().copied(), plan.placement.map(|(_, rank)| rank));
    }

    #[test]
    fn one_more_server_never_takes_a_place_away((servers, pools) in any_fleet(), task in any_task()) {
        let mut fleet = FleetSnapshot::default();
        for (pool, reserved) in &pools {
            fleet.upsert_pool(pool, *reserved);
        }
        let mut before = None;
        for server in &servers {
            fleet.upsert_server(server);
            let after = place(&fleet, &task).map(|(_, rank)| rank);
            prop_assert!(before.is_none() || after.is_some_and(|after| Some(after) <= before));
            before = after;
        }
    }

    #[test]
    fn the_order_of_arrival_does_not_matter(
        ((servers, pools), shuffled) in any_fleet().prop_flat_map(|(servers, pools)| {
            let shuffled = Just(servers.clone()).prop_shuffle();
            (Just((servers, pools)), shuffled)
        }),
        task in any_task(),
    ) {
        let (ordered, mut mixed) = (snapshot(&servers, &pools), FleetSnapshot::default());
        // Servers before their pools, too.
        for server in &shuffled {
            mixed.upsert_server(server);
        }
        for (pool, reserved) in &pools {
            mixed.upsert_pool(pool, *reserved);
        }
        let told = |fleet: &FleetSnapshot| {
            let plan = plan(fleet, &task);
            let all = plan.candidates.iter().map(|candidate| (candidate.server_id, candidate.rank, plan.reasons(candidate)));
            (plan.placement, all.collect::<Vec<_>>())
        };
        prop_assert_eq!(told(&ordered), told(&mixed));
    }

    #[test]
    fn there_is_one_reason_for_each_rule_and_resource((servers, pools) in any_fleet(), task in any_task()) {
        let plan = plan(&snapshot(&servers, &pools), &task);
        for candidate in &plan.candidates {
            let mut codes: Vec<&str> = candidate.reasons.iter().map(|unfit| unfit.code()).collect();
            codes.sort_unstable();
            codes.dedup();
            prop_assert_eq!(codes.len(), candidate.reasons.len());
        }
    }
}

//! Where a task goes of which attempts ended with an exec format error.

use super::{
    tests::{any_architecture, any_fleet, any_task, snapshot, takes},
    *,
};
use crate::{
    fleet::{Architecture, Inventory, Server},
    ids::ServerId,
    scheduling::{
        ArchitectureNeed, ArchitectureSet, explain,
        fixtures::{cores, server, spec},
    },
};
use Architecture::{Arm64, Riscv64, X86_64};
use proptest::prelude::*;

fn plan_barring(fleet: &FleetSnapshot, task: &TaskSpec, barred: ArchitectureSet) -> Plan {
    plan_as(fleet, Gist::of(task).barring(barred), task)
}

/// What the only server says, an x86-64 one that emulates ARM.
#[track_caller]
fn check(need: ArchitectureNeed, allow_emulation: bool, barred: &[Architecture], expected: Option<(&str, &str)>) {
    let inventory = Inventory { emulated_architectures: vec![Arm64], ..Inventory::default() };
    let mut fleet = FleetSnapshot::default();
    fleet.upsert_server(&Server { inventory, ..server(1, cores(4)) });
    let task = TaskSpec { architecture: need, allow_emulation, ..spec(cores(1)) };
    let plan = plan_barring(&fleet, &task, barred.iter().copied().collect());
    let told = explain(&plan);
    assert_eq!(told.iter().map(|reason| (reason.code, reason.detail.as_str())).next(), expected);
    assert!(told.len() <= 1, "{told:?}");
}

#[test]
fn a_server_says_what_is_barred_if_nothing_else_is_in_the_way() {
    use ArchitectureNeed::{Only, Universal};
    let native = Some(("architecture_barred", "is x86_64, on which an attempt ended with an exec format error"));
    let emulated = "is x86_64 and would emulate arm64, on which an attempt ended with an exec format error";
    let emulated = Some(("architecture_barred", emulated));
    check(Only(X86_64), false, &[X86_64], native);
    check(Only(X86_64), true, &[X86_64], native);
    check(Universal, false, &[X86_64], native);
    check(Universal, true, &[X86_64, Arm64], native);
    check(Only(Arm64), true, &[Arm64], emulated);
    check(Only(Arm64), true, &[Arm64, X86_64], emulated);
    // These would not fit without the bar either.
    let refused = "is x86_64 and could only emulate arm64, which the task does not allow";
    check(Only(Arm64), false, &[Arm64], Some(("emulation_not_allowed", refused)));
    check(Only(Riscv64), true, &[Riscv64], Some(("architecture_mismatch", "is x86_64, the task needs riscv64")));
    // And here there is another way.
    check(Universal, true, &[X86_64], None);
    check(Universal, true, &[Arm64], None);
    check(Only(X86_64), false, &[Arm64], None);
}

#[test]
fn a_task_that_is_bound_to_a_server_goes_nowhere_else() {
    let mut fleet = FleetSnapshot::default();
    for id in 1..4 {
        fleet.upsert_server(&server(id, cores(4)));
    }
    let bound = |id, demand| {
        let task = TaskSpec { required_server_id: Some(ServerId(id)), ..spec(demand) };
        plan_barring(&fleet, &task, ArchitectureSet::default())
    };
    assert_eq!(bound(2, cores(1)).placement.map(|(server, _)| server), Some(ServerId(2)));
    let full = bound(3, cores(5));
    assert_eq!(full.placement, None);
    let told: Vec<_> = explain(&full).into_iter().map(|reason| (reason.code, reason.servers)).collect();
    assert_eq!(told, [("insufficient_cpu", 3), ("server_mismatch", 2)]);
    assert_eq!(bound(9, cores(1)).placement, None);
}

#[test]
fn a_barred_server_is_farther_away_than_a_full_one() {
    let mut fleet = FleetSnapshot::default();
    fleet.upsert_server(&server(1, cores(4)));
    let busy = Server { architecture: Arm64, reserved: cores(4), ..server(2, cores(4)) };
    fleet.upsert_server(&busy);
    let reasons = explain(&plan_barring(&fleet, &spec(cores(1)), X86_64.into()));
    let codes: Vec<&str> = reasons.iter().map(|reason| reason.code).collect();
    assert_eq!(codes, ["insufficient_cpu", "architecture_barred"]);
}

fn any_bars() -> impl Strategy<Value = ArchitectureSet> {
    prop::collection::vec(any_architecture(), 0..=3).prop_map(ArchitectureSet::from)
}

/// What the task could be if it were for one architecture that is not barred.
fn unbarred(task: &TaskSpec, barred: ArchitectureSet) -> Vec<TaskSpec> {
    let left = ArchitectureSet::from(task.architecture).iter().filter(|one| !barred.contains(*one));
    left.map(|one| TaskSpec { architecture: ArchitectureNeed::Only(one), ..task.clone() }).collect()
}

proptest! {
    #[test]
    fn a_barred_architecture_is_never_placed_on(
        (servers, pools) in any_fleet(), task in any_task(), barred in any_bars(),
    ) {
        let (fleet, left) = (snapshot(&servers, &pools), unbarred(&task, barred));
        let plan = plan_barring(&fleet, &task, barred);
        for candidate in &plan.candidates {
            let server = servers.iter().find(|server| server.id == candidate.server_id).unwrap();
            let taken = left.iter().any(|task| takes(server, &pools, task));
            prop_assert_eq!(candidate.fits(), taken, "{:?}", plan.reasons(candidate));
        }
        let need = Need::new(&fleet, Gist::of(&task).barring(barred), &task);
        let best = best_of_all(&fleet, &need, &mut |_| {}).map(|rank| (rank.server, rank));
        prop_assert_eq!(best, plan.placement);
    }

    #[test]
    fn a_bar_adds_one_refusal_and_changes_no_other(
        (servers, pools) in any_fleet(), task in any_task(), barred in any_bars(),
    ) {
        let fleet = snapshot(&servers, &pools);
        let (free, plan) = (super::plan(&fleet, &task), plan_barring(&fleet, &task, barred));
        for candidate in &plan.candidates {
            let before = free.candidates.iter().find(|before| before.server_id == candidate.server_id).unwrap();
            let rest: Vec<Unfit> = candidate.reasons.iter().copied().filter(|unfit| *unfit != Unfit::Barred).collect();
            prop_assert_eq!(&rest, &before.reasons);
            if barred == ArchitectureSet::default() {
                prop_assert_eq!(candidate.rank, before.rank);
            }
        }
    }
}

use super::*;
use crate::{
    fleet::Driver,
    ids::ServerId,
    testing::{START, name},
};

fn report() -> InventoryReport {
    InventoryReport {
        architecture: "aarch64".to_owned(),
        capacity: Resources { cpu_millis: 8000, memory_mib: 16_000, storage_mib: 100_000, gpus: 0 },
        gpu_model: None,
        emulated_architectures: vec![Architecture::X86_64],
        drivers: vec![Driver::Docker],
        os: Some("Debian".to_owned()),
        kernel: Some("6.1".to_owned()),
        agent_version: "0.1.0".to_owned(),
    }
}

fn server() -> Server {
    let new = report().new_server(name("a")).unwrap();
    Server { inventory: report().inventory(Some(START)), ..new.into_server(ServerId(1), START) }
}

#[test]
fn a_report_that_says_nothing_new_changes_nothing() {
    assert_eq!(server().reported(&report(), START).unwrap(), None);
}

#[test]
fn a_report_brings_a_server_back_but_not_out_of_maintenance() {
    let status = |status| {
        let after = Server { status, ..server() }.reported(&report(), START).unwrap();
        after.map(|after| (after.status, after.revision))
    };
    assert_eq!(status(ServerStatus::Offline), Some((ServerStatus::Online, 2)));
    assert_eq!(status(ServerStatus::Provisioning), Some((ServerStatus::Online, 2)));
    assert_eq!(status(ServerStatus::Maintenance), None);
}

#[test]
fn thirty_two_bit_machines_are_refused_by_name() {
    for architecture in ["armv7l", "arm", "i686", "sparc64", ""] {
        let odd = InventoryReport { architecture: architecture.to_owned(), ..report() };
        for refusal in [odd.new_server(name("a")).unwrap_err(), server().reported(&odd, START).unwrap_err()] {
            let Error::Conflict { code: "architecture_unsupported", reason } = refusal else { panic!("{refusal}") };
            assert!(reason.contains(architecture), "{reason}");
        }
    }
}

#[test]
fn a_machine_does_not_shrink_below_what_tasks_hold() {
    let reserved = Resources { cpu_millis: 6000, memory_mib: 1, storage_mib: 0, gpus: 0 };
    let capacity = Resources { cpu_millis: 4000, memory_mib: 8000, storage_mib: 1, gpus: 0 };
    let after = Server { reserved, ..server() }.reported(&InventoryReport { capacity, ..report() }, START).unwrap();
    assert_eq!(after.unwrap().capacity, Resources { cpu_millis: 6000, ..capacity });
}

#[test]
fn silence_takes_a_server_out_of_use_once() {
    let lost = server().out_of_reach(START).unwrap();
    assert_eq!((lost.status, lost.revision), (ServerStatus::Offline, 2));
    assert_eq!(lost.out_of_reach(START), None);
    assert_eq!(Server { status: ServerStatus::Maintenance, ..server() }.out_of_reach(START), None);
}

use super::*;
use crate::{
    fleet::{Server, ServerStatus},
    scheduling::{
        FleetSnapshot,
        fixtures::{cores, server, spec},
        plan,
    },
};

/// The codes, how many servers give each, the nearest of them and what it says.
#[track_caller]
fn check(servers: &[Server], expected: &[(&str, usize, Option<i64>, &str)]) {
    let mut fleet = FleetSnapshot::default();
    for server in servers {
        fleet.upsert_server(server);
    }
    let reasons = explain(&plan(&fleet, &spec(cores(4))));
    let told: Vec<_> = reasons
        .iter()
        .map(|reason| {
            (reason.code, reason.servers, reason.nearest.as_ref().map(|(id, _)| id.0), reason.detail.as_str())
        })
        .collect();
    assert_eq!(told, expected);
}

fn with(id: i64, status: ServerStatus, reserved: i64) -> Server {
    Server { status, reserved: cores(reserved), ..server(id, cores(8)) }
}

#[test]
fn reasons_are_put_together_with_the_nearest_miss_first() {
    let (online, offline) = (ServerStatus::Online, ServerStatus::Offline);
    check(
        &[with(1, offline, 0), with(2, online, 7), with(3, online, 5), with(4, offline, 6), with(5, offline, 0)],
        &[("insufficient_cpu", 3, Some(3), "needs 4 cores, 3 free"), ("offline", 3, Some(1), "is offline")],
    );
}

#[test]
fn a_task_that_fits_is_not_explained() {
    check(&[with(1, ServerStatus::Offline, 0), with(2, ServerStatus::Online, 0)], &[]);
}

#[test]
fn without_servers_that_is_the_reason() {
    check(&[], &[("no_servers", 0, None, "there is no server yet; register one")]);
}

use super::*;
use crate::{
    fleet::{Architecture, Driver},
    ids::{EnrollmentId, PoolId},
    testing::{START, name},
    units::Resources,
};
use chrono::TimeDelta;

fn tags(pairs: &[(&str, &str)]) -> Tags {
    Tags::parse(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()).unwrap()
}

fn enrollment() -> Enrollment {
    Enrollment {
        id: EnrollmentId(3),
        name: name("rack 7"),
        pool_id: Some(PoolId(9)),
        tags: tags(&[("env", "test"), ("rack", "7")]),
        max_uses: 1,
        uses: 0,
        expires_at: START + TimeDelta::hours(1),
        created_by: "user:alice".to_owned(),
        created_at: START,
    }
}

fn machine() -> NewServer {
    NewServer {
        name: name("edge-1"),
        architecture: Architecture::Arm64,
        status: ServerStatus::Online,
        capacity: Resources { cpu_millis: 8000, ..Resources::default() },
        gpu_model: None,
        location: None,
        cluster: None,
        zone: None,
        pool_id: None,
        tags: Tags::default(),
    }
}

fn inventory() -> Inventory {
    Inventory { drivers: vec![Driver::Exec], last_seen_at: Some(START), ..Inventory::default() }
}

/// Registered by an operator before its machine came.
fn namesake() -> Namesake {
    let new = NewServer {
        status: ServerStatus::Provisioning,
        capacity: Resources { cpu_millis: 1, ..Resources::default() },
        gpu_model: Some("H100".to_owned()),
        location: Some("Rack 7".to_owned()),
        pool_id: Some(PoolId(1)),
        tags: tags(&[("env", "prod")]),
        ..machine()
    };
    Namesake { server: new.into_server(ServerId(5), START), agent: None, tasks: None }
}

#[track_caller]
fn check_taken(namesake: &Namesake, words: &str) {
    let refused = namesake.adopted(&enrollment(), &machine(), inventory(), START);
    let Err(Error::Conflict { code: "name_taken", reason }) = refused else { panic!("{refused:?}") };
    assert!(reason.contains("\"edge-1\"") && reason.contains(words), "{reason}");
}

#[test]
fn a_machine_gets_the_pool_and_tags_of_its_token() {
    let server = enrollment().admitted(machine(), inventory(), START);
    assert_eq!((server.pool_id, &server.tags), (Some(PoolId(9)), &enrollment().tags));
    assert_eq!((server.revision, server.inventory), (1, inventory()));
}

#[test]
fn what_operators_decided_stays_and_the_rest_is_as_the_machine_says() {
    let now = START + TimeDelta::hours(1);
    let before = namesake().server;
    let after = namesake().adopted(&enrollment(), &machine(), inventory(), now).unwrap();
    let expected = Server {
        status: ServerStatus::Online,
        capacity: machine().capacity,
        tags: tags(&[("env", "prod"), ("rack", "7")]),
        inventory: inventory(),
        revision: 2,
        updated_at: now,
        ..before
    };
    assert_eq!(after, expected);
}

#[test]
fn a_server_in_maintenance_stays_in_it() {
    let server = Server { status: ServerStatus::Maintenance, ..namesake().server };
    let after = Namesake { server, ..namesake() }.adopted(&enrollment(), &machine(), inventory(), START).unwrap();
    assert_eq!(after.status, ServerStatus::Maintenance);
}

#[test]
fn what_may_be_another_machine_is_left_alone() {
    let agent = AgentAccount { server_id: ServerId(5), place: "there".to_owned(), enrolled_at: START };
    check_taken(&Namesake { agent: Some(agent), ..namesake() }, "has an agent");
    check_taken(&Namesake { tasks: Some("task 7 \"night\"".to_owned()), ..namesake() }, "task 7 \"night\"");
    let reserved = Resources { gpus: 1, ..Resources::default() };
    check_taken(&Namesake { server: Server { reserved, ..namesake().server }, ..namesake() }, "check the ledger");
    let server = Server { architecture: Architecture::X86_64, ..namesake().server };
    check_taken(&Namesake { server, ..namesake() }, "of the architecture x86_64, and this machine's is arm64");
}

#[test]
fn a_server_with_all_the_tags_that_it_may_have_gets_no_more() {
    let many = (0..64).map(|n| (format!("key-{n}"), String::new())).collect();
    let server = Server { tags: Tags::parse(many).unwrap(), ..namesake().server };
    let refused = Namesake { server, ..namesake() }.adopted(&enrollment(), &machine(), inventory(), START);
    let Err(Error::Conflict { code: "too_many_tags", reason }) = refused else { panic!("{refused:?}") };
    assert!(reason.contains("a server must have at most 64 entries"), "{reason}");
}

#[test]
fn only_the_same_agent_may_ask_again_and_only_until_it_is_heard_of() {
    let check = |place: &str, seen: Option<Timestamp>, expected: bool| {
        let agent = AgentAccount { server_id: ServerId(5), place: "there".to_owned(), enrolled_at: START };
        let mut found = Namesake { agent: Some(agent), ..namesake() };
        found.server.inventory.last_seen_at = seen;
        let joins = NewAgent { token_digest: "d".to_owned(), place: place.to_owned() };
        assert_eq!(found.asks_again(&joins), expected, "{place} {seen:?}");
        found.agent = None;
        assert!(!found.asks_again(&joins), "nobody has joined");
    };
    check("there", None, true);
    check("there", Some(START), true);
    check("there", Some(START + TimeDelta::microseconds(1)), false);
    check("elsewhere", Some(START), false);
}

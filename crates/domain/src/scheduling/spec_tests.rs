use super::*;
use crate::{
    Error,
    scheduling::fixtures::{cores, spec},
    testing::START,
};

#[track_caller]
fn check(spec: TaskSpec, wrong: &[&str]) {
    let found = match spec.checked() {
        Ok(_) => Vec::new(),
        Err(Error::Invalid { errors }) => errors.into_iter().map(|error| error.field).collect(),
        Err(other) => panic!("{other}"),
    };
    assert_eq!(found, wrong);
}

fn docker() -> TaskSpec {
    TaskSpec { driver: TaskDriver::Docker, image: Some("alpine".to_owned()), ..spec(cores(1)) }
}

#[test]
fn a_driver_is_given_what_it_runs() {
    let command = vec!["true".to_owned()];
    check(spec(cores(1)), &[]);
    check(docker(), &[]);
    check(TaskSpec { driver: TaskDriver::Exec, command: command.clone(), ..spec(cores(1)) }, &[]);
    check(TaskSpec { image: None, ..docker() }, &["image"]);
    check(TaskSpec { image: Some(" ".to_owned()), ..docker() }, &["image"]);
    check(TaskSpec { driver: TaskDriver::Exec, ..spec(cores(1)) }, &["command"]);
    check(TaskSpec { driver: TaskDriver::Exec, command, ..docker() }, &["image"]);
    check(TaskSpec { driver: TaskDriver::None, ..docker() }, &["image"]);
}

#[test]
fn numbers_are_within_their_bounds() {
    for max_attempts in [0, 101] {
        check(TaskSpec { max_attempts, ..spec(cores(1)) }, &["max_attempts"]);
    }
    check(TaskSpec { max_attempts: 100, ..spec(cores(1)) }, &[]);
    check(TaskSpec { timeout_seconds: Some(0), ..spec(cores(1)) }, &["timeout_seconds"]);
    check(TaskSpec { log_limit_mib: Some(0), ..spec(cores(1)) }, &["log_limit"]);
    check(spec(Resources { gpus: -1, ..cores(-1) }), &["required_cpu", "required_gpu"]);
}

#[test]
fn ports_and_mounts_do_not_collide() {
    let port = |container_port, host_port, protocol| PortMapping { container_port, host_port, protocol };
    let ports = |ports: &[PortMapping]| TaskSpec { ports: ports.to_vec(), ..docker() };
    let tcp = port(80, Some(8080), Protocol::Tcp);
    check(ports(&[tcp, port(80, Some(8080), Protocol::Udp), port(80, None, Protocol::Tcp)]), &[]);
    check(ports(&[port(80, None, Protocol::Tcp), port(81, None, Protocol::Tcp)]), &[]);
    check(ports(&[tcp, port(81, Some(8080), Protocol::Tcp)]), &["ports[1].host_port"]);
    check(ports(&[port(0, None, Protocol::Tcp), port(1, Some(0), Protocol::Tcp)]), &["ports[0]", "ports[1]"]);
    check(TaskSpec { ports: vec![tcp], ..spec(cores(1)) }, &["ports"]);
    let mount =
        |source: &str, target: &str| Mount { source: source.to_owned(), target: target.to_owned(), read_only: false };
    let mounts = |mounts: Vec<Mount>| TaskSpec { mounts, ..docker() };
    check(mounts(vec![mount("data", "/data"), mount("/srv", "/srv")]), &[]);
    check(mounts(vec![mount("", "data")]), &["mounts[0].source", "mounts[0].target"]);
    check(mounts(vec![mount("a", "/data"), mount("b", "/data")]), &["mounts[1].target"]);
}

#[test]
fn words_and_numbers_read_back() {
    for text in ["universal", "x86_64", "arm64", "riscv64"] {
        assert_eq!(ArchitectureNeed::parse(text).unwrap().as_str(), text);
    }
    assert_eq!(ArchitectureNeed::parse("AArch64"), Ok(ArchitectureNeed::Only(Architecture::Arm64)));
    assert_eq!(ArchitectureNeed::parse(" Universal "), Ok(ArchitectureNeed::Universal));
    assert!(ArchitectureNeed::parse("sparc").unwrap_err().contains("universal"));
    for number in 1..=5 {
        assert_eq!(i64::from(Priority::parse(number).unwrap()), number);
    }
    for number in [0, 6, -1, 259] {
        assert!(Priority::parse(number).is_err(), "{number}");
    }
    assert_eq!(Priority::default().get(), 3);
    for driver in TaskDriver::ALL {
        assert_eq!(TaskDriver::parse(driver.as_str()), Some(*driver));
    }
    for (word, restart) in [("no", RestartPolicy::Never), ("on-failure", RestartPolicy::OnFailure)] {
        assert_eq!(RestartPolicy::parse(word), Some(restart));
    }
}

#[test]
fn a_stored_spec_comes_back() {
    let full = TaskSpec {
        architecture: ArchitectureNeed::Only(Architecture::Riscv64),
        kind: TaskKind::Service,
        command: vec!["serve".to_owned()],
        ports: vec![PortMapping { container_port: 80, host_port: None, protocol: Protocol::Udp }],
        mounts: vec![Mount { source: "data".to_owned(), target: "/data".to_owned(), read_only: true }],
        pool_id: Some(PoolId(3)),
        allow_emulation: true,
        priority: Priority::parse(5).unwrap(),
        deadline: Some(START),
        restart: RestartPolicy::Always,
        max_attempts: 3,
        metadata: [("team".to_owned(), serde_json::json!({ "id": 7 }))].into(),
        ..docker()
    };
    let stored = serde_json::to_string(&full).unwrap();
    assert_eq!(serde_json::from_str::<TaskSpec>(&stored).unwrap(), full);
}

#[test]
fn a_spec_that_was_stored_with_less_gets_the_defaults() {
    let stored = r#"{"name":"render","architecture":"universal","kind":"job","driver":"none",
        "demand":{"cpu_millis":1000,"memory_mib":0,"storage_mib":0,"gpus":0}}"#;
    assert_eq!(serde_json::from_str::<TaskSpec>(stored).unwrap(), spec(cores(1)));
}

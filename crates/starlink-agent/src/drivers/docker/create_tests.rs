use super::*;
use domain::{
    ids::TaskId,
    scheduling::{Environment, TaskDriver},
    text::Name,
};
use std::collections::BTreeMap;

fn spec() -> TaskSpec {
    let name = Name::parse("t").unwrap();
    TaskSpec { driver: TaskDriver::Docker, image: Some("x".to_owned()), ..TaskSpec::new(name, Resources::default()) }
}

fn body(spec: &TaskSpec) -> ContainerCreateBody {
    let id = WorkId { installation: "0a1b".into(), task: TaskId(7), attempt: 2 };
    let image = Image { name: "x".to_owned(), platform: None };
    let plan =
        Plan { id: &id, spec, image: &image, mounts: Vec::new(), gpus: Vec::new(), pids_limit: 99, grace_seconds: 5 };
    plan.body()
}

#[test]
fn nothing_asked_for_is_nothing_limited_but_processes() {
    let body = body(&spec());
    let host = body.host_config.unwrap();
    assert_eq!((host.nano_cpus, host.memory, host.memory_swap, host.device_requests), (None, None, None, None));
    assert_eq!((host.pids_limit, host.init, host.privileged), (Some(99), Some(true), Some(false)));
    assert_eq!((host.network_mode, host.pid_mode, host.ipc_mode, host.cap_add), (None, None, None, None));
    assert_eq!(host.security_opt.unwrap(), ["no-new-privileges"]);
    assert_eq!((body.cmd, body.entrypoint, body.stop_timeout, body.tty), (None, None, Some(5), Some(false)));
    let labels = body.labels.unwrap();
    assert_eq!(labels.len(), 3);
    assert_eq!(labels["org.starlink.installation"], "0a1b");
    assert_eq!((labels["org.starlink.task"].as_str(), labels["org.starlink.attempt"].as_str()), ("7", "2"));
    let log = host.log_config.unwrap();
    assert_eq!((log.typ.as_deref(), log.config.unwrap()["max-size"].as_str()), (Some("json-file"), "102400k"));
}

#[test]
fn demand_becomes_limits() {
    for (cpu_millis, memory_mib, nano_cpus, memory) in [
        (1500, 64, Some(1_500_000_000), Some(64 << 20)),
        (1, 1, Some(10_000_000), Some(6 << 20)),
        (0, 512, None, Some(512 << 20)),
    ] {
        let demand = Resources { cpu_millis, memory_mib, ..Resources::default() };
        let host = body(&TaskSpec { demand, ..spec() }).host_config.unwrap();
        assert_eq!((host.nano_cpus, host.memory, host.memory_swap), (nano_cpus, memory, memory));
    }
}

#[test]
fn command_environment_and_ports_are_handed_on() {
    let env = BTreeMap::from([("A".to_owned(), "1".to_owned()), ("B".to_owned(), String::new())]);
    let port = |container_port, host_port, protocol| PortMapping { container_port, host_port, protocol };
    let spec = TaskSpec {
        command: vec!["serve".to_owned(), "--x".to_owned()],
        env: Environment::parse(env).unwrap(),
        ports: vec![
            port(80, Some(8080), Protocol::Tcp),
            port(80, Some(8081), Protocol::Tcp),
            port(53, None, Protocol::Udp),
        ],
        ..spec()
    };
    let body = body(&spec);
    assert_eq!(body.cmd.unwrap(), ["serve", "--x"]);
    assert_eq!(body.env.unwrap(), ["A=1", "B="]);
    let bindings = body.host_config.unwrap().port_bindings.unwrap();
    let ports = |name: &str| {
        let bindings = bindings[name].as_ref().unwrap().iter();
        bindings.map(|binding| binding.host_port.as_deref().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!((ports("80/tcp"), ports("53/udp")), (vec!["8080", "8081"], vec![""]));
}

#[test]
fn gpus_are_asked_for_by_their_numbers() {
    let (id, image) = (
        WorkId { installation: "0a1b".into(), task: TaskId(7), attempt: 2 },
        Image { name: "x".to_owned(), platform: None },
    );
    let gpus = vec!["1".to_owned(), "3".to_owned()];
    let spec = spec();
    let plan = Plan { id: &id, spec: &spec, image: &image, mounts: Vec::new(), gpus, pids_limit: 1, grace_seconds: 1 };
    let body = plan.body();
    assert_eq!(body.labels.unwrap()["org.starlink.gpus"], "1,3");
    let requests = body.host_config.unwrap().device_requests.unwrap();
    assert_eq!(
        (requests[0].device_ids.as_deref(), requests[0].count),
        (Some(&["1".to_owned(), "3".to_owned()][..]), None)
    );
}

#[test]
fn restarting_is_the_engines_business() {
    for (restart, name) in [
        (scheduling::RestartPolicy::Never, RestartPolicyNameEnum::NO),
        (scheduling::RestartPolicy::OnFailure, RestartPolicyNameEnum::ON_FAILURE),
        (scheduling::RestartPolicy::Always, RestartPolicyNameEnum::ALWAYS),
    ] {
        let host = body(&TaskSpec { restart, ..spec() }).host_config.unwrap();
        assert_eq!(host.restart_policy.unwrap().name, Some(name));
    }
}

//! What the engine is told of a container. Nothing a task asks for makes it privileged or lets it into the machine's own
//! namespaces.

use super::{Identity, gpus, image::Image, output};
use crate::work::WorkId;
use bollard::models::{
    ContainerCreateBody, DeviceRequest, HostConfig, HostConfigLogConfig, Mount, PortBinding, PortMap, RestartPolicy,
    RestartPolicyNameEnum,
};
use domain::{
    scheduling::{self, PortMapping, Protocol, TaskSpec},
    units::Resources,
};
use std::collections::HashMap;

const BYTES_PER_MIB: i64 = 1024 * 1024;
const NANOS_PER_MILLI: i64 = 1_000_000;
/// The least that the engine takes as a limit.
const LEAST_MEMORY_MIB: i64 = 6;
const LEAST_CPU_MILLIS: i64 = 10;

/// What a container is made of.
pub(super) struct Plan<'a> {
    pub(super) id: &'a WorkId,
    pub(super) spec: &'a TaskSpec,
    pub(super) image: &'a Image,
    pub(super) mounts: Vec<Mount>,
    /// The numbers of the GPUs that it gets.
    pub(super) gpus: Vec<String>,
    pub(super) pids_limit: i64,
    /// How long it has to end by itself, in seconds.
    pub(super) grace_seconds: i64,
}

impl Plan<'_> {
    pub(super) fn body(self) -> ContainerCreateBody {
        let spec = self.spec;
        let mut labels = Identity::of(self.id).labels();
        labels.extend(gpus::label(&self.gpus));
        ContainerCreateBody {
            image: Some(self.image.name.clone()),
            cmd: (!spec.command.is_empty()).then(|| spec.command.clone()),
            env: Some(spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect()),
            labels: Some(labels),
            exposed_ports: Some(spec.ports.iter().copied().map(container_port).collect()),
            stop_timeout: Some(self.grace_seconds),
            tty: Some(false),
            open_stdin: Some(false),
            host_config: Some(self.host_config()),
            ..ContainerCreateBody::default()
        }
    }

    fn host_config(self) -> HostConfig {
        let Resources { cpu_millis, memory_mib, .. } = self.spec.demand;
        let memory = (memory_mib > 0).then(|| memory_mib.max(LEAST_MEMORY_MIB).saturating_mul(BYTES_PER_MIB));
        HostConfig {
            nano_cpus: (cpu_millis > 0).then(|| cpu_millis.max(LEAST_CPU_MILLIS).saturating_mul(NANOS_PER_MILLI)),
            memory,
            // With swap on top, work could take more than it asked for, and slow the machine down for all.
            memory_swap: memory,
            pids_limit: Some(self.pids_limit),
            device_requests: (!self.gpus.is_empty()).then(|| vec![gpu_request(self.gpus)]),
            mounts: Some(self.mounts),
            port_bindings: Some(port_bindings(&self.spec.ports)),
            restart_policy: Some(restart_policy(self.spec.restart)),
            log_config: Some(log_config(self.spec)),
            // Programs are seldom written to be the first process: they would leave zombies, and not end when asked to.
            init: Some(true),
            privileged: Some(false),
            security_opt: Some(vec!["no-new-privileges".to_owned()]),
            auto_remove: Some(false),
            ..HostConfig::default()
        }
    }
}

fn gpu_request(devices: Vec<String>) -> DeviceRequest {
    DeviceRequest {
        device_ids: Some(devices),
        capabilities: Some(vec![vec!["gpu".to_owned()]]),
        ..DeviceRequest::default()
    }
}

/// The engine's own policy, as it goes on while the agent is away. `always` and not `unless-stopped`: an engine that
/// crashed ends what it finds running when it is started again, and takes that for a stop. What the agent ends is kept
/// from starting again by [`super::end`].
fn restart_policy(restart: scheduling::RestartPolicy) -> RestartPolicy {
    let name = match restart {
        scheduling::RestartPolicy::Never => RestartPolicyNameEnum::NO,
        scheduling::RestartPolicy::OnFailure => RestartPolicyNameEnum::ON_FAILURE,
        scheduling::RestartPolicy::Always => RestartPolicyNameEnum::ALWAYS,
    };
    RestartPolicy { name: Some(name), maximum_retry_count: None }
}

/// The engine's copy of the output is what the agent catches up with when it was away: it holds as much as the log does.
fn log_config(spec: &TaskSpec) -> HostConfigLogConfig {
    let options = [("max-size", format!("{}k", output::limit_bytes(spec) / 1024)), ("max-file", "2".to_owned())];
    HostConfigLogConfig {
        typ: Some("json-file".to_owned()),
        config: Some(options.map(|(name, value)| (name.to_owned(), value)).into()),
    }
}

fn container_port(port: PortMapping) -> String {
    let protocol = match port.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    format!("{}/{protocol}", port.container_port)
}

fn port_bindings(ports: &[PortMapping]) -> PortMap {
    let mut bindings: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    for port in ports {
        // Without a port of its own, the engine takes any that is free.
        let host_port = port.host_port.map_or_else(String::new, |port| port.to_string());
        let binding = PortBinding { host_ip: None, host_port: Some(host_port) };
        bindings.entry(container_port(*port)).or_default().get_or_insert_default().push(binding);
    }
    bindings
}

#[cfg(test)]
#[path = "create_tests.rs"]
mod tests;

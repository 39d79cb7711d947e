//! What an engine says of its containers, in the domain's words.

use super::{Containers, Identity, engine::Trouble, images::Facts, seen::time, usage};
use bollard::{
    Docker,
    models::{
        ContainerInspectResponse, ContainerState as EngineState, ContainerStateStatusEnum as Status, HealthStatusEnum,
        HostConfig, MountPoint, NetworkSettings, PortMap,
    },
    query_parameters::{EventsOptions, ListContainersOptions, StatsOptions},
};
use chrono::TimeDelta;
use domain::containers::{
    ContainerState, EngineId, Health, Observed, ObservedMount, ObservedNetwork, ObservedPort, Platform, RunsTask,
    wire::MOST_ON_SERVER,
};
use futures_util::{Stream, StreamExt};
use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};
use tokio::time::timeout;

/// How long the engine may take over one container. One that it freezes while a health check begins
/// may take longer on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the engine may be silent about what happens to its containers: as long as nothing does.
const SILENCE: Duration = Duration::from_hours(365 * 24);
/// From how long ago on the engine tells what has happened: longer than it takes to list all containers.
const BEFORE: TimeDelta = TimeDelta::seconds(60);
/// What happens to a container that is no change of it.
const NO_CHANGE: [&str; 8] = ["exec_", "attach", "detach", "top", "resize", "copy", "archive-path", "export"];

impl Containers {
    /// All containers, the newest first; not more than are told of.
    pub(crate) async fn list(&self) -> Result<Vec<EngineId>, Trouble> {
        let options = ListContainersOptions { all: true, ..ListContainersOptions::default() };
        let found =
            self.engine.ask(|client: Docker| async move { client.list_containers(Some(options)).await }).await?;
        let ids = found.into_iter().filter_map(|container| EngineId::parse(container.id?).ok());
        Ok(ids.take(MOST_ON_SERVER).collect())
    }

    /// One container, if it is there.
    pub(crate) async fn observe(&self, id: &EngineId, installation: &str) -> Result<Option<Observed>, Trouble> {
        let id = id.as_str();
        let asked = self.engine.ask(|client: Docker| async move { client.inspect_container(id, None).await });
        let container = match timeout(PATIENCE, asked).await {
            // It answers about the others meanwhile.
            Err(_elapsed) => return Err(Trouble::Refused("it does not say in time how it is".to_owned())),
            Ok(Err(Trouble::Missing(_))) => return Ok(None),
            Ok(found) => found?,
        };
        let image = self.images.facts(&self.engine, container.image.as_deref().unwrap_or_default()).await;
        Ok(observed(container, installation, image))
    }

    /// The containers to which something happens from now on, or has happened just before: the engine is asked when the
    /// first is wanted, and what happens until then must not be missed. It ends when the engine goes away.
    pub(crate) fn changes(&self) -> Result<impl Stream<Item = Result<EngineId, Trouble>> + use<>, Trouble> {
        let filters = HashMap::from([("type".to_owned(), vec!["container".to_owned()])]);
        let since = Some(super::events::stamp(self.clock.now() - BEFORE));
        let options = EventsOptions { since, filters: Some(filters), ..EventsOptions::default() };
        let events = self.engine.client(SILENCE)?.events(Some(options));
        Ok(events.filter_map(async |event| match event {
            Err(error) => Some(Err(error.into())),
            Ok(event) => {
                let action = event.action.unwrap_or_default();
                if NO_CHANGE.iter().any(|start| action.starts_with(start)) {
                    return None;
                }
                EngineId::parse(event.actor?.id?).ok().map(Ok)
            }
        }))
    }

    /// What a container that runs has used until now.
    pub(crate) async fn count(&self, id: &EngineId) -> Result<Option<usage::Reading>, Trouble> {
        let id = id.as_str();
        let options = StatsOptions { stream: false, one_shot: true };
        let asked = self.engine.ask(|client: Docker| async move {
            let mut stats = Box::pin(client.stats(id, Some(options)));
            stats.next().await.transpose()
        });
        match asked.await {
            Ok(stats) => Ok(stats.map(|stats| usage::reading(&stats)).filter(usage::Reading::is_of_something_running)),
            Err(Trouble::Missing(_) | Trouble::Conflict(_)) => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }
}

fn observed(container: ContainerInspectResponse, installation: &str, image: Facts) -> Option<Observed> {
    let engine_id = EngineId::parse(container.id?).ok()?;
    let config = container.config.unwrap_or_default();
    let host = container.host_config.unwrap_or_default();
    let engine_state = container.state.unwrap_or_default();
    let labels = config.labels.unwrap_or_default();
    let name = container.name.unwrap_or_default().trim_start_matches('/').to_owned();
    let state = state(&engine_state);
    // An image that was made of a container of ours hands its labels on, but not its name.
    let ours = Identity::read(&labels).filter(|id| &*id.installation == installation && id.to_string() == name);
    let networks = container.network_settings.unwrap_or_default();
    let program = container.path.into_iter().filter(|path| !path.is_empty());
    Some(Observed {
        engine_id,
        runs: ours.map(|id| RunsTask { task_id: id.task, attempt: id.attempt }),
        name,
        image: config.image.unwrap_or_default(),
        image_id: container.image,
        image_digest: image.digest,
        architecture: image.platform.as_ref().and_then(Platform::architecture),
        command: program.chain(container.args.unwrap_or_default()).collect(),
        state,
        health: health(&engine_state),
        exit_code: engine_state.exit_code.filter(|_| has_ended(state)),
        out_of_memory: engine_state.oom_killed.unwrap_or(false),
        restarts: container.restart_count.and_then(|count| u32::try_from(count).ok()).unwrap_or_default(),
        restart_policy: restart_policy(&host),
        tty: config.tty.unwrap_or(false),
        created_at: time(container.created.as_deref()),
        started_at: time(engine_state.started_at.as_deref()),
        finished_at: time(engine_state.finished_at.as_deref()),
        error: engine_state.error.filter(|error| !error.is_empty()),
        cpu_limit_millis: cpu_limit_millis(&host),
        memory_limit_bytes: host.memory.filter(|bytes| *bytes > 0),
        ports: ports(networks.ports.as_ref()),
        networks: joined(networks),
        mounts: mounts(container.mounts.unwrap_or_default()),
        labels: labels.into_iter().collect(),
    })
}

fn has_ended(state: ContainerState) -> bool {
    matches!(state, ContainerState::Exited | ContainerState::Dead | ContainerState::Restarting)
}

fn state(state: &EngineState) -> ContainerState {
    match state.status {
        Some(Status::CREATED) => ContainerState::Created,
        Some(Status::RUNNING | Status::STOPPING) => ContainerState::Running,
        Some(Status::PAUSED) => ContainerState::Paused,
        Some(Status::RESTARTING) => ContainerState::Restarting,
        Some(Status::REMOVING) => ContainerState::Removing,
        Some(Status::EXITED) => ContainerState::Exited,
        Some(Status::DEAD) => ContainerState::Dead,
        Some(Status::EMPTY) | None => match (state.restarting, state.running) {
            (Some(true), _) => ContainerState::Restarting,
            (_, Some(true)) => ContainerState::Running,
            _ => ContainerState::Unknown,
        },
    }
}

fn health(state: &EngineState) -> Option<Health> {
    match state.health.as_ref()?.status? {
        HealthStatusEnum::STARTING => Some(Health::Starting),
        HealthStatusEnum::HEALTHY => Some(Health::Healthy),
        HealthStatusEnum::UNHEALTHY => Some(Health::Unhealthy),
        HealthStatusEnum::EMPTY | HealthStatusEnum::NONE => None,
    }
}

fn restart_policy(host: &HostConfig) -> Option<String> {
    let name = host.restart_policy.as_ref()?.name?.to_string();
    (!name.is_empty()).then_some(name)
}

fn cpu_limit_millis(host: &HostConfig) -> Option<i64> {
    let nanos = host.nano_cpus.filter(|nanos| *nanos > 0).map(|nanos| nanos / 1_000_000);
    nanos.or_else(|| {
        let quota = host.cpu_quota.filter(|quota| *quota > 0)?;
        let period = host.cpu_period.filter(|period| *period > 0).unwrap_or(100_000);
        Some(quota.saturating_mul(1000) / period)
    })
}

fn ports(map: Option<&PortMap>) -> Vec<ObservedPort> {
    let mut found = BTreeSet::new();
    for (inside, bindings) in map.into_iter().flatten() {
        let (port, protocol) = inside.split_once('/').unwrap_or((inside, "tcp"));
        let Ok(container_port) = port.parse() else { continue };
        let port =
            |host_port, host_ip| ObservedPort { container_port, protocol: protocol.to_owned(), host_port, host_ip };
        let bindings = bindings.iter().flatten();
        let bound: Vec<ObservedPort> = bindings
            .map(|binding| {
                let host_port = binding.host_port.as_deref().and_then(|port| port.parse().ok());
                port(host_port, binding.host_ip.clone().filter(|ip| !ip.is_empty()))
            })
            .collect();
        if bound.is_empty() {
            found.insert(port(None, None));
        }
        found.extend(bound);
    }
    found.into_iter().collect()
}

fn joined(settings: NetworkSettings) -> Vec<ObservedNetwork> {
    let networks = settings.networks.unwrap_or_default().into_iter().map(|(name, endpoint)| {
        let address = [endpoint.ip_address, endpoint.global_ipv6_address].into_iter().flatten();
        ObservedNetwork { name, address: address.into_iter().find(|address| !address.is_empty()) }
    });
    let mut networks: Vec<ObservedNetwork> = networks.collect();
    networks.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    networks
}

/// In order, because the engine has none.
fn mounts(mounts: Vec<MountPoint>) -> Vec<ObservedMount> {
    let mut mounts: Vec<ObservedMount> = mounts.into_iter().map(mount).collect();
    mounts.sort_unstable_by(|one, other| one.target.cmp(&other.target));
    mounts
}

fn mount(mount: MountPoint) -> ObservedMount {
    let is_volume = mount.typ.as_deref() == Some("volume");
    let source = if is_volume { mount.name.or(mount.source) } else { mount.source };
    ObservedMount {
        kind: mount.typ.unwrap_or_default(),
        source: source.unwrap_or_default(),
        target: mount.destination.unwrap_or_default(),
        read_only: mount.rw == Some(false),
    }
}

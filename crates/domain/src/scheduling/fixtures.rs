//! What this room's tests are about: servers, pools and tasks with a default for all that does not matter.

use super::{NewTask, Priority, Task, TaskSpec};
use crate::{
    fleet::{Architecture, NewServer, Server, ServerStatus},
    ids::{PoolId, ServerId, TaskId},
    pools::{NewPool, Pool, PoolStrategy, PoolType, Quotas, Watermarks},
    testing::{START, name},
    text::Tags,
    units::Resources,
};

/// Cores; everything else is there in plenty, or not asked for.
pub(crate) fn cores(cores: i64) -> Resources {
    millis(cores * 1000)
}

pub(crate) fn millis(cpu_millis: i64) -> Resources {
    Resources { cpu_millis, ..Resources::default() }
}

pub(crate) fn tags(pairs: &[(&str, &str)]) -> Tags {
    Tags::parse(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()).unwrap()
}

/// An x86-64 server that is online, without an agent and without a pool.
pub(crate) fn server(id: i64, capacity: Resources) -> Server {
    let new = NewServer {
        name: name(&format!("edge-{id}")),
        architecture: Architecture::X86_64,
        status: ServerStatus::Online,
        capacity,
        gpu_model: None,
        location: None,
        cluster: None,
        zone: None,
        pool_id: None,
        tags: Tags::default(),
    };
    new.into_server(ServerId(id), START)
}

/// A pool without quotas that spreads.
pub(crate) fn pool(id: i64, quotas: Quotas) -> Pool {
    let new = NewPool {
        name: name("edge"),
        kind: PoolType::Compute,
        quotas,
        watermarks: Watermarks::default(),
        strategy: PoolStrategy::Spread,
        labels: Tags::default(),
        description: None,
    };
    new.into_pool(PoolId(id), START)
}

pub(crate) fn cpu_quota(cpu_millis: i64) -> Quotas {
    Quotas { cpu_millis: Some(cpu_millis), ..Quotas::default() }
}

pub(crate) fn spec(demand: Resources) -> TaskSpec {
    TaskSpec::new(name("render"), demand)
}

pub(crate) fn urgent(priority: i64, demand: Resources) -> TaskSpec {
    TaskSpec { priority: Priority::parse(priority).unwrap(), ..spec(demand) }
}

/// A pending task.
pub(crate) fn task(id: i64, spec: TaskSpec) -> Task {
    NewTask { spec }.into_task(TaskId(id), START)
}

/// Whether a pool's allocations may hold so much. Said in other words than the rules say it, so that both cannot be wrong alike.
pub(crate) fn allowed(quotas: Quotas, held: Resources) -> bool {
    let Quotas { cpu_millis, memory_mib, storage_mib, gpus } = quotas;
    let held = [held.cpu_millis, held.memory_mib, held.storage_mib, held.gpus];
    [cpu_millis, memory_mib, storage_mib, gpus]
        .into_iter()
        .zip(held)
        .all(|(quota, held)| quota.is_none_or(|q| held <= q))
}

//! What a container uses, read from what its engine counts. Pure.

use bollard::models::{ContainerCpuStats, ContainerMemoryStats, ContainerStatsResponse};
use chrono::DateTime;
use domain::{
    clock::Timestamp,
    containers::{CpuReading, MemoryReading, Usage},
};

/// What an engine counted at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Reading {
    /// When, if it says.
    pub(crate) at: Option<Timestamp>,
    pub(crate) cpu: CpuReading,
    /// The reading before, where the engine took one itself.
    pub(crate) cpu_before: Option<CpuReading>,
    pub(crate) memory: MemoryReading,
    pub(crate) network_in_bytes: u64,
    pub(crate) network_out_bytes: u64,
    pub(crate) disk_read_bytes: u64,
    pub(crate) disk_write_bytes: u64,
    pub(crate) pids: Option<u64>,
}

/// Reads what an engine counted.
pub(crate) fn reading(stats: &ContainerStatsResponse) -> Reading {
    let networks = || stats.networks.iter().flat_map(|networks| networks.values());
    Reading {
        at: stats.read.as_deref().and_then(moment),
        cpu: stats.cpu_stats.as_ref().and_then(cpu).unwrap_or_default(),
        cpu_before: stats.precpu_stats.as_ref().and_then(cpu),
        memory: stats.memory_stats.as_ref().map(memory).unwrap_or_default(),
        network_in_bytes: total(networks().filter_map(|network| network.rx_bytes)),
        network_out_bytes: total(networks().filter_map(|network| network.tx_bytes)),
        disk_read_bytes: disk(stats, "read"),
        disk_write_bytes: disk(stats, "write"),
        pids: stats.pids_stats.as_ref().and_then(|pids| pids.current),
    }
}

impl Reading {
    /// Whether anything was counted. An engine goes on telling of a container that has ended, with nothing in it.
    pub(crate) fn is_of_something_running(&self) -> bool {
        self.cpu.container_nanos > 0 || self.memory.usage > 0
    }

    /// What is used by now. CPU is counted since the earlier reading, or since the engine's own. `at` is when the engine
    /// was asked; its own time goes before.
    pub(crate) fn since(&self, earlier: Option<&Self>, at: Timestamp) -> Usage {
        let before = earlier.map(|earlier| earlier.cpu).or(self.cpu_before);
        let percents = before.and_then(|before| self.cpu.percents_since(&before));
        Usage {
            at: self.at.unwrap_or(at),
            cpu_percent: percents.map(|(of_core, _)| of_core),
            machine_cpu_percent: percents.map(|(_, of_machine)| of_machine),
            memory_bytes: self.memory.used(),
            memory_limit_bytes: self.memory.limit,
            memory_percent: self.memory.percent(),
            network_in_bytes: self.network_in_bytes,
            network_out_bytes: self.network_out_bytes,
            disk_read_bytes: self.disk_read_bytes,
            disk_write_bytes: self.disk_write_bytes,
            pids: self.pids,
        }
    }
}

/// `None`, where the engine has not counted both of the container and of the machine: a share of nothing is none.
fn cpu(stats: &ContainerCpuStats) -> Option<CpuReading> {
    let usage = stats.cpu_usage.as_ref()?;
    let counted = usage.percpu_usage.as_ref().map(|cores| u64::try_from(cores.len()).unwrap_or_default());
    Some(CpuReading {
        container_nanos: usage.total_usage?,
        system_nanos: stats.system_cpu_usage.filter(|nanos| *nanos > 0)?,
        // Engines from before Docker 17.04 have only the list.
        cores: stats.online_cpus.map(u64::from).filter(|cores| *cores > 0).or(counted).unwrap_or_default(),
    })
}

fn memory(stats: &ContainerMemoryStats) -> MemoryReading {
    let detail = |name: &str| stats.stats.as_ref().and_then(|stats| stats.get(name)).copied();
    MemoryReading {
        usage: stats.usage.unwrap_or_default(),
        total_inactive_file: detail("total_inactive_file"),
        inactive_file: detail("inactive_file"),
        limit: stats.limit.filter(|limit| *limit > 0),
    }
}

/// Version 1 of the kernel's control groups writes `Read`, version 2 `read`.
fn disk(stats: &ContainerStatsResponse, operation: &str) -> u64 {
    let entries = stats.blkio_stats.as_ref().and_then(|disks| disks.io_service_bytes_recursive.as_ref());
    let of_operation = entries
        .into_iter()
        .flatten()
        .filter(|entry| entry.op.as_deref().is_some_and(|named| named.eq_ignore_ascii_case(operation)));
    total(of_operation.filter_map(|entry| entry.value))
}

fn total(numbers: impl Iterator<Item = u64>) -> u64 {
    numbers.fold(0, u64::saturating_add)
}

/// A moment, unless it is Go's zero.
fn moment(text: &str) -> Option<Timestamp> {
    let time = DateTime::parse_from_rfc3339(text).ok()?.to_utc();
    (time > DateTime::UNIX_EPOCH).then_some(time)
}

#[cfg(test)]
#[path = "usage_tests.rs"]
mod tests;

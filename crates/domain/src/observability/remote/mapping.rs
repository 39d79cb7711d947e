//! Of whom a series is, and of what: decided by its labels alone.

use super::series::Series;
use crate::{
    fleet::RosterEntry,
    ids::ServerId,
    observability::{Metric, is_made_up_interface},
};
use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

/// Names a server, by its name or id, whatever the other labels say.
const EXPLICIT: &str = "starlink_server";
/// Names what was measured, mostly as `host:port`.
const INSTANCE: &str = "instance";
/// Other names of a machine.
const OTHERS: [&str; 2] = ["host", "nodename"];
/// What our own metrics may be called besides by their names.
const PREFIX: &str = "starlink_";

/// The servers there are, by name.
#[derive(Debug, Default)]
pub struct Names<'a>(HashMap<&'a str, ServerId>, HashMap<ServerId, &'a str>);

impl<'a> Names<'a> {
    /// Of these servers.
    #[must_use]
    pub fn of(servers: &'a [Arc<RosterEntry>]) -> Self {
        let names = || servers.iter().map(|server| (server.name.as_str(), server.id));
        Self(names().collect(), names().map(|(name, id)| (id, name)).collect())
    }

    /// Whose a series is. The label `starlink_server` decides alone, where it is there; otherwise the first of `instance`
    /// (with or without a port), `host` and `nodename` does that is the name of a server.
    ///
    /// # Errors
    /// How the series names what is not known.
    pub fn owner<'s>(&self, series: &'s Series) -> Result<ServerId, Option<&'s str>> {
        if let Some(named) = series.label(EXPLICIT) {
            return self.named(named).or_else(|| self.numbered(named)).ok_or(Some(named));
        }
        let instance = series.label(INSTANCE);
        let hosts = instance.into_iter().flat_map(|instance| [instance, host(instance)]);
        let mut all = hosts.chain(OTHERS.iter().filter_map(|name| series.label(name)));
        let first = instance.map(host).or_else(|| OTHERS.iter().find_map(|name| series.label(name)));
        all.find_map(|name| self.named(name)).ok_or(first)
    }

    fn named(&self, name: &str) -> Option<ServerId> {
        self.0.get(name).copied()
    }

    fn numbered(&self, id: &str) -> Option<ServerId> {
        let id = ServerId(id.parse().ok()?);
        self.1.contains_key(&id).then_some(id)
    }
}

/// The host of `host:port`, `[address]:port` or a URL.
fn host(instance: &str) -> &str {
    let rest = instance.split_once("://").map_or(instance, |(_, rest)| rest);
    let rest = rest.split('/').next().unwrap_or_default();
    if let Some(bracketed) = rest.strip_prefix('[') {
        return bracketed.split(']').next().unwrap_or_default();
    }
    match rest.rsplit_once(':') {
        // An address of IPv6 without brackets has no port.
        Some((host, port)) if !host.contains(':') && port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => rest,
    }
}

/// What a series says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// All of a metric, in its unit.
    Whole(Metric),
    /// A part of what a metric is computed from.
    Part(Family, Key),
    /// Something of what is left out on purpose, such as a network interface that others of the machine contain.
    LeftOut,
}

/// Series that make one metric together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// `node_cpu_seconds_total`.
    Cpu,
    /// `node_memory_MemAvailable_bytes` and `node_memory_MemTotal_bytes`.
    Memory,
    /// `node_filesystem_avail_bytes` and `node_filesystem_size_bytes` of `/`.
    Storage,
    /// `node_network_receive_bytes_total`.
    NetworkIn,
    /// `node_network_transmit_bytes_total`.
    NetworkOut,
    /// `node_disk_read_bytes_total`.
    DiskRead,
    /// `node_disk_written_bytes_total`.
    DiskWrite,
    /// `node_hwmon_temp_celsius`.
    Temperature,
}

impl Family {
    /// What they make.
    #[must_use]
    pub fn metric(self) -> Metric {
        match self {
            Self::Cpu => Metric::CpuUsage,
            Self::Memory => Metric::MemoryUsage,
            Self::Storage => Metric::StorageUsage,
            Self::NetworkIn => Metric::NetworkIn,
            Self::NetworkOut => Metric::NetworkOut,
            Self::DiskRead => Metric::DiskRead,
            Self::DiskWrite => Metric::DiskWrite,
            Self::Temperature => Metric::Temperature,
        }
    }
}

/// What a part is of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// What is in use.
    Used,
    /// What is left.
    Free,
    /// Both together.
    Total,
}

/// Tells the parts of a family apart: by the labels that do in a machine, not by those of who scrapes it, so that two
/// Prometheus servers that watch the same machine tell of the same parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// What it is of the whole.
    pub role: Role,
    /// Of its labels.
    pub hash: u64,
}

/// What a series says; `None` if nobody knows.
#[must_use]
pub fn meaning(series: &Series) -> Option<Meaning> {
    let name = series.name();
    let own = name.strip_prefix(PREFIX).unwrap_or(name);
    if let Some(metric) = Metric::parse(own) {
        return Some(Meaning::Whole(metric));
    }
    let only = |family, role| Some(part(family, role, series, &[]));
    let traffic = |family, is_inner: fn(&str) -> bool| {
        let device = series.label("device").unwrap_or_default();
        Some(if is_inner(device) { Meaning::LeftOut } else { part(family, Role::Used, series, &["device"]) })
    };
    match name {
        "node_cpu_seconds_total" => {
            let is_idle = matches!(series.label("mode"), Some("idle" | "iowait"));
            let role = if is_idle { Role::Free } else { Role::Used };
            Some(part(Family::Cpu, role, series, &["cpu", "mode"]))
        }
        "node_memory_MemAvailable_bytes" => only(Family::Memory, Role::Free),
        "node_memory_MemTotal_bytes" => only(Family::Memory, Role::Total),
        "node_filesystem_avail_bytes" | "node_filesystem_size_bytes" if !is_root(series) => Some(Meaning::LeftOut),
        "node_filesystem_avail_bytes" => only(Family::Storage, Role::Free),
        "node_filesystem_size_bytes" => only(Family::Storage, Role::Total),
        "node_network_receive_bytes_total" => traffic(Family::NetworkIn, is_inner_network),
        "node_network_transmit_bytes_total" => traffic(Family::NetworkOut, is_inner_network),
        "node_disk_read_bytes_total" => traffic(Family::DiskRead, is_inner_disk),
        "node_disk_written_bytes_total" => traffic(Family::DiskWrite, is_inner_disk),
        "node_hwmon_temp_celsius" => Some(part(Family::Temperature, Role::Used, series, &["chip", "sensor"])),
        _ => None,
    }
}

fn part(family: Family, role: Role, series: &Series, labels: &[&str]) -> Meaning {
    let mut hasher = DefaultHasher::new();
    for label in labels {
        series.label(label).hash(&mut hasher);
    }
    Meaning::Part(family, Key { role, hash: hasher.finish() })
}

/// The first file system of a Linux machine is listed a second time by old kernels.
fn is_root(series: &Series) -> bool {
    series.label("mountpoint") == Some("/") && series.label("fstype") != Some("rootfs")
}

/// Whether what goes through it goes through another one as well, or does not leave the machine. Agents ask the kernel what
/// is hardware, which labels do not tell; so bonds, and VLANs, which have a dot, are told by their names as well.
fn is_inner_network(device: &str) -> bool {
    is_made_up_interface(device) || device.starts_with("bond") || device.contains('.')
}

/// Whether what is read from it is read from another one as well, or from no disk.
fn is_inner_disk(device: &str) -> bool {
    ["dm-", "md", "loop", "ram", "zram", "sr", "fd"].iter().any(|prefix| device.starts_with(prefix))
}

#[cfg(test)]
#[path = "mapping_tests.rs"]
mod tests;

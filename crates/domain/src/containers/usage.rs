//! What a container uses, computed from what its engine counts.

use super::observed::EngineId;
use crate::clock::Timestamp;
use serde::{Deserialize, Serialize};

/// What a container uses at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// When the engine counted.
    pub at: Timestamp,
    /// CPU since the reading before, in percent of one core, as `docker stats` shows it: four busy cores are 400.
    /// `None` for a first reading.
    pub cpu_percent: Option<f64>,
    /// The same in percent of the whole machine, 0 to 100.
    pub machine_cpu_percent: Option<f64>,
    /// Memory without what the kernel gives back under pressure, in bytes.
    pub memory_bytes: u64,
    /// The most that it may use, in bytes: its limit, or the machine's memory.
    pub memory_limit_bytes: Option<u64>,
    /// Memory in percent of the limit.
    pub memory_percent: Option<f64>,
    /// Received from networks since it started, in bytes.
    #[serde(default)]
    pub network_in_bytes: u64,
    /// Sent to networks since it started, in bytes.
    #[serde(default)]
    pub network_out_bytes: u64,
    /// Read from disks since it started, in bytes.
    #[serde(default)]
    pub disk_read_bytes: u64,
    /// Written to disks since it started, in bytes.
    #[serde(default)]
    pub disk_write_bytes: u64,
    /// Its processes and threads.
    #[serde(default)]
    pub pids: Option<u64>,
}

/// What one of a server's containers uses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerUsage {
    /// Which.
    pub engine_id: EngineId,
    /// How much.
    pub usage: Usage,
}

/// What an engine counted of CPU time, in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CpuReading {
    /// Of the container's processes.
    pub container_nanos: u64,
    /// Of the machine, over all cores, idle time included.
    pub system_nanos: u64,
    /// How many cores the machine has; 0 if the engine does not say.
    pub cores: u64,
}

impl CpuReading {
    /// The share of the machine that was used between an earlier reading and this one, from 0 to 1 but for inaccuracies;
    /// `None` if no time has passed, or the counters went backwards, as they do when the container is started again.
    fn share_since(&self, earlier: &Self) -> Option<f64> {
        let container = self.container_nanos.checked_sub(earlier.container_nanos)?;
        let system = self.system_nanos.checked_sub(earlier.system_nanos).filter(|system| *system > 0)?;
        Some(ratio(container, system))
    }

    /// CPU since an earlier reading, in percent of one core, and of the whole machine.
    #[must_use]
    pub fn percents_since(&self, earlier: &Self) -> Option<(f64, f64)> {
        let share = self.share_since(earlier)?;
        let cores = if self.cores == 0 { 1.0 } else { ratio(self.cores, 1) };
        Some((share * cores * 100.0, share * 100.0))
    }
}

/// What an engine counted of memory, in bytes. Which members there are depends on the version of the kernel's control
/// groups.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryReading {
    /// Everything that is charged to the container.
    pub usage: u64,
    /// `stats.total_inactive_file`, which only version 1 has.
    pub total_inactive_file: Option<u64>,
    /// `stats.inactive_file`; in version 1 it leaves out groups below, in version 2 it is all.
    pub inactive_file: Option<u64>,
    /// The most that may be used; `None` if the engine does not say.
    pub limit: Option<u64>,
}

impl MemoryReading {
    /// What is used, without files that the kernel only has in memory because there was room: as `docker stats` counts
    /// since version 20.10 (its `calculateMemUsageUnixNoCache`). Shared memory counts, which version 1's `cache` would
    /// take off.
    #[must_use]
    pub fn used(&self) -> u64 {
        let reclaimable = self.total_inactive_file.or(self.inactive_file).filter(|bytes| *bytes < self.usage);
        self.usage - reclaimable.unwrap_or_default()
    }

    /// What is used in percent of the limit.
    #[must_use]
    pub fn percent(&self) -> Option<f64> {
        self.limit.filter(|limit| *limit > 0).map(|limit| ratio(self.used(), limit) * 100.0)
    }
}

/// Exact enough: what is counted in bytes or nanoseconds and does not fit into 53 bits loses what nobody sees.
#[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "a percentage needs no more digits")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: u64 = 56_000_000;

    fn check(reading: MemoryReading) {
        assert_eq!(reading.used(), 200_000_000, "{reading:?}");
        assert!((reading.percent().unwrap() - 50.0).abs() < 1e-9, "{reading:?}");
    }

    #[test]
    fn memory_is_the_same_whatever_version_the_control_groups_are() {
        let all = MemoryReading { usage: 256_000_000, limit: Some(400_000_000), ..MemoryReading::default() };
        check(MemoryReading { inactive_file: Some(FILES), ..all });
        check(MemoryReading { total_inactive_file: Some(FILES), inactive_file: Some(1), ..all });
    }

    #[test]
    fn a_reading_that_makes_no_sense_takes_nothing_off() {
        let reading = MemoryReading { usage: 10, inactive_file: Some(20), ..MemoryReading::default() };
        assert_eq!((reading.used(), reading.percent()), (10, None));
    }

    #[test]
    fn cpu_is_told_of_one_core_and_of_the_machine() {
        let (container_nanos, system_nanos) = (18_702_324_497_183, 67_684_067_000_000_000);
        let earlier = CpuReading { container_nanos, system_nanos, cores: 8 };
        let later = CpuReading { container_nanos: 18_702_340_106_497, system_nanos: 67_684_074_960_000_000, ..earlier };
        let (core, machine) = later.percents_since(&earlier).unwrap();
        assert_eq!((format!("{core:.2}"), format!("{machine:.3}")), ("1.57".to_owned(), "0.196".to_owned()));
    }

    #[test]
    fn counters_that_go_backwards_tell_nothing() {
        let reading = |container_nanos, system_nanos| CpuReading { container_nanos, system_nanos, cores: 2 };
        assert_eq!(reading(5, 20).percents_since(&reading(9, 10)), None, "it was started again");
        assert_eq!(reading(5, 20).percents_since(&reading(1, 20)), None, "no time has passed");
    }
}

//! Reads what the machine is at: one gauge for what is quick, and one for each kind of what can take long or hang.

use super::{
    Gauge,
    cpu::{self, CpuTimes},
    devices::{self, Devices},
    float,
    gpu::Gpus,
    heat, memory,
};
use domain::{
    clock::Clock,
    observability::{Metric, Readings},
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

const BITS_PER_BYTE: f64 = 8.0;
const MILLION: f64 = 1e6;

/// Where work is kept, as far as is known: where the container engine keeps it, or else the agent.
#[derive(Debug, Clone, Default)]
pub(crate) struct WorkPlace(Arc<Mutex<Option<PathBuf>>>);

impl WorkPlace {
    /// Notes where the engine keeps it. An engine that does not say it at the moment has not moved.
    pub(crate) fn note(&self, engine: Option<PathBuf>, agent: &Path) {
        let mut place = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match engine {
            Some(engine) => *place = Some(engine),
            None => _ = place.get_or_insert_with(|| agent.to_owned()),
        }
    }

    fn get(&self) -> Option<PathBuf> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The gauges of the machine whose `proc` and `sys` are below `root`.
pub(crate) fn gauges(root: &Path, place: WorkPlace, clock: Arc<dyn Clock>) -> Vec<Gauge> {
    let (counting, sensing) = (root.to_owned(), root.to_owned());
    let (mut earlier, mut gpus) = (None, Gpus::new(root, None));
    let one = |metric, value| {
        let mut readings = Readings::default();
        readings.set(metric, value);
        readings
    };
    vec![
        Box::new(move || {
            let counted = Counted::now(&counting, clock.uptime());
            let readings = counted.readings(earlier.as_ref());
            earlier = Some(counted);
            readings
        }),
        Box::new(move || one(Metric::StorageUsage, place.get().and_then(|place| fullness(&place)))),
        Box::new(move || one(Metric::Temperature, heat::hottest(&sensing))),
        Box::new(move || gpus.read()),
    ]
}

/// What the kernel has counted at one moment.
#[derive(Debug, Default)]
struct Counted {
    /// Since some beginning, by a clock that nobody sets, and that stands still while the machine is suspended, as what
    /// is counted does.
    at: Duration,
    /// What needs no other moment to be compared with.
    plain: Readings,
    cpu: Option<CpuTimes>,
    interfaces: Devices,
    disks: Devices,
}

impl Counted {
    fn now(root: &Path, at: Duration) -> Self {
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
        let has_device = |class: &str, name: &str| root.join(class).join(name).join("device").exists();
        let mut plain = memory::loads(&read("proc/loadavg"));
        plain.set(Metric::MemoryUsage, memory::usage(&read("proc/meminfo")));
        Self {
            at,
            plain,
            cpu: cpu::parse(&read("proc/stat")),
            interfaces: devices::interfaces(&read("proc/net/dev"), |name| has_device("sys/class/net", name)),
            disks: devices::disks(&read("proc/diskstats"), |name| has_device("sys/block", name)),
        }
    }

    /// What there is to say of this moment, and of the time since an earlier one.
    fn readings(&self, earlier: Option<&Self>) -> Readings {
        let mut readings = self.plain;
        let Some(earlier) = earlier else { return readings };
        readings.set(Metric::CpuUsage, self.cpu.zip(earlier.cpu).and_then(|(now, then)| now.usage_since(then)));
        let seconds = self.at.saturating_sub(earlier.at).as_secs_f64();
        let rate = |bytes: Option<u64>| bytes.filter(|_| seconds > 0.0).map(|bytes| float(bytes) / seconds / MILLION);
        let (received, sent) = devices::moved(&earlier.interfaces, &self.interfaces);
        let (read, written) = devices::moved(&earlier.disks, &self.disks);
        readings.set(Metric::NetworkIn, rate(received).map(|rate| rate * BITS_PER_BYTE));
        readings.set(Metric::NetworkOut, rate(sent).map(|rate| rate * BITS_PER_BYTE));
        readings.set(Metric::DiskRead, rate(read));
        readings.set(Metric::DiskWrite, rate(written));
        readings
    }
}

/// How full the file system is that `path` is on, or will be on once it is made, in percent and as `df` counts: what is
/// kept for root alone is neither used nor to be had.
fn fullness(path: &Path) -> Option<f64> {
    let disk = path.ancestors().find_map(|folder| nix::sys::statvfs::statvfs(folder).ok())?;
    let used = disk.blocks().saturating_sub(disk.blocks_free());
    let whole = used.saturating_add(disk.blocks_available());
    (whole > 0).then(|| 100.0 * float(used) / float(whole))
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;

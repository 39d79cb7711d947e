use super::*;
use crate::meter::tree::Tree;
use domain::clock::Timestamp;
use std::sync::atomic::{AtomicU64, Ordering};

/// A clock whose uptime is set.
#[derive(Default)]
struct Uptime(AtomicU64);

impl Clock for Uptime {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    fn uptime(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::Relaxed))
    }
}

struct Rig {
    tree: Tree,
    clock: Arc<Uptime>,
    gauges: Vec<Gauge>,
}

impl Rig {
    /// A machine with two processors, a network card and a disk, and much that is made of them.
    fn new() -> Self {
        let (tree, clock) = (Tree::new(), Arc::<Uptime>::default());
        tree.write("proc/loadavg", "0.50 1.00 1.50 2/300 4000\n");
        tree.write("proc/meminfo", "MemTotal:  1000 kB\nMemFree:  10 kB\nMemAvailable:  250 kB\n");
        tree.write("sys/class/net/eth0/device/vendor", "0x1af4\n");
        tree.write("sys/class/net/docker0/mtu", "1500\n");
        tree.write("sys/block/sda/device/model", "disk\n");
        tree.write("sys/block/dm-0/size", "1\n");
        let gauges = gauges(tree.path(), WorkPlace::default(), clock.clone());
        let rig = Self { tree, clock, gauges };
        rig.count(1000, 1000, 0, 0);
        rig
    }

    /// Sets what was counted: ticks, and bytes that went through each device either way.
    fn count(&self, busy: u64, idle: u64, network: u64, disk: u64) {
        self.tree.write("proc/stat", &format!("cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\ncpu0 1 2 3 4\n"));
        let interface = |name: &str| format!("{name}: {network} 1 0 0 0 0 0 0 {} 1 0 0 0 0 0 0\n", 2 * network);
        let names = ["lo", "eth0", "docker0", "veth1"];
        self.tree.write("proc/net/dev", &names.map(interface).concat());
        let block = |name: &str| format!("8 0 {name} 1 1 {} 1 1 1 {} 1 0 1 1\n", disk / 512, 3 * (disk / 512));
        self.tree.write("proc/diskstats", &["sda", "sda1", "dm-0", "loop0", "zram0"].map(block).concat());
    }

    fn read_after(&mut self, seconds: u64) -> Readings {
        self.clock.0.fetch_add(seconds, Ordering::Relaxed);
        (self.gauges[0])()
    }
}

fn values(readings: &Readings, metrics: &[Metric]) -> Vec<Option<f64>> {
    metrics.iter().map(|metric| readings.get(*metric)).collect()
}

const RATES: [Metric; 5] =
    [Metric::CpuUsage, Metric::NetworkIn, Metric::NetworkOut, Metric::DiskRead, Metric::DiskWrite];

#[test]
fn rates_are_of_the_time_between_two_readings() {
    let mut rig = Rig::new();
    let first = rig.read_after(0);
    assert_eq!(values(&first, &RATES), [None; 5], "nothing is known of the time before");
    let plain = [Metric::MemoryUsage, Metric::NodeLoad1, Metric::NodeLoad5, Metric::NodeLoad15];
    assert_eq!(values(&first, &plain), [Some(75.0), Some(0.5), Some(1.0), Some(1.5)]);
    rig.count(1250, 1750, 5_000_000, 5_120_000);
    let expected = [Some(25.0), Some(4.0), Some(8.0), Some(0.512), Some(1.536)];
    assert_eq!(values(&rig.read_after(10), &RATES), expected);
    // Nothing happens.
    rig.count(1250, 2750, 5_000_000, 5_120_000);
    assert_eq!(values(&rig.read_after(10), &RATES), [Some(0.0); 5]);
}

#[test]
fn what_goes_back_or_away_has_no_value_and_comes_back() {
    let mut rig = Rig::new();
    rig.count(9000, 9000, 9_000_000, 9_000_000);
    rig.read_after(0);
    // The counters began anew.
    rig.count(10, 10, 0, 0);
    let readings = rig.read_after(10);
    assert_eq!(values(&readings, &RATES), [None; 5]);
    assert_eq!(readings.get(Metric::MemoryUsage), Some(75.0));
    rig.count(20, 10, 0, 0);
    assert_eq!(rig.read_after(10).get(Metric::CpuUsage), Some(100.0));
    // No time has passed, as far as the clock can tell.
    rig.count(30, 10, 500, 512);
    let expected = [Some(100.0), None, None, None, None];
    assert_eq!(values(&rig.read_after(0), &RATES), expected);
    std::fs::remove_dir_all(rig.tree.path().join("proc")).unwrap();
    assert!(rig.read_after(10).is_empty());
    rig.count(40, 10, 500, 512);
    assert_eq!(values(&rig.read_after(10), &RATES), [None; 5]);
    rig.count(50, 20, 500, 512);
    assert_eq!(rig.read_after(10).get(Metric::CpuUsage), Some(50.0));
}

#[test]
fn storage_is_that_of_the_place_that_work_is_kept_in() {
    let place = WorkPlace::default();
    let (tree, clock) = (Tree::new(), Arc::<Uptime>::default());
    let mut gauges = gauges(tree.path(), place.clone(), clock);
    let mut read = || (gauges[1])().get(Metric::StorageUsage);
    assert_eq!(read(), None, "it is not known yet");
    place.note(None, tree.path());
    let usage = read().unwrap();
    assert!((0.0..=100.0).contains(&usage), "{usage}");
    place.note(Some("/proc".into()), tree.path());
    assert_eq!(read(), None, "it has no blocks");
    // The engine is away for a moment: its work stays where it is.
    place.note(None, tree.path());
    assert_eq!(place.get(), Some("/proc".into()));
}

#[test]
fn this_machine_has_values_within_their_bounds_and_a_busy_loop_shows() {
    let place = WorkPlace::default();
    place.note(None, Path::new("/"));
    let mut gauges = gauges(Path::new("/"), place, Arc::new(crate::agent::SystemClock));
    let mut all = || {
        let mut readings = Readings::default();
        for (metric, value) in gauges.iter_mut().flat_map(|gauge| gauge().iter().collect::<Vec<_>>()) {
            let (least, most) = metric.unit().bounds();
            assert!((least..=most).contains(&value), "{metric} {value}");
            readings.set(metric, Some(value));
        }
        readings
    };
    let first = all();
    for metric in [Metric::MemoryUsage, Metric::StorageUsage, Metric::NodeLoad1, Metric::NodeLoad15] {
        assert!(first.get(metric).is_some(), "{metric}");
    }
    // One processor at least is kept busy, for long enough to be counted in ticks.
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_millis(300) {
        std::hint::black_box(begun);
    }
    let busy = all();
    let part = 100.0 / f64::from(u32::try_from(std::thread::available_parallelism().unwrap().get()).unwrap());
    let usage = busy.get(Metric::CpuUsage).unwrap();
    // Where the kernel shows more processors than this process may use, it is less.
    assert!(usage > 0.5 * part.min(100.0) || !is_counted_whole(), "{usage}");
    assert!(RATES.iter().any(|metric| busy.get(*metric).is_some()));
}

/// Whether the processors that are counted are those that this process may use.
fn is_counted_whole() -> bool {
    let stat = fs::read_to_string("/proc/stat").unwrap();
    let counted = stat.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count();
    counted == std::thread::available_parallelism().unwrap().get()
}

/// What this thread has used of a processor.
fn cpu_time() -> Duration {
    use nix::sys::resource::{UsageWho, getrusage};
    let usage = getrusage(UsageWho::RUSAGE_THREAD).unwrap();
    [usage.user_time(), usage.system_time()]
        .map(|time| Duration::new(time.tv_sec().try_into().unwrap(), u32::try_from(time.tv_usec()).unwrap() * 1000))
        .iter()
        .sum()
}

#[test]
fn a_reading_of_this_machine_costs_next_to_nothing() {
    const TIMES: u32 = 200;
    let place = WorkPlace::default();
    place.note(None, Path::new("/"));
    let mut gauges = gauges(Path::new("/"), place, Arc::new(crate::agent::SystemClock));
    let before = cpu_time();
    for _ in 0..TIMES {
        for gauge in &mut gauges {
            gauge();
        }
    }
    let each = cpu_time().saturating_sub(before) / TIMES;
    println!("one reading: {each:?} of a processor");
    assert!(each < Duration::from_millis(50), "{each:?}");
}

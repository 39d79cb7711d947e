//! What goes through network interfaces and disks, and which of them count. Pure.

use domain::observability::is_made_up_interface;
use std::collections::BTreeMap;

/// The kernel counts what is read from disks in these, whatever their own are.
const BYTES_PER_SECTOR: u64 = 512;
/// The bytes that came in and went out since a device was there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Bytes {
    pub(super) inward: u64,
    pub(super) outward: u64,
}

/// What each device has counted.
pub(super) type Devices = BTreeMap<String, Bytes>;

/// The interfaces of `/proc/net/dev` that count.
///
/// `lo` never does, since nothing leaves the machine by it. Of the others those do that the kernel shows a device of:
/// bridges, `veth` pairs, bonds, VLANs and tunnels pass on what an interface of hardware counts as well, so that it would
/// be counted twice. Where there is none of hardware, as in a namespace of its own, they are told by their names.
pub(super) fn interfaces(dev: &str, is_hardware: impl Fn(&str) -> bool) -> Devices {
    let all: Devices = dev.lines().filter_map(interface).filter(|(name, _)| name != "lo").collect();
    let hardware: Devices = all.iter().filter(|(name, _)| is_hardware(name)).map(|(n, b)| (n.clone(), *b)).collect();
    if !hardware.is_empty() {
        return hardware;
    }
    all.into_iter().filter(|(name, _)| !is_made_up_interface(name)).collect()
}

/// A line of `/proc/net/dev`. Between the name and its numbers there may be no space.
fn interface(line: &str) -> Option<(String, Bytes)> {
    let (name, numbers) = line.rsplit_once(':')?;
    let mut numbers = numbers.split_whitespace().map(|number| number.parse().ok());
    let (inward, outward) = (numbers.next()??, numbers.nth(7)??);
    Some((name.trim().to_owned(), Bytes { inward, outward }))
}

/// The disks of `/proc/diskstats` that count: whole ones of hardware. Partitions are parts of them; what is made of disks
/// (LVM, RAID, encryption, multipath) and loop devices pass on what a disk counts as well; `ram` and `zram` are memory.
pub(super) fn disks(diskstats: &str, is_hardware: impl Fn(&str) -> bool) -> Devices {
    diskstats.lines().filter_map(disk).filter(|(name, _)| is_hardware(name)).collect()
}

fn disk(line: &str) -> Option<(String, Bytes)> {
    let mut words = line.split_whitespace();
    let name = words.nth(2)?.to_owned();
    let mut numbers = words.map(|number| number.parse::<u64>().ok());
    let (read, written) = (numbers.nth(2)??, numbers.nth(3)??);
    let bytes = |sectors: u64| sectors.saturating_mul(BYTES_PER_SECTOR);
    Some((name, Bytes { inward: bytes(read), outward: bytes(written) }))
}

/// How many bytes came in, and went out, between two looks. `None` where it cannot be told: no device was there both
/// times, or a counter went back, because it was begun anew or is a short one that has come round.
pub(super) fn moved(earlier: &Devices, now: &Devices) -> (Option<u64>, Option<u64>) {
    let both: Vec<(Bytes, Bytes)> =
        now.iter().filter_map(|(name, bytes)| Some((*earlier.get(name)?, *bytes))).collect();
    let sum = |counter: fn(&Bytes) -> u64| {
        let mut parts = both.iter().map(|(earlier, now)| counter(now).checked_sub(counter(earlier)));
        parts.try_fold(0_u64, |sum, part| sum.checked_add(part?)).filter(|_| !both.is_empty())
    };
    (sum(|bytes| bytes.inward), sum(|bytes| bytes.outward))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEV: &str = "Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:    3193      29    0    0    0     0          0         0     3193      29    0    0    0     0       0          0
  eth0: 327429900   12764    0    0    0     0          0         0   841843    8306    0    0    0     0       0          0
wlan0:7   1 0 0 0 0 0 0 8 1 0 0 0 0 0 0
docker0: 100 1 0 0 0 0 0 0 200 1 0 0 0 0 0 0
br-0a1b: 100 1 0 0 0 0 0 0 200 1 0 0 0 0 0 0
veth12ab@if3: 100 1 0 0 0 0 0 0 200 1 0 0 0 0 0 0
eth0:1: 5 1 0 0 0 0 0 0 6 1 0 0 0 0 0 0
torn: 5 1 0
";

    fn names(devices: &Devices) -> Vec<&str> {
        devices.keys().map(String::as_str).collect()
    }

    #[test]
    fn interfaces_of_hardware_count_and_no_others() {
        let found = interfaces(DEV, |name| matches!(name, "eth0" | "wlan0" | "lo"));
        assert_eq!(names(&found), ["eth0", "wlan0"]);
        assert_eq!(found["eth0"], Bytes { inward: 327_429_900, outward: 841_843 });
        assert_eq!(found["wlan0"], Bytes { inward: 7, outward: 8 });
    }

    #[test]
    fn where_none_is_of_hardware_names_tell() {
        assert_eq!(names(&interfaces(DEV, |_| false)), ["eth0", "eth0:1", "wlan0"]);
        assert!(interfaces("lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n", |_| true).is_empty());
        assert!(interfaces("", |_| true).is_empty());
    }

    #[test]
    fn disks_count_whole_and_once() {
        let text = "   7       0 loop0 9 9 9 9 9 9 9 9 0 0 0
 254       0 vda 46455 6927 3104754 19602 20646 104553 18079216 99099 0 13848 122942 27183 64 2952320 4217 560 23
 254       1 vda1 46000 6927 3104000 19602 20646 104553 18079000 99099 0 13848 122942
 253       0 dm-0 9 9 9 9 9 9 9 9 0 0 0
 259       0 nvme0n1 1 2 4 8 16 32 64 128 0 0 0
   8       0 sda 1 2
";
        let found = disks(text, |name| matches!(name, "vda" | "nvme0n1" | "sda"));
        assert_eq!(names(&found), ["nvme0n1", "vda"]);
        assert_eq!(found["nvme0n1"], Bytes { inward: 4 * 512, outward: 64 * 512 });
        assert_eq!(found["vda"], Bytes { inward: 3_104_754 * 512, outward: 18_079_216 * 512 });
    }

    fn check(earlier: &[(&str, u64, u64)], now: &[(&str, u64, u64)], expected: (Option<u64>, Option<u64>)) {
        let devices = |list: &[(&str, u64, u64)]| {
            let device = |(name, inward, outward): &(&str, u64, u64)| {
                (String::from(*name), Bytes { inward: *inward, outward: *outward })
            };
            list.iter().map(device).collect::<Devices>()
        };
        assert_eq!(moved(&devices(earlier), &devices(now)), expected, "{earlier:?} {now:?}");
    }

    #[test]
    fn what_was_moved_is_the_sum_of_the_differences() {
        check(&[("a", 1, 2), ("b", 10, 20)], &[("a", 4, 2), ("b", 20, 50)], (Some(13), Some(30)));
        check(&[("a", 1, 2)], &[("a", 1, 2)], (Some(0), Some(0)));
    }

    #[test]
    fn what_comes_goes_or_begins_anew_makes_no_number_up() {
        // One that has just come brings what it counted elsewhere, one that has gone takes it away.
        check(&[("a", 1, 1), ("gone", 5, 5)], &[("a", 2, 3), ("new", 900, 900)], (Some(1), Some(2)));
        check(&[("gone", 5, 5)], &[("new", 900, 900)], (None, None));
        check(&[], &[], (None, None));
        // A counter of 32 bits has come round, or the driver was loaded anew.
        check(&[("a", 4_294_967_290, 1)], &[("a", 5, 2)], (None, Some(1)));
    }
}

//! How much memory is in use, and what the load is. Pure.

use super::float;
use domain::observability::{Metric, Readings};

/// The part of the memory that is not available, in percent: what `/proc/meminfo` calls `MemAvailable` counts what the
/// kernel would give back at once, such as copies of files, as free.
pub(super) fn usage(meminfo: &str) -> Option<f64> {
    let kib = |name: &str| -> Option<u64> {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    };
    let (total, available) = (kib("MemTotal").filter(|total| *total > 0)?, kib("MemAvailable")?);
    Some(100.0 * float(total.saturating_sub(available)) / float(total))
}

/// What `/proc/loadavg` says.
pub(super) fn loads(loadavg: &str) -> Readings {
    let metrics = [Metric::NodeLoad1, Metric::NodeLoad5, Metric::NodeLoad15];
    let mut readings = Readings::default();
    for (metric, word) in metrics.into_iter().zip(loadavg.split_whitespace()) {
        readings.set(metric, word.parse().ok());
    }
    readings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_available_is_in_use() {
        for (text, expected) in [
            ("MemTotal:  1000 kB\nMemFree:  100 kB\nMemAvailable:  750 kB\nBuffers: 1 kB\n", Some(25.0)),
            ("MemTotal:  1000 kB\nMemAvailable:  0 kB\n", Some(100.0)),
            // A limit that was lowered under what is in use.
            ("MemTotal:  1000 kB\nMemAvailable:  1200 kB\n", Some(0.0)),
            ("MemTotal:  0 kB\nMemAvailable:  0 kB\n", None),
            ("MemTotal:  1000 kB\nMemFree:  100 kB\n", None),
            ("MemTotal:  many kB\nMemAvailable:  1 kB\n", None),
            ("", None),
        ] {
            assert_eq!(usage(text), expected, "{text:?}");
        }
    }

    #[test]
    fn loads_are_read_in_their_order() {
        let readings = loads("0.52 1.25 12.00 3/512 12345\n");
        let expected = [(Metric::NodeLoad1, 0.52), (Metric::NodeLoad5, 1.25), (Metric::NodeLoad15, 12.0)];
        assert_eq!(readings.iter().collect::<Vec<_>>(), expected);
        assert_eq!(loads("0.52 x").iter().collect::<Vec<_>>(), [(Metric::NodeLoad1, 0.52)]);
        assert!(loads("").is_empty());
    }
}

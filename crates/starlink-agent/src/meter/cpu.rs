//! How busy the processors are. Pure.

use super::float;

/// What all processors together have done since the machine was started, in ticks of a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CpuTimes {
    busy: u64,
    idle: u64,
}

/// What `/proc/stat` says.
///
/// To wait for a disk (`iowait`) is to be idle: another program could run meanwhile. What the host has taken for other
/// guests (`steal`) is busy: it is no more to be had than what programs here have used. Programs of guests (`guest`) are
/// counted in `user` and `nice` already.
pub(super) fn parse(stat: &str) -> Option<CpuTimes> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line.split_whitespace().map(|ticks| ticks.parse().ok()).collect::<Option<_>>()?;
    let [user, nice, system, idle, rest @ ..] = ticks.as_slice() else { return None };
    // Old kernels have fewer columns.
    let column = |index: usize| rest.get(index).copied().unwrap_or_default();
    let (iowait, irq, softirq, steal) = (column(0), column(1), column(2), column(3));
    let busy = [*user, *nice, *system, irq, softirq, steal].into_iter().fold(0, u64::saturating_add);
    Some(CpuTimes { busy, idle: idle.saturating_add(iowait) })
}

impl CpuTimes {
    /// The part of the time since then in which they were busy, in percent; `None` if it cannot be told.
    pub(super) fn usage_since(self, earlier: Self) -> Option<f64> {
        let busy = self.busy.checked_sub(earlier.busy)?;
        // The kernel takes back a little of what it has counted as idle now and then. What goes back far was begun anew,
        // as for a processor that was taken out and put back.
        let back = earlier.idle.saturating_sub(self.idle);
        let idle = self.idle.saturating_sub(earlier.idle);
        (back <= busy && (busy, idle) != (0, 0)).then(|| 100.0 * float(busy) / (float(busy) + float(idle)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_is_idle_and_stolen_is_busy() {
        for (text, expected) in [
            ("cpu  1 2 4 8 16 32 64 128 1 2\ncpu0 9 9 9 9\n", Some((231, 24))),
            ("cpu  1 2 4 8\n", Some((7, 8))),
            ("intr 1\ncpu  1 2 4 8 16\n", Some((7, 24))),
            ("cpu  1 2 4\n", None),
            ("cpu  1 2 x 8\n", None),
            ("cpu0 1 2 4 8\n", None),
            ("", None),
        ] {
            assert_eq!(parse(text), expected.map(|(busy, idle)| CpuTimes { busy, idle }), "{text:?}");
        }
    }

    fn check(earlier: (u64, u64), now: (u64, u64), expected: Option<f64>) {
        let times = |(busy, idle)| CpuTimes { busy, idle };
        assert_eq!(times(now).usage_since(times(earlier)), expected, "{earlier:?} {now:?}");
    }

    #[test]
    fn usage_is_a_part_of_the_time_between() {
        check((100, 100), (150, 250), Some(25.0));
        check((100, 100), (100, 200), Some(0.0));
        check((100, 100), (200, 100), Some(100.0));
        // Nothing has passed.
        check((100, 100), (100, 100), None);
    }

    #[test]
    fn counters_that_go_back_are_not_made_a_number_of() {
        // A tick of `iowait` taken back while everything is busy.
        check((100, 100), (200, 99), Some(100.0));
        // A processor comes back and begins anew.
        check((100, 5000), (150, 3000), None);
        check((100, 100), (50, 5000), None);
        check((100, 100), (0, 0), None);
    }
}

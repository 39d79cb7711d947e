//! Whether a program is started again, and when. Pure.

use domain::scheduling::RestartPolicy;
use std::time::Duration;

const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_mins(1);
/// A run that lasted so long was a good one.
const GOOD: Duration = Duration::from_secs(10);

/// Whether a program is started again that ended well, or badly.
pub(super) fn again(policy: RestartPolicy, well: bool) -> bool {
    match policy {
        RestartPolicy::Never => false,
        RestartPolicy::OnFailure => !well,
        RestartPolicy::Always => true,
    }
}

/// How long to wait before a program is started again: longer and longer, until a run was good.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    last: Option<Duration>,
}

impl Pauses {
    /// The pause after a run that lasted so long.
    pub(super) fn next(&mut self, lasted: Duration) -> Duration {
        let pause = match self.last {
            Some(last) if lasted < GOOD => (last * 2).min(LONGEST),
            _ => SHORTEST,
        };
        self.last = Some(pause);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_do_what_they_say() {
        let check = |policy, after_good, after_bad| {
            assert_eq!((again(policy, true), again(policy, false)), (after_good, after_bad), "{policy}");
        };
        check(RestartPolicy::Never, false, false);
        check(RestartPolicy::OnFailure, false, true);
        check(RestartPolicy::Always, true, true);
    }

    #[test]
    fn pauses_double_up_to_a_minute_and_begin_anew_after_a_good_run() {
        let mut pauses = Pauses::default();
        let mut told = |lasted: u64| pauses.next(Duration::from_secs(lasted)).as_millis();
        let short: Vec<_> = (0..12).map(|_| told(9)).collect();
        assert_eq!(short, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000]);
        assert_eq!((told(10), told(0)), (100, 200));
    }
}

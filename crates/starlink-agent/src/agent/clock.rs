use chrono::{SubsecRound, Utc};
use domain::clock::{Clock, Timestamp};
use std::{sync::OnceLock, time::Duration, time::Instant};

/// The time of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everything else asks")]
    fn now(&self) -> Timestamp {
        Utc::now().trunc_subsecs(6)
    }

    fn uptime(&self) -> Duration {
        static BEGINNING: OnceLock<Instant> = OnceLock::new();
        BEGINNING.get_or_init(Instant::now).elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_has_whole_microseconds() {
        assert!((0..100).all(|_| SystemClock.now().timestamp_subsec_nanos().is_multiple_of(1000)));
    }
}

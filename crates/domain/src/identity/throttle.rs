//! Slows down guessing of passwords: after a few failures, each further one makes the next try wait twice as long.

use crate::clock::Timestamp;
use chrono::TimeDelta;
use std::{collections::HashMap, time::Duration};

/// Failures of one user name that cost nothing: people mistype.
pub(super) const FREE_PER_NAME: u32 = 5;
/// Failures from one source that cost nothing: many people may share an address.
pub(super) const FREE_PER_SOURCE: u32 = 50;
/// The longest wait.
const MOST_SECONDS: i64 = 300;
/// Failures are forgotten after this much quiet.
const FORGET: TimeDelta = TimeDelta::minutes(15);
/// Names and sources remembered; the oldest make room for new ones, so that a flood of names costs bounded memory.
const REMEMBERED: usize = 10_000;

/// Remembers failed logins by key (a user name, a source address).
#[derive(Debug, Default)]
pub struct LoginThrottle {
    failures: HashMap<String, Failures>,
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: Timestamp,
}

impl LoginThrottle {
    /// How long this key must wait before its next try; `None` if it may try now. The first `free` failures cost nothing.
    #[must_use]
    pub fn wait(&self, key: &str, free: u32, now: Timestamp) -> Option<Duration> {
        let failures = self.failures.get(key).filter(|failures| now - failures.last < FORGET)?;
        let doublings = failures.count.checked_sub(free)?.min(16);
        let pause = TimeDelta::seconds((1_i64 << doublings).min(MOST_SECONDS));
        (failures.last + pause - now).to_std().ok().filter(|left| !left.is_zero())
    }

    /// Notes a try that failed.
    pub fn failed(&mut self, key: &str, now: Timestamp) {
        if self.failures.len() >= REMEMBERED && !self.failures.contains_key(key) {
            self.make_room(now);
        }
        let failures = self.failures.entry(key.to_owned()).or_insert(Failures { count: 0, last: now });
        let quiet = now - failures.last >= FORGET;
        *failures = Failures { count: if quiet { 1 } else { failures.count.saturating_add(1) }, last: now };
    }

    /// Forgets the failures of a key that proved itself.
    pub fn succeeded(&mut self, key: &str) {
        self.failures.remove(key);
    }

    /// Takes back one failure that was none.
    pub fn forgive(&mut self, key: &str) {
        if let Some(failures) = self.failures.get_mut(key) {
            failures.count = failures.count.saturating_sub(1);
        }
    }

    fn make_room(&mut self, now: Timestamp) {
        self.failures.retain(|_, failures| now - failures.last < FORGET);
        if self.failures.len() >= REMEMBERED {
            let mut times: Vec<_> = self.failures.values().map(|failures| failures.last).collect();
            times.sort_unstable();
            let median = times[times.len() / 2];
            self.failures.retain(|_, failures| failures.last > median);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_after_a_few_failures_and_end_with_success() {
        let (mut throttle, now) = (LoginThrottle::default(), Timestamp::UNIX_EPOCH);
        for _ in 0..5 {
            assert_eq!(throttle.wait("alice", 5, now), None);
            throttle.failed("alice", now);
        }
        assert_eq!(throttle.wait("alice", 5, now), Some(Duration::from_secs(1)));
        throttle.failed("alice", now);
        assert_eq!(throttle.wait("alice", 5, now), Some(Duration::from_secs(2)));
        assert_eq!(throttle.wait("alice", 5, now + TimeDelta::seconds(2)), None);
        assert_eq!(throttle.wait("bob", 5, now), None);
        throttle.succeeded("alice");
        assert_eq!(throttle.wait("alice", 5, now), None);
    }

    #[test]
    fn a_flood_of_names_does_not_grow_without_bound() {
        let mut throttle = LoginThrottle::default();
        for n in 0..30_000 {
            throttle.failed(&n.to_string(), Timestamp::UNIX_EPOCH + TimeDelta::milliseconds(n));
        }
        assert!(throttle.failures.len() <= REMEMBERED);
    }
}

use std::time::Duration;
use tokio::time::Instant;

/// How often at most an outage is told.
const TOLD_AGAIN: Duration = Duration::from_mins(10);

/// From how much to how much is waited before something is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// The shortest wait.
    pub least: Duration,
    /// The longest.
    pub most: Duration,
}

/// Waits longer and longer, and never as long as others do, so that a fleet does not come back all at once.
#[derive(Debug)]
pub(crate) struct Backoff {
    patience: Patience,
    failures: u32,
}

impl Backoff {
    pub(crate) fn new(patience: Patience) -> Self {
        Self { patience, failures: 0 }
    }

    /// How long to wait after one more failure.
    pub(crate) fn next(&mut self) -> Duration {
        let Patience { least, most } = self.patience;
        self.failures = self.failures.saturating_add(1);
        let doubled = 2_u32.checked_pow(self.failures).and_then(|times| least.checked_mul(times));
        let ceiling = doubled.unwrap_or(most).min(most);
        least + ceiling.saturating_sub(least).mul_f64(fraction())
    }
}

/// A wait that differs from `mean` by up to a fifth of it.
pub(crate) fn jittered(mean: Duration) -> Duration {
    mean.mul_f64(0.8 + 0.4 * fraction())
}

/// A random part of a time.
pub(crate) fn part_of(most: Duration) -> Duration {
    most.mul_f64(fraction())
}

/// A random number from 0 to 1. Without randomness agents are in step, which is no reason not to go on.
fn fraction() -> f64 {
    f64::from(getrandom::u32().unwrap_or(u32::MAX / 2)) / f64::from(u32::MAX)
}

/// A time without an answer, told when it begins and now and then.
#[derive(Debug, Default)]
pub(crate) struct Outage {
    since: Option<Instant>,
    told: Option<Instant>,
}

impl Outage {
    /// Notes a failure. Says for how long there has been none but failures, if it is time to tell.
    pub(crate) fn failed(&mut self, now: Instant) -> Option<Duration> {
        let since = *self.since.get_or_insert(now);
        if self.told.is_some_and(|told| now < told + TOLD_AGAIN) {
            return None;
        }
        self.told = Some(now);
        Some(now - since)
    }

    /// Notes a success. Says how long there was none, if there was a failure.
    pub(crate) fn over(&mut self, now: Instant) -> Option<Duration> {
        self.told = None;
        self.since.take().map(|since| now - since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_the_longest_and_differ() {
        let patience = Patience { least: Duration::from_millis(200), most: Duration::from_secs(30) };
        let mut waits = Vec::new();
        for _ in 0..100 {
            let mut backoff = Backoff::new(patience);
            let run: Vec<Duration> = (0..40).map(|_| backoff.next()).collect();
            assert!(run.iter().all(|wait| (patience.least..=patience.most).contains(wait)), "{run:?}");
            assert!(run[0] <= Duration::from_millis(400) && run[1] <= Duration::from_millis(800), "{run:?}");
            waits.push(run[39]);
        }
        assert!(waits.iter().max().unwrap() > &Duration::from_secs(20));
        assert!(waits.iter().min().unwrap() < &Duration::from_secs(10));
    }

    #[test]
    fn jitter_is_a_fifth() {
        let waits: Vec<Duration> = (0..1000).map(|_| jittered(Duration::from_secs(30))).collect();
        assert!(waits.iter().all(|wait| (Duration::from_secs(24)..=Duration::from_secs(36)).contains(wait)));
        assert!(waits.iter().any(|wait| wait < &Duration::from_secs(27)));
        assert!(waits.iter().any(|wait| wait > &Duration::from_secs(33)));
    }

    #[test]
    fn an_outage_is_told_when_it_begins_and_now_and_then() {
        let (mut outage, began) = (Outage::default(), Instant::now());
        assert_eq!(outage.over(began), None);
        assert_eq!(outage.failed(began), Some(Duration::ZERO));
        assert_eq!(outage.failed(began), None);
        let later = began + TOLD_AGAIN;
        assert_eq!(outage.failed(later), Some(TOLD_AGAIN));
        assert_eq!(outage.over(later), Some(TOLD_AGAIN));
        assert_eq!(outage.failed(later), Some(Duration::ZERO));
    }
}

use super::{MeterPeriods, buffer::Buffer};
use crate::{
    client::{CallError, Client, Meaning},
    session::{Backoff, Link, Patience, part_of},
};
use domain::{
    clock::Timestamp,
    error::with_causes,
    observability::{
        Sample,
        wire::{MOST_IN_REPORT, SampleReport, Taken},
    },
};
use std::{
    convert::Infallible,
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::time::sleep;

/// Of how many samples that were refused the log says why, for each report.
const TOLD: usize = 3;

/// Tells the server what was measured, in one session after the other.
#[derive(Clone)]
pub(crate) struct Courier {
    link: Arc<Link>,
    buffer: Arc<Buffer>,
    periods: MeterPeriods,
    patience: Patience,
    /// Whether it was said that the server is too old.
    has_told: Arc<AtomicBool>,
}

/// What a call that had no success means for what it was to tell.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// The server does not know the call.
    Unknown,
    /// The session is over.
    Gone,
    /// Something in the report is wrong, or there is too much of it: less is to be told at once.
    Less,
    /// The one sample in it is wrong.
    Refused,
    /// Nothing.
    Again,
}

impl Courier {
    pub(crate) fn new(link: Arc<Link>, buffer: Arc<Buffer>, periods: MeterPeriods, patience: Patience) -> Self {
        Self { link, buffer, periods, patience, has_told: Arc::default() }
    }

    /// Tells what there is and what comes, oldest first, for as long as the session lasts.
    pub(crate) async fn deliver(self, session: Arc<str>) -> Infallible {
        let mut backoff = Backoff::new(self.patience);
        let (mut most, mut has_complained) = (MOST_IN_REPORT, false);
        loop {
            if !self.buffer.filled().await {
                // It is new, and so are those of all other machines.
                sleep(part_of(self.periods.spread)).await;
            }
            let samples = self.buffer.oldest(most);
            let report = SampleReport { session: session.to_string(), samples };
            match self.send(&session, &report).await {
                Ok(taken) => {
                    self.has_told.store(false, Ordering::Relaxed);
                    tell_rejected(&report.samples, &taken);
                    self.buffer.forget(&report.samples).await;
                    (backoff, has_complained) = (Backoff::new(self.patience), false);
                    most = MOST_IN_REPORT.min(2 * most);
                }
                Err(error) => match verdict(&error, report.samples.len()) {
                    Verdict::Unknown => {
                        self.tell_unknown();
                        return pending().await;
                    }
                    Verdict::Gone => return pending().await,
                    Verdict::Less => most = report.samples.len().div_ceil(2),
                    Verdict::Refused => {
                        tell_refused(report.samples.first().map(|sample| sample.at), &error.to_string());
                        self.buffer.forget(&report.samples).await;
                    }
                    Verdict::Again => {
                        // Of all else the session tells, which has the same trouble.
                        if error.meaning() == Meaning::Final && !std::mem::replace(&mut has_complained, true) {
                            tracing::warn!("the server refuses to be told what was measured: {}", with_causes(&error));
                        }
                        tracing::debug!("what was measured is told again: {}", with_causes(&error));
                        sleep(backoff.next()).await;
                    }
                },
            }
        }
    }

    async fn send(&self, session: &Arc<str>, report: &SampleReport) -> Result<Taken, CallError> {
        let call = |_| {
            let client: &Client = self.link.client();
            async move { client.samples(report).await }
        };
        self.link.call(session, call).await
    }

    fn tell_unknown(&self) {
        if !self.has_told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "the server is too old to be told what was measured, which is kept for a day: upgrade the server"
            );
        }
    }
}

fn verdict(error: &CallError, samples: usize) -> Verdict {
    match (error.meaning(), error.status()) {
        (Meaning::SessionGone, _) => Verdict::Gone,
        (_, Some(404 | 405)) => Verdict::Unknown,
        (_, Some(400 | 413 | 422)) if samples > 1 => Verdict::Less,
        (_, Some(400 | 413 | 422)) => Verdict::Refused,
        _ => Verdict::Again,
    }
}

fn tell_rejected(samples: &[Sample], taken: &Taken) {
    for rejected in taken.rejected.iter().take(TOLD) {
        tell_refused(samples.get(rejected.index).map(|sample| sample.at), &rejected.reason);
    }
    let others = taken.rejected.len().saturating_sub(TOLD);
    if others > 0 {
        tracing::warn!("{others} more samples are refused by the server, and dropped");
    }
}

fn tell_refused(at: Option<Timestamp>, reason: &str) {
    let at = at.map(|at| format!(" of {}", at.to_rfc3339())).unwrap_or_default();
    tracing::warn!("the sample{at} is refused by the server, and dropped: {reason}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_report_is_told_from_what_is_wrong_with_the_server() {
        let verdict = |status: u16, code: &str, samples| {
            let status = status.try_into().unwrap();
            verdict(&CallError::Refused { status, code: code.to_owned(), detail: String::new() }, samples)
        };
        for status in [400, 413, 422] {
            assert_eq!(verdict(status, "invalid", 2), Verdict::Less);
            assert_eq!(verdict(status, "invalid", 1), Verdict::Refused);
        }
        assert_eq!(verdict(404, "not_found", 1), Verdict::Unknown);
        assert_eq!(verdict(405, "method_not_allowed", 9), Verdict::Unknown);
        assert_eq!(verdict(409, "session_gone", 9), Verdict::Gone);
        for (status, code) in [(401, "unauthenticated"), (403, "forbidden"), (409, "busy"), (429, "slow_down")] {
            assert_eq!(verdict(status, code, 1), Verdict::Again, "{status}");
        }
    }
}

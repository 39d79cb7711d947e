//! Runs the scheduler whenever there may be something to do, and in one process of a database at a time.

use crate::composition::{Machine, Services};
use chrono::TimeDelta;
use domain::{Result, clock::Timestamp, identity::Actor, scheduling::Again};
use std::{pin::pin, sync::Arc, time::Duration};
use tokio::sync::watch;

/// How long this process is the one that schedules before it has to say so again; another takes over so long after it
/// has died.
const LEASE: TimeDelta = TimeDelta::seconds(15);
/// How long to wait where what is stored does not agree with what is known, or the database does not answer.
const PAUSE: Duration = Duration::from_secs(1);

/// The background job that places tasks.
pub struct SchedulerJob {
    services: Arc<Services>,
    machine: Machine,
    /// Names this process, also after a restart.
    holder: Arc<str>,
    /// Where nothing calls, how long to wait before looking all the same.
    rest: Duration,
}

impl SchedulerJob {
    /// The job of the process named `holder`. Other processes are not heard from, so where there may be some, what they
    /// did is looked for every `rest`.
    #[must_use]
    pub fn new(services: Arc<Services>, machine: Machine, holder: Arc<str>, rest: Duration) -> Self {
        Self { services, machine, holder, rest }
    }

    /// Works until the server stops.
    pub async fn run(self, mut stopping: watch::Receiver<bool>) {
        let mut stopped = pin!(stopping.wait_for(|stopping| *stopping));
        let mut work = pin!(self.work());
        tokio::select! {
            _ = &mut stopped => {}
            () = &mut work => {}
        }
    }

    async fn work(&self) {
        self.mend().await;
        let mut leased_until = None;
        loop {
            match self.once(&mut leased_until).await {
                Ok(Again::Now) => tokio::task::yield_now().await,
                Ok(Again::At(at)) => self.rest(at).await,
                Ok(Again::Later) => tokio::time::sleep(PAUSE).await,
                Err(error) => {
                    let error = domain::error::with_causes(&error);
                    tracing::warn!(error, "tasks could not be placed; it is tried again");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Until the bell rings, the time has come, or it has been quiet for long enough.
    async fn rest(&self, until: Option<Timestamp>) {
        let now = self.machine.clock.now();
        let longest = until.and_then(|at| (at - now).to_std().ok()).map_or(self.rest, |wait| wait.min(self.rest));
        // Time out is one of the three.
        let _ = tokio::time::timeout(longest, self.services.bell.notified()).await;
    }

    async fn once(&self, leased_until: &mut Option<Timestamp>) -> Result<Again> {
        let now = self.machine.clock.now();
        if leased_until.is_none_or(|until| until - now < LEASE / 2) {
            let until = now + LEASE;
            let ours = self.services.leases.hold("scheduler", &self.holder, now, until).await?;
            *leased_until = ours.then_some(until);
        }
        match leased_until {
            Some(_) => self.services.scheduler.run().await,
            None => Ok(Again::At(Some(now + LEASE / 3))),
        }
    }

    /// What is reserved must be what tasks hold; where it is not, somebody should know.
    async fn mend(&self) {
        match self.services.tasks.ledger_mend(&Actor::system("startup"), None).await {
            Ok(found) => {
                for difference in found.value {
                    tracing::error!(
                        "{} said that {:?} was reserved, but tasks hold {:?}; it was set right and recorded",
                        difference.target,
                        difference.reserved,
                        difference.held
                    );
                }
            }
            Err(error) => {
                let error = domain::error::with_causes(&error);
                tracing::warn!(error, "what is reserved could not be compared with what tasks hold");
            }
        }
    }
}

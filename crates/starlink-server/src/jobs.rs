//! Background jobs: each takes no input, looks at the whole state, and may be run at any time and more than once.

use crate::{
    composition::{Machine, Services},
    config::Config,
};
use chrono::TimeDelta;
use domain::Result;
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, task::JoinSet};

/// How often agents are looked for at most, and at least.
const MOST_OFTEN: Duration = Duration::from_millis(250);
const SELDOM: Duration = Duration::from_secs(15);

/// What the jobs need.
#[derive(Clone)]
pub struct Jobs {
    services: Arc<Services>,
    periods: Periods,
    machine: Machine,
    /// Names this process in leases.
    holder: Arc<str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Job {
    /// Notes the head of the audit log outside the database.
    HeadNote,
    /// Records how often refusals were repeated.
    RefusalsClose,
    /// Writes down when tokens were last used.
    TokensTouch,
    /// Forgets sessions, tickets and idempotency keys whose time is over.
    Sweep,
    /// Lets go of audit rows that are older than is kept.
    AuditPrune,
    /// Moves samples that are not the newest any more into compressed columns.
    SamplesSeal,
    /// Lets go of samples that are older than is kept, and of those of servers that are gone.
    SamplesForget,
    /// Puts servers out of use whose agents are silent.
    AgentsWatch,
    /// Writes down when agents were last heard of.
    AgentsTouch,
    /// Has maintenance windows begin and end.
    MaintenanceTurn,
    /// Has alerts begin and end.
    AlertsTurn,
    /// Lets go of alerts that ended long ago.
    AlertsForget,
    /// Sends messages to targets of alerts.
    AlertsTell,
}

/// What the configuration says about times.
#[derive(Debug, Clone, Copy)]
pub struct Periods {
    audit_retention: Option<TimeDelta>,
    sample_retention: TimeDelta,
    agent_grace: Duration,
    alert_interval: Duration,
}

impl Periods {
    /// As configured.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let days = config.audit_retention_days;
        Self {
            audit_retention: (days > 0).then(|| TimeDelta::days(days.into())),
            sample_retention: TimeDelta::days(config.sample_retention_days.into()),
            agent_grace: Duration::from_secs(config.agent_grace_seconds.into()),
            alert_interval: Duration::from_secs(config.alert_interval_seconds.into()),
        }
    }
}

impl Job {
    const ALL: [Self; 13] = [
        Self::HeadNote,
        Self::RefusalsClose,
        Self::TokensTouch,
        Self::Sweep,
        Self::AuditPrune,
        Self::SamplesSeal,
        Self::SamplesForget,
        Self::AgentsWatch,
        Self::AgentsTouch,
        Self::MaintenanceTurn,
        Self::AlertsTurn,
        Self::AlertsForget,
        Self::AlertsTell,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::HeadNote => "head_note",
            Self::RefusalsClose => "refusals_close",
            Self::TokensTouch => "tokens_touch",
            Self::Sweep => "sweep",
            Self::AuditPrune => "audit_prune",
            Self::SamplesSeal => "samples_seal",
            Self::SamplesForget => "samples_forget",
            Self::AgentsWatch => "agents_watch",
            Self::AgentsTouch => "agents_touch",
            Self::MaintenanceTurn => "maintenance_turn",
            Self::AlertsTurn => "alerts_turn",
            Self::AlertsForget => "alerts_forget",
            Self::AlertsTell => "alerts_tell",
        }
    }

    /// Whether it is about what all processes of a database share, so that one of them is enough. The others are about
    /// what this process alone has in memory, or in its data directory.
    fn is_shared(self) -> bool {
        match self {
            Self::Sweep
            | Self::AuditPrune
            | Self::SamplesSeal
            | Self::SamplesForget
            | Self::MaintenanceTurn
            | Self::AlertsTurn
            | Self::AlertsForget => true,
            // Of what is to be told, a message is in the hands of one process at a time, whichever took it.
            Self::HeadNote
            | Self::RefusalsClose
            | Self::TokensTouch
            | Self::AgentsWatch
            | Self::AgentsTouch
            | Self::AlertsTell => false,
        }
    }

    fn period(self, periods: Periods) -> Duration {
        Duration::from_secs(match self {
            Self::AgentsWatch => return (periods.agent_grace / 4).clamp(MOST_OFTEN, SELDOM),
            Self::RefusalsClose => 15,
            // Other processes of the database learn from it that an agent is there.
            Self::AgentsTouch => return (periods.agent_grace / 2).clamp(MOST_OFTEN, SELDOM),
            // It looks at an index, and writes nothing unless something is due.
            Self::MaintenanceTurn | Self::AlertsTell => 1,
            Self::HeadNote | Self::TokensTouch | Self::SamplesSeal => 60,
            Self::Sweep => 600,
            Self::AlertsTurn => return periods.alert_interval,
            Self::AuditPrune | Self::SamplesForget | Self::AlertsForget => 3600,
        })
    }
}

impl Jobs {
    /// Jobs of the process named `holder`.
    #[must_use]
    pub fn new(services: Arc<Services>, machine: Machine, holder: Arc<str>, periods: Periods) -> Self {
        Self { services, periods, machine, holder }
    }

    /// Runs every job on its timer until the server stops, and then once more what must not be lost.
    pub async fn run(self, stopping: watch::Receiver<bool>) {
        let mut running = JoinSet::new();
        for job in Job::ALL {
            running.spawn(self.clone().repeat(job, stopping.clone()));
        }
        running.join_all().await;
        self.last().await;
    }

    async fn repeat(self, job: Job, mut stopping: watch::Receiver<bool>) {
        // Waiting for the end times out whenever the job is due.
        while tokio::time::timeout(job.period(self.periods), stopping.wait_for(|stopping| *stopping)).await.is_err() {
            self.attempt(job).await;
        }
    }

    async fn last(&self) {
        if let Err(error) = self.services.audit.refusals_close(true).await {
            tracing::warn!(%error, "counted refusals were not recorded");
        }
        self.attempt(Job::TokensTouch).await;
        self.attempt(Job::AgentsTouch).await;
        self.attempt(Job::HeadNote).await;
    }

    async fn attempt(&self, job: Job) {
        if let Err(error) = self.once(job).await {
            tracing::warn!(job = job.name(), error = %domain::error::with_causes(&error), "background job {} failed; it is tried again", job.name());
        }
    }

    /// Whether this process is the one to do the job. A lease outlives a missed turn, so that it is not passed around.
    async fn is_ours(&self, job: Job) -> Result<bool> {
        if !job.is_shared() {
            return Ok(true);
        }
        let now = self.machine.clock.now();
        self.services.leases.hold(job.name(), &self.holder, now, now + 2 * job.period(self.periods)).await
    }

    /// Whether there is something to do at all, as far as that can be seen without doing it.
    async fn is_due(&self, job: Job) -> Result<bool> {
        match job {
            Job::MaintenanceTurn => self.services.maintenance.maintenance_is_due().await,
            Job::AlertsTell => self.services.alerts.targets.deliveries_are_due().await,
            _ => Ok(true),
        }
    }

    /// Every process judges, which writes nothing; where there is something to write, one of them does.
    async fn alerts_turn(&self) -> Result<()> {
        let round = self.services.alerts.watch.alerts_judge().await?;
        if round.is_idle() || self.is_ours(Job::AlertsTurn).await? {
            self.services.alerts.watch.alerts_settle(round).await?;
        }
        Ok(())
    }

    /// Sends what is due, side by side, so that one that does not answer holds up no other.
    async fn alerts_tell(&self) -> Result<()> {
        let mut running = JoinSet::new();
        for errand in self.services.alerts.targets.deliveries_claim().await? {
            let targets = self.services.alerts.targets.clone();
            running.spawn(async move { targets.delivery_send(errand).await });
        }
        // What could not be written down is sent again.
        running.join_all().await.into_iter().collect()
    }

    async fn once(&self, job: Job) -> Result<()> {
        // A lease is a write, and what has nothing to do is no reason for one.
        let asks_itself = job == Job::AlertsTurn;
        if !asks_itself && (!self.is_due(job).await? || !self.is_ours(job).await?) {
            return Ok(());
        }
        match job {
            Job::HeadNote => self.services.audit.head_note().await,
            Job::RefusalsClose => self.services.audit.refusals_close(false).await,
            Job::TokensTouch => self.services.sessions.tokens_touch().await,
            Job::AgentsWatch => self.services.agents.agents_watch().await,
            Job::AgentsTouch => self.services.agents.agents_touch().await,
            Job::MaintenanceTurn => self.services.maintenance.maintenance_turn().await,
            Job::AlertsTurn => self.alerts_turn().await,
            Job::AlertsTell => self.alerts_tell().await,
            Job::AlertsForget => self.services.alerts.watch.alerts_forget().await,
            Job::Sweep => self.services.sessions.sessions_sweep().await.map(|_| ()),
            Job::SamplesSeal => self.services.samples.samples_seal().await,
            Job::SamplesForget => self.services.samples.samples_forget(self.periods.sample_retention).await,
            Job::AuditPrune => match self.periods.audit_retention {
                Some(keep) => self.services.audit.prune(keep).await.map(|_| ()),
                None => Ok(()),
            },
        }
    }
}

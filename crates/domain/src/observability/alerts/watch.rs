use super::{
    alert::{Subject, Verdict},
    judge::Judged,
    ports::{AlertRules, Alerts},
    rule::{Condition, Rule},
    scene::{JudgedUntil, Look, Scene},
};
use crate::{
    Result,
    audit::AuditEntry,
    clock::{Clock, Timestamp},
    fleet::{MaintenanceWindows, Servers, Span},
    identity::Actor,
    ids::ServerId,
    observability::{
        gather::Gathered,
        metric::Metric,
        ports::{Detail, Samples, Wanted},
        range::Range,
        scope::Scope,
    },
    page::{MAX_LIMIT, PageRequest},
    pools::{PoolFilter, PoolSummary, Pools},
};
use chrono::{DateTime, TimeDelta};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

/// Servers whose samples are in memory at once.
const STEP: usize = 200;
/// How long alerts are kept after their end; those that never fired, for a day.
const KEPT: TimeDelta = TimeDelta::days(90);
const KEPT_UNFIRED: TimeDelta = TimeDelta::days(1);

/// What an [`AlertWatch`] needs.
pub struct WatchPorts {
    /// The rules in the database.
    pub rules: Arc<dyn AlertRules>,
    /// The alerts in the database.
    pub alerts: Arc<dyn Alerts>,
    /// What was measured.
    pub samples: Arc<dyn Samples>,
    /// Of which servers.
    pub servers: Arc<dyn Servers>,
    /// Which pools there are.
    pub pools: Arc<dyn Pools>,
    /// When servers are maintained.
    pub windows: Arc<dyn MaintenanceWindows>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

/// Has alerts begin and end.
pub struct AlertWatch {
    ports: WatchPorts,
    /// Only saves reading again: without it, what came in the last hour is judged once more, with the same outcome.
    judged: Mutex<JudgedUntil>,
}

/// What was judged, and is to be written.
pub struct Round {
    verdicts: Vec<Verdict>,
    judged: JudgedUntil,
    by: AuditEntry,
}

impl Round {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.verdicts.is_empty()
    }
}

impl AlertWatch {
    /// A watch over these ports.
    #[must_use]
    pub fn new(ports: WatchPorts) -> Self {
        Self { ports, judged: Mutex::default() }
    }

    /// Half of a background job: judges everything by every rule, and writes nothing.
    ///
    /// # Errors
    /// Whatever the databases say; the same is judged at the next run.
    pub async fn alerts_judge(&self) -> Result<Round> {
        let actor = Actor::system("alerts");
        let by = AuditEntry::new(&actor, "alert.update", self.ports.clock.now());
        let Some(scene) = self.scene(&actor).await? else {
            return Ok(Round { verdicts: Vec::new(), judged: JudgedUntil::new(), by });
        };
        let before = self.judged.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let looks = scene.looks(&before);
        let mut verdicts = scene.forsaken();
        verdicts.extend(scene.states());
        verdicts.extend(self.measured(&scene, &looks).await?);
        verdicts.retain(|verdict| !verdict.is_idle());
        Ok(Round { verdicts, judged: scene.judged_until(&before), by: AuditEntry { created_at: scene.now, ..by } })
    }

    /// The other half: writes what was judged. A round that is not handed in is judged again.
    ///
    /// # Errors
    /// Whatever the database says; the same is judged at the next run.
    pub async fn alerts_settle(&self, round: Round) -> Result<()> {
        if !round.verdicts.is_empty() {
            self.ports.alerts.settle(round.verdicts, round.by).await?;
        }
        *self.judged.lock().unwrap_or_else(PoisonError::into_inner) = round.judged;
        Ok(())
    }

    /// Background job: forgets what ended long ago.
    ///
    /// # Errors
    /// Whatever the database says.
    pub async fn alerts_forget(&self) -> Result<()> {
        let now = self.ports.clock.now();
        self.ports.alerts.forget(now - KEPT, now - KEPT_UNFIRED).await.map(|_| ())
    }

    /// Everything as it is now; nothing, where there is nothing to watch.
    async fn scene(&self, actor: &Actor) -> Result<Option<Scene>> {
        let ports = &self.ports;
        let rules: BTreeMap<_, Rule> = ports.rules.all().await?.into_iter().map(|rule| (rule.id, rule)).collect();
        let open = ports.alerts.open().await?;
        if open.is_empty() && !rules.values().any(|rule| rule.enabled) {
            return Ok(None);
        }
        let looks_for =
            |wanted: fn(&Condition) -> bool| rules.values().any(|rule| rule.enabled && wanted(&rule.spec.condition));
        let of_pools = looks_for(|condition| *condition == Condition::PoolSaturation)
            || open.iter().any(|alert| matches!(alert.subject, Subject::Pool(_)));
        let pools = if of_pools { self.pools().await? } else { Vec::new() };
        let servers = Scope::default().find(&*ports.servers).await?;
        let newest = if looks_for(|condition| condition.metric().is_some()) {
            ports.samples.newest(servers.iter().map(|server| server.id).collect()).await?
        } else {
            BTreeMap::new()
        };
        Ok(Some(Scene {
            now: ports.clock.now(),
            actor: actor.label(),
            open: open.into_iter().map(|alert| ((alert.rule_id, alert.subject), alert)).collect(),
            servers: servers.into_iter().map(|server| (server.id, server)).collect(),
            pools: pools.into_iter().map(|pool| (pool.pool.id, pool)).collect(),
            rules,
            newest,
        }))
    }

    async fn pools(&self) -> Result<Vec<PoolSummary>> {
        let mut page = PageRequest { limit: MAX_LIMIT, after: None };
        let mut found = Vec::new();
        loop {
            let some = self.ports.pools.list(PoolFilter::default(), page).await?;
            found.extend(some.items);
            match some.next {
                Some(next) => page = PageRequest { limit: MAX_LIMIT, after: Some(next) },
                None => return Ok(found),
            }
        }
    }

    /// What rules about metrics say, with the samples that they need. Those of one rule are read together.
    async fn measured(&self, scene: &Scene, looks: &[Look]) -> Result<Judged> {
        let spans = self.spans(scene, looks).await?;
        let none = Vec::new();
        let spans_of = |look: &Look| spans.get(&look.server).unwrap_or(&none);
        let mut judged = Judged::new();
        let mut by_rule: BTreeMap<_, Vec<&Look>> = BTreeMap::new();
        for look in looks {
            if look.alone || look.from >= scene.now {
                judged.extend(scene.judge(look, &[], spans_of(look)));
            } else {
                by_rule.entry(look.rule).or_default().push(look);
            }
        }
        for (rule, looks) in by_rule {
            let Some(metric) = scene.rules.get(&rule).and_then(|rule| rule.spec.condition.metric()) else { continue };
            for some in looks.chunks(STEP) {
                let samples = self.samples(metric, some, scene.now).await?;
                for look in some {
                    let samples = samples.get(&look.server).map(Vec::as_slice).unwrap_or_default();
                    judged.extend(scene.judge(look, samples, spans_of(look)));
                }
            }
        }
        Ok(judged)
    }

    async fn samples(
        &self,
        metric: Metric,
        looks: &[&Look],
        now: Timestamp,
    ) -> Result<HashMap<ServerId, Vec<(Timestamp, f64)>>> {
        let Some(from) = looks.iter().map(|look| look.from).min() else { return Ok(HashMap::new()) };
        let servers = looks.iter().map(|look| look.server).collect();
        let range = Range::between(from, None, now)?;
        let gathered = Arc::<Gathered>::default();
        let wanted = Wanted { servers, metric, range, detail: Detail::Samples };
        self.ports.samples.read(wanted, gathered.clone()).await?;
        Ok(gathered.take(range).into_iter().map(|(server, samples)| (server, timed(samples))).collect())
    }

    /// When the servers that are looked at were maintained, in the time that is looked at.
    async fn spans(&self, scene: &Scene, looks: &[Look]) -> Result<HashMap<ServerId, Vec<Span>>> {
        let Some(from) = looks.iter().map(|look| look.from).min() else { return Ok(HashMap::new()) };
        let mut servers: Vec<ServerId> = looks.iter().map(|look| look.server).collect();
        servers.sort_unstable();
        servers.dedup();
        let mut spans: HashMap<ServerId, Vec<Span>> = HashMap::new();
        for window in self.ports.windows.overlapping(servers, from, scene.now.max(from + TimeDelta::seconds(1))).await?
        {
            spans.entry(window.server_id).or_default().extend(window.span());
        }
        Ok(spans)
    }
}

/// Samples with times as the rest of the domain has them.
pub(super) fn timed(samples: Vec<(i64, f64)>) -> Vec<(Timestamp, f64)> {
    samples.into_iter().filter_map(|(us, value)| Some((DateTime::from_timestamp_micros(us)?, value))).collect()
}

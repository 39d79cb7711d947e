use super::{
    alert::{Alert, AlertChange, AlertFilter},
    delivery::Delivery,
    machine::STALE,
    ports::{AlertRules, Alerts},
    preview::{MOST_DAYS, MOST_PERIODS, Preview, replay},
    rule::{NewRule, Rule, RulePatch},
    target_ports::Deliveries,
    watch::timed,
};
use crate::{
    Error, Result,
    audit::AuditEntry,
    change::{Change, Done, Once, TRIES},
    clock::Clock,
    fleet::{MaintenanceWindows, RosterEntry, Servers, Span},
    identity::{Actor, Operation, at_revision},
    ids::{AlertId, RuleId, ServerId},
    observability::{
        gather::Gathered,
        ports::{Detail, Samples, Wanted},
        range::Range,
        sample::Sample,
    },
    page::{Page, PageRequest},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// What errors call a rule.
const WHAT: &str = "alert rule";
/// Servers whose samples of many days are in memory at once.
const STEP: usize = 16;

/// What an [`AlertService`] needs.
pub struct AlertPorts {
    /// The rules in the database.
    pub rules: Arc<dyn AlertRules>,
    /// The alerts in the database.
    pub alerts: Arc<dyn Alerts>,
    /// What targets were told of them.
    pub deliveries: Arc<dyn Deliveries>,
    /// What was measured.
    pub samples: Arc<dyn Samples>,
    /// Of whom.
    pub servers: Arc<dyn Servers>,
    /// When servers are maintained.
    pub windows: Arc<dyn MaintenanceWindows>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

/// Keeps rules, and shows what they made.
pub struct AlertService {
    ports: AlertPorts,
}

/// An alert as it is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// The alert.
    pub alert: Alert,
    /// The newest sample of its server.
    pub newest: Option<Sample>,
    /// Whether it is open only because nothing is measured that could tell more.
    pub no_data: bool,
}

/// An alert, and what happened to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Story {
    /// The alert.
    pub seen: Seen,
    /// What happened to it, oldest first.
    pub history: Vec<AlertChange>,
    /// What its targets were told, oldest first.
    pub deliveries: Vec<Delivery>,
}

impl AlertService {
    /// A service over these ports.
    #[must_use]
    pub fn new(ports: AlertPorts) -> Self {
        Self { ports }
    }

    /// Makes a rule.
    ///
    /// # Errors
    /// [`Error::Invalid`] where its parts do not go together; as [`AlertRules::create`].
    pub async fn rule_create(&self, actor: &Actor, rule: NewRule, once: Option<Once>) -> Result<Done<Rule>> {
        actor.authorize(Operation::AlertRuleCreate)?;
        rule.spec.check()?;
        let entry = AuditEntry::new(actor, Operation::AlertRuleCreate.action(), self.ports.clock.now());
        self.ports.rules.create(rule, Change::new(entry, once)).await
    }

    /// Rules, newest first.
    ///
    /// # Errors
    /// [`Error::Forbidden`] if the actor may not.
    pub async fn rule_list(&self, actor: &Actor, page: PageRequest) -> Result<Page<Rule>> {
        actor.authorize(Operation::AlertRuleList)?;
        self.ports.rules.list(page).await
    }

    /// One rule.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none.
    pub async fn rule_get(&self, actor: &Actor, id: RuleId) -> Result<Rule> {
        actor.authorize(Operation::AlertRuleGet)?;
        self.ports.rules.get(id).await
    }

    /// Changes a rule. Where the caller names no revision, the patch is applied to the newest one.
    ///
    /// # Errors
    /// [`Error::Stale`] if the rule is not at `revision` any more; as [`Rule::patched`].
    pub async fn rule_update(
        &self,
        actor: &Actor,
        id: RuleId,
        revision: Option<i64>,
        patch: RulePatch,
    ) -> Result<Rule> {
        actor.authorize(Operation::AlertRuleUpdate)?;
        for _ in 0..TRIES {
            let before = self.ports.rules.get(id).await?;
            at_revision(WHAT, id, before.revision, revision)?;
            let now = self.ports.clock.now();
            let after = before.patched(patch.clone(), now)?;
            let entry = AuditEntry::new(actor, Operation::AlertRuleUpdate.action(), now).changed(&before, &after);
            match self.ports.rules.update(after, entry.into()).await {
                Err(Error::Stale { .. }) if revision.is_none() => {}
                outcome => return outcome.map(|done| done.value),
            }
        }
        Err(Error::busy(WHAT, id))
    }

    /// Removes a rule; what fires of it ends.
    ///
    /// # Errors
    /// [`Error::Stale`] if the rule is not at `revision` any more; [`Error::NotFound`] if there is none.
    pub async fn rule_delete(&self, actor: &Actor, id: RuleId, revision: Option<i64>) -> Result<()> {
        actor.authorize(Operation::AlertRuleDelete)?;
        for _ in 0..TRIES {
            let rule = self.ports.rules.get(id).await?;
            at_revision(WHAT, id, rule.revision, revision)?;
            let now = self.ports.clock.now();
            let entry = AuditEntry::new(actor, Operation::AlertRuleDelete.action(), now).deleted(&rule);
            match self.ports.rules.delete(rule, entry.into()).await {
                Err(Error::Stale { .. }) if revision.is_none() => {}
                outcome => return outcome.map(|done| done.value),
            }
        }
        Err(Error::busy(WHAT, id))
    }

    /// What a rule would have done in the last days, by the samples that are stored. Nothing is written.
    ///
    /// # Errors
    /// [`Error::Invalid`] for more than [`MOST_DAYS`], and for a condition of which no past is stored.
    pub async fn rule_preview(&self, actor: &Actor, rule: NewRule, days: i64) -> Result<Vec<Preview>> {
        actor.authorize(Operation::AlertRulePreview)?;
        rule.spec.check()?;
        if !(1..=MOST_DAYS).contains(&days) {
            return Err(Error::invalid("days", format!("must be from 1 to {MOST_DAYS}")));
        }
        let Some(metric) = rule.spec.condition.metric() else {
            let reason = "must be metric: of other conditions no past is stored that could be looked at";
            return Err(Error::invalid("condition.kind", reason));
        };
        let now = self.ports.clock.now();
        let (range, rule) = (Range::last(days * 24, now)?, rule.into_rule(RuleId(0), actor.label(), now));
        let servers = rule.spec.selector.scope().find(&*self.ports.servers).await?;
        let mut previews = Vec::new();
        for some in servers.chunks(STEP) {
            let ids: Vec<ServerId> = some.iter().map(|server| server.id).collect();
            let spans = self.spans(&ids, range).await?;
            let gathered = Arc::<Gathered>::default();
            let wanted = Wanted { servers: ids, metric, range, detail: Detail::Samples };
            self.ports.samples.read(wanted, gathered.clone()).await?;
            let mut samples = gathered.take(range);
            for server in some {
                let samples = samples.remove(&server.id).unwrap_or_default();
                let silent = spans.get(&server.id).map(Vec::as_slice).unwrap_or_default();
                previews.extend(preview(&rule, server, samples, silent));
            }
        }
        Ok(previews)
    }

    async fn spans(&self, servers: &[ServerId], range: Range) -> Result<HashMap<ServerId, Vec<Span>>> {
        let mut spans: HashMap<ServerId, Vec<Span>> = HashMap::new();
        for window in self.ports.windows.overlapping(servers.to_vec(), range.from(), range.to()).await? {
            spans.entry(window.server_id).or_default().extend(window.span());
        }
        Ok(spans)
    }

    /// Alerts that match, newest first.
    ///
    /// # Errors
    /// [`Error::Forbidden`] if the actor may not.
    pub async fn alert_list(&self, actor: &Actor, filter: AlertFilter, page: PageRequest) -> Result<Page<Seen>> {
        actor.authorize(Operation::AlertList)?;
        let found = self.ports.alerts.list(filter, page).await?;
        let newest = self.newest(&found.items).await?;
        let now = self.ports.clock.now();
        Ok(found.map(|alert| Seen::of(alert, &newest, now)))
    }

    /// One alert, with what happened to it and what its targets were told, oldest first.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none.
    pub async fn alert_get(&self, actor: &Actor, id: AlertId) -> Result<Story> {
        actor.authorize(Operation::AlertGet)?;
        let alert = self.ports.alerts.get(id).await?;
        let history = self.ports.alerts.history(id).await?;
        let deliveries = self.ports.deliveries.of_alert(id).await?;
        Ok(Story { seen: self.seen(alert).await?, history, deliveries })
    }

    /// Says that the actor is on an alert.
    ///
    /// # Errors
    /// As [`Alerts::acknowledge`].
    pub async fn alert_acknowledge(
        &self,
        actor: &Actor,
        id: AlertId,
        note: Option<String>,
        once: Option<Once>,
    ) -> Result<Done<Seen>> {
        actor.authorize(Operation::AlertAcknowledge)?;
        let entry = AuditEntry::new(actor, Operation::AlertAcknowledge.action(), self.ports.clock.now());
        let Done { value, replayed } = self.ports.alerts.acknowledge(id, note, Change::new(entry, once)).await?;
        Ok(Done { value: self.seen(value).await?, replayed })
    }

    async fn seen(&self, alert: Alert) -> Result<Seen> {
        let newest = self.newest(std::slice::from_ref(&alert)).await?;
        Ok(Seen::of(alert, &newest, self.ports.clock.now()))
    }

    /// The newest samples of those who have open alerts.
    async fn newest(&self, alerts: &[Alert]) -> Result<BTreeMap<ServerId, Sample>> {
        let open = alerts.iter().filter(|alert| alert.is_open() && alert.metric.is_some());
        let mut servers: Vec<ServerId> = open.filter_map(|alert| alert.subject.server()).collect();
        servers.sort_unstable();
        servers.dedup();
        if servers.is_empty() {
            return Ok(BTreeMap::new());
        }
        self.ports.samples.newest(servers).await
    }
}

impl Seen {
    /// An alert as it is shown at `now`, by the newest samples.
    #[must_use]
    pub fn of(alert: Alert, newest: &BTreeMap<ServerId, Sample>, now: crate::clock::Timestamp) -> Self {
        let watched = alert.metric.filter(|_| alert.is_open());
        let newest = alert.subject.server().filter(|_| watched.is_some()).and_then(|id| newest.get(&id)).copied();
        let fresh = |sample: &Sample| now - sample.at <= STALE;
        let measured = |sample: &Sample| watched.is_some_and(|metric| sample.readings.get(metric).is_some());
        let no_data = watched.is_some() && !newest.is_some_and(|sample| fresh(&sample) && measured(&sample));
        Self { alert, newest, no_data }
    }

    /// What was measured last of what it is about.
    #[must_use]
    pub fn last_value(&self) -> Option<f64> {
        self.newest?.readings.get(self.alert.metric?)
    }
}

fn preview(rule: &Rule, server: &RosterEntry, samples: Vec<(i64, f64)>, silent: &[Span]) -> Option<Preview> {
    let mut periods = replay(rule, &timed(samples), silent);
    let fired = periods.len();
    periods.drain(..fired.saturating_sub(MOST_PERIODS));
    (fired > 0).then(|| Preview { server: server.id, name: server.name.to_string(), fired, periods })
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;

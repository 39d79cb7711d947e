use super::{alert::AlertReason, machine::Level, quiet::QuietHours};
use crate::{
    Result,
    change::Recorded,
    clock::Timestamp,
    error::Checks,
    fleet::Server,
    ids::{PoolId, RuleId, TargetId},
    observability::{metric::Metric, scope::Scope},
    patch::Patch,
    text::{Name, Tags},
    words::words,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The longest that something must hold before it fires, in minutes: a day.
pub const MAX_FOR_MINUTES: u32 = 1440;
/// The most targets that a rule notifies.
pub const MOST_TARGETS: usize = 16;

words! {
    /// How bad it is.
    Severity {
        /// Worth knowing.
        Info = "info",
        /// Somebody should look at it today.
        Warning = "warning",
        /// Somebody should look at it now.
        Critical = "critical",
    }
}

words! {
    /// How a value is compared with a threshold.
    Comparison {
        /// Greater.
        Gt = "gt",
        /// Greater or the same.
        Gte = "gte",
        /// Less.
        Lt = "lt",
        /// Less or the same.
        Lte = "lte",
    }
}

impl Comparison {
    /// Whether a value is on the loud side of a threshold.
    #[must_use]
    pub fn holds(self, value: f64, threshold: f64) -> bool {
        match self {
            Self::Gt => value > threshold,
            Self::Gte => value >= threshold,
            Self::Lt => value < threshold,
            Self::Lte => value <= threshold,
        }
    }

    /// Whether greater values are louder.
    #[must_use]
    pub fn rises(self) -> bool {
        match self {
            Self::Gt | Self::Gte => true,
            Self::Lt | Self::Lte => false,
        }
    }
}

/// What a rule looks for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Condition {
    /// A metric of a server is on one side of a threshold.
    Metric {
        /// Which metric.
        metric: Metric,
        /// On which side.
        comparison: Comparison,
        /// Of what.
        threshold: f64,
        /// How far it must fall back to be over: not on the loud side. The threshold itself if absent.
        clear_threshold: Option<f64>,
    },
    /// A server is offline.
    ServerStatus,
    /// A pool is over its high watermark.
    PoolSaturation,
}

/// A condition as it is written down, whether it makes sense or not.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ConditionDraft {
    /// `metric`, `server_status` or `pool_saturation`.
    pub kind: Option<String>,
    /// Which metric.
    pub metric: Option<Metric>,
    /// On which side.
    pub comparison: Option<Comparison>,
    /// Of what.
    pub threshold: Option<f64>,
    /// How far it must fall back.
    pub clear_threshold: Option<f64>,
    /// Which status: `offline`.
    pub status: Option<String>,
}

impl Condition {
    /// The words for kinds.
    pub const KINDS: [&str; 3] = ["metric", "server_status", "pool_saturation"];
    /// The one status that a rule looks for.
    pub const OFFLINE: &str = "offline";

    /// Which kind it is.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Metric { .. } => "metric",
            Self::ServerStatus => "server_status",
            Self::PoolSaturation => "pool_saturation",
        }
    }

    /// The metric that it is about, if it is about one.
    #[must_use]
    pub fn metric(&self) -> Option<Metric> {
        match self {
            Self::Metric { metric, .. } => Some(*metric),
            Self::ServerStatus | Self::PoolSaturation => None,
        }
    }

    /// Reads a draft.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] with each member that is missing, makes no sense, or does not belong to the kind.
    pub fn parse(draft: &ConditionDraft) -> Result<Self> {
        let mut checks = Checks::default();
        let condition = match draft.kind.as_deref() {
            Some("metric") => metric(draft, &mut checks),
            Some(kind @ ("server_status" | "pool_saturation")) => {
                let foreign = [
                    ("metric", draft.metric.is_some()),
                    ("comparison", draft.comparison.is_some()),
                    ("threshold", draft.threshold.is_some()),
                    ("clear_threshold", draft.clear_threshold.is_some()),
                    ("status", draft.status.is_some() && kind == "pool_saturation"),
                ];
                for (field, _) in foreign.into_iter().filter(|(_, given)| *given) {
                    checks.note(field, format!("does not belong to the kind {kind}"));
                }
                if kind == "pool_saturation" {
                    Some(Self::PoolSaturation)
                } else {
                    let offline = draft.status.as_deref().is_none_or(|status| status == Self::OFFLINE);
                    checks.take("status", offline.then_some(Self::ServerStatus).ok_or("must be offline".to_owned()))
                }
            }
            _ => checks.take("kind", Err(format!("must be one of {}", Self::KINDS.join(", ")))),
        };
        checks.finish()?;
        condition.ok_or_else(|| crate::Error::internal("a checked condition is incomplete"))
    }

    /// What [`Condition::parse`] reads.
    #[must_use]
    pub fn draft(&self) -> ConditionDraft {
        let kind = Some(self.kind().to_owned());
        match *self {
            Self::Metric { metric, comparison, threshold, clear_threshold } => ConditionDraft {
                kind,
                metric: Some(metric),
                comparison: Some(comparison),
                threshold: Some(threshold),
                clear_threshold,
                status: None,
            },
            Self::ServerStatus => {
                ConditionDraft { kind, status: Some(Self::OFFLINE.to_owned()), ..ConditionDraft::default() }
            }
            Self::PoolSaturation => ConditionDraft { kind, ..ConditionDraft::default() },
        }
    }

    /// What a value of the metric says. Between the two thresholds nothing changes, so that what hovers does not flap.
    #[must_use]
    pub fn level(&self, value: f64) -> Level {
        let Self::Metric { comparison, threshold, clear_threshold, .. } = *self else { return Level::Between };
        if comparison.holds(value, threshold) {
            return Level::Loud;
        }
        let Some(clear) = clear_threshold else { return Level::Quiet };
        let back = if comparison.rises() { value <= clear } else { value >= clear };
        if back { Level::Quiet } else { Level::Between }
    }

    /// The louder of two values.
    #[must_use]
    pub fn louder(&self, one: f64, other: f64) -> f64 {
        match self {
            Self::Metric { comparison, .. } if !comparison.rises() => one.min(other),
            _ => one.max(other),
        }
    }

    /// Whether it is about the same thing as another one, only with other numbers.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        let side = |condition: &Self| match condition {
            Self::Metric { comparison, .. } => Some(comparison.rises()),
            Self::ServerStatus | Self::PoolSaturation => None,
        };
        self.kind() == other.kind() && self.metric() == other.metric() && side(self) == side(other)
    }
}

fn metric(draft: &ConditionDraft, checks: &mut Checks) -> Option<Condition> {
    let missing = |what: &str| format!("must be given: {what}");
    let metric = checks.take("metric", draft.metric.ok_or_else(|| missing("what is looked at")));
    let comparison = checks.take("comparison", draft.comparison.ok_or_else(|| missing("gt, gte, lt or lte")));
    let threshold = checks.take("threshold", draft.threshold.ok_or_else(|| missing("what it is compared with")));
    if draft.status.is_some() {
        checks.note("status", "does not belong to the kind metric");
    }
    let (metric, comparison, threshold) = (metric?, comparison?, threshold?);
    let (least, most) = metric.unit().bounds();
    for (field, value) in [("threshold", Some(threshold)), ("clear_threshold", draft.clear_threshold)] {
        if value.is_some_and(|value| !(least..=most).contains(&value)) {
            checks.note(field, format!("must be from {least} to {most}, as {metric} is"));
        }
    }
    let loud = |clear: f64| if comparison.rises() { clear > threshold } else { clear < threshold };
    if draft.clear_threshold.is_some_and(loud) {
        let side = if comparison.rises() { "above" } else { "below" };
        checks.note("clear_threshold", format!("must not be {side} the threshold: it says when the alert is over"));
    }
    Some(Condition::Metric { metric, comparison, threshold, clear_threshold: draft.clear_threshold })
}

/// Which servers or pools a rule watches; all of them if nothing is said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selector {
    /// Those of this pool, or this pool.
    pub pool_id: Option<PoolId>,
    /// Those of this cluster.
    pub cluster: Option<String>,
    /// Those of this zone.
    pub zone: Option<String>,
    /// Those with every one of these tags.
    pub tags: Tags,
}

impl Selector {
    /// Whether a server is meant.
    #[must_use]
    pub fn meets(&self, server: &Server) -> bool {
        self.pool_id.is_none_or(|pool| server.pool_id == Some(pool))
            && self.cluster.as_ref().is_none_or(|cluster| server.cluster.as_ref() == Some(cluster))
            && self.zone.as_ref().is_none_or(|zone| server.zone.as_ref() == Some(zone))
            && self.tags.iter().all(|(key, value)| server.tags.as_map().get(key).is_some_and(|tag| tag == value))
    }

    /// The same, as trends are asked for.
    #[must_use]
    pub fn scope(&self) -> Scope {
        Scope {
            servers: Vec::new(),
            pool_id: self.pool_id,
            cluster: self.cluster.clone(),
            zone: self.zone.clone(),
            tags: self.tags.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        }
    }
}

/// What a rule says, without its name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RuleSpec {
    /// What it looks for.
    pub condition: Condition,
    /// How long that must hold before it fires, 0 to [`MAX_FOR_MINUTES`].
    pub for_minutes: u32,
    /// How bad it is.
    pub severity: Severity,
    /// Of whom.
    pub selector: Selector,
    /// When nobody is told of it.
    pub quiet_hours: Vec<QuietHours>,
    /// Who is told of it.
    pub target_ids: Vec<TargetId>,
}

impl RuleSpec {
    /// # Errors
    /// [`crate::Error::Invalid`] where its parts do not go together.
    pub fn check(&self) -> Result<()> {
        let mut checks = Checks::default();
        if self.condition == Condition::PoolSaturation {
            let selector = &self.selector;
            let given = [
                ("selector.cluster", selector.cluster.is_some()),
                ("selector.zone", selector.zone.is_some()),
                ("selector.tags", selector.tags.iter().next().is_some()),
            ];
            for (field, _) in given.into_iter().filter(|(_, given)| *given) {
                checks.note(field, "does not belong to the kind pool_saturation: pools are selected by pool_id alone");
            }
        }
        checks.finish()
    }
}

/// A rule that makes alerts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// Its id.
    pub id: RuleId,
    /// Its name, unique among rules.
    pub name: Name,
    /// Whether it is in force.
    pub enabled: bool,
    /// What it says.
    #[serde(flatten)]
    pub spec: RuleSpec,
    /// Counts changes; the `ETag`.
    pub revision: i64,
    /// Who made it, as audit rows name them.
    pub created_by: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl Recorded for Rule {
    const KIND: &'static str = "alert_rule";
    fn id(&self) -> i64 {
        self.id.0
    }
}

/// A rule to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRule {
    /// Its name.
    pub name: Name,
    /// Whether it is in force.
    pub enabled: bool,
    /// What it says.
    pub spec: RuleSpec,
}

impl NewRule {
    /// The rule that this becomes under an id.
    #[must_use]
    pub fn into_rule(self, id: RuleId, created_by: String, now: Timestamp) -> Rule {
        let Self { name, enabled, spec } = self;
        Rule { id, name, enabled, spec, revision: 1, created_by, created_at: now, updated_at: now }
    }
}

/// A merge patch of a selector.
#[derive(Debug, Clone, Default)]
pub struct SelectorPatch {
    /// Another pool.
    pub pool_id: Patch<PoolId>,
    /// Another cluster.
    pub cluster: Patch<String>,
    /// Another zone.
    pub zone: Patch<String>,
    /// Tags to set (`Some`) and to remove (`None`).
    pub tags: Patch<BTreeMap<String, Option<String>>>,
}

/// A merge patch of a rule.
#[derive(Debug, Clone, Default)]
pub struct RulePatch {
    /// Another name.
    pub name: Option<Name>,
    /// Whether it is in force.
    pub enabled: Option<bool>,
    /// Makes another draft of what the condition is now.
    pub condition: Option<ConditionPatch>,
    /// Another time that it must hold.
    pub for_minutes: Option<u32>,
    /// Another severity.
    pub severity: Option<Severity>,
    /// Other servers or pools.
    pub selector: Patch<SelectorPatch>,
    /// Other quiet hours, all of them.
    pub quiet_hours: Option<Vec<QuietHours>>,
    /// Other targets, all of them.
    pub target_ids: Option<Vec<TargetId>>,
}

/// A merge patch of a condition.
#[derive(Debug, Clone, Default)]
pub struct ConditionPatch {
    /// Another kind, which begins with nothing.
    pub kind: Patch<String>,
    /// Another metric.
    pub metric: Patch<Metric>,
    /// Another side.
    pub comparison: Patch<Comparison>,
    /// Another threshold.
    pub threshold: Patch<f64>,
    /// Another point at which it is over.
    pub clear_threshold: Patch<f64>,
    /// Another status.
    pub status: Patch<String>,
}

impl ConditionPatch {
    fn apply(self, condition: Condition) -> Result<Condition> {
        let before = condition.draft();
        let kind = self.kind.apply(before.kind.clone());
        let before = if kind == before.kind { before } else { ConditionDraft::default() };
        Condition::parse(&ConditionDraft {
            kind,
            metric: self.metric.apply(before.metric),
            comparison: self.comparison.apply(before.comparison),
            threshold: self.threshold.apply(before.threshold),
            clear_threshold: self.clear_threshold.apply(before.clear_threshold),
            status: self.status.apply(before.status),
        })
    }
}

impl Rule {
    /// This rule with a patch applied, at its next revision.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] naming the members that make no rule.
    pub fn patched(&self, patch: RulePatch, now: Timestamp) -> Result<Self> {
        let (mut checks, before) = (Checks::default(), &self.spec);
        let condition = patch.condition.map_or(Ok(before.condition), |patch| patch.apply(before.condition));
        let condition = checks.nest("condition", condition)?;
        let selector = match patch.selector {
            Patch::Keep => Some(before.selector.clone()),
            Patch::Clear => Some(Selector::default()),
            Patch::Set(patch) => selected(&before.selector, patch, &mut checks),
        };
        checks.finish()?;
        let spec = RuleSpec {
            condition: condition.unwrap_or(before.condition),
            for_minutes: patch.for_minutes.unwrap_or(before.for_minutes),
            severity: patch.severity.unwrap_or(before.severity),
            selector: selector.unwrap_or_default(),
            quiet_hours: patch.quiet_hours.unwrap_or_else(|| before.quiet_hours.clone()),
            target_ids: patch.target_ids.unwrap_or_else(|| before.target_ids.clone()),
        };
        spec.check()?;
        let (name, enabled) = (patch.name.unwrap_or_else(|| self.name.clone()), patch.enabled.unwrap_or(self.enabled));
        Ok(Self { name, enabled, spec, revision: self.revision + 1, updated_at: now, ..self.clone() })
    }
}

impl Rule {
    /// Why alerts of this rule end as it becomes another one, or is removed.
    #[must_use]
    pub fn ends(&self, after: Option<&Self>) -> Option<AlertReason> {
        match after {
            None => Some(AlertReason::RuleDeleted),
            Some(after) if !after.enabled => Some(AlertReason::RuleDisabled),
            Some(after) if !self.spec.condition.is_like(&after.spec.condition) => Some(AlertReason::RuleChanged),
            Some(_) => None,
        }
    }
}

fn selected(before: &Selector, patch: SelectorPatch, checks: &mut Checks) -> Option<Selector> {
    let tags = match patch.tags {
        Patch::Keep => Some(before.tags.clone()),
        Patch::Clear => Some(Tags::default()),
        Patch::Set(pairs) => checks.take("selector.tags", before.tags.patched(pairs)),
    };
    Some(Selector {
        pool_id: patch.pool_id.apply(before.pool_id),
        cluster: patch.cluster.apply(before.cluster.clone()),
        zone: patch.zone.apply(before.zone.clone()),
        tags: tags?,
    })
}

/// Reads how long something must hold.
///
/// # Errors
/// A sentence that says what it may be.
pub fn parse_for_minutes(minutes: i64) -> Result<u32, String> {
    let inside = u32::try_from(minutes).ok().filter(|minutes| *minutes <= MAX_FOR_MINUTES);
    inside.ok_or_else(|| format!("must be from 0 to {MAX_FOR_MINUTES}"))
}

#[cfg(test)]
#[path = "rule_tests.rs"]
mod tests;

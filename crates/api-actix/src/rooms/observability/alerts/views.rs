//! Rules and alerts as they are shown.

use super::words;
use crate::rooms::{dto, observability::targets::DeliveryView};
use domain::{
    clock::Timestamp,
    observability::{
        Metric,
        alerts::{
            AlertChange, AlertReason, AlertState, Comparison, Condition, MOST_PERIODS, Preview, QuietHours, Rule, Seen,
            Selector, Story,
        },
    },
};
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;

/// What a rule looks for. Members that do not belong to the kind are `null`.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "AlertCondition")]
struct ConditionView {
    #[schemars(schema_with = "words::kind")]
    kind: &'static str,
    #[schemars(schema_with = "words::optional_metric")]
    metric: Option<&'static str>,
    #[schemars(schema_with = "words::optional_comparison")]
    comparison: Option<&'static str>,
    threshold: Option<f64>,
    clear_threshold: Option<f64>,
    #[schemars(schema_with = "words::status")]
    status: Option<String>,
}

impl From<Condition> for ConditionView {
    fn from(condition: Condition) -> Self {
        let draft = condition.draft();
        Self {
            kind: condition.kind(),
            metric: draft.metric.map(Metric::as_str),
            comparison: draft.comparison.map(Comparison::as_str),
            threshold: draft.threshold,
            clear_threshold: draft.clear_threshold,
            status: draft.status,
        }
    }
}

/// Whom a rule watches.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "AlertSelector")]
struct SelectorView {
    pool_id: Option<i64>,
    cluster: Option<String>,
    zone: Option<String>,
    tags: BTreeMap<String, String>,
}

impl From<Selector> for SelectorView {
    fn from(selector: Selector) -> Self {
        Self {
            pool_id: selector.pool_id.map(|pool| pool.0),
            cluster: selector.cluster,
            zone: selector.zone,
            tags: dto::shown(&selector.tags),
        }
    }
}

/// Hours in which nobody is told.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "QuietHours")]
struct QuietHoursView {
    #[schemars(schema_with = "words::days")]
    days: Vec<&'static str>,
    #[schemars(schema_with = "words::time_of_day")]
    from: String,
    #[schemars(schema_with = "words::time_of_day")]
    to: String,
    #[schemars(schema_with = "words::utc_offset")]
    utc_offset: String,
}

impl From<&QuietHours> for QuietHoursView {
    fn from(hours: &QuietHours) -> Self {
        let days = hours.days().iter().map(|day| day.as_str()).collect();
        Self { days, from: hours.from(), to: hours.to(), utc_offset: hours.utc_offset() }
    }
}

/// A rule that makes alerts.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "AlertRule")]
pub(super) struct RuleView {
    id: i64,
    name: String,
    enabled: bool,
    condition: ConditionView,
    for_minutes: u32,
    #[schemars(schema_with = "words::severity")]
    severity: &'static str,
    selector: SelectorView,
    quiet_hours: Vec<QuietHoursView>,
    target_ids: Vec<i64>,
    revision: i64,
    created_by: String,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<Rule> for RuleView {
    fn from(rule: Rule) -> Self {
        let spec = rule.spec;
        Self {
            id: rule.id.0,
            name: rule.name.as_str().to_owned(),
            enabled: rule.enabled,
            condition: spec.condition.into(),
            for_minutes: spec.for_minutes,
            severity: spec.severity.as_str(),
            selector: spec.selector.into(),
            quiet_hours: spec.quiet_hours.iter().map(Into::into).collect(),
            target_ids: spec.target_ids.iter().map(|target| target.0).collect(),
            revision: rule.revision,
            created_by: rule.created_by,
            created_at: rule.created_at,
            updated_at: rule.updated_at,
        }
    }
}

/// Whom an alert is of.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "AlertSubject")]
struct SubjectView {
    #[schemars(schema_with = "words::subject_kind")]
    kind: &'static str,
    id: i64,
    name: String,
}

/// One occurrence of a rule on a server or pool.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Alert")]
pub(in crate::rooms::observability) struct AlertView {
    id: i64,
    rule_id: i64,
    rule_name: String,
    #[schemars(schema_with = "words::severity")]
    severity: &'static str,
    #[schemars(schema_with = "words::state")]
    state: &'static str,
    subject: SubjectView,
    /// What is measured, where its rule looks at a metric.
    #[schemars(schema_with = "words::optional_metric")]
    metric: Option<&'static str>,
    /// What was measured when it changed last; of a server that is offline 1, of a pool the percentage that is reserved.
    value: f64,
    /// What was measured last, as long as it has not ended.
    last_value: Option<f64>,
    /// When that was.
    last_sample_at: Option<Timestamp>,
    /// Whether nothing is measured that could tell more: it is as it was, and stays so.
    no_data: bool,
    /// When it began to hold.
    since: Timestamp,
    /// When it had held for long enough; `null` if it never had.
    fired_at: Option<Timestamp>,
    acknowledged_at: Option<Timestamp>,
    acknowledged_by: Option<String>,
    note: Option<String>,
    ended_at: Option<Timestamp>,
    /// Why it ended.
    #[schemars(schema_with = "words::optional_reason")]
    reason: Option<&'static str>,
    /// When its targets were told that it fires.
    notified_at: Option<Timestamp>,
    revision: i64,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<Seen> for AlertView {
    fn from(seen: Seen) -> Self {
        let (last_value, no_data) = (seen.last_value(), seen.no_data);
        let (alert, newest) = (seen.alert, seen.newest);
        Self {
            id: alert.id.0,
            rule_id: alert.rule_id.0,
            rule_name: alert.rule_name,
            severity: alert.severity.as_str(),
            state: alert.state.as_str(),
            subject: SubjectView {
                kind: alert.subject.kind().as_str(),
                id: alert.subject.id(),
                name: alert.subject_name,
            },
            metric: alert.metric.map(Metric::as_str),
            value: alert.value,
            last_value,
            last_sample_at: newest.map(|sample| sample.at),
            no_data,
            since: alert.since,
            fired_at: alert.fired_at,
            acknowledged_at: alert.acknowledged_at,
            acknowledged_by: alert.acknowledged_by,
            note: alert.note,
            ended_at: alert.ended_at,
            reason: alert.reason.map(AlertReason::as_str),
            notified_at: alert.notified_at,
            revision: alert.revision,
            created_at: alert.created_at,
            updated_at: alert.updated_at,
        }
    }
}

/// A change of an alert's state.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "AlertChange")]
struct ChangeView {
    /// When: of what was measured, when it was.
    at: Timestamp,
    /// `null` if it was new.
    #[schemars(schema_with = "words::optional_state")]
    from: Option<&'static str>,
    #[schemars(schema_with = "words::state")]
    to: &'static str,
    value: f64,
    actor: String,
    /// Why, or what they said.
    note: Option<String>,
}

impl From<AlertChange> for ChangeView {
    fn from(change: AlertChange) -> Self {
        Self {
            at: change.at,
            from: change.from.map(AlertState::as_str),
            to: change.to.as_str(),
            value: change.value,
            actor: change.actor,
            note: change.note,
        }
    }
}

/// An alert, and what happened to it.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "AlertDetail")]
pub(super) struct AlertDetailView {
    #[serde(flatten)]
    alert: AlertView,
    /// Oldest first.
    history: Vec<ChangeView>,
    /// What its targets were told, oldest first.
    deliveries: Vec<DeliveryView>,
}

impl From<Story> for AlertDetailView {
    fn from(story: Story) -> Self {
        Self {
            alert: story.seen.into(),
            history: story.history.into_iter().map(Into::into).collect(),
            deliveries: story.deliveries.into_iter().map(Into::into).collect(),
        }
    }
}

/// What a rule would have done.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "AlertRulePreview")]
pub(super) struct PreviewView {
    days: i64,
    /// How often it would have fired in all.
    fired: usize,
    /// The servers on which it would have.
    servers: Vec<PreviewServerView>,
}

/// What a rule would have done on a server.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "AlertRulePreviewServer")]
struct PreviewServerView {
    server_id: i64,
    name: String,
    /// How often it would have fired.
    fired: usize,
    /// When, oldest first; the newest 100.
    #[schemars(length(max = MOST_PERIODS))]
    periods: Vec<PeriodView>,
}

/// A time in which a rule would have fired.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "AlertRulePreviewPeriod")]
struct PeriodView {
    /// When the condition would have begun to hold.
    from: Timestamp,
    /// When it would have held for long enough.
    fired_at: Timestamp,
    /// When it would have ended; `null` if it still held.
    to: Option<Timestamp>,
    /// The most extreme that was measured in it.
    peak: f64,
}

impl PreviewView {
    pub(super) fn new(days: i64, previews: Vec<Preview>) -> Self {
        let fired = previews.iter().map(|preview| preview.fired).sum();
        let server = |preview: Preview| PreviewServerView {
            server_id: preview.server.0,
            name: preview.name,
            fired: preview.fired,
            periods: preview
                .periods
                .iter()
                .map(|period| PeriodView {
                    from: period.from,
                    fired_at: period.fired_at,
                    to: period.to,
                    peak: period.peak,
                })
                .collect(),
        };
        Self { days, fired, servers: previews.into_iter().map(server).collect() }
    }
}

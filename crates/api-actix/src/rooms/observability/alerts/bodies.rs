//! Rules as they are sent, and what else is asked.

use super::words;
use crate::rooms::dto;
use domain::{
    Error, Result,
    error::Checks,
    ids::{PoolId, RuleId, ServerId, TargetId},
    observability::{
        Metric,
        alerts::{
            AlertFilter, AlertState, Comparison, Condition, ConditionDraft, Day, MAX_FOR_MINUTES, MOST_DAYS,
            MOST_QUIET_HOURS, MOST_TARGETS, NewRule, QuietHours, RuleSpec, Selector, Severity, parse_for_minutes,
        },
    },
    page::PageRequest,
    text::{self, Name, Tags},
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use std::collections::BTreeMap;

/// The most states that a list is filtered by.
const MOST_STATES: usize = 4;

pub(super) fn for_minutes(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "format": "int64", "minimum": 0, "maximum": MAX_FOR_MINUTES })
}

fn days(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "format": "int64", "minimum": 1, "maximum": MOST_DAYS })
}

pub(super) fn target_ids(_: &mut SchemaGenerator) -> Schema {
    let item = json_schema!({ "type": "integer", "format": "int64", "minimum": 1 });
    json_schema!({ "type": "array", "maxItems": MOST_TARGETS, "items": item })
}

/// What a rule looks for. Which members go together depends on `kind`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "AlertConditionCreate")]
pub(super) struct ConditionBody {
    /// `metric`: a metric of a server is on one side of a threshold. `server_status`: a server is offline that was not
    /// always so. `pool_saturation`: a pool is over its high watermark.
    #[schemars(schema_with = "words::kind")]
    kind: String,
    /// Which metric.
    #[serde(default)]
    #[schemars(schema_with = "words::optional_metric")]
    metric: Option<Metric>,
    /// On which side of the threshold the condition holds.
    #[serde(default)]
    #[schemars(schema_with = "words::optional_comparison")]
    comparison: Option<Comparison>,
    /// What the metric is compared with.
    threshold: Option<f64>,
    /// How far the metric must fall back to be over; the threshold itself if left out.
    clear_threshold: Option<f64>,
    /// `offline`, with `server_status`.
    #[serde(default)]
    #[schemars(schema_with = "words::status")]
    status: Option<String>,
}

impl ConditionBody {
    fn parse(self) -> Result<Condition> {
        let Self { kind, metric, comparison, threshold, clear_threshold, status } = self;
        Condition::parse(&ConditionDraft { kind: Some(kind), metric, comparison, threshold, clear_threshold, status })
    }
}

/// Whom a rule watches: every server or pool that all of it is true of.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "AlertSelectorCreate")]
pub(super) struct SelectorBody {
    /// Servers of this pool; with `pool_saturation`, this pool.
    #[schemars(range(min = 1))]
    pool_id: Option<i64>,
    /// Servers of this cluster.
    #[schemars(schema_with = "dto::line")]
    cluster: Option<String>,
    /// Servers of this zone.
    #[schemars(schema_with = "dto::line")]
    zone: Option<String>,
    /// Servers with every one of these tags.
    #[schemars(schema_with = "dto::tags")]
    tags: Option<BTreeMap<String, String>>,
}

impl SelectorBody {
    fn parse(self, checks: &mut Checks) -> Option<Selector> {
        let pool_id = dto::reference(checks, "selector.pool_id", self.pool_id).map(PoolId);
        let cluster = dto::optional_line(checks, "selector.cluster", self.cluster);
        let zone = dto::optional_line(checks, "selector.zone", self.zone);
        let tags = checks.take("selector.tags", Tags::parse(self.tags.unwrap_or_default()))?;
        Some(Selector { pool_id, cluster, zone, tags })
    }
}

/// Hours in which nobody is told. They belong to the day on which they begin, and end on the next one if `to` is not later
/// than `from`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "QuietHoursCreate")]
pub(super) struct QuietHoursBody {
    /// The days on which they begin; every day if left out.
    #[serde(default)]
    #[schemars(schema_with = "words::optional_days")]
    days: Option<Vec<Day>>,
    /// When they begin.
    #[schemars(schema_with = "words::time_of_day")]
    from: String,
    /// When they end.
    #[schemars(schema_with = "words::time_of_day")]
    to: String,
    /// How far their clock is ahead of UTC; not at all if left out.
    #[serde(default)]
    #[schemars(schema_with = "words::optional_offset")]
    utc_offset: Option<String>,
}

/// Reads quiet hours, and notes what is wrong with which.
pub(super) fn quiet_hours(bodies: Vec<QuietHoursBody>, checks: &mut Checks) -> Vec<QuietHours> {
    if bodies.len() > MOST_QUIET_HOURS {
        checks.note("quiet_hours", format!("must be at most {MOST_QUIET_HOURS}"));
    }
    let mut read = Vec::new();
    for (index, body) in bodies.into_iter().enumerate() {
        let days = body.days.unwrap_or_else(|| Day::ALL.to_vec());
        let utc_offset = body.utc_offset.as_deref().unwrap_or("Z");
        match QuietHours::parse(days, &body.from, &body.to, utc_offset) {
            Ok(hours) => read.push(hours),
            Err((field, reason)) => checks.note(&format!("quiet_hours[{index}].{field}"), reason),
        }
    }
    read
}

/// Reads ids of targets, each of which counts once.
pub(super) fn targets(ids: Vec<i64>, checks: &mut Checks) -> Vec<TargetId> {
    if ids.len() > MOST_TARGETS {
        checks.note("target_ids", format!("must be at most {MOST_TARGETS}"));
    }
    let mut read: Vec<TargetId> = Vec::new();
    for id in ids {
        let target = dto::reference(checks, "target_ids", Some(id)).map(TargetId);
        read.extend(target.filter(|target| !read.contains(target)));
    }
    read
}

macro_rules! rules {
    ($(#[$meta:meta])* $name:ident { $($(#[$more_meta:meta])* $more:ident: $type:ty,)* }) => {
        #[derive(Debug, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        $(#[$meta])*
        pub(super) struct $name {
            /// Its name, unique among rules.
            #[schemars(schema_with = "dto::name")]
            name: String,
            /// Whether it is in force; it is if left out.
            enabled: Option<bool>,
            /// What it looks for.
            condition: ConditionBody,
            /// How long the condition must hold before it fires; no time at all if left out.
            #[serde(default)]
            #[schemars(schema_with = "for_minutes")]
            for_minutes: i64,
            /// How bad it is.
            #[schemars(schema_with = "words::severity")]
            severity: Severity,
            /// Whom it watches; all if left out.
            selector: Option<SelectorBody>,
            /// When nobody is told of it.
            #[serde(default)]
            #[schemars(length(max = MOST_QUIET_HOURS))]
            quiet_hours: Vec<QuietHoursBody>,
            /// Who is told of it.
            #[serde(default)]
            #[schemars(schema_with = "target_ids")]
            target_ids: Vec<i64>,
            $($(#[$more_meta])* $more: $type,)*
        }

        impl $name {
            fn rule(self, mut checks: Checks) -> Result<NewRule> {
                let name = checks.take("name", Name::parse(self.name));
                let condition = checks.nest("condition", self.condition.parse())?;
                let for_minutes = checks.take("for_minutes", parse_for_minutes(self.for_minutes));
                let selector = self.selector.unwrap_or_default().parse(&mut checks);
                let quiet_hours = quiet_hours(self.quiet_hours, &mut checks);
                let target_ids = targets(self.target_ids, &mut checks);
                checks.finish()?;
                let complete = name.zip(condition).zip(for_minutes).zip(selector);
                let (((name, condition), for_minutes), selector) =
                    complete.ok_or_else(|| Error::internal("a checked rule is incomplete"))?;
                let severity = self.severity;
                let spec = RuleSpec { condition, for_minutes, severity, selector, quiet_hours, target_ids };
                Ok(NewRule { name, enabled: self.enabled.unwrap_or(true), spec })
            }
        }
    };
}

rules! {
    /// A rule to be made.
    #[schemars(rename = "AlertRuleCreate")]
    RuleBody {}
}

rules! {
    /// A rule to be tried out.
    #[schemars(rename = "AlertRulePreviewCreate")]
    PreviewBody {
        /// How many days are looked back.
        #[schemars(schema_with = "days")]
        days: i64,
    }
}

impl RuleBody {
    pub(super) fn parse(self) -> Result<NewRule> {
        self.rule(Checks::default())
    }
}

impl PreviewBody {
    pub(super) fn parse(self) -> Result<(NewRule, i64)> {
        let days = self.days;
        Ok((self.rule(Checks::default())?, days))
    }
}

/// What somebody says who is on an alert.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "AlertAcknowledge")]
pub(super) struct AcknowledgeBody {
    /// What else is to be known.
    #[schemars(schema_with = "dto::description")]
    note: Option<String>,
}

impl AcknowledgeBody {
    pub(super) fn parse(self) -> Result<Option<String>> {
        let mut checks = Checks::default();
        let note = self.note.and_then(|note| checks.take("note", text::paragraph(note, dto::MAX_DESCRIPTION)));
        checks.finish()?;
        Ok(note)
    }
}

fn states(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "maxItems": MOST_STATES, "items": words::state(generator) })
}

/// Filters of the list of alerts.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct AlertListQuery {
    /// In this state; repeated, in one of these.
    #[serde(default)]
    #[schemars(schema_with = "states")]
    state: Vec<AlertState>,
    /// Of this severity.
    #[serde(default)]
    #[schemars(schema_with = "words::optional_severity")]
    severity: Option<Severity>,
    /// Of this server.
    #[schemars(range(min = 1))]
    server_id: Option<i64>,
    /// Of this pool.
    #[schemars(range(min = 1))]
    pool_id: Option<i64>,
    /// Of this rule.
    #[schemars(range(min = 1))]
    rule_id: Option<i64>,
    /// The most rows; 100 if left out.
    #[serde(default)]
    #[schemars(schema_with = "dto::limit")]
    limit: Option<i64>,
    /// Where to go on, from the `Link` header of the page before.
    cursor: Option<String>,
}

impl AlertListQuery {
    pub(super) fn parse(self) -> Result<(AlertFilter, PageRequest)> {
        let mut checks = Checks::default();
        if self.state.len() > MOST_STATES {
            checks.note("state", format!("must not be repeated more than {MOST_STATES} times"));
        }
        let filter = AlertFilter {
            states: self.state,
            severity: self.severity,
            server_id: dto::reference(&mut checks, "server_id", self.server_id).map(ServerId),
            pool_id: dto::reference(&mut checks, "pool_id", self.pool_id).map(PoolId),
            rule_id: dto::reference(&mut checks, "rule_id", self.rule_id).map(RuleId),
        };
        checks.finish()?;
        Ok((filter, PageRequest::parse(self.limit, self.cursor.as_deref(), "-id")?))
    }
}

//! Merge patches of rules.

use super::{
    bodies::{QuietHoursBody, for_minutes, quiet_hours, target_ids, targets},
    words,
};
use crate::{extract::patch, rooms::dto};
use domain::{
    Result,
    error::Checks,
    ids::PoolId,
    observability::{
        Metric,
        alerts::{Comparison, ConditionPatch, MOST_QUIET_HOURS, RulePatch, SelectorPatch, Severity, parse_for_minutes},
    },
    patch::Patch,
};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

/// A merge patch of an alert rule.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "AlertRulePatch")]
pub(super) struct RulePatchBody {
    /// Another name.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(schema_with = "dto::name")]
    name: Patch<String>,
    /// Whether it is in force.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(with = "bool")]
    enabled: Patch<bool>,
    /// What it looks for.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(with = "ConditionPatchBody")]
    condition: Patch<ConditionPatchBody>,
    /// How long the condition must hold before it fires.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(schema_with = "for_minutes")]
    for_minutes: Patch<i64>,
    /// How bad it is.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(schema_with = "words::severity")]
    severity: Patch<Severity>,
    /// Whom it watches.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(with = "Option<SelectorPatchBody>")]
    selector: Patch<SelectorPatchBody>,
    /// When nobody is told of it.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(with = "Option<Vec<QuietHoursBody>>", length(max = MOST_QUIET_HOURS))]
    quiet_hours: Patch<Vec<QuietHoursBody>>,
    /// Who is told of it.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(schema_with = "target_ids")]
    target_ids: Patch<Vec<i64>>,
}

/// A merge patch of what a rule looks for. Another `kind` begins with nothing.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "AlertConditionPatch")]
struct ConditionPatchBody {
    /// Another kind.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(schema_with = "words::kind")]
    kind: Patch<String>,
    /// Another metric.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(schema_with = "words::optional_metric")]
    metric: Patch<Metric>,
    /// Another side.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(schema_with = "words::optional_comparison")]
    comparison: Patch<Comparison>,
    /// Another threshold.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(with = "Option<f64>")]
    threshold: Patch<f64>,
    /// Another point at which it is over.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(with = "Option<f64>")]
    clear_threshold: Patch<f64>,
    /// Another status.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(schema_with = "words::status")]
    status: Patch<String>,
}

/// A merge patch of whom a rule watches.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "AlertSelectorPatch")]
struct SelectorPatchBody {
    /// Servers of another pool, or another pool.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(with = "Option<i64>", range(min = 1))]
    pool_id: Patch<i64>,
    /// Servers of another cluster.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(schema_with = "dto::line")]
    cluster: Patch<String>,
    /// Servers of another zone.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(schema_with = "dto::line")]
    zone: Patch<String>,
    /// Servers with other tags.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(schema_with = "dto::tags_patch")]
    tags: Patch<BTreeMap<String, Option<String>>>,
}

impl ConditionPatchBody {
    fn parse(self) -> ConditionPatch {
        let Self { kind, metric, comparison, threshold, clear_threshold, status } = self;
        ConditionPatch { kind, metric, comparison, threshold, clear_threshold, status }
    }
}

impl SelectorPatchBody {
    fn parse(self, checks: &mut Checks) -> SelectorPatch {
        let positive = |id: i64| if id >= 1 { Ok(PoolId(id)) } else { Err("must be a positive integer".to_owned()) };
        SelectorPatch {
            pool_id: dto::patched(checks, "selector.pool_id", self.pool_id, positive),
            cluster: dto::patched_line(checks, "selector.cluster", self.cluster),
            zone: dto::patched_line(checks, "selector.zone", self.zone),
            tags: dto::patched_tags(checks, "selector.tags", self.tags),
        }
    }
}

/// A list that a patch replaces; `null` empties it.
fn list<T>(patch: Patch<Vec<T>>) -> Option<Vec<T>> {
    match patch {
        Patch::Keep => None,
        Patch::Clear => Some(Vec::new()),
        Patch::Set(items) => Some(items),
    }
}

impl RulePatchBody {
    pub(super) fn parse(self) -> Result<RulePatch> {
        let mut checks = Checks::default();
        let patch = RulePatch {
            name: dto::replaced_name(&mut checks, self.name),
            enabled: dto::replaced(&mut checks, "enabled", self.enabled, Ok),
            condition: dto::replaced(&mut checks, "condition", self.condition, |patch| Ok(patch.parse())),
            for_minutes: dto::replaced(&mut checks, "for_minutes", self.for_minutes, parse_for_minutes),
            severity: dto::replaced(&mut checks, "severity", self.severity, Ok),
            selector: match self.selector {
                Patch::Keep => Patch::Keep,
                Patch::Clear => Patch::Clear,
                Patch::Set(patch) => Patch::Set(patch.parse(&mut checks)),
            },
            quiet_hours: list(self.quiet_hours).map(|bodies| quiet_hours(bodies, &mut checks)),
            target_ids: list(self.target_ids).map(|ids| targets(ids, &mut checks)),
        };
        checks.finish()?;
        Ok(patch)
    }
}

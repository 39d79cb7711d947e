//! The rules that there are from the start. They are in the database from its first moment on, and nobody brings back what
//! was changed or removed there.

use super::rule::{Comparison, Condition, RuleSpec, Selector, Severity};
use crate::observability::metric::Metric;

/// How far below its threshold an alert is over, in percent points.
const BACK: f64 = 5.0;

/// Their names, and what they say.
#[must_use]
pub fn default_rules() -> Vec<(&'static str, RuleSpec)> {
    use Comparison::{Gt, Gte};
    use Severity::{Critical, Warning};
    let spec = |condition, for_minutes, severity| RuleSpec {
        condition,
        for_minutes,
        severity,
        selector: Selector::default(),
        quiet_hours: Vec::new(),
        target_ids: Vec::new(),
    };
    let usage = |metric, comparison, threshold, severity| {
        let clear_threshold = Some(threshold - BACK);
        spec(Condition::Metric { metric, comparison, threshold, clear_threshold }, 5, severity)
    };
    let violated =
        Condition::Metric { metric: Metric::SloViolation, comparison: Gte, threshold: 1.0, clear_threshold: None };
    vec![
        ("CPU usage high", usage(Metric::CpuUsage, Gte, 85.0, Warning)),
        ("CPU usage critical", usage(Metric::CpuUsage, Gt, 92.0, Critical)),
        ("Memory usage high", usage(Metric::MemoryUsage, Gte, 85.0, Warning)),
        ("Memory usage critical", usage(Metric::MemoryUsage, Gt, 92.0, Critical)),
        ("Storage usage high", usage(Metric::StorageUsage, Gte, 85.0, Warning)),
        ("Storage usage critical", usage(Metric::StorageUsage, Gt, 92.0, Critical)),
        ("SLO violated", spec(violated, 0, Warning)),
        ("Server offline", spec(Condition::ServerStatus, 2, Critical)),
        ("Pool over its high watermark", spec(Condition::PoolSaturation, 0, Warning)),
    ]
}

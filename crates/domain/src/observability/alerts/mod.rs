//! Alerts: what was measured of servers and pools, compared with what somebody wants to be told of.
//!
//! A rule says when, and of whom; an alert is one occurrence, of one rule on one server or pool, from when it began to hold
//! until it ended. Invariants: there is at most one alert of a rule and subject that has not ended; how long something has
//! held is told by the times of samples, not by those at which somebody looked; where nothing is measured, nothing changes.

mod alert;
mod defaults;
mod delivery;
#[cfg(test)]
mod fixtures;
mod judge;
mod machine;
mod message;
mod ports;
mod preview;
mod quiet;
mod rule;
mod scene;
mod service;
mod target;
mod target_ports;
mod target_service;
mod watch;

pub use alert::{Alert, AlertChange, AlertFilter, AlertReason, AlertState, Subject, SubjectKind, Verdict};
pub use defaults::default_rules;
pub use delivery::{Delivery, DeliveryState, Fate, MOST_TRIES, Sent, Try, after_try};
pub use judge::{Judged, Watched, judge};
pub use machine::{Level, Machine, Phase, Reading, STALE, Step};
pub use message::{Message, MessageKind, Notice};
pub use ports::{AlertRules, Alerts};
#[cfg(any(test, feature = "mocks"))]
pub use ports::{MockAlertRules, MockAlerts};
pub use preview::{MOST_DAYS, MOST_PERIODS, Period, Preview, replay};
pub use quiet::{Day, MOST_QUIET_HOURS, QuietHours};
pub use rule::{
    Comparison, Condition, ConditionDraft, ConditionPatch, MAX_FOR_MINUTES, MOST_TARGETS, NewRule, Rule, RulePatch,
    RuleSpec, Selector, SelectorPatch, Severity, parse_for_minutes,
};
pub use service::{AlertPorts, AlertService, Seen, Story};
pub use target::{
    MAX_URL, MOST_RECIPIENTS, MailTls, NewTarget, Target, TargetDraft, TargetKind, TargetPatch, TargetSecret,
    TargetSpec,
};
pub use target_ports::{AlertTargets, Deliveries, Errand, Notifier};
#[cfg(any(test, feature = "mocks"))]
pub use target_ports::{MockAlertTargets, MockDeliveries, MockNotifier};
pub use target_service::{TargetPorts, TargetService};
pub use watch::{AlertWatch, Round, WatchPorts};

use super::{
    alert::{Alert, AlertChange, AlertFilter, Verdict},
    rule::{NewRule, Rule},
};
use crate::{
    Result,
    audit::AuditEntry,
    change::{Change, Done},
    clock::Timestamp,
    ids::{AlertId, RuleId},
    page::{Page, PageRequest},
};
use async_trait::async_trait;

/// The rules in the database. Those of [`super::default_rules`] are there from the start.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait AlertRules: Send + Sync {
    /// Makes a rule at the time of the change's entry, which it completes with the rule's id and state.
    ///
    /// MUST fail with `name_taken` if there is a rule of that name, and with [`crate::Error::Invalid`] for `target_ids` or
    /// `selector.pool_id` if there is no such target or pool.
    async fn create(&self, rule: NewRule, change: Change) -> Result<Done<Rule>>;

    /// Rules, newest first. Pages MUST neither repeat nor skip rows when others are inserted meanwhile.
    async fn list(&self, page: PageRequest) -> Result<Page<Rule>>;

    /// Every rule, by id.
    async fn all(&self) -> Result<Vec<Rule>>;

    /// MUST fail with [`crate::Error::NotFound`] if there is none.
    async fn get(&self, id: RuleId) -> Result<Rule>;

    /// Writes `rule`, whose revision is one above that of the row it replaces, with the end of those alerts that end with
    /// that ([`Rule::ends`]), in one transaction.
    ///
    /// MUST fail with [`crate::Error::Stale`] if the row is at another revision, with [`crate::Error::NotFound`] if it is
    /// gone, and otherwise as `create` does.
    async fn update(&self, rule: Rule, change: Change) -> Result<Done<Rule>>;

    /// Removes `rule` if its row is still at that revision, and ends its alerts; errors as for `update`.
    async fn delete(&self, rule: Rule, change: Change) -> Result<Done<()>>;
}

/// The alerts in the database. They outlive their rule, and whom they are of.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait Alerts: Send + Sync {
    /// Every alert that has not ended.
    async fn open(&self) -> Result<Vec<Alert>>;

    /// Writes verdicts with what is recorded of each ([`Verdict::deeds`]) and with what is to be sent, in one transaction,
    /// at the time of `by` and in its actor's name. Returns how many were written.
    ///
    /// MUST leave out those whose alert is at another revision or gone; those of a new alert, if its rule is not in force
    /// any more or there is an open alert of the rule and subject. Others are not kept from being written by that.
    async fn settle(&self, verdicts: Vec<Verdict>, by: AuditEntry) -> Result<usize>;

    /// Alerts that match, newest first. Pages MUST neither repeat nor skip rows when others are inserted meanwhile.
    async fn list(&self, filter: AlertFilter, page: PageRequest) -> Result<Page<Alert>>;

    /// MUST fail with [`crate::Error::NotFound`] if there is none.
    async fn get(&self, id: AlertId) -> Result<Alert>;

    /// What happened to an alert, oldest first.
    async fn history(&self, id: AlertId) -> Result<Vec<AlertChange>>;

    /// Has the actor of the change be on an alert, as [`Alert::acknowledged`] decides, on a row that nobody else changes
    /// meanwhile. Errors are those, and [`crate::Error::NotFound`]; neither, if that was done before under the change's
    /// key.
    async fn acknowledge(&self, id: AlertId, note: Option<String>, change: Change) -> Result<Done<Alert>>;

    /// Forgets alerts that ended before `before`, and those that ended before `unfired` without having fired. Returns how
    /// many.
    async fn forget(&self, before: Timestamp, unfired: Timestamp) -> Result<usize>;
}

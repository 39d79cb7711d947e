//! Why a task is pending: the refusals of all servers, put together.

use super::placement::Plan;
use crate::{ids::ServerId, text::Name};
use std::collections::BTreeMap;

/// One reason why a task is pending, and how many servers give it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingReason {
    /// The stable code, such as `insufficient_cpu`, or `no_servers`.
    pub code: &'static str,
    /// How many servers refuse for it, among others perhaps.
    pub servers: usize,
    /// The one of them that is nearest to taking the task.
    pub nearest: Option<(ServerId, Name)>,
    /// What that server says, as the rest of a sentence that begins with its name.
    pub detail: String,
}

/// Puts the reasons of a plan together, those of the nearest miss first. There are none if the task has a placement.
///
/// The nearest miss is the server with the fewest refusals, and of several the one where the least is missing, in
/// proportion to what is asked for.
#[must_use]
pub fn explain(plan: &Plan) -> Vec<PendingReason> {
    if plan.placement.is_some() {
        return Vec::new();
    }
    if plan.candidates.is_empty() {
        let detail = "there is no server yet; register one".to_owned();
        return vec![PendingReason { code: "no_servers", servers: 0, nearest: None, detail }];
    }
    let mut reasons: Vec<PendingReason> = Vec::new();
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for candidate in &plan.candidates {
        for unfit in &candidate.reasons {
            if let Some(place) = places.get(unfit.code()) {
                reasons[*place].servers += 1;
                continue;
            }
            let reason = plan.reason(candidate, *unfit);
            places.insert(reason.code, reasons.len());
            let nearest = Some((candidate.server_id, candidate.name().clone()));
            reasons.push(PendingReason { code: reason.code, servers: 1, nearest, detail: reason.detail });
        }
    }
    reasons
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;

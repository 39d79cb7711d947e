//! A plan token: a keyed hash over a task, where it would go, and the room that was there.
//!
//! It is stale as soon as the task would go elsewhere, or its server or pool has other room than was shown; what
//! happens on servers that it does not go to does not matter, unless it goes nowhere.

use super::{placement::Plan, snapshot::FleetSnapshot, spec::TaskSpec};
use crate::{Error, audit::Seal};

/// What was planned cannot be done as it was planned.
#[must_use]
pub fn plan_stale() -> Error {
    let reason =
        "the fleet or the task is not as it was when this plan was made; plan again, and use the new plan_token";
    Error::conflict("plan_stale", reason)
}

/// The token of a plan of this task.
pub(super) fn token_of(seal: &Seal, spec: &TaskSpec, plan: &Plan, fleet: &FleetSnapshot) -> String {
    let task = serde_json::to_string(spec).unwrap_or_default();
    let state = if let Some((server, _)) = plan.placement {
        let pool = fleet.pool_of(server);
        format!("{server} {:?} {pool:?} {:?}", fleet.free(server), pool.and_then(|pool| fleet.left(pool)))
    } else {
        let refusals = plan.candidates.iter().map(|server| format!("{} {:?}", server.server_id, server.reasons));
        refusals.collect::<Vec<_>>().join("\n")
    };
    seal.blind(&format!("plan\n{task}\n{state}"))
}

#[cfg(test)]
#[path = "plan_token_tests.rs"]
mod tests;

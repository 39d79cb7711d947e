//! Plans as they are shown, and the token that proves what was seen.

use super::{create::parse_plan_token, schemas};
use domain::{
    Result,
    ids::ServerId,
    scheduling::{Candidate, DryRun, Plan},
    text::Name,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a task is dispatched.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "TaskDispatch")]
pub(super) struct TaskDispatchBody {
    /// From a dry run of this task: place it as planned, or refuse it.
    #[schemars(schema_with = "schemas::plan_token")]
    plan_token: Option<String>,
}

impl TaskDispatchBody {
    /// The token, if there is one.
    pub(super) fn parse(self) -> Result<Option<String>> {
        parse_plan_token(self.plan_token)
    }
}

/// A server that is named in an answer about a task.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "NearestServer")]
pub(super) struct NearestView {
    server_id: i64,
    name: String,
}

impl From<(ServerId, Name)> for NearestView {
    fn from((server_id, name): (ServerId, Name)) -> Self {
        Self { server_id: server_id.0, name: name.as_str().to_owned() }
    }
}

/// Where a task would go.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Placement")]
pub(super) struct PlacementView {
    server_id: i64,
    name: String,
    /// As among the candidates: 1.
    rank: usize,
}

/// Why a server does not take a task.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "UnfitReason")]
pub(super) struct ReasonView {
    /// The stable code, such as `insufficient_cpu`.
    code: &'static str,
    /// The rest of a sentence that begins with the server's name.
    detail: String,
}

/// A server, judged for a task.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Candidate")]
pub(super) struct CandidateView {
    server_id: i64,
    name: String,
    fits: bool,
    /// Its place among the servers that fit, 1 for the best; `null` if it does not.
    rank: Option<usize>,
    /// Everything that is in the way: one reason for each rule, and for room and quota one for each resource.
    reasons: Vec<ReasonView>,
}

/// Where a task would go, and what every server says to it.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "DryRun")]
pub(super) struct DryRunView {
    /// `null` if no server takes it.
    placement: Option<PlacementView>,
    /// Every server: those that fit first, best first; then the others, the nearest miss first.
    candidates: Vec<CandidateView>,
    /// Send it with the real call to have the task placed like this or not at all.
    plan_token: String,
}

impl From<DryRun> for DryRunView {
    fn from(found: DryRun) -> Self {
        let DryRun { plan, plan_token } = found;
        let candidates = plan.candidates.iter().zip(1..).map(|(candidate, place)| shown(&plan, candidate, place));
        let placement = plan.placement.and_then(|(server, _)| {
            let (candidate, rank) = plan.candidates.iter().zip(1..).find(|(judged, _)| judged.server_id == server)?;
            Some(PlacementView { server_id: server.0, name: candidate.name().as_str().to_owned(), rank })
        });
        Self { placement, candidates: candidates.collect(), plan_token }
    }
}

/// What fits comes first in a plan, best first, so its place there is its rank.
fn shown(plan: &Plan, candidate: &Candidate, place: usize) -> CandidateView {
    let reasons = plan.reasons(candidate);
    CandidateView {
        server_id: candidate.server_id.0,
        name: candidate.name().as_str().to_owned(),
        fits: candidate.fits(),
        rank: candidate.fits().then_some(place),
        reasons: reasons.into_iter().map(|reason| ReasonView { code: reason.code, detail: reason.detail }).collect(),
    }
}

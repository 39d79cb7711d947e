//! The fleet in numbers.

use super::overview::{PeakView, averages, by_health, by_status};
use crate::{ApiError, reply::Reply, rooms::Actor};
use actix_web::web::Data;
use domain::{
    fleet::ServerStatus,
    identity::Operation,
    observability::{Counts, DashboardService, SampleService, Scope},
    scheduling::TaskStatus,
};
use paperclip::actix::api_v2_operation;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;

/// How much there is of everything.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "DashboardSummary")]
pub(super) struct SummaryView {
    servers: ServerCounts,
    pools: PoolCounts,
    /// How many tasks there are, by their status.
    tasks: BTreeMap<&'static str, i64>,
}

/// How many servers there are.
#[derive(Debug, Serialize, JsonSchema)]
struct ServerCounts {
    total: i64,
    online: i64,
    offline: i64,
    maintenance: i64,
    provisioning: i64,
}

/// How many pools there are.
#[derive(Debug, Serialize, JsonSchema)]
struct PoolCounts {
    total: i64,
    /// Those that take no new work.
    saturated: i64,
}

impl From<Counts> for SummaryView {
    fn from(counts: Counts) -> Self {
        let servers = |status| counts.servers.get(&status).copied().unwrap_or_default();
        Self {
            servers: ServerCounts {
                total: counts.servers.values().sum(),
                online: servers(ServerStatus::Online),
                offline: servers(ServerStatus::Offline),
                maintenance: servers(ServerStatus::Maintenance),
                provisioning: servers(ServerStatus::Provisioning),
            },
            pools: PoolCounts { total: counts.pools, saturated: counts.saturated_pools },
            tasks: counts.tasks.iter().map(|(status, count): &(TaskStatus, i64)| (status.as_str(), *count)).collect(),
        }
    }
}

/// How the fleet is.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "DashboardHealth")]
pub(super) struct HealthView {
    /// How many servers are how well.
    health: BTreeMap<&'static str, usize>,
    /// How many servers are in each status.
    statuses: BTreeMap<&'static str, usize>,
    /// The mean of `cpu_usage`, `memory_usage` and `storage_usage` over servers that were measured within 5 minutes;
    /// `null` if none was.
    averages: BTreeMap<&'static str, Option<f64>>,
    /// The server with the highest temperature.
    hottest: Option<PeakView>,
    /// The server with the busiest processors.
    busiest: Option<PeakView>,
}

/// Count servers, pools and tasks
///
/// As they are now.
#[api_v2_operation(tags("observability"), operation_id = "dashboard_summary")]
pub(super) async fn dashboard_summary(
    actor: Actor,
    dashboard: Data<DashboardService>,
) -> Result<Reply<SummaryView>, ApiError> {
    Ok(Reply::new(dashboard.dashboard_summary(&actor).await?.into()))
}

/// Look at how the fleet is
///
/// What was measured more than 5 minutes ago does not count.
#[api_v2_operation(tags("observability"), operation_id = "dashboard_health")]
pub(super) async fn dashboard_health(
    actor: Actor,
    samples: Data<SampleService>,
) -> Result<Reply<HealthView>, ApiError> {
    let seen = samples.overview_get(&actor, Operation::DashboardHealth, &Scope::default()).await?;
    let summary = seen.summary;
    Ok(Reply::new(HealthView {
        health: by_health(&summary),
        statuses: by_status(&summary),
        averages: averages(&summary),
        hottest: summary.hottest.map(PeakView::from),
        busiest: summary.busiest.map(PeakView::from),
    }))
}

//! Everything at a glance, to be looked at or downloaded.

use super::{alerts::AlertView, samples::SampleView, scope::ScopeQuery, words};
use crate::{
    ApiError,
    extract::Query,
    reply::{Media, Readings},
    rooms::{Actor, dto},
    spreadsheet::cell,
};
use actix_web::web::{Bytes, Data};
use domain::{
    Error, Result,
    clock::Timestamp,
    error::Checks,
    fleet::ServerStatus,
    identity::Operation,
    observability::{
        AVERAGED, Bottleneck, HealthState, Metric, Overview, Peak, SampleService, Scope, ServerHealth, Standing,
        Summary,
    },
};
use futures_util::stream;
use paperclip::actix::api_v2_operation;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Which servers.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct OverviewQuery {
    /// Of this pool.
    #[schemars(range(min = 1))]
    pool_id: Option<i64>,
    /// Of this cluster.
    #[serde(default)]
    #[schemars(schema_with = "dto::line")]
    cluster: Option<String>,
    /// Of this zone.
    #[serde(default)]
    #[schemars(schema_with = "dto::line")]
    zone: Option<String>,
    /// With this tag, as `key:value`; may be repeated, then all must be there.
    #[serde(default)]
    tag: Vec<String>,
    /// Downloads it: as a table with a row for each server, or as the document.
    export: Option<Export>,
}

/// How it is downloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "OverviewExport")]
enum Export {
    /// As a table.
    Csv,
    /// As the document.
    Json,
}

impl OverviewQuery {
    fn parse(self) -> Result<(Scope, Option<Export>)> {
        let mut checks = Checks::default();
        let Self { pool_id, cluster, zone, tag, export } = self;
        let scope = ScopeQuery { host_ids: Vec::new(), pool_id, cluster, zone, tag }.parse(&mut checks);
        checks.finish()?;
        Ok((scope, export))
    }
}

/// Everything at a glance.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Overview")]
pub(super) struct OverviewView {
    generated_at: Timestamp,
    summary: SummaryView,
    /// In the order of their ids.
    servers: Vec<StandingView>,
    /// Those that fire, whether anybody is on them or not.
    alerts: Vec<AlertView>,
    /// What is in use by 85 percent or more, worst first; at most 50.
    bottlenecks: Vec<BottleneckView>,
}

/// Servers in numbers.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "OverviewSummary")]
struct SummaryView {
    servers: usize,
    /// How many are in each status.
    statuses: BTreeMap<&'static str, usize>,
    /// How many are how well.
    health: BTreeMap<&'static str, usize>,
    /// The mean over servers that were measured within 5 minutes; `null` if none was.
    averages: BTreeMap<&'static str, Option<f64>>,
    hottest: Option<PeakView>,
    busiest: Option<PeakView>,
}

/// The server that has most of something.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Peak")]
pub(super) struct PeakView {
    server_id: i64,
    name: String,
    value: f64,
}

impl From<Peak> for PeakView {
    fn from(peak: Peak) -> Self {
        Self { server_id: peak.server.0, name: peak.name.as_str().to_owned(), value: peak.value }
    }
}

/// How a server stands.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Standing")]
struct StandingView {
    id: i64,
    name: String,
    status: &'static str,
    architecture: &'static str,
    location: Option<String>,
    pool_id: Option<i64>,
    cluster: Option<String>,
    zone: Option<String>,
    tags: BTreeMap<String, String>,
    /// The newest sample; `null` if nothing was measured yet.
    metrics: Option<SampleView>,
    /// How old that is.
    age_seconds: Option<i64>,
    health: HealthView,
}

/// How well a server is.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Health")]
struct HealthView {
    /// 0 to 100; `null` if nothing was measured within 5 minutes.
    score: Option<f64>,
    #[schemars(schema_with = "words::health_state")]
    state: &'static str,
    /// What takes points off, worst first.
    reasons: Vec<String>,
}

/// Something that is short on a server.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Bottleneck")]
struct BottleneckView {
    server_id: i64,
    name: String,
    metric: &'static str,
    /// How much of it is in use, in percent.
    value: f64,
}

/// How many servers are in each status, none included.
pub(super) fn by_status(summary: &Summary) -> BTreeMap<&'static str, usize> {
    ServerStatus::ALL
        .iter()
        .map(|status| (status.as_str(), summary.statuses.get(status).copied().unwrap_or_default()))
        .collect()
}

/// How many servers are how well, none included.
pub(super) fn by_health(summary: &Summary) -> BTreeMap<&'static str, usize> {
    HealthState::ALL
        .iter()
        .map(|state| (state.as_str(), summary.health.get(state).copied().unwrap_or_default()))
        .collect()
}

/// What the fleet has an average of.
pub(super) fn averages(summary: &Summary) -> BTreeMap<&'static str, Option<f64>> {
    AVERAGED.iter().map(|metric| (metric.as_str(), summary.averages.get(metric).copied())).collect()
}

impl From<Overview> for OverviewView {
    fn from(seen: Overview) -> Self {
        let summary = SummaryView {
            servers: seen.summary.servers,
            statuses: by_status(&seen.summary),
            health: by_health(&seen.summary),
            averages: averages(&seen.summary),
            hottest: seen.summary.hottest.map(PeakView::from),
            busiest: seen.summary.busiest.map(PeakView::from),
        };
        let bottleneck = |found: Bottleneck| BottleneckView {
            server_id: found.server.0,
            name: found.name.as_str().to_owned(),
            metric: found.metric.as_str(),
            value: found.value,
        };
        Self {
            generated_at: seen.at,
            summary,
            servers: seen.servers.into_iter().map(|standing| StandingView::new(standing, seen.at)).collect(),
            alerts: seen.alerts.into_iter().map(AlertView::from).collect(),
            bottlenecks: seen.bottlenecks.into_iter().map(bottleneck).collect(),
        }
    }
}

impl StandingView {
    fn new(standing: Standing, now: Timestamp) -> Self {
        let age_seconds = standing.age_seconds(now);
        let Standing { server, newest, health } = standing;
        let ServerHealth { score, state, reasons } = health;
        Self {
            id: server.id.0,
            name: server.name.as_str().to_owned(),
            status: server.status.as_str(),
            architecture: server.architecture.as_str(),
            location: server.location.clone(),
            pool_id: server.pool_id.map(|pool| pool.0),
            cluster: server.cluster.clone(),
            zone: server.zone.clone(),
            tags: dto::shown(&server.tags),
            metrics: newest.map(|newest| SampleView::new(server.id, &newest)),
            age_seconds,
            health: HealthView { score, state: state.as_str(), reasons },
        }
    }
}

/// A download.
#[derive(Debug)]
pub(super) struct OverviewMedia;

impl Media for OverviewMedia {
    const TYPES: &'static [&'static str] = &["application/json", "text/csv"];
    const DESCRIPTION: &'static str =
        "Everything at a glance, or with `export=csv` a table with a row for each server.";
}

/// Look at everything at a glance
///
/// Servers in numbers; each server with its newest sample, the age of that, and how well it is; and what is short where.
/// A server of which nothing was measured within 5 minutes is never healthy. With `export` it is downloaded.
#[api_v2_operation(tags("observability"), operation_id = "overview_get")]
pub(super) async fn overview_get(
    actor: Actor,
    samples: Data<SampleService>,
    query: Query<OverviewQuery>,
) -> Result<Readings<OverviewView, OverviewMedia>, ApiError> {
    let (scope, export) = query.0.parse()?;
    let seen = samples.overview_get(&actor, Operation::OverviewGet, &scope).await?;
    let (media_type, name, body) = match export {
        None => return Ok(Readings::One(seen.into())),
        Some(Export::Csv) => ("text/csv", "overview.csv", table(&seen)?),
        Some(Export::Json) => {
            let document = serde_json::to_vec(&OverviewView::from(seen)).map_err(Error::internal)?;
            ("application/json", "overview.json", document.into())
        }
    };
    let parts = stream::iter([Ok::<_, Error>(body)]);
    Ok(Readings::stream(media_type, parts).saved_as(name))
}

const COLUMNS: [&str; 14] = [
    "id",
    "name",
    "status",
    "architecture",
    "location",
    "pool_id",
    "cluster",
    "zone",
    "tags",
    "recorded_at",
    "age_seconds",
    "health_score",
    "health_state",
    "health_reasons",
];

fn table(seen: &Overview) -> Result<Bytes> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let metrics = Metric::ALL.iter().map(|metric| metric.as_str());
    writer.write_record(COLUMNS.into_iter().chain(metrics)).map_err(Error::internal)?;
    for standing in &seen.servers {
        writer.write_record(row(standing, seen.at)).map_err(Error::internal)?;
    }
    Ok(writer.into_inner().map_err(|error| Error::internal(error.to_string()))?.into())
}

fn row(standing: &Standing, now: Timestamp) -> Vec<String> {
    fn shown<T: ToString>(value: Option<T>) -> String {
        value.map(|value| value.to_string()).unwrap_or_default()
    }
    let Standing { server, newest, health } = standing;
    let text = |text: Option<&String>| text.map(|text| cell(text)).unwrap_or_default();
    let tags: Vec<String> = server.tags.as_map().iter().map(|(key, value)| format!("{key}:{value}")).collect();
    let at = newest.map(|newest| newest.at.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true));
    let mut row = vec![
        server.id.to_string(),
        cell(server.name.as_str()),
        server.status.as_str().to_owned(),
        server.architecture.as_str().to_owned(),
        text(server.location.as_ref()),
        shown(server.pool_id),
        text(server.cluster.as_ref()),
        text(server.zone.as_ref()),
        cell(&tags.join(", ")),
        at.unwrap_or_default(),
        shown(standing.age_seconds(now)),
        shown(health.score),
        health.state.as_str().to_owned(),
        cell(&health.reasons.join(", ")),
    ];
    row.extend(Metric::ALL.iter().map(|metric| shown(newest.and_then(|newest| newest.readings.get(*metric)))));
    row
}

//! Trends as they are asked for and shown.

use super::{
    export::{self, TrendMedia},
    scope::{MOST_HOSTS, ScopeQuery},
    words,
};
use crate::{
    ApiError,
    extract::Query,
    reply::Readings as Reading,
    rooms::{Actor, dto},
};
use actix_web::web::Data;
use chrono::{DateTime, SecondsFormat, Utc};
use domain::{
    Error, Result,
    clock::Timestamp,
    error::Checks,
    fleet::Window,
    observability::{MOST_HOURS, MOST_POINTS, Metric, Range, SampleService, Scope, Series, TrendRequest},
};
use paperclip::actix::api_v2_operation;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};
use std::{collections::HashMap, sync::Arc};

/// Points of a series if nobody says how many.
const POINTS: u16 = 500;
/// Hours if nobody says how many.
const HOURS: i64 = 24;

/// Which trend.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct TrendQuery {
    /// Of this server; repeated, of each of these. All servers that match if left out.
    #[serde(default)]
    #[schemars(length(max = MOST_HOSTS), inner(range(min = 1)))]
    host_ids: Vec<i64>,
    /// Of the servers of this pool.
    #[schemars(range(min = 1))]
    pool_id: Option<i64>,
    /// Of the servers of this cluster.
    #[serde(default)]
    #[schemars(schema_with = "dto::line")]
    cluster: Option<String>,
    /// Of the servers of this zone.
    #[serde(default)]
    #[schemars(schema_with = "dto::line")]
    zone: Option<String>,
    /// Of the servers with this tag, as `key:value`; may be repeated, then all must be there.
    #[serde(default)]
    tag: Vec<String>,
    /// What; `cpu_usage` if left out.
    #[serde(default)]
    #[schemars(schema_with = "words::optional_metric")]
    metric: Option<Metric>,
    /// The last so many hours; 24 if neither this nor `from` is given.
    #[schemars(range(min = 1, max = MOST_HOURS))]
    hours: Option<i64>,
    /// What was measured after this time.
    from: Option<DateTime<Utc>>,
    /// What was measured up to this time; now if left out.
    to: Option<DateTime<Utc>>,
    /// The most points of each series; 500 if left out.
    #[schemars(range(min = 1, max = MOST_POINTS))]
    points: Option<i64>,
    /// `true`: what was measured in maintenance windows is left out of the percentiles; it is drawn all the same.
    exclude_maintenance: Option<bool>,
    /// `true`: one series of all servers together.
    aggregate: Option<bool>,
    /// `csv`: every sample of the range instead.
    export: Option<Export>,
}

/// What can be had besides JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "TrendExport")]
enum Export {
    /// A table.
    Csv,
}

impl TrendQuery {
    fn parse(self, now: Timestamp) -> Result<(Scope, TrendRequest, Option<Export>)> {
        let mut checks = Checks::default();
        let Self { host_ids, pool_id, cluster, zone, tag, .. } = self;
        let scope = ScopeQuery { host_ids, pool_id, cluster, zone, tag }.parse(&mut checks);
        let out_of_range = |_| format!("must be from 1 to {MOST_POINTS}");
        let points = checks.take("points", self.points.map_or(Ok(POINTS), u16::try_from).map_err(out_of_range));
        checks.finish()?;
        let range = range(self.hours, self.from, self.to, now)?;
        let points = points.unwrap_or(POINTS);
        let metric = self.metric.unwrap_or(Metric::CpuUsage);
        let request = TrendRequest {
            metric,
            range,
            points,
            together: self.aggregate.unwrap_or_default(),
            exclude_maintenance: self.exclude_maintenance.unwrap_or_default(),
        };
        Ok((scope, request, self.export))
    }
}

fn range(hours: Option<i64>, from: Option<Timestamp>, to: Option<Timestamp>, now: Timestamp) -> Result<Range> {
    match (hours, from, to) {
        (Some(_), Some(_), _) | (Some(_), _, Some(_)) => {
            Err(Error::invalid("hours", "says how long until now: give either this or from and to"))
        }
        (hours, None, None) => Range::last(hours.unwrap_or(HOURS), now),
        (None, Some(from), to) => Range::between(from, to, now),
        (None, None, Some(_)) => Err(Error::invalid("from", "is required where to is given")),
    }
}

/// How a metric went.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Trend")]
pub(super) struct TrendView {
    /// The server; `null` if it is all of them together.
    host_id: Option<i64>,
    #[schemars(schema_with = "words::metric")]
    metric: &'static str,
    /// How long the time of a point is.
    resolution_seconds: i64,
    /// In the order of time. Where nothing was measured there is none.
    points: Vec<PointView>,
    percentiles: PercentilesView,
    /// How many samples the percentiles are of.
    samples: u64,
    /// Minutes with a sample over minutes in the range: 0 to 1.
    coverage: f64,
    /// Whether the percentiles are exact; otherwise they are within 1 percent of their value.
    exact: bool,
    /// What happened meanwhile that explains what is seen.
    events: Vec<EventView>,
}

/// What was measured in a part of the time.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "TrendPoint")]
struct PointView {
    /// When that begins.
    #[schemars(with = "Timestamp")]
    #[serde(serialize_with = "text")]
    timestamp: Arc<str>,
    /// The mean.
    value: f64,
    min: f64,
    max: f64,
}

/// Percentiles of all samples, not of points; between closest ranks they are interpolated linearly.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Percentiles")]
struct PercentilesView {
    /// `null` if nothing was measured.
    p50: Option<f64>,
    p95: Option<f64>,
    p99: Option<f64>,
}

/// Something that happened to a server.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "TrendEvent")]
struct EventView {
    /// What: `maintenance`.
    kind: &'static str,
    /// Which of them.
    id: i64,
    server_id: i64,
    title: String,
    started_at: Timestamp,
    /// When it ended, or is to end.
    ended_at: Timestamp,
}

impl EventView {
    fn new(window: &Window) -> Option<Self> {
        let span = window.span()?;
        Some(Self {
            kind: "maintenance",
            id: window.id.0,
            server_id: window.server_id.0,
            title: window.title.as_str().to_owned(),
            started_at: span.from,
            ended_at: span.until,
        })
    }
}

fn text<S: Serializer>(text: &Arc<str>, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

/// The texts of times: those of one series are those of all others, and making them takes longer than all else.
#[derive(Default)]
struct Times(HashMap<Timestamp, Arc<str>>);

impl Times {
    fn text(&mut self, at: Timestamp) -> Arc<str> {
        self.0.entry(at).or_insert_with(|| at.to_rfc3339_opts(SecondsFormat::AutoSi, true).into()).clone()
    }
}

impl TrendView {
    fn new(metric: Metric, series: Series, times: &mut Times) -> Self {
        let Series { server, trend, windows } = series;
        let points = trend.points.into_iter();
        let points = points.map(|p| PointView { timestamp: times.text(p.at), value: p.value, min: p.min, max: p.max });
        let found = trend.percentiles;
        Self {
            host_id: server.map(|server| server.0),
            metric: metric.as_str(),
            resolution_seconds: trend.resolution_seconds,
            points: points.collect(),
            percentiles: PercentilesView {
                p50: found.map(|found| found.p50),
                p95: found.map(|found| found.p95),
                p99: found.map(|found| found.p99),
            },
            samples: trend.samples,
            coverage: trend.coverage,
            exact: trend.exact,
            events: windows.iter().filter_map(EventView::new).collect(),
        }
    }
}

/// Show how a metric went
///
/// A series for each server that matches, or with `aggregate=true` one of all of them. Each point has the mean, the least
/// and the greatest value of its time, so that no spike disappears however few points there are; percentiles are of all
/// samples of the range. With `export=csv` every sample is downloaded instead.
#[api_v2_operation(tags("observability"), operation_id = "trend_get")]
pub(super) async fn trend_get(
    actor: Actor,
    samples: Data<SampleService>,
    query: Query<TrendQuery>,
) -> Result<Reading<Vec<TrendView>, TrendMedia>, ApiError> {
    let (scope, request, export) = query.0.parse(samples.now())?;
    if export == Some(Export::Csv) {
        let selection = samples.trend_export(&actor, &scope, request.metric, request.range).await?;
        let name = format!("{}.csv", request.metric);
        return Ok(Reading::stream("text/csv", export::stream(samples.into_inner(), selection)).saved_as(&name));
    }
    let series = samples.trend_get(&actor, &scope, &request).await?;
    let mut times = Times::default();
    let views = series.into_iter().map(|series| TrendView::new(request.metric, series, &mut times));
    Ok(Reading::One(views.collect()))
}

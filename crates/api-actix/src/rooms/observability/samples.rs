//! Samples as they are sent and shown.

use crate::{
    ApiError,
    extract::{Id, OneOrMany, Query},
    reply::{Created, Listed, Reply},
    rooms::{Actor, dto::Paging},
};
use actix_web::web::Data;
use chrono::{DateTime, Utc};
use domain::{
    clock::Timestamp,
    ids::ServerId,
    observability::{Metric, Readings, Sample, SampleService, wire::Taken},
};
use paperclip::actix::api_v2_operation;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! measured {
    ($($(#[$meta:meta])* $field:ident: $metric:ident,)+) => {
        /// What was measured of a server at one time: at least one metric.
        #[derive(Debug, Default, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields, default)]
        #[schemars(rename = "SampleCreate")]
        pub(super) struct SampleBody {
            $($(#[$meta])* $field: Option<f64>,)+
            /// Whether it missed what it was promised to do.
            slo_violation: Option<bool>,
            /// When it was measured, at most 5 minutes ahead; now if left out.
            recorded_at: Option<DateTime<Utc>>,
        }

        /// What was measured of a server at one time.
        #[derive(Debug, Serialize, JsonSchema)]
        #[schemars(rename = "Sample")]
        pub(super) struct SampleView {
            server_id: i64,
            recorded_at: Timestamp,
            $($(#[$meta])* $field: Option<f64>,)+
            /// Whether it missed what it was promised to do.
            slo_violation: Option<bool>,
        }

        impl SampleBody {
            fn readings(&self) -> Readings {
                let mut readings = Readings::default();
                $(readings.set(Metric::$metric, self.$field);)+
                readings.set(Metric::SloViolation, self.slo_violation.map(|missed| if missed { 1.0 } else { 0.0 }));
                readings
            }
        }

        impl SampleView {
            pub(super) fn new(server: ServerId, sample: &Sample) -> Self {
                Self {
                    server_id: server.0,
                    recorded_at: sample.at,
                    $($field: sample.readings.get(Metric::$metric),)+
                    slo_violation: sample.readings.get(Metric::SloViolation).map(|missed| missed > 0.5),
                }
            }
        }
    };
}

measured! {
    /// How busy its processors are, in percent of all of them.
    #[schemars(range(min = 0, max = 100))]
    cpu_usage: CpuUsage,
    /// How much of its memory is in use, in percent.
    #[schemars(range(min = 0, max = 100))]
    memory_usage: MemoryUsage,
    /// How full its storage is, in percent.
    #[schemars(range(min = 0, max = 100))]
    storage_usage: StorageUsage,
    /// The load average of a minute.
    #[schemars(range(min = 0, max = 1_000_000))]
    node_load1: NodeLoad1,
    /// The load average of 5 minutes.
    #[schemars(range(min = 0, max = 1_000_000))]
    node_load5: NodeLoad5,
    /// The load average of 15 minutes.
    #[schemars(range(min = 0, max = 1_000_000))]
    node_load15: NodeLoad15,
    /// What its network interfaces receive, in megabits a second.
    #[schemars(range(min = 0, max = 1_000_000_000))]
    network_in_mbps: NetworkIn,
    /// What its network interfaces send, in megabits a second.
    #[schemars(range(min = 0, max = 1_000_000_000))]
    network_out_mbps: NetworkOut,
    /// What is read from its disks, in megabytes a second.
    #[schemars(range(min = 0, max = 1_000_000_000))]
    disk_read_mbps: DiskRead,
    /// What is written to its disks, in megabytes a second.
    #[schemars(range(min = 0, max = 1_000_000_000))]
    disk_write_mbps: DiskWrite,
    /// How busy its GPUs are, in percent.
    #[schemars(range(min = 0, max = 100))]
    gpu_utilization: GpuUtilization,
    /// How much of its GPUs' memory is in use, in percent.
    #[schemars(range(min = 0, max = 100))]
    gpu_memory_utilization: GpuMemoryUtilization,
    /// The hottest of its sensors, in degrees Celsius.
    #[schemars(range(min = -273.15, max = 1000))]
    temperature: Temperature,
    /// How well it is, in the opinion of whoever measured it: 100 is best.
    #[schemars(range(min = 0, max = 100))]
    health_score: HealthScore,
    /// The highest reading of those that `cpu_usage` is the mean of.
    #[schemars(range(min = 0, max = 100))]
    cpu_usage_peak: CpuUsagePeak,
    /// The highest reading of those that `memory_usage` is the mean of.
    #[schemars(range(min = 0, max = 100))]
    memory_usage_peak: MemoryUsagePeak,
}

impl SampleBody {
    fn sample(&self, now: Timestamp) -> Sample {
        Sample { at: self.recorded_at.unwrap_or(now), readings: self.readings() }
    }
}

/// What became of an array of samples.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "SamplesTaken")]
pub(super) struct TakenView {
    /// How many are stored by this request.
    accepted: usize,
    /// How many were there already, or twice in the array: the first of a time is the one that is kept.
    duplicate: usize,
    /// Those that were refused; all others are stored.
    rejected: Vec<RejectedView>,
}

/// A sample that was refused.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "SampleRejected")]
struct RejectedView {
    /// Its place in the array, from 0.
    index: usize,
    /// What is wrong with it.
    reason: String,
}

impl From<Taken> for TakenView {
    fn from(taken: Taken) -> Self {
        let rejected = taken.rejected.into_iter();
        let rejected = rejected.map(|rejected| RejectedView { index: rejected.index, reason: rejected.reason });
        Self { accepted: taken.accepted, duplicate: taken.duplicate, rejected: rejected.collect() }
    }
}

/// The sample that is stored, or what became of an array of them.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "SampleStored")]
pub(super) enum StoredView {
    /// One.
    One(Box<SampleView>),
    /// Many.
    Many(TakenView),
}

/// Store samples
///
/// One sample, which is answered as it is stored, or an array of up to 50,000, of which the answer says what became of
/// each that was not stored. There is one sample of a server at a time, and the first one that comes is it: whatever is
/// sent twice is stored once, so that any request may be repeated. Old samples land in their place.
#[api_v2_operation(tags("observability"), operation_id = "sample_create")]
pub(super) async fn sample_create(
    actor: Actor,
    samples: Data<SampleService>,
    id: Id<ServerId>,
    body: OneOrMany<SampleBody>,
) -> Result<Created<StoredView>, ApiError> {
    let now = samples.now();
    let stored = match body {
        OneOrMany::One(body) => {
            let sample = samples.sample_create(&actor, id.0, body.sample(now)).await?;
            StoredView::One(Box::new(SampleView::new(id.0, &sample)))
        }
        OneOrMany::Many(bodies) => {
            let read = bodies.into_iter().map(|body| match body {
                Ok(body) => Ok(body.sample(now)),
                Err(error) if error.field.is_empty() => Err(error.reason),
                Err(error) => Err(format!("{} {}", error.field, error.reason)),
            });
            StoredView::Many(samples.samples_create(&actor, id.0, read.collect()).await?.into())
        }
    };
    Ok(Created::at(format!("/servers/{}/metrics", id.0), stored))
}

/// List samples
///
/// Of one server, newest first.
#[api_v2_operation(tags("observability"), operation_id = "sample_list")]
pub(super) async fn sample_list(
    actor: Actor,
    samples: Data<SampleService>,
    id: Id<ServerId>,
    query: Query<Paging>,
) -> Result<Listed<SampleView>, ApiError> {
    let page = query.0.parse("-recorded_at")?;
    let found = samples.sample_list(&actor, id.0, page).await?;
    Ok(Listed(found.map(|sample| SampleView::new(id.0, &sample))))
}

/// Look at the newest sample
///
/// `recorded_at` tells how old it is. 404 if nothing was measured yet.
#[api_v2_operation(tags("observability"), operation_id = "sample_latest")]
pub(super) async fn sample_latest(
    actor: Actor,
    samples: Data<SampleService>,
    id: Id<ServerId>,
) -> Result<Reply<SampleView>, ApiError> {
    Ok(Reply::new(SampleView::new(id.0, &samples.sample_latest(&actor, id.0).await?)))
}

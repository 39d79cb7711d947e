//! What servers were measured to be at, and what is made of it: samples, trends, percentiles, alerts.
//!
//! A sample is what was measured of one server at one time; the first that comes for a time is the one that is kept. A
//! percentile is one of samples, never of percentiles: exact for a server, and within [`Sketch::ERROR`] where so many
//! servers are taken together that their hours were counted before. Where nothing was measured there is a gap, which no
//! value fills.

pub mod alerts;
mod dashboard;
#[cfg(test)]
mod fixtures;
mod gather;
mod health;
mod hours;
mod intake;
mod interfaces;
mod metric;
mod now;
mod overview;
mod percentile;
mod ports;
mod range;
pub mod remote;
mod sample;
mod scope;
mod service;
mod sketch;
mod trend;
pub mod wire;

pub use dashboard::{Counts, DashboardPorts, DashboardService};
pub use health::{DEGRADED, FRESH, HEALTHY, HealthState, ServerHealth, health};
pub use hours::{Hour, hours_of};
pub use intake::{MOST_AHEAD, OLDEST, Refused, judge, judge_time};
pub use interfaces::is_made_up_interface;
pub use metric::{Metric, Unit};
pub use now::ServerNow;
pub use overview::{AVERAGED, BOTTLENECK, Bottleneck, MOST_BOTTLENECKS, Overview, Peak, Standing, Summary, overview};
pub use percentile::{Percentiles, percentiles};
#[cfg(any(test, feature = "mocks"))]
pub use ports::MockSamples;
pub use ports::{Column, Detail, Kept, Piece, Samples, Visitor, Wanted};
pub use range::{MOST_HOURS, MOST_POINTS, Range};
pub use sample::{Readings, Sample};
pub use scope::Scope;
pub use service::{MOST_AT_ONCE, MOST_POINTS_IN_ALL, SamplePorts, SampleService, Selection, Series, TrendRequest};
pub use sketch::Sketch;
pub use trend::{Point, Shape, Trend, TrendBuilder};

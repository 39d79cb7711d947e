//! Measures the machine, and tells the server what was measured: readings every few seconds, and a sample of their means
//! every minute.
//!
//! Invariants: the machine is measured whether there is a server or not; what cannot be read is absent, and neither keeps
//! the rest from being read nor has a value made up; a sample is told again until the server has answered for it.

mod buffer;
mod courier;
mod cpu;
mod devices;
mod gatherer;
mod gpu;
mod heat;
mod machine;
mod memory;
mod slot;
#[cfg(test)]
mod tree;

pub use buffer::Buffer;
pub(crate) use courier::Courier;
pub(crate) use machine::{WorkPlace, gauges};

use domain::{clock::Clock, observability::Readings};
use futures_util::future::join_all;
use gatherer::Gatherer;
use slot::Slot;
use std::{sync::Arc, time::Duration};
use tokio::time::{MissedTickBehavior, interval};

/// How often is measured what.
#[derive(Debug, Clone, Copy)]
pub struct MeterPeriods {
    /// From one reading to the next.
    pub reading: Duration,
    /// What one sample is of. Samples are of whole multiples of it.
    pub sample: Duration,
    /// How long at most a new sample waits until it is told, so that a fleet does not tell all at once.
    pub spread: Duration,
}

/// Reads some metrics. It is called again and again, and may take its time; what it tells of the time between is so since
/// the call before.
pub type Gauge = Box<dyn FnMut() -> Readings + Send>;

/// Reads what the gauges show, for ever, and keeps a sample of each period.
pub(crate) async fn measure(gauges: Vec<Gauge>, buffer: Arc<Buffer>, clock: Arc<dyn Clock>, periods: MeterPeriods) {
    let mut slots: Vec<Slot> = gauges.into_iter().map(Slot::new).collect();
    let mut gatherer = Gatherer::new(periods.sample);
    let mut timer = interval(periods.reading);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        let now = clock.now();
        let parts = join_all(slots.iter_mut().map(|slot| slot.read(periods.reading / 2))).await;
        let mut readings = Readings::default();
        for (metric, value) in parts.iter().flat_map(Readings::iter) {
            readings.set(metric, Some(value));
        }
        if let Some(sample) = gatherer.add(now, &readings) {
            buffer.keep(&sample).await;
        }
    }
}

#[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "what is measured has not that many digits")]
fn float(count: u64) -> f64 {
    count as f64
}

//! Clients that each ask as fast as they are answered.

use crate::{
    Outcome,
    http::{Connection, Target},
    process,
    table::{ms, pair, percentile},
};
use std::time::{Duration, Instant};

/// Makes the n-th request of a client.
pub(crate) trait Requests {
    /// The bytes, and the status that its answer must have.
    fn next(&mut self) -> (&[u8], u16);
}

/// What a load showed.
#[derive(Clone)]
pub(crate) struct Shown {
    latencies: Vec<Duration>,
    wall: Duration,
    cpu: Duration,
}

impl Shown {
    /// Requests in a second.
    pub(crate) fn rate(&self) -> f64 {
        f64::from(self.count()) / self.wall.as_secs_f64()
    }

    /// The time that one request took away from all others.
    pub(crate) fn interval(&self) -> Duration {
        self.wall / self.count().max(1)
    }

    /// The median and the 99th percentile, as text.
    pub(crate) fn wall(&self) -> String {
        pair(percentile(&self.latencies, 50), percentile(&self.latencies, 99))
    }

    /// The server's CPU time per request, as text.
    pub(crate) fn cpu(&self) -> String {
        ms(self.cpu / self.count().max(1))
    }

    fn count(&self) -> u32 {
        u32::try_from(self.latencies.len()).unwrap_or(u32::MAX)
    }
}

/// Lets each of these clients ask on a connection of its own for so long, after a warm-up of a fifth of it.
pub(crate) async fn run<R: Requests + 'static>(
    target: &Target,
    pid: u32,
    period: Duration,
    clients: Vec<R>,
) -> Outcome<Shown> {
    let warm = period / 5;
    let begin = Instant::now() + warm;
    let end = begin + period;
    let tasks = tokio::task::LocalSet::new();
    let mut joined = Vec::new();
    for client in clients {
        let target = target.clone();
        joined.push(
            tasks.spawn_local(async move { ask(&target, client, begin, end).await.map_err(|error| error.to_string()) }),
        );
    }
    let work = tasks.run_until(async {
        tokio::time::sleep_until(begin.into()).await;
        let before = process::cpu(pid)?;
        tokio::time::sleep_until(end.into()).await;
        let cpu = process::cpu(pid)?.saturating_sub(before);
        let mut latencies = Vec::new();
        for task in joined {
            latencies.extend(task.await??);
        }
        latencies.sort_unstable();
        Ok(Shown { latencies, wall: period, cpu })
    });
    work.await
}

/// The latencies of the answers that came between the two moments.
async fn ask<R: Requests>(target: &Target, mut client: R, begin: Instant, end: Instant) -> Outcome<Vec<Duration>> {
    let mut connection = Connection::open(target).await?;
    let mut latencies = Vec::with_capacity(1 << 16);
    loop {
        let (request, status) = client.next();
        let sent = Instant::now();
        connection.expect(request, status).await?;
        let now = Instant::now();
        if now >= end {
            return Ok(latencies);
        }
        if now >= begin {
            latencies.push(now - sent);
        }
    }
}

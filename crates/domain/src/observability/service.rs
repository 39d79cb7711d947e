use super::{
    alerts::{Alert, AlertState, Alerts},
    gather::Gathered,
    intake::judge,
    metric::Metric,
    overview::{Overview, overview},
    ports::{Column, Detail, Kept, Piece, Samples, Visitor, Wanted},
    range::{MOST_POINTS, Range},
    sample::Sample,
    scope::Scope,
    trend::{Shape, Trend, TrendBuilder},
    wire::{MOST_IN_REPORT, Rejected, Taken},
};
use crate::{
    Error, Result,
    clock::{Clock, Timestamp},
    error::FieldError,
    fleet::{MaintenanceWindows, RosterEntry, Servers, Window},
    identity::{Actor, Operation},
    ids::ServerId,
    page::{Page, PageRequest},
    pools::Pools,
};
use chrono::{SubsecRound, TimeDelta};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// The most samples that are taken at once.
pub const MOST_AT_ONCE: usize = 50_000;
/// The most points that one answer has, of all series together.
pub const MOST_POINTS_IN_ALL: usize = 200_000;

/// How long samples are the newest ones, and stay as they came.
const NEWEST: TimeDelta = TimeDelta::hours(1);

/// What a [`SampleService`] needs.
#[derive(Clone)]
pub struct SamplePorts {
    /// What was measured.
    pub samples: Arc<dyn Samples>,
    /// Of whom.
    pub servers: Arc<dyn Servers>,
    /// When their operators worked on them.
    pub windows: Arc<dyn MaintenanceWindows>,
    /// Where they belong.
    pub pools: Arc<dyn Pools>,
    /// What somebody wanted to be told of.
    pub alerts: Arc<dyn Alerts>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

/// Takes samples in, and makes trends of them.
pub struct SampleService {
    pub(super) ports: SamplePorts,
}

/// What is to be drawn.
#[derive(Debug, Clone)]
pub struct TrendRequest {
    /// What.
    pub metric: Metric,
    /// When.
    pub range: Range,
    /// The most points of each series, 1 to [`MOST_POINTS`].
    pub points: u16,
    /// Whether all servers are one series.
    pub together: bool,
    /// Whether what was measured in maintenance windows is left out of the percentiles. It is in the points all the same.
    pub exclude_maintenance: bool,
}

impl TrendRequest {
    fn wanted(&self, servers: Vec<ServerId>, detail: Detail) -> Wanted {
        Wanted { servers, metric: self.metric, range: self.range, detail }
    }
}

/// A series, of one server or of all together.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Whose; `None` if it is of all.
    pub server: Option<ServerId>,
    /// How it went.
    pub trend: Trend,
    /// The maintenance windows that have a part in the range, by when they begin.
    pub windows: Vec<Window>,
}

/// Whose samples are to be exported, and which.
#[derive(Debug, Clone)]
pub struct Selection {
    /// Of whom.
    pub servers: Vec<Arc<RosterEntry>>,
    /// What.
    pub metric: Metric,
    /// When.
    pub range: Range,
}

impl SampleService {
    /// A service over these ports.
    #[must_use]
    pub fn new(ports: SamplePorts) -> Self {
        Self { ports }
    }

    /// What time it is.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.ports.clock.now()
    }

    /// Stores one sample.
    ///
    /// # Errors
    /// [`Error::Invalid`] as [`judge`] says; [`Error::NotFound`] if there is no such server.
    pub async fn sample_create(&self, actor: &Actor, server: ServerId, sample: Sample) -> Result<Sample> {
        actor.authorize(Operation::SampleCreate)?;
        let sample = rounded(&sample);
        judge(&sample, self.ports.clock.now()).map_err(|refused| FieldError::new(refused.field, refused.reason))?;
        self.ports.servers.check_there(server).await?;
        self.ports.samples.store(server, vec![sample]).await?;
        Ok(sample)
    }

    /// Stores samples. What could not be read as one is told with the others that are refused.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such server; [`Error::Invalid`] for more than [`MOST_AT_ONCE`].
    pub async fn samples_create(
        &self,
        actor: &Actor,
        server: ServerId,
        samples: Vec<std::result::Result<Sample, String>>,
    ) -> Result<Taken> {
        actor.authorize(Operation::SampleCreate)?;
        if samples.len() > MOST_AT_ONCE {
            let reason = format!("has {} samples: send at most {MOST_AT_ONCE} at once", samples.len());
            return Err(Error::invalid("", reason));
        }
        self.ports.servers.check_there(server).await?;
        self.take(server, samples).await
    }

    /// Stores what a server's agent has measured.
    ///
    /// # Errors
    /// [`Error::Invalid`] for more than agents may say at once.
    pub async fn samples_reported(&self, server: ServerId, samples: Vec<Sample>) -> Result<Taken> {
        if samples.len() > MOST_IN_REPORT {
            return Err(Error::invalid("samples", format!("are more than {MOST_IN_REPORT}")));
        }
        self.take(server, samples.into_iter().map(Ok).collect()).await
    }

    async fn take(&self, server: ServerId, samples: Vec<std::result::Result<Sample, String>>) -> Result<Taken> {
        let now = self.ports.clock.now();
        let mut taken = Taken::default();
        let mut good = Vec::with_capacity(samples.len());
        for (index, sample) in samples.into_iter().enumerate() {
            let judged = sample.map(|sample| rounded(&sample)).and_then(|sample| match judge(&sample, now) {
                Ok(()) => Ok(sample),
                Err(refused) => Err(refused.to_string()),
            });
            match judged {
                Ok(sample) => good.push(sample),
                Err(reason) => taken.rejected.push(Rejected { index, reason }),
            }
        }
        if !good.is_empty() {
            let kept = self.ports.samples.store(server, good).await?;
            taken.accepted = kept.iter().filter(|kept| **kept == Kept::New).count();
            taken.duplicate = kept.len() - taken.accepted;
        }
        Ok(taken)
    }

    /// Background job: compresses what is no longer the newest.
    ///
    /// # Errors
    /// If the database does not do it; what is done by then stays.
    pub async fn samples_seal(&self) -> Result<()> {
        let before = self.ports.clock.now() - NEWEST;
        while self.ports.samples.seal(before).await? > 0 {}
        Ok(())
    }

    /// Background job: lets go of what is older than is kept, and of servers that are gone.
    ///
    /// # Errors
    /// If the database does not do it; what is done by then stays.
    pub async fn samples_forget(&self, keep: TimeDelta) -> Result<()> {
        self.ports.samples.forget_before(self.ports.clock.now() - keep).await?;
        for server in self.ports.samples.servers().await? {
            match self.ports.servers.get(server).await {
                Err(Error::NotFound { .. }) => self.ports.samples.forget_server(server).await?,
                found => _ = found?,
            }
        }
        Ok(())
    }

    /// The samples of a server, newest first.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such server.
    pub async fn sample_list(&self, actor: &Actor, server: ServerId, page: PageRequest) -> Result<Page<Sample>> {
        actor.authorize(Operation::SampleList)?;
        self.ports.servers.check_there(server).await?;
        self.ports.samples.list(server, page).await
    }

    /// The newest sample of a server.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such server, or nothing was measured of it yet.
    pub async fn sample_latest(&self, actor: &Actor, server: ServerId) -> Result<Sample> {
        actor.authorize(Operation::SampleLatest)?;
        self.ports.servers.check_there(server).await?;
        let newest = self.ports.samples.newest(vec![server]).await?;
        newest.get(&server).copied().ok_or_else(|| Error::NotFound { what: format!("sample of server {server}") })
    }

    /// How a metric went: a series for each server in the scope, or one of all of them.
    ///
    /// # Errors
    /// As [`Scope::find`]; [`Error::Invalid`] for more points than anybody can look at.
    pub async fn trend_get(&self, actor: &Actor, scope: &Scope, request: &TrendRequest) -> Result<Vec<Series>> {
        actor.authorize(Operation::TrendGet)?;
        check_points(request.points)?;
        let servers = scope.find(&*self.ports.servers).await?;
        let shape = Shape::of(request.range, request.points);
        let ids: Vec<ServerId> = servers.iter().map(|server| server.id).collect();
        let windows = self.ports.windows.overlapping(ids.clone(), request.range.from(), request.range.until()).await?;
        let excluded = if request.exclude_maintenance { excluded(&windows) } else { HashMap::new() };
        if request.together {
            return self.together(ids, windows, excluded, shape, request).await;
        }
        check_room(ids.len(), shape)?;
        let each = Arc::new(Each { shape, excluded, trends: Mutex::default() });
        let wanted = request.wanted(ids.clone(), Detail::Samples);
        self.ports.samples.read(wanted, each.clone()).await?;
        let mut trends = std::mem::take(&mut *each.trends.lock().unwrap_or_else(PoisonError::into_inner));
        let series = ids.into_iter().filter_map(|id| {
            let windows = windows.iter().filter(|window| window.server_id == id).cloned().collect();
            Some(Series { server: Some(id), trend: trends.remove(&id)?, windows })
        });
        Ok(series.collect())
    }

    /// One series. Those of whom something is left out are read sample by sample: an hour is counted as a whole.
    async fn together(
        &self,
        ids: Vec<ServerId>,
        windows: Vec<Window>,
        excluded: Excluded,
        shape: Shape,
        request: &TrendRequest,
    ) -> Result<Vec<Series>> {
        let (finely, roughly) = ids.into_iter().partition(|id| excluded.contains_key(id) || !shape.takes_hours());
        let builder = Mutex::new(Some(TrendBuilder::sketched(shape)));
        let all = Arc::new(Together { excluded, builder });
        self.ports.samples.read(request.wanted(finely, Detail::Samples), all.clone()).await?;
        self.ports.samples.read(request.wanted(roughly, Detail::Hours), all.clone()).await?;
        let builder = all.builder.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(builder
            .into_iter()
            .map(|all| Series { server: None, trend: all.finish(), windows: windows.clone() })
            .collect())
    }

    /// What is to be seen at a glance of the servers in a scope.
    ///
    /// # Errors
    /// As [`Scope::find`].
    pub async fn overview_get(&self, actor: &Actor, operation: Operation, scope: &Scope) -> Result<Overview> {
        actor.authorize(operation)?;
        let servers = scope.find(&*self.ports.servers).await?;
        let newest = self.ports.samples.newest(servers.iter().map(|server| server.id).collect()).await?;
        let shown = |alert: &Alert| alert.state != AlertState::Pending && scope.has(alert.subject, &servers);
        let alerts: Vec<Alert> = self.ports.alerts.open().await?.into_iter().filter(shown).collect();
        Ok(overview(servers, &newest, alerts, self.ports.clock.now()))
    }

    /// Whose samples an export has.
    ///
    /// # Errors
    /// As [`Scope::find`].
    pub async fn trend_export(&self, actor: &Actor, scope: &Scope, metric: Metric, range: Range) -> Result<Selection> {
        actor.authorize(Operation::TrendGet)?;
        Ok(Selection { servers: scope.find(&*self.ports.servers).await?, metric, range })
    }

    /// A step of an export: all samples of one of its servers, in the order of their times.
    ///
    /// # Errors
    /// If they cannot be read.
    pub async fn export_step(&self, selection: &Selection, server: ServerId) -> Result<Column> {
        let Selection { metric, range, .. } = *selection;
        let gathered = Arc::<Gathered>::default();
        let wanted = Wanted { servers: vec![server], metric, range, detail: Detail::Samples };
        self.ports.samples.read(wanted, gathered.clone()).await?;
        let samples = gathered.take(range).remove(&server).unwrap_or_default();
        let (times, values) = samples.into_iter().unzip();
        Ok(Column { times, values })
    }
}

/// Times are stored to the microsecond.
fn rounded(sample: &Sample) -> Sample {
    Sample { at: sample.at.trunc_subsecs(6), ..*sample }
}

fn check_points(points: u16) -> Result<()> {
    if (1..=MOST_POINTS).contains(&points) {
        return Ok(());
    }
    Err(Error::invalid("points", format!("must be from 1 to {MOST_POINTS}")))
}

fn check_room(servers: usize, shape: Shape) -> Result<()> {
    let points = servers.saturating_mul(shape.buckets());
    if points <= MOST_POINTS_IN_ALL {
        return Ok(());
    }
    let reason = format!(
        "would be up to {points} of {servers} servers together: ask for at most {} each, for fewer servers, or for \
         aggregate=true",
        MOST_POINTS_IN_ALL / servers.max(1)
    );
    Err(Error::invalid("points", reason))
}

/// What is left out of a server's percentiles: beginnings and ends in microseconds since 1970.
type Excluded = HashMap<ServerId, Vec<(i64, i64)>>;

fn excluded(windows: &[Window]) -> Excluded {
    let mut excluded = Excluded::new();
    for window in windows {
        if let Some(span) = window.span() {
            let part = (span.from.timestamp_micros(), span.until.timestamp_micros());
            excluded.entry(window.server_id).or_default().push(part);
        }
    }
    excluded
}

fn of(excluded: &Excluded, server: ServerId) -> &[(i64, i64)] {
    excluded.get(&server).map(Vec::as_slice).unwrap_or_default()
}

/// A series for each server.
struct Each {
    shape: Shape,
    excluded: Excluded,
    trends: Mutex<HashMap<ServerId, Trend>>,
}

impl Visitor for Each {
    fn visit(&self, server: ServerId, pieces: Vec<Piece>) {
        let mut builder = TrendBuilder::exact(self.shape);
        builder.server(&pieces, of(&self.excluded, server));
        let trend = builder.finish();
        self.trends.lock().unwrap_or_else(PoisonError::into_inner).insert(server, trend);
    }
}

/// One series of all.
struct Together {
    excluded: Excluded,
    builder: Mutex<Option<TrendBuilder>>,
}

impl Visitor for Together {
    fn visit(&self, server: ServerId, pieces: Vec<Piece>) {
        if let Some(builder) = &mut *self.builder.lock().unwrap_or_else(PoisonError::into_inner) {
            builder.server(&pieces, of(&self.excluded, server));
        }
    }
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;

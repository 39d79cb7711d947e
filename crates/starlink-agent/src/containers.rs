//! Tells the server what containers the machine's engine has: what has changed, as soon as the engine says so; now and
//! then all that there is; and what those that run use.
//!
//! Invariants: what is told was seen at the engine after whatever happened last that is known of; what could not be told
//! is told again; a session that begins tells all.

mod parts;

use crate::{
    client::{CallError, Client},
    drivers::docker::{Containers, Trouble, usage::Reading},
    runner::Drivers,
    session::{Backoff, Link, Patience},
};
use domain::{
    clock::Clock,
    containers::{ContainerState, ContainerUsage, EngineId, Observed, wire::ContainerReport},
    digest::sha256_hex,
    error::with_causes,
};
use futures_util::{Stream, StreamExt, pin_mut};
use parts::Parts;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    convert::Infallible,
    future::pending,
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{Mutex, mpsc, oneshot, watch},
    time::{Instant, MissedTickBehavior, interval_at, sleep},
};

/// After how long without news a container is looked at again of which the engine had said nothing.
const AGAIN: Duration = Duration::from_secs(10);
/// After how long what was started is counted.
const SOON: Duration = Duration::from_secs(2);
/// After how long without a fault one that comes is told to everybody.
const STEADY: Duration = Duration::from_mins(1);

/// How long the reporter waits for what.
#[derive(Debug, Clone, Copy)]
pub struct ContainerPeriods {
    /// How long changes are gathered until they are told.
    pub gather: Duration,
    /// How often what is used is counted.
    pub count: Duration,
    /// How often all that there is is told.
    pub full: Duration,
}

/// Who asks to have a container looked at, and is told when what was seen is told.
pub(crate) type Look = (EngineId, oneshot::Sender<()>);

/// Tells what the engine has, in one session after the other.
pub(crate) struct Reporter {
    pub(crate) drivers: Arc<Drivers>,
    pub(crate) link: Arc<Link>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) installation: Arc<str>,
    pub(crate) periods: ContainerPeriods,
    pub(crate) patience: Patience,
    pub(crate) looks: Arc<Mutex<mpsc::Receiver<Look>>>,
}

/// What is known of the engine, and was told in this session.
#[derive(Default)]
struct Told {
    /// A digest of what was told of each container.
    containers: HashMap<EngineId, String>,
    /// Those that the engine cannot say anything of, which was complained about.
    unreadable: BTreeSet<EngineId>,
    /// Those that run.
    running: watch::Sender<BTreeSet<EngineId>>,
}

/// Why the reporter begins anew.
enum Again {
    /// The engine does not answer.
    Engine(Trouble),
    /// The server does not.
    Server(CallError),
}

impl From<Trouble> for Again {
    fn from(trouble: Trouble) -> Self {
        Self::Engine(trouble)
    }
}

impl Reporter {
    /// Tells of everything in this session, for as long as it lasts.
    pub(crate) async fn report(self, session: Arc<str>) -> Infallible {
        let Some(engine) = self.drivers.containers() else { return pending().await };
        // Nobody else reads them: the session before has ended.
        let looks = self.looks.clone();
        let mut looks = looks.lock().await;
        let mut backoff = Backoff::new(self.patience);
        loop {
            let began = Instant::now();
            let why = match self.watch(&engine, &session, &mut looks).await {
                Again::Engine(trouble) => trouble.to_string(),
                Again::Server(error) => with_causes(&error),
            };
            if began.elapsed() > STEADY {
                backoff = Backoff::new(self.patience);
                tracing::warn!("the server is not told for a while what containers there are: {why}");
            } else {
                tracing::debug!("the server is still not told what containers there are: {why}");
            }
            sleep(backoff.next()).await;
        }
    }

    /// Tells all, and then what changes and what is used, until either side does not answer.
    async fn watch(&self, engine: &Containers, session: &Arc<str>, looks: &mut mpsc::Receiver<Look>) -> Again {
        let told = Told::default();
        // What happens while all is read is heard of.
        let changes = match engine.changes() {
            Ok(changes) => changes,
            Err(trouble) => return trouble.into(),
        };
        pin_mut!(changes);
        let running = told.running.subscribe();
        let outcome = tokio::select! {
            over = self.follow(engine, session, looks, told, changes) => over,
            over = self.count(engine, session, running) => over,
        };
        match outcome {
            Ok(never) => match never {},
            Err(again) => again,
        }
    }

    async fn follow(
        &self,
        engine: &Containers,
        session: &Arc<str>,
        looks: &mut mpsc::Receiver<Look>,
        mut told: Told,
        mut changes: impl Stream<Item = Result<EngineId, Trouble>> + Unpin,
    ) -> Result<Infallible, Again> {
        let mut full = interval_at(Instant::now(), self.periods.full);
        full.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = full.tick() => self.tell_all(engine, session, &mut told).await?,
                Some((id, seen)) = looks.recv() => {
                    self.tell_some(engine, session, &mut told, BTreeSet::from([id])).await?;
                    seen.send(()).ok();
                }
                () = sleep(AGAIN), if !told.unreadable.is_empty() => {
                    let ids = told.unreadable.clone();
                    self.tell_some(engine, session, &mut told, ids).await?;
                }
                change = changes.next() => {
                    let first = change.ok_or_else(|| Trouble::Away("it says no more what happens".to_owned()))??;
                    let ids = self.gather(first, &mut changes).await?;
                    self.tell_some(engine, session, &mut told, ids).await?;
                }
            }
        }
    }

    /// What changes within a moment, so that a container that goes through several states is told of once.
    async fn gather(
        &self,
        first: EngineId,
        changes: &mut (impl Stream<Item = Result<EngineId, Trouble>> + Unpin),
    ) -> Result<BTreeSet<EngineId>, Trouble> {
        let mut ids = BTreeSet::from([first]);
        let late = sleep(self.periods.gather);
        pin_mut!(late);
        loop {
            tokio::select! {
                () = &mut late => return Ok(ids),
                change = changes.next() => match change {
                    Some(id) => _ = ids.insert(id?),
                    None => return Ok(ids),
                },
            }
        }
    }

    async fn tell_all(&self, engine: &Containers, session: &Arc<str>, told: &mut Told) -> Result<(), Again> {
        let ids = engine.list().await?;
        let mut parts = Parts::default();
        let mut present = Vec::with_capacity(ids.len());
        for id in ids {
            match self.look_at(engine, &id, told).await? {
                Sight::Seen(observed) => {
                    present.push(id);
                    if told.is_news(&observed)
                        && let Some(full) = parts.add(*observed)
                    {
                        self.tell(session, told, full).await?;
                    }
                }
                Sight::Unreadable => present.push(id),
                // It went meanwhile.
                Sight::Gone => {}
            }
        }
        told.keep_only(&present);
        let last = ContainerReport { present: Some(present), ..parts.rest() };
        self.tell(session, told, last).await
    }

    async fn tell_some(
        &self,
        engine: &Containers,
        session: &Arc<str>,
        told: &mut Told,
        ids: BTreeSet<EngineId>,
    ) -> Result<(), Again> {
        let mut parts = Parts::default();
        let mut gone = Vec::new();
        for id in ids {
            match self.look_at(engine, &id, told).await? {
                Sight::Seen(observed) if told.is_news(&observed) => {
                    if let Some(full) = parts.add(*observed) {
                        self.tell(session, told, full).await?;
                    }
                }
                Sight::Seen(_) | Sight::Unreadable => {}
                Sight::Gone => gone.push(id),
            }
        }
        for id in &gone {
            told.forget(id);
        }
        let report = ContainerReport { gone, ..parts.rest() };
        if report.containers.is_empty() && report.gone.is_empty() {
            return Ok(());
        }
        self.tell(session, told, report).await
    }

    /// One container. What the engine cannot say anything of must not keep the others from being told.
    async fn look_at(&self, engine: &Containers, id: &EngineId, told: &mut Told) -> Result<Sight, Trouble> {
        match engine.observe(id, &self.installation).await {
            Ok(Some(observed)) => Ok(Sight::Seen(Box::new(observed.sane()))),
            Ok(None) => Ok(Sight::Gone),
            Err(Trouble::Away(why)) => Err(Trouble::Away(why)),
            Err(trouble) => {
                if told.unreadable.insert(id.clone()) {
                    tracing::warn!("the container engine says nothing of container {id}: {trouble}");
                }
                Ok(Sight::Unreadable)
            }
        }
    }

    /// Tells now and then what those that run use; what was just started is counted before long.
    async fn count(
        &self,
        engine: &Containers,
        session: &Arc<str>,
        mut running: watch::Receiver<BTreeSet<EngineId>>,
    ) -> Result<Infallible, Again> {
        let mut readings: BTreeMap<EngineId, Reading> = BTreeMap::new();
        loop {
            let ids = running.borrow_and_update().clone();
            readings.retain(|id, _| ids.contains(id));
            self.tell_usage(engine, session, &ids, &mut readings).await?;
            let late = sleep(self.periods.count);
            pin_mut!(late);
            tokio::select! {
                () = &mut late => {}
                () = started(&mut running, &readings) => sleep(SOON.min(self.periods.count)).await,
            }
        }
    }

    /// That there is nothing to count confirms what was told before.
    async fn tell_usage(
        &self,
        engine: &Containers,
        session: &Arc<str>,
        running: &BTreeSet<EngineId>,
        readings: &mut BTreeMap<EngineId, Reading>,
    ) -> Result<(), Again> {
        let mut usage = Vec::new();
        for engine_id in running {
            let reading = match engine.count(engine_id).await {
                Ok(Some(reading)) => reading,
                Err(Trouble::Away(why)) => return Err(Trouble::Away(why).into()),
                // It has just ended, or cannot be counted.
                Ok(None) | Err(_) => continue,
            };
            let earlier = readings.insert(engine_id.clone(), reading);
            let usage_now = reading.since(earlier.as_ref(), self.clock.now());
            usage.push(ContainerUsage { engine_id: engine_id.clone(), usage: usage_now });
        }
        let mut rest = usage.into_iter().peekable();
        loop {
            let some: Vec<ContainerUsage> = rest.by_ref().take(parts::MOST_COUNTED).collect();
            self.send(session, ContainerReport { usage: Some(some), ..parts::empty() }).await?;
            if rest.peek().is_none() {
                return Ok(());
            }
        }
    }

    async fn tell(&self, session: &Arc<str>, told: &mut Told, report: ContainerReport) -> Result<(), Again> {
        let notes: Vec<(EngineId, String, bool)> = report
            .containers
            .iter()
            .map(|told| (told.engine_id.clone(), digest(told), told.state == ContainerState::Running))
            .collect();
        self.send(session, report).await?;
        for (id, digest, runs) in notes {
            told.note(id, digest, runs);
        }
        Ok(())
    }

    async fn send(&self, session: &Arc<str>, report: ContainerReport) -> Result<(), Again> {
        let report = &ContainerReport { session: session.to_string(), ..report };
        let call = |_| {
            let client: &Client = self.link.client();
            async move { client.containers(report).await }
        };
        self.link.call(session, call).await.map_err(Again::Server)
    }
}

/// What a look at a container shows.
enum Sight {
    Seen(Box<Observed>),
    /// It is there, and the engine does not say how it is.
    Unreadable,
    Gone,
}

/// Returns once something runs that was not counted yet.
async fn started(running: &mut watch::Receiver<BTreeSet<EngineId>>, readings: &BTreeMap<EngineId, Reading>) {
    let is_new = |ids: &BTreeSet<EngineId>| ids.iter().any(|id| !readings.contains_key(id));
    loop {
        if running.changed().await.is_err() {
            return pending().await;
        }
        if is_new(&running.borrow_and_update()) {
            return;
        }
    }
}

impl Told {
    /// Whether a container is not as it was told.
    fn is_news(&self, observed: &Observed) -> bool {
        self.containers.get(&observed.engine_id) != Some(&digest(observed))
    }

    fn note(&mut self, id: EngineId, digest: String, runs: bool) {
        self.unreadable.remove(&id);
        self.running.send_if_modified(|running| if runs { running.insert(id.clone()) } else { running.remove(&id) });
        self.containers.insert(id, digest);
    }

    fn forget(&mut self, id: &EngineId) {
        self.containers.remove(id);
        self.unreadable.remove(id);
        self.running.send_if_modified(|running| running.remove(id));
    }

    fn keep_only(&mut self, present: &[EngineId]) {
        let present: BTreeSet<&EngineId> = present.iter().collect();
        let gone: Vec<EngineId> = self.containers.keys().filter(|id| !present.contains(id)).cloned().collect();
        for id in &gone {
            self.forget(id);
        }
    }
}

fn digest(observed: &Observed) -> String {
    // What cannot be written as JSON would not be told either.
    sha256_hex(&serde_json::to_vec(observed).unwrap_or_default())
}

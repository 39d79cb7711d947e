//! The conversation with the server: a session, and polls in it for as long as it lasts.
//!
//! Invariants: nothing is begun and no orphan is removed before the server has given this agent the session, since
//! until then it may be a copy of another one that is alive; whenever contact was lost, a new session is opened, so that
//! the server hears again what runs; the server is never asked without a pause between answers that bring nothing new.

mod backoff;
mod link;

pub use backoff::Patience;
pub(crate) use backoff::{Backoff, part_of};
pub(crate) use link::{Link, Told};

use crate::{
    client::{CallError, Meaning},
    containers::{ContainerPeriods, Look, Reporter},
    meter::Courier,
    runner::{News, Runner, Tools},
    state::Joined,
    streams::{Sources, Streams},
};
use backoff::{Outage, jittered};
use domain::{
    digest::sha256_hex,
    error::with_causes,
    fleet::protocol::{Deliveries, InventoryReport, PROTOCOLS, SessionOpened, SessionRequest},
};
use futures_util::future::BoxFuture;
use std::{convert::Infallible, error::Error, sync::Arc, time::Duration};
use tokio::{
    sync::{Mutex, mpsc, watch},
    time::{Instant, sleep, sleep_until},
};

/// Looks at the machine.
pub type Survey =
    Arc<dyn Fn() -> BoxFuture<'static, Result<InventoryReport, Box<dyn Error + Send + Sync>>> + Send + Sync>;

/// How long the session waits for what.
#[derive(Debug, Clone, Copy)]
pub struct SessionPeriods {
    /// How long a poll waits at the server; differs by up to a fifth.
    pub poll: Duration,
    /// How long at least it takes from one poll to the next if there is nothing new.
    pub pause: Duration,
    /// How long to wait while the server has a reason to refuse a session.
    pub refused: Duration,
    /// How often the machine is looked at.
    pub inventory: Duration,
    /// How often a stream makes sure that there is somebody at its other end.
    pub ping: Duration,
    /// Of reports of containers.
    pub containers: ContainerPeriods,
}

/// Why an agent has stopped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    /// It was asked to.
    #[error("the agent was told to stop")]
    Asked,
    /// The server does not let the machine join.
    #[error("the server does not let this machine join: {0}")]
    JoinRefused(String),
    /// The server does not know the agent's token.
    #[error(
        "the server does not accept this agent's token: {0}; if its server was removed, or the agent's state comes from \
         elsewhere, join again: starlink-agent join --server URL --token JOIN_TOKEN"
    )]
    TokenRefused(String),
    /// The two have no version of the protocol in common.
    #[error("{0} (this agent is version {version} and speaks {PROTOCOLS:?})", version = env!("CARGO_PKG_VERSION"))]
    Unsupported(String),
    /// The server is not the one that was joined.
    #[error(
        "the server is another installation ({theirs}) than the one that this agent has joined ({ours}): was its \
         database replaced? put it back, or join again with another --state-dir"
    )]
    OtherInstallation {
        /// The one that was joined.
        ours: String,
        /// The one that answers.
        theirs: String,
    },
    /// The state directory cannot be used.
    #[error("{0}")]
    State(String),
    /// A fault of the agent itself.
    #[error("the agent has failed: {0}")]
    Fault(String),
}

/// Why a session is over.
enum Over {
    /// The server has forgotten it.
    Gone,
    /// It was forgotten before it was of any use.
    AtOnce,
    /// A call had no success.
    Failed(CallError),
}

/// What a session was opened with.
struct Opening {
    session: Arc<str>,
    inventory: InventoryReport,
    opened: SessionOpened,
}

/// The conversation of one agent.
pub(crate) struct Conversation {
    tools: Tools,
    survey: Survey,
    joined: Joined,
    place: String,
    periods: SessionPeriods,
    looks: Arc<Mutex<mpsc::Receiver<Look>>>,
    courier: Courier,
    running: Option<Running>,
    outage: Outage,
    backoff: Backoff,
    was_open: bool,
}

/// What there is once the installation is known.
struct Running {
    runner: Runner,
    streams: Streams,
}

impl Conversation {
    pub(crate) fn new(
        tools: Tools,
        survey: Survey,
        joined: Joined,
        place: String,
        periods: SessionPeriods,
        looks: mpsc::Receiver<Look>,
        courier: Courier,
    ) -> Self {
        let looks = Arc::new(Mutex::new(looks));
        let backoff = Backoff::new(tools.periods.patience);
        let (running, outage) = (None, Outage::default());
        Self { tools, survey, joined, place, periods, looks, courier, running, outage, backoff, was_open: false }
    }

    /// Whether the server has ever given it a session.
    pub(crate) fn was_open(&self) -> bool {
        self.was_open
    }

    /// Speaks with the server until there is no point in it any more, or until `stop` says so.
    pub(crate) async fn hold(&mut self, stop: &mut watch::Receiver<bool>) -> Stopped {
        let stopped = tokio::select! {
            stopped = self.talk() => stopped,
            _ = stop.wait_for(|stop| *stop) => Stopped::Asked,
        };
        self.tools.link.close();
        if let Some(Running { runner, streams }) = self.running.take() {
            drop(streams);
            runner.stop().await;
        }
        stopped
    }

    async fn talk(&mut self) -> Stopped {
        // An agent in its own place is no copy: what it began before needs it, whether the server can be reached or not.
        if let Some(installation) = self.joined.installation.clone()
            && self.joined.place.as_ref() == Some(&self.place)
            && self.tools.journal.installation().as_ref() == Some(&installation)
        {
            self.run(&installation).runner.attend();
        }
        loop {
            let over = match self.one_session().await {
                Ok(over) => over,
                Err(stopped) => return stopped,
            };
            self.tools.link.close();
            match over {
                Over::Gone => continue,
                Over::AtOnce => {}
                Over::Failed(error) if error.meaning() == Meaning::TokenRefused => {
                    return Stopped::TokenRefused(with_causes(&error));
                }
                Over::Failed(error) => self.tell_outage(&error),
            }
            sleep(self.backoff.next()).await;
        }
    }

    async fn one_session(&mut self) -> Result<Over, Stopped> {
        let Opening { session, inventory, opened } = self.open().await?;
        self.settle(&opened).await?;
        self.was_open = true;
        self.tools.link.open(session.clone());
        let Running { runner, .. } = self.run(&opened.installation);
        runner.attend();
        runner.sweep();
        runner.account_for(&opened.begun);
        Ok(self.listen(&session, inventory).await)
    }

    /// Opens a session, however long that takes.
    async fn open(&mut self) -> Result<Opening, Stopped> {
        loop {
            let inventory = match (self.survey)().await {
                Ok(inventory) => inventory,
                Err(error) => {
                    tracing::error!("the machine cannot be looked at, which is tried again: {}", with_causes(&*error));
                    sleep(self.backoff.next()).await;
                    continue;
                }
            };
            let session: Arc<str> = self.random().into();
            let request = SessionRequest {
                session: session.to_string(),
                place: self.place.clone(),
                protocols: PROTOCOLS.to_vec(),
                inventory: inventory.clone(),
            };
            let error = match self.tools.link.client().open_session(&request).await {
                Ok(opened) if PROTOCOLS.contains(&opened.protocol) => {
                    return Ok(Opening { session, inventory, opened });
                }
                Ok(opened) => {
                    return Err(Stopped::Unsupported(format!("the server speaks version {}", opened.protocol)));
                }
                Err(error) => error,
            };
            match error.meaning() {
                Meaning::TokenRefused => return Err(Stopped::TokenRefused(with_causes(&error))),
                Meaning::Unsupported => return Err(Stopped::Unsupported(with_causes(&error))),
                Meaning::AlreadyRunning | Meaning::Final | Meaning::OperationClosed => {
                    let wait = self.periods.refused;
                    tracing::error!(
                        "NOTHING IS BEGUN HERE: the server refuses this agent, which asks again in {} s: {}",
                        wait.as_secs(),
                        with_causes(&error)
                    );
                    sleep(wait).await;
                }
                Meaning::Again | Meaning::SessionGone => {
                    self.tell_outage(&error);
                    sleep(self.backoff.next()).await;
                }
            }
        }
    }

    /// Makes sure that the server is the one that was joined, and keeps what it said of itself.
    async fn settle(&mut self, opened: &SessionOpened) -> Result<(), Stopped> {
        let theirs = opened.installation.clone();
        if let Some(ours) = self.joined.installation.clone().filter(|ours| *ours != theirs) {
            return Err(Stopped::OtherInstallation { ours, theirs });
        }
        if theirs.is_empty() || !theirs.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase()) {
            return Err(Stopped::Unsupported(format!("the server calls its installation {theirs:?}")));
        }
        let joined = Joined {
            server_id: opened.server_id,
            name: Some(opened.name.clone()),
            installation: Some(theirs.clone()),
            place: Some(self.place.clone()),
            url: self.tools.link.client().server().to_string(),
        };
        let is_news = joined != self.joined;
        self.joined = joined.clone();
        let (state, journal) = (self.tools.state.clone(), self.tools.journal.clone());
        let keep = move || {
            // The journal first: what is in it belongs to the installation that is named there.
            if journal.installation().as_ref() != Some(&theirs) {
                journal.begin_anew(&theirs).map_err(|error| error.to_string())?;
            }
            if is_news && let Err(error) = state.keep_joined(&joined) {
                tracing::warn!("what the server is called was not kept: {}", with_causes(&error));
            }
            Ok(())
        };
        match tokio::task::spawn_blocking(keep).await {
            Ok(Err(error)) => Err(Stopped::State(error)),
            _ => Ok(()),
        }
    }

    fn run(&mut self, installation: &str) -> &mut Running {
        let Self { tools, periods, .. } = self;
        self.running.get_or_insert_with(|| {
            let installation: Arc<str> = installation.into();
            let runner = Runner::new(tools.clone(), installation.clone());
            let (client, patience) = (tools.link.client().clone(), tools.periods.patience);
            let sources = Sources { state: tools.state.clone(), drivers: tools.drivers.clone(), installation };
            let streams = Streams::new(client, sources, periods.ping, patience);
            Running { runner, streams }
        })
    }

    /// Asks what is to be done, until the session is over.
    async fn listen(&mut self, session: &Arc<str>, inventory: InventoryReport) -> Over {
        let link = self.tools.link.clone();
        let watch =
            watch_machine(link.clone(), self.survey.clone(), self.periods.inventory, session.clone(), inventory);
        // It ends with this function.
        let mut aside = tokio::task::JoinSet::new();
        aside.spawn(watch);
        aside.spawn(self.reporter().report(session.clone()));
        aside.spawn(self.courier.clone().deliver(session.clone()));
        let mut is_first = true;
        loop {
            let asked = Instant::now();
            // The first one does not wait, so that it is soon known whether the session is any good.
            let wait = if is_first { Duration::ZERO } else { jittered(self.periods.poll) };
            let deliveries = tokio::select! {
                answer = link.client().poll(session, wait) => match answer {
                    Ok(deliveries) => deliveries,
                    Err(error) if error.meaning() == Meaning::SessionGone && !is_first => return Over::Gone,
                    Err(error) => return Over::Failed(error),
                },
                () = link.closed(session) => return if is_first { Over::AtOnce } else { Over::Gone },
            };
            let news = self.take(deliveries).await;
            if std::mem::replace(&mut is_first, false) {
                self.greet();
            } else if news == News::Known {
                tokio::select! {
                    () = sleep_until(asked + self.periods.pause) => {}
                    () = link.closed(session) => return Over::Gone,
                }
            }
        }
    }

    fn reporter(&self) -> Reporter {
        let Tools { drivers, link, clock, periods, .. } = &self.tools;
        Reporter {
            drivers: drivers.clone(),
            link: link.clone(),
            clock: clock.clone(),
            installation: self.joined.installation.as_deref().unwrap_or_default().into(),
            periods: self.periods.containers,
            patience: periods.patience,
            looks: self.looks.clone(),
        }
    }

    /// Does what is to be done. Says whether any of it was new.
    async fn take(&mut self, deliveries: Deliveries) -> News {
        let Some(Running { runner, streams }) = &mut self.running else { return News::Known };
        let mut news = News::Known;
        let mut note = |new| {
            if new == News::New {
                news = News::New;
            }
        };
        for delivery in deliveries.operations {
            note(runner.deliver(delivery));
        }
        for id in deliveries.cancel {
            note(runner.cancel(id));
        }
        for order in deliveries.streams {
            note(if streams.order(order) { News::New } else { News::Known });
        }
        runner.tidy().await;
        news
    }

    fn greet(&mut self) {
        self.backoff = Backoff::new(self.tools.periods.patience);
        let server = self.tools.link.client().server();
        if let Some(lasted) = self.outage.over(Instant::now()) {
            tracing::info!("the server {server} is there again, after {} s", lasted.as_secs());
        } else {
            let name = self.joined.name.as_ref().map(ToString::to_string).unwrap_or_default();
            tracing::info!("connected to {server} as server {} \"{name}\"", self.joined.server_id);
        }
    }

    fn tell_outage(&mut self, error: &CallError) {
        if let Some(lasts) = self.outage.failed(Instant::now()) {
            tracing::warn!(
                "no contact with the server for {} s; it is tried again and again, and what runs here goes on: {}",
                lasts.as_secs(),
                with_causes(error)
            );
        }
    }

    /// Names a session as no other one is named.
    fn random(&self) -> String {
        let mut bytes = [0_u8; 16];
        // Without randomness, time and process tell sessions apart as well; nobody has to guess them.
        getrandom::fill(&mut bytes).ok();
        let name = sha256_hex(format!("{bytes:?}{:?}{}", self.tools.clock.now(), std::process::id()).as_bytes());
        name.chars().take(32).collect()
    }
}

/// Tells the server whenever the machine is not what it was.
async fn watch_machine(
    link: Arc<Link>,
    survey: Survey,
    period: Duration,
    session: Arc<str>,
    mut known: InventoryReport,
) -> Infallible {
    loop {
        sleep(period).await;
        let found = match survey().await {
            Ok(found) if found == known => continue,
            Ok(found) => found,
            Err(error) => {
                tracing::warn!("the machine cannot be looked at: {}", with_causes(&*error));
                continue;
            }
        };
        let report = |session: Arc<str>| {
            let (client, found) = (link.client(), &found);
            async move { client.inventory(&session, found).await }
        };
        match link.call(&session, report).await {
            Ok(()) => known = found,
            Err(error) => tracing::debug!("what the machine is was not told: {}", with_causes(&error)),
        }
    }
}

use super::{Options, Periods};
use crate::{
    client::{Meaning, Wire},
    journal::Journal,
    logs,
    meter::{Buffer, Courier, Gauge, measure},
    runner::{Drivers, Tools},
    session::{Backoff, Conversation, Link, Stopped, Survey},
    state::{Joined, StateDir},
};
use domain::{
    clock::Clock,
    error::with_causes,
    fleet::protocol::{EnrollRequest, Enrolled, PROTOCOLS},
    identity::Secret,
    text::Name,
};
use std::{io, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::sleep,
};

/// How many may wait for a look at a container.
const LOOKS: usize = 64;

/// Who an agent is.
pub(super) struct Identity {
    pub(super) token: Secret,
    pub(super) joined: Joined,
    /// See [`StateDir::place`].
    pub(super) place: String,
}

/// An agent from its start to its end.
pub(super) struct Life {
    state: StateDir,
    journal: Arc<Journal>,
    samples: Arc<Buffer>,
    wire: Wire,
    name: Option<Name>,
    join_token: Option<Secret>,
    drivers: Arc<Drivers>,
    survey: Survey,
    clock: Arc<dyn Clock>,
    periods: Periods,
}

impl Life {
    pub(super) fn new(options: Options, journal: Arc<Journal>, samples: Arc<Buffer>) -> Self {
        let Options { state, wire, name, join_token, drivers, survey, gauges: _, clock, periods } = options;
        let drivers = Arc::new(drivers);
        Self { state, journal, samples, wire, name, join_token, drivers, survey, clock, periods }
    }

    /// Lives until `stop` says otherwise, or the server does.
    pub(super) async fn live(
        self,
        identity: Option<Identity>,
        gauges: Vec<Gauge>,
        mut stop: watch::Receiver<bool>,
    ) -> Stopped {
        // It ends with this function.
        let mut aside = JoinSet::new();
        aside.spawn(prune(self.state.clone(), self.clock.clone(), self.periods.keep_logs, self.periods.prune));
        aside.spawn(measure(gauges, self.samples.clone(), self.clock.clone(), self.periods.meter));
        let (mut identity, mut has_joined) = (identity, false);
        loop {
            let is_new = identity.is_none();
            let who = match identity.take() {
                Some(who) => who,
                None => match self.join(&mut stop).await {
                    Ok(who) => who,
                    Err(stopped) => return stopped,
                },
            };
            has_joined |= is_new;
            let mut conversation = self.conversation(who);
            let stopped = conversation.hold(&mut stop).await;
            match stopped {
                // Whoever starts an agent with a join token wants it to join, even if it was another server's once.
                Stopped::TokenRefused(reason)
                    if self.join_token.is_some() && !has_joined && !conversation.was_open() =>
                {
                    tracing::warn!("the server does not accept the token of this agent, which joins again: {reason}");
                }
                stopped => return stopped,
            }
        }
    }

    fn conversation(&self, who: Identity) -> Conversation {
        let client = self.wire.clone().with_token(who.token);
        let (looks, asked) = mpsc::channel(LOOKS);
        let patience = self.periods.runner.patience;
        let link = Arc::new(Link::new(client, patience));
        let courier = Courier::new(link.clone(), self.samples.clone(), self.periods.meter, patience);
        let tools = Tools {
            state: self.state.clone(),
            journal: self.journal.clone(),
            drivers: self.drivers.clone(),
            link,
            looks,
            clock: self.clock.clone(),
            periods: self.periods.runner,
        };
        Conversation::new(tools, self.survey.clone(), who.joined, who.place, self.periods.session, asked, courier)
    }

    async fn join(&self, stop: &mut watch::Receiver<bool>) -> Result<Identity, Stopped> {
        tokio::select! {
            joined = self.enroll() => joined,
            _ = stop.wait_for(|stop| *stop) => Err(Stopped::Asked),
        }
    }

    async fn enroll(&self) -> Result<Identity, Stopped> {
        let join_token = self.join_token.as_ref().map(|token| token.expose().to_owned()).unwrap_or_default();
        let file = self.state.prepare_token().map_err(|error| Stopped::State(with_causes(&error)))?;
        let place = file.place.clone();
        let mut backoff = Backoff::new(self.periods.runner.patience);
        loop {
            match self.try_to_enroll(&join_token, &place).await {
                Ok(enrolled) => {
                    let url = self.wire.server().to_string();
                    let (server_id, token) = (enrolled.server_id, Secret::from(enrolled.token));
                    let joined = Joined { url, server_id, name: None, installation: None, place: None };
                    // The token last: with it, the machine has joined.
                    let kept = self.state.keep_joined(&joined).and_then(|()| file.keep(&token));
                    kept.map_err(|error| Stopped::State(with_causes(&error)))?;
                    tracing::info!("this machine has joined {} as server {server_id}", self.wire.server());
                    return Ok(Identity { token, joined, place });
                }
                Err(Trouble::Refused(reason)) => return Err(Stopped::JoinRefused(reason)),
                Err(Trouble::Passing(reason)) => {
                    let wait = backoff.next();
                    tracing::warn!("not joined yet, which is tried again in {:.1} s: {reason}", wait.as_secs_f64());
                    sleep(wait).await;
                }
            }
        }
    }

    async fn try_to_enroll(&self, join_token: &str, place: &str) -> Result<Enrolled, Trouble> {
        let inventory = (self.survey)().await.map_err(|error| Trouble::Passing(with_causes(&*error)))?;
        let request = EnrollRequest {
            join_token: join_token.to_owned(),
            name: self.name.clone().unwrap_or_else(host_name),
            place: place.to_owned(),
            protocols: PROTOCOLS.to_vec(),
            inventory,
        };
        self.wire.enroll(&request).await.map_err(|error| match error.meaning() {
            Meaning::Again => Trouble::Passing(with_causes(&error)),
            _ => Trouble::Refused(with_causes(&error)),
        })
    }
}

/// Why joining had no success.
enum Trouble {
    /// It is worth trying again.
    Passing(String),
    /// It is not.
    Refused(String),
}

/// What the machine calls itself.
fn host_name() -> Name {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    name.and_then(|name| Name::parse(name).ok()).unwrap_or_else(|| Name::trusted("server".to_owned()))
}

/// Removes logs that are too old, now and then.
async fn prune(state: StateDir, clock: Arc<dyn Clock>, keep_logs: Duration, pause: Duration) {
    loop {
        let (root, now, keep) = (state.works(), clock.now().into(), keep_logs);
        let pruned = tokio::task::spawn_blocking(move || logs::prune(&root, keep, now)).await;
        match pruned {
            Ok(Err(error)) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, "not every old log could be removed");
            }
            _ => {}
        }
        sleep(pause.max(Duration::from_secs(1))).await;
    }
}

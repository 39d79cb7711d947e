//! The agent: joins if it has not, and then carries out what the server wants, until it is stopped.
//!
//! It runs in a process of its own, or inside another one on that one's runtime.

mod clock;
mod host;
mod life;

pub use clock::SystemClock;
pub use host::{Host, HostError, HostOptions};

use crate::{
    client::{SetupError, Wire},
    containers::ContainerPeriods,
    journal::Journal,
    logs,
    meter::{Buffer, Gauge, MeterPeriods},
    runner::{Drivers, RunnerPeriods},
    session::{Patience, SessionPeriods, Stopped, Survey},
    state::{StateDir, StateError},
};
use domain::{clock::Clock, identity::Secret, text::Name};
use life::{Identity, Life};
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, task::JoinHandle, time::timeout};

/// How long what an agent waits for may take; tests have less time than machines.
#[derive(Debug, Clone, Copy)]
pub struct Periods {
    /// Of the conversation with the server.
    pub session: SessionPeriods,
    /// Of what runs.
    pub runner: RunnerPeriods,
    /// Of what is measured.
    pub meter: MeterPeriods,
    /// How long stopping may take altogether.
    pub stop: Duration,
    /// How often to look for logs that are too old.
    pub prune: Duration,
    /// How long the log of finished work is kept.
    pub keep_logs: Duration,
}

impl Default for Periods {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            session: SessionPeriods {
                poll: seconds(45),
                pause: seconds(1),
                refused: seconds(60),
                inventory: seconds(60),
                ping: seconds(30),
                containers: ContainerPeriods {
                    gather: Duration::from_millis(100),
                    count: seconds(30),
                    full: seconds(300),
                },
            },
            runner: RunnerPeriods {
                grace: seconds(10),
                progress: seconds(1),
                sweep: seconds(600),
                find: seconds(30),
                leave: Duration::from_millis(1500),
                patience: Patience { least: Duration::from_millis(200), most: seconds(30) },
            },
            meter: MeterPeriods { reading: seconds(10), sample: seconds(60), spread: seconds(10) },
            stop: seconds(4),
            prune: seconds(3600),
            keep_logs: logs::KEEP_FOR,
        }
    }
}

/// What an agent is started with.
pub struct Options {
    /// Where it keeps what it knows. It is this process's.
    pub state: StateDir,
    /// How it speaks with the server.
    pub wire: Wire,
    /// What the machine is to be called; its host name if absent. It matters only for joining.
    pub name: Option<Name>,
    /// What it may join with, if it has not, or if the server has forgotten it.
    pub join_token: Option<Secret>,
    /// The ways to run work.
    pub drivers: Drivers,
    /// How to look at the machine.
    pub survey: Survey,
    /// How to measure the machine.
    pub gauges: Vec<Gauge>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// How long things take.
    pub periods: Periods,
}

/// Why an agent was not started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The server cannot be spoken with.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// It has not joined, and has nothing to join with.
    #[error(
        "this machine has not joined a fleet: have an admin make a join token, then run starlink-agent join --server URL \
         --token JOIN_TOKEN"
    )]
    NotJoined,
    /// It has joined, but the file that says what is missing.
    #[error("{} has a token, but no server.json: restore the file, or remove the directory and join again", path.display())]
    Halved {
        /// The state directory.
        path: std::path::PathBuf,
    },
}

/// An agent that runs. Dropped without being stopped, it is cut off at once, as a crash would; either way what it has
/// begun runs on.
#[derive(Debug)]
pub struct Agent {
    task: JoinHandle<Stopped>,
    stop: watch::Sender<bool>,
    most: Duration,
}

impl Agent {
    /// Starts an agent on the current runtime. It joins, and opens its first session, on its own.
    ///
    /// # Errors
    /// [`StartError`]
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(mut options: Options) -> Result<Self, StartError> {
        let token = options.state.token()?;
        let joined = options.state.joined()?;
        let identity = match (token, joined) {
            (Some(token), Some(joined)) => Some(Identity { token, joined, place: options.state.place()? }),
            (Some(_), None) => return Err(StartError::Halved { path: options.state.path().to_owned() }),
            (None, _) if options.join_token.is_none() => return Err(StartError::NotJoined),
            (None, _) => None,
        };
        let journal = Arc::new(Journal::open(&options.state)?);
        let (stop, stopping) = watch::channel(false);
        let most = options.periods.stop;
        let samples = Arc::new(Buffer::open(&options.state));
        let gauges = std::mem::take(&mut options.gauges);
        let life = Life::new(options, journal, samples);
        Ok(Self { task: tokio::spawn(life.live(identity, gauges, stopping)), stop, most })
    }

    /// Returns once the agent has ended by itself, with the reason. Dropping the future changes nothing.
    pub async fn ended(&mut self) -> Stopped {
        match (&mut self.task).await {
            Ok(stopped) => stopped,
            Err(error) => Stopped::Fault(error.to_string()),
        }
    }

    /// Stops it. What it has begun runs on, and the next agent on its state directory attends to it.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        if timeout(self.most, &mut self.task).await.is_err() {
            tracing::warn!("the agent did not come to rest in time; its next run finds out what it was at");
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

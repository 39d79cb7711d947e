//! Talking to the container engine: what it refuses, and that it may be away for a while.

use crate::work::Failure;
use bollard::{API_DEFAULT_VERSION, Docker, errors::Error};
use domain::scheduling::reason;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::Instant;

/// How long the engine may take to begin its answer to what should be quick.
pub(super) const QUICK: Duration = Duration::from_mins(1);
/// The pauses between two tries to reach it: this at first, twice as long each time, up to that.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What became of a question to the engine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Trouble {
    /// It could not be reached, or went away before it had answered.
    #[error("the container engine cannot be reached: {0}")]
    Away(String),
    /// What was asked about is not there.
    #[error("{0}")]
    Missing(String),
    /// Something of that name is there, or something else is being done to it.
    #[error("{0}")]
    Conflict(String),
    /// It did not want to.
    #[error("{0}")]
    Refused(String),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        match error {
            Error::DockerResponseServerError { status_code, message } => Self::answered(status_code, message),
            Error::DockerStreamError { error } => Self::Refused(error),
            Error::RequestTimeoutError => Self::Away("it did not answer in time".to_owned()),
            Error::SocketNotFoundError(path) => Self::Away(format!("there is no socket {path}")),
            Error::HyperLegacyError { err } => Self::Away(innermost(&err)),
            Error::HyperResponseError { err } => Self::Away(innermost(&err)),
            Error::IOError { err } => Self::Away(innermost(&err)),
            // An answer that was cut short.
            Error::JsonSerdeError { err } if err.is_eof() => Self::Away("its answer was cut short".to_owned()),
            other => Self::Refused(other.to_string()),
        }
    }
}

impl Trouble {
    /// What an answer with this status means.
    pub(super) fn answered(status: u16, message: String) -> Self {
        match status {
            404 => Self::Missing(message),
            409 => Self::Conflict(message),
            // What stands between (systemd's socket, a proxy) answers so while the engine is away.
            502..=504 => Self::Away(message),
            _ => Self::Refused(message),
        }
    }

    /// The failure that work has from it, where the trouble itself does not tell better.
    pub(crate) fn into_failure(self, otherwise: &'static str) -> Failure {
        let reason = match &self {
            Self::Away(_) => reason::ENGINE_GONE,
            Self::Missing(text) | Self::Conflict(text) | Self::Refused(text) => reason_in(text).unwrap_or(otherwise),
        };
        Failure::new(reason, self)
    }
}

/// The stable code for what an engine, or the kernel through it, says in its own words.
pub(super) fn reason_in(text: &str) -> Option<&'static str> {
    let text = text.to_ascii_lowercase();
    if text.contains("exec format error") {
        Some(reason::EXEC_FORMAT)
    } else if text.contains("no space left on device") {
        Some(reason::DISK_FULL)
    } else {
        None
    }
}

/// The last cause says what is the matter: "No such file or directory", and not "client error (Connect)".
pub(super) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// A container engine that listens on a Unix socket: Docker, or Podman by its compatible one. It need not be there yet.
#[derive(Debug, Clone)]
pub struct Engine {
    socket: PathBuf,
}

impl Engine {
    /// The one with this socket.
    #[must_use]
    pub fn at(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Where it listens.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// A client that waits so long for an answer to begin.
    pub(crate) fn client(&self, answers_within: Duration) -> Result<Docker, Error> {
        let path = self.socket.to_str().ok_or_else(|| Error::SocketNotFoundError(self.socket.display().to_string()))?;
        // The version is not sent: the engine takes what comes for its newest.
        Docker::connect_with_unix(path, answers_within.as_secs(), API_DEFAULT_VERSION)
    }

    /// Asks once.
    pub(super) async fn ask<T, F>(&self, question: impl FnOnce(Docker) -> F) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, Error>>,
    {
        Ok(question(self.client(QUICK)?).await?)
    }

    /// Asks until the engine answers, with growing pauses, but not longer than the patience lasts.
    pub(super) async fn ask_patiently<T, F>(
        &self,
        patience: Duration,
        question: impl Fn(Docker) -> F,
    ) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let until = Instant::now() + patience;
        let mut pauses = Pauses::default();
        loop {
            match self.ask(&question).await {
                Err(Trouble::Away(_)) if Instant::now() < until => {
                    tokio::time::sleep(pauses.next().min(until.duration_since(Instant::now()))).await;
                }
                answer => return answer,
            }
        }
    }
}

/// Pauses that grow.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    last: Option<Duration>,
}

impl Pauses {
    pub(super) fn next(&mut self) -> Duration {
        let pause = self.last.map_or(FIRST_PAUSE, |last| (2 * last).min(LONGEST_PAUSE));
        self.last = Some(pause);
        pause
    }

    /// Begins with the shortest again.
    pub(super) fn reset(&mut self) {
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_bounded() {
        let mut pauses = Pauses::default();
        let first: Vec<u128> = (0..9).map(|_| pauses.next().as_millis()).collect();
        assert_eq!(first, [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        pauses.reset();
        assert_eq!(pauses.next(), FIRST_PAUSE);
    }

    #[test]
    fn answers_are_told_apart() {
        let answer = |status_code| Error::DockerResponseServerError { status_code, message: "why".to_owned() };
        assert_eq!(Trouble::from(answer(404)), Trouble::Missing("why".to_owned()));
        assert_eq!(Trouble::from(answer(409)), Trouble::Conflict("why".to_owned()));
        assert_eq!(Trouble::from(answer(500)), Trouble::Refused("why".to_owned()));
        assert_eq!(Trouble::from(answer(503)), Trouble::Away("why".to_owned()));
        let failure = |text: &str| Trouble::Refused(text.to_owned()).into_failure(reason::START_FAILED).reason;
        assert_eq!(failure("exec /bin/x: Exec format error"), reason::EXEC_FORMAT);
        assert_eq!(failure("write /x: no space left on device"), reason::DISK_FULL);
        assert_eq!(failure("port is already allocated"), reason::START_FAILED);
    }

    #[tokio::test]
    async fn patience_ends() {
        let engine = Engine::at(Path::new("/nonexistent/engine.sock"));
        let began = Instant::now();
        let answer = engine.ask_patiently(Duration::from_millis(120), async |client: Docker| client.ping().await).await;
        assert_eq!(answer, Err(Trouble::Away("there is no socket /nonexistent/engine.sock".to_owned())));
        assert!(began.elapsed() >= Duration::from_millis(120));
    }
}

//! Asks the database whether it works, at most once a second, however many ask.

use domain::{Error, Result, health::Probe};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::Mutex;

/// How long an answer is repeated.
const REPEATED: Duration = Duration::from_secs(1);

/// Whether the product can do its work.
pub struct Readiness {
    probe: Arc<dyn Probe>,
    last: Mutex<Option<(Instant, Answer)>>,
}

/// An answer that can be given twice, unlike an error with its cause.
#[derive(Debug, Clone)]
enum Answer {
    Ready,
    Full,
    Away(String),
}

impl Readiness {
    /// What `probe` says.
    #[must_use]
    pub fn new(probe: Arc<dyn Probe>) -> Self {
        Self { probe, last: Mutex::new(None) }
    }

    /// # Errors
    /// [`Error::Unavailable`] or [`Error::StorageFull`] with what is wrong.
    pub async fn check(&self) -> Result<()> {
        let mut last = self.last.lock().await;
        if let Some((at, answer)) = &*last
            && at.elapsed() < REPEATED
        {
            return answer.clone().told();
        }
        let found = self.probe.ready().await;
        let answer = match &found {
            Ok(()) => Answer::Ready,
            Err(Error::StorageFull { .. }) => Answer::Full,
            Err(error) => Answer::Away(error.to_string()),
        };
        *last = Some((Instant::now(), answer));
        found
    }
}

impl Answer {
    fn told(self) -> Result<()> {
        match self {
            Self::Ready => Ok(()),
            Self::Full => Err(Error::StorageFull { source: None }),
            Self::Away(reason) => Err(Error::Unavailable { reason, source: None }),
        }
    }
}

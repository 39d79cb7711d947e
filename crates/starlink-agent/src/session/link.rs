use super::backoff::{Backoff, Patience};
use crate::client::{CallError, Client, Meaning};
use domain::error::with_causes;
use std::{future::Future, sync::Arc};
use tokio::sync::{Semaphore, watch};

/// The most reports that are under way at once.
const AT_ONCE: usize = 8;

/// What became of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    /// The server took it, in this session.
    Accepted(Arc<str>),
    /// The server does not want to hear of the operation any more.
    Closed,
}

/// Gets reports to the server, however long that takes.
pub(crate) struct Link {
    client: Client,
    session: watch::Sender<Option<Arc<str>>>,
    permits: Semaphore,
    patience: Patience,
}

impl Link {
    pub(crate) fn new(client: Client, patience: Patience) -> Self {
        Self { client, session: watch::Sender::new(None), permits: Semaphore::new(AT_ONCE), patience }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Says that a session is open: what waits for one goes on.
    pub(crate) fn open(&self, session: Arc<str>) {
        self.session.send_replace(Some(session));
    }

    /// Says that there is none: reports wait.
    pub(crate) fn close(&self) {
        self.session.send_replace(None);
    }

    /// The session, as soon as there is one besides `known`.
    pub(crate) async fn session_besides(&self, known: Option<&Arc<str>>) -> Arc<str> {
        let mut sessions = self.session.subscribe();
        let found = sessions.wait_for(|session| session.is_some() && session.as_ref() != known).await;
        match found.ok().and_then(|session| session.clone()) {
            Some(session) => session,
            // The sender is a member of this, so that it cannot be gone.
            None => std::future::pending().await,
        }
    }

    /// Returns once `session` is not the open one any more.
    pub(crate) async fn closed(&self, session: &Arc<str>) {
        self.session.subscribe().wait_for(|open| open.as_ref() != Some(session)).await.ok();
    }

    /// Makes a call again and again, until the server has taken it or says that it never will.
    pub(crate) async fn insist<F>(&self, call: impl Fn(Arc<str>) -> F) -> Told
    where
        F: Future<Output = Result<(), CallError>>,
    {
        let mut backoff = Backoff::new(self.patience);
        loop {
            let session = self.session_besides(None).await;
            let error = match self.call(&session, &call).await {
                Ok(()) => return Told::Accepted(session),
                Err(error) => error,
            };
            match error.meaning() {
                Meaning::OperationClosed => return Told::Closed,
                Meaning::SessionGone => continue,
                Meaning::Final => tracing::error!("a report is refused, and made again: {}", with_causes(&error)),
                // Of these the session tells, which has the same trouble.
                Meaning::Again | Meaning::TokenRefused | Meaning::AlreadyRunning | Meaning::Unsupported => {
                    tracing::debug!("a report is made again: {}", with_causes(&error));
                }
            }
            // A new session means that the server is back.
            tokio::select! {
                () = tokio::time::sleep(backoff.next()) => {}
                _ = self.session_besides(Some(&session)) => {}
            }
        }
    }

    /// Makes a call once.
    pub(crate) async fn call<T, F>(&self, session: &Arc<str>, call: impl Fn(Arc<str>) -> F) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        // It is never closed; without a permit the call would be made all the same.
        let _permit = self.permits.acquire().await;
        let outcome = call(session.clone()).await;
        if let Err(error) = &outcome
            && error.meaning() == Meaning::SessionGone
        {
            self.session.send_if_modified(|open| {
                let is_it = open.as_ref() == Some(session);
                if is_it {
                    *open = None;
                }
                is_it
            });
        }
        outcome
    }
}

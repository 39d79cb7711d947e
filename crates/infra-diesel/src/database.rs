//! The way to the database: reads from a small pool, writes through the one writer.

use crate::{
    audit,
    connection::{AnyConnection, ReadConnections},
    failure::{Failure, Kind},
    feed::{Feed, Trace},
    idempotency,
    identity::CredentialCache,
    url::DatabaseUrl,
    writer::{Command, WriterHandle},
};
use diesel::{RunQueryDsl, sql_query};
use domain::{
    Error, Result,
    audit::{AuditEntry, Head, HeadMark, Seal},
    change::{Change, Done, Once},
    clock::Timestamp,
    feed::Follower,
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::{oneshot, watch};

/// How a [`Database`] is opened.
#[derive(Debug, Clone, Copy)]
pub struct DatabaseOptions {
    /// The most connections for reading.
    pub readers: u32,
    /// How long a read waits for a connection.
    pub patience: Duration,
}

impl Default for DatabaseOptions {
    fn default() -> Self {
        Self { readers: 8, patience: Duration::from_secs(2) }
    }
}

/// A database in use. Clones share it.
#[derive(Clone)]
pub struct Database {
    shared: Arc<Shared>,
}

struct Shared {
    url: DatabaseUrl,
    seal: Seal,
    readers: r2d2::Pool<ReadConnections>,
    connections: ReadConnections,
    writer: Mutex<Option<WriterHandle>>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
    head: watch::Receiver<Head>,
    written: watch::Receiver<Option<HeadMark>>,
    credentials: Arc<CredentialCache>,
    feed: Arc<Feed>,
}

/// Failed attempts to connect are told to whoever asked for the connection, and need not be told twice.
#[derive(Debug)]
struct Quiet;

impl r2d2::HandleError<Failure> for Quiet {
    fn handle_error(&self, error: Failure) {
        tracing::debug!(%error, "no connection to the database");
    }
}

impl Database {
    /// Opens the database, whose schema must be current already (see [`crate::migrate()`]).
    ///
    /// # Errors
    /// If its threads cannot be started. A database that does not answer shows when it is used.
    pub fn open(url: DatabaseUrl, seal: Seal, options: DatabaseOptions) -> Result<Self> {
        let connections = ReadConnections::new(url.clone());
        let readers = r2d2::Pool::builder()
            .max_size(options.readers)
            .min_idle(Some(0))
            .connection_timeout(options.patience)
            .test_on_check_out(true)
            .error_handler(Box::new(Quiet))
            .build_unchecked(connections.clone());
        let (feed, credentials) = (Arc::new(Feed::default()), Arc::new(CredentialCache::default()));
        feed.join(credentials.clone());
        let (writer, thread) = WriterHandle::start(url.clone(), seal.clone(), feed.clone())?;
        let (head, written) = (writer.head(), writer.written());
        let shared = Shared {
            url,
            seal,
            readers,
            connections,
            writer: Mutex::new(Some(writer)),
            thread: Mutex::new(Some(thread)),
            head,
            written,
            credentials,
            feed,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Where the truth is kept.
    #[must_use]
    pub fn url(&self) -> &DatabaseUrl {
        &self.shared.url
    }

    /// The head of the audit log as this process last wrote it; it changes whenever something was committed.
    #[must_use]
    pub fn head(&self) -> watch::Receiver<Head> {
        self.shared.head.clone()
    }

    /// Has somebody follow what commits. They know nothing until [`Self::catch_up`] was called.
    pub fn follow(&self, follower: Arc<dyn Follower>) {
        self.shared.feed.join(follower);
    }

    /// Sees to it that followers know everything that is committed by now, by this process or another.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the database does not answer, or what it holds cannot be read.
    pub async fn catch_up(&self) -> Result<()> {
        let feed = &self.shared.feed;
        feed.want();
        let now = self.read(audit::read_head).await?;
        if feed.is_at(&now) {
            return Ok(());
        }
        // Either this process is about to tell them, or another one wrote: the writer's next turn is after the one, and
        // sees the other.
        self.write_silently(|_| Ok(())).await?;
        if feed.is_current() {
            return Ok(());
        }
        Err(Error::Unavailable { reason: "the state could not be read; try again".to_owned(), source: None })
    }

    /// Has everything told anew to followers, who seem to know what is not so.
    pub(crate) async fn tell_anew(&self) -> Result<()> {
        self.shared.feed.doubt();
        self.catch_up().await
    }

    /// What [`Self::head`] tells, with the time of it; `None` if this process wrote nothing yet.
    pub(crate) fn written(&self) -> Option<HeadMark> {
        self.shared.written.borrow().clone()
    }

    /// What secrets open, as far as it is remembered.
    pub(crate) fn credentials(&self) -> &CredentialCache {
        &self.shared.credentials
    }

    pub(crate) fn seal(&self) -> &Seal {
        &self.shared.seal
    }

    /// Lets the writer finish what waits, and ends it. Later writes are refused as unavailable.
    pub async fn close(&self) {
        drop(self.shared.writer.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.shared.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // The writer caught its own failures; if it panicked there is nothing left to save.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }

    /// Whether the database can be read and written at this moment.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::StorageFull`] with what is wrong.
    pub async fn ready(&self) -> Result<()> {
        self.read(|connection| Ok(sql_query("SELECT 1").execute(connection)?)).await?;
        self.write_silently(|connection| {
            // Back and forth: what leaves a row as it is, SQLite does not write at all, so a full disk would not show.
            for change in ["seq + 1", "seq - 1"] {
                sql_query(format!("UPDATE audit_head SET seq = {change} WHERE id = 1")).execute(connection)?;
            }
            Ok(())
        })
        .await
    }

    /// Runs a read on a thread that may block.
    pub(crate) async fn read<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(&mut AnyConnection) -> Result<T, Failure> + Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        let joined = tokio::task::spawn_blocking(move || shared.read(&work)).await;
        joined.map_err(Error::internal)?
    }

    /// Commits `work` with its audit entry and idempotency key. `work` completes the entry (`None` records nothing)
    /// and MUST be repeatable: it is run again when the database asks for it.
    pub(crate) async fn write<T, R, F>(&self, change: Change, work: F) -> Result<Done<T>>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
        R: Into<Trace>,
        F: Fn(&mut AnyConnection, AuditEntry) -> Result<(T, R), Failure> + Send + 'static,
    {
        let Change { entry, once } = change;
        let once = once.map(|once| self.blinded(once));
        self.submit(move |connection| {
            if let Some(value) = replay(connection, once.as_ref(), entry.created_at)? {
                return Ok((Done { value, replayed: true }, Trace::default()));
            }
            let (value, trace) = work(connection, entry.clone())?;
            if let Some(once) = &once {
                idempotency::keep(connection, once, &value, entry.created_at)?;
            }
            Ok((Done { value, replayed: false }, trace.into()))
        })
        .await
    }

    /// The answer that is kept under an idempotency key, for changes that could not be computed again: what they were
    /// computed from has gone on since.
    pub(crate) async fn answered<T>(&self, once: Once, now: Timestamp) -> Result<Option<T>>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let once = self.blinded(once);
        self.read(move |connection| idempotency::find(connection, &once, now)).await
    }

    /// [`Self::write`] for what may end a credential: what is remembered of credentials is forgotten once it is
    /// committed, even if whoever asked for it has hung up by then.
    pub(crate) async fn revoke<T, R, F>(&self, change: Change, work: F) -> Result<Done<T>>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
        R: Into<Trace> + 'static,
        F: Fn(&mut AnyConnection, AuditEntry) -> Result<(T, R), Failure> + Send + 'static,
    {
        let database = self.clone();
        let revoking = tokio::spawn(async move {
            let done = database.write(change, work).await;
            database.credentials().clear();
            done
        });
        revoking.await.map_err(Error::internal)?
    }

    /// The body of a request may hold a password, and a bare digest of it would let who reads the database guess.
    fn blinded(&self, once: Once) -> Once {
        Once { fingerprint: self.shared.seal.blind(&once.fingerprint), ..once }
    }

    /// Commits what is no change of intent or state, such as a time of last use: nothing is recorded.
    pub(crate) async fn write_silently<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(&mut AnyConnection) -> Result<T, Failure> + Send + 'static,
    {
        self.submit(move |connection| Ok((work(connection)?, Trace::default()))).await
    }

    /// Hands in a unit of work that says itself what is recorded and told.
    pub(crate) async fn submit<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(&mut AnyConnection) -> Result<(T, Trace), Failure> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let unanswered = || Error::Unavailable { reason: "the server is stopping".to_owned(), source: None };
        let writer =
            self.shared.writer.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(unanswered)?;
        writer.submit(Box::new(Unit { work, outcome: None, sender })).await?;
        receiver.await.map_err(|_closed| unanswered())?
    }
}

fn replay<T: DeserializeOwned>(
    connection: &mut AnyConnection,
    once: Option<&Once>,
    now: Timestamp,
) -> Result<Option<T>, Failure> {
    once.map_or(Ok(None), |once| idempotency::find(connection, once, now))
}

impl Shared {
    fn read<T>(&self, work: &dyn Fn(&mut AnyConnection) -> Result<T, Failure>) -> Result<T> {
        let outcome = self.read_once(work);
        match outcome {
            // The pool held a connection from before the database was restarted; a fresh one may do.
            Err(failure) if failure.kind() == Some(Kind::Gone) => Ok(self.read_once(work)?),
            outcome => Ok(outcome?),
        }
    }

    fn read_once<T>(&self, work: &dyn Fn(&mut AnyConnection) -> Result<T, Failure>) -> Result<T, Failure> {
        let mut pooled = self.readers.get().map_err(|error| Failure::gone(&error.to_string()))?;
        let outcome = work(&mut pooled.connection);
        if matches!(&outcome, Err(failure) if failure.kind() == Some(Kind::Gone)) {
            self.connections.forget();
        }
        outcome
    }
}

/// A command with a typed outcome.
struct Unit<T, F> {
    work: F,
    outcome: Option<Result<T>>,
    sender: oneshot::Sender<Result<T>>,
}

impl<T, F> Command for Unit<T, F>
where
    T: Send,
    F: Fn(&mut AnyConnection) -> Result<(T, Trace), Failure> + Send,
{
    fn run(&mut self, connection: &mut AnyConnection) -> Result<Trace, Failure> {
        let (value, trace) = (self.work)(connection)?;
        self.outcome = Some(Ok(value));
        Ok(trace)
    }

    fn fail(&mut self, error: Error) {
        self.outcome = Some(Err(error));
    }

    fn answer(self: Box<Self>) {
        if let Some(outcome) = self.outcome {
            // Whoever asked may have hung up; the work stands all the same.
            let _ = self.sender.send(outcome);
        }
    }
}

#[async_trait::async_trait]
impl domain::health::Probe for Database {
    async fn ready(&self) -> Result<()> {
        Self::ready(self).await
    }
}

#[cfg(test)]
#[path = "database_tests.rs"]
mod tests;

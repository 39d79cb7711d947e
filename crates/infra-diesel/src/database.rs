//! The way to the database: reads from a small pool, writes through the one writer.

use crate::{
    audit,
    connection::AnyConnection,
    failure::Failure,
    feed::{Feed, Trace},
    idempotency,
    identity::CredentialCache,
    store::Store,
    url::DatabaseUrl,
    writer::Chain,
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
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

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
    store: Store,
    seal: Seal,
    head: watch::Receiver<Head>,
    written: watch::Receiver<Option<HeadMark>>,
    credentials: Arc<CredentialCache>,
    feed: Arc<Feed>,
}

impl Database {
    /// Opens the database, whose schema must be current already (see [`crate::migrate()`]).
    ///
    /// # Errors
    /// If its threads cannot be started. A database that does not answer shows when it is used.
    pub fn open(url: DatabaseUrl, seal: Seal, options: DatabaseOptions) -> Result<Self> {
        let (feed, credentials) = (Arc::new(Feed::default()), Arc::new(CredentialCache::default()));
        feed.join(credentials.clone());
        let chain = Chain::new(seal.clone(), feed.clone());
        let (head, written) = (chain.head(), chain.written());
        let store = Store::open(url, options, Some(chain))?;
        let shared = Shared { store, seal, head, written, credentials, feed };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Where the truth is kept.
    #[must_use]
    pub fn url(&self) -> &DatabaseUrl {
        self.shared.store.url()
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
        self.shared.store.close().await;
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
        self.shared.store.read(work).await
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
        self.shared.store.submit(work).await
    }
}

fn replay<T: DeserializeOwned>(
    connection: &mut AnyConnection,
    once: Option<&Once>,
    now: Timestamp,
) -> Result<Option<T>, Failure> {
    once.map_or(Ok(None), |once| idempotency::find(connection, once, now))
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

//! The one writer of this process: waiting commands share a durable transaction.
//!
//! A durable commit costs milliseconds however little it writes, so the writer takes everything that waits, runs one
//! command after the other, appends all audit rows last, commits once, and only then answers anybody. If a command
//! fails, all of the batch are run again, now each in a savepoint of its own, so that only what failed is undone.
//! Commands are also run again where the database asks for it, so they MUST be repeatable.

use crate::{
    audit::{append, lock_head},
    connection::{AnyConnection, Place, Purpose, connect},
    failure::{Failure, Kind},
    url::DatabaseUrl,
};
use diesel::connection::SimpleConnection;
use domain::{
    Error,
    audit::{AuditEntry, Head, HeadMark, MarkKind, Seal},
};
use tokio::sync::{mpsc, watch};

/// The most commands that share a transaction: bounds how much is repeated, and how long the first one waits.
const BATCH: usize = 256;
/// Commands that may wait; beyond, callers wait to be let in.
const QUEUE: usize = 1024;
/// How often a transaction is tried, counting the first time.
const TRIES: usize = 5;

/// A unit of work that waits for its turn.
pub(crate) trait Command: Send {
    /// Does the work and keeps its outcome; returns what is to be recorded.
    fn run(&mut self, connection: &mut AnyConnection) -> Result<Option<AuditEntry>, Failure>;
    /// Keeps a failure as the outcome.
    fn fail(&mut self, error: Error);
    /// Tells the outcome to whoever waits for it.
    fn answer(self: Box<Self>);
}

/// The way into the writer.
#[derive(Clone)]
pub(crate) struct WriterHandle {
    queue: mpsc::Sender<Box<dyn Command>>,
    head: watch::Receiver<Head>,
    written: watch::Receiver<Option<HeadMark>>,
}

impl WriterHandle {
    /// Starts the writer's thread; it ends when the last handle is dropped and the queue is empty.
    pub(crate) fn start(url: DatabaseUrl, seal: Seal) -> Result<(Self, std::thread::JoinHandle<()>), Error> {
        let (queue, commands) = mpsc::channel(QUEUE);
        let (head_sender, head) = watch::channel(Head::default());
        let (written_sender, written) = watch::channel(None);
        let mut writer = Writer { url, seal, connection: None, head: head_sender, written: written_sender };
        let thread = std::thread::Builder::new()
            .name("writer".to_owned())
            .spawn(move || writer.work(commands))
            .map_err(Error::internal)?;
        Ok((Self { queue, head, written }, thread))
    }

    /// Hands a command in.
    pub(crate) async fn submit(&self, command: Box<dyn Command>) -> Result<(), Error> {
        let closed =
            |_| Error::Unavailable { reason: "the server is stopping; nothing was changed".to_owned(), source: None };
        self.queue.send(command).await.map_err(closed)
    }

    /// The head of the audit log as this process last wrote it; changes whenever something was committed.
    pub(crate) fn head(&self) -> watch::Receiver<Head> {
        self.head.clone()
    }

    /// The same with its time, by which it can be told apart from what a restore brought later.
    pub(crate) fn written(&self) -> watch::Receiver<Option<HeadMark>> {
        self.written.clone()
    }
}

struct Writer {
    url: DatabaseUrl,
    seal: Seal,
    connection: Option<(AnyConnection, Place)>,
    head: watch::Sender<Head>,
    written: watch::Sender<Option<HeadMark>>,
}

impl Writer {
    fn work(&mut self, mut commands: mpsc::Receiver<Box<dyn Command>>) {
        let mut batch = Vec::with_capacity(BATCH);
        while commands.blocking_recv_many(&mut batch, BATCH) > 0 {
            self.serve(std::mem::take(&mut batch));
        }
    }

    /// Commits a batch and answers everybody in it.
    fn serve(&mut self, mut batch: Vec<Box<dyn Command>>) {
        if let Err(failure) = self.commit_patiently(&mut batch) {
            tracing::warn!(error = ?failure, commands = batch.len(), "a batch of writes was not committed");
            fail_all(&mut batch, failure);
        }
        for command in batch {
            command.answer();
        }
    }

    fn commit_patiently(&mut self, batch: &mut [Box<dyn Command>]) -> Result<(), Failure> {
        for _ in 1..TRIES {
            match self.commit(batch) {
                Err(Attempt::Repeatable(failure)) if repeats(failure.kind()) => {
                    tracing::debug!(error = %failure, "a transaction is repeated");
                }
                outcome => return outcome.map_err(Attempt::into_failure),
            }
        }
        self.commit(batch).map_err(Attempt::into_failure)
    }

    /// One attempt; where a command fails, a second one that keeps the others apart from it.
    fn commit(&mut self, batch: &mut [Box<dyn Command>]) -> Result<(), Attempt> {
        match self.commit_once(batch, Apart::Never) {
            Err(Attempt::Spoilt(_)) => self.commit_once(batch, Apart::Each),
            outcome => outcome,
        }
    }

    /// Leaves no transaction open.
    fn commit_once(&mut self, batch: &mut [Box<dyn Command>], apart: Apart) -> Result<(), Attempt> {
        let place = Place::of(&self.url);
        let mut connection = match self.connection.take() {
            Some((connection, opened)) if opened == place => connection,
            _ => connect(&self.url, Purpose::Write).map_err(Attempt::Repeatable)?,
        };
        let outcome = transact(&mut connection, &self.seal, batch, apart);
        match &outcome {
            Ok(written) => {
                self.connection = Some((connection, place));
                if let Some(mark) = written {
                    self.written.send_replace(Some(mark.clone()));
                    self.head.send_replace(mark.head.clone());
                }
            }
            // After a failed rollback the connection is dropped, which rolls back as well.
            Err(_) => self.connection = connection.batch_execute("ROLLBACK").is_ok().then_some((connection, place)),
        }
        outcome.map(|_| ())
    }
}

/// Whether it is worth trying again: the database asked for it, or the connection was an old one.
fn repeats(kind: Option<Kind>) -> bool {
    matches!(kind, Some(Kind::Retry | Kind::Gone))
}

/// Whether a command of a batch can be undone alone. That takes two round trips for each, and commands rarely fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Apart {
    /// None can.
    Never,
    /// Each is in a savepoint of its own.
    Each,
}

/// Why an attempt failed, and whether the database may have kept it all the same.
enum Attempt {
    /// Nothing was committed.
    Repeatable(Failure),
    /// A command failed that could not be undone alone; nothing was committed.
    Spoilt(Failure),
    /// The connection was lost while committing: nobody knows.
    Unknown(Failure),
}

impl Attempt {
    fn into_failure(self) -> Failure {
        match self {
            Self::Repeatable(failure) | Self::Spoilt(failure) => failure,
            Self::Unknown(failure) => Error::unavailable(
                "the database went away while it was committing, so the change may or may not have been made; \
                 read the state again, or repeat the request with the same Idempotency-Key",
                failure,
            )
            .into(),
        }
    }
}

impl From<Failure> for Attempt {
    fn from(failure: Failure) -> Self {
        Self::Repeatable(failure)
    }
}

impl From<diesel::result::Error> for Attempt {
    fn from(error: diesel::result::Error) -> Self {
        Self::Repeatable(error.into())
    }
}

/// Runs the batch in one transaction; the new head of the audit log, if something was recorded.
fn transact(
    connection: &mut AnyConnection,
    seal: &Seal,
    batch: &mut [Box<dyn Command>],
    apart: Apart,
) -> Result<Option<HeadMark>, Attempt> {
    begin(connection)?;
    // Writers of other processes wait here, before they hold anything that another could wait for: no deadlocks, and
    // whatever a command reads is what the one before it left, be it a name, a revision or an idempotency key.
    let head = lock_head(connection)?;
    let mut entries = Vec::with_capacity(batch.len());
    for command in &mut *batch {
        if apart == Apart::Each {
            connection.batch_execute("SAVEPOINT command")?;
        }
        match command.run(connection) {
            Ok(entry) => entries.extend(entry),
            Err(failure) if failure.is_fatal() => return Err(failure.into()),
            Err(failure) if apart == Apart::Never => return Err(Attempt::Spoilt(failure)),
            Err(failure) => {
                command.fail(failure.into());
                connection.batch_execute("ROLLBACK TO SAVEPOINT command")?;
            }
        }
        if apart == Apart::Each {
            connection.batch_execute("RELEASE SAVEPOINT command")?;
        }
    }
    let written = match entries.last() {
        Some(last) => {
            let (at, head) = (last.created_at, append(connection, seal, head, &entries)?);
            Some(HeadMark { at, kind: MarkKind::Head, head })
        }
        None => None,
    };
    connection.batch_execute("COMMIT").map_err(|error| {
        let failure = Failure::from(error);
        if failure.kind() == Some(Kind::Gone) { Attempt::Unknown(failure) } else { Attempt::Repeatable(failure) }
    })?;
    Ok(written)
}

/// `SQLite` takes the write lock at once: a transaction that reads first and writes later fails when others write.
fn begin(connection: &mut AnyConnection) -> Result<(), Failure> {
    let statement = match connection {
        AnyConnection::Sqlite(_) => "BEGIN IMMEDIATE",
        AnyConnection::Postgresql(_) => "BEGIN",
    };
    Ok(connection.batch_execute(statement)?)
}

/// Tells everybody in the batch; the cause goes into the log once, not into every answer.
fn fail_all(batch: &mut [Box<dyn Command>], failure: Failure) {
    let error: Error = failure.into();
    for command in batch {
        command.fail(match &error {
            Error::StorageFull { .. } => Error::StorageFull { source: None },
            Error::Unavailable { reason, .. } => Error::Unavailable { reason: reason.clone(), source: None },
            other => Error::internal(other.to_string()),
        });
    }
}

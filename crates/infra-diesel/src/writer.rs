//! A database's one writer in this process: waiting commands share a durable transaction.
//!
//! A durable commit costs milliseconds however little it writes, so the writer takes everything that waits, runs one
//! command after the other, appends all audit rows last, commits once, and only then answers anybody. If a command
//! fails, all of the batch are run again, now each in a savepoint of its own, so that only what failed is undone.
//! Commands are also run again where the database asks for it, so they MUST be repeatable. Those who follow the state in
//! memory are told before anybody is answered, so that whoever was answered finds there what they did.

use crate::{
    audit::{append, lock_head},
    connection::{AnyConnection, Place, Purpose, connect},
    failure::{Failure, Kind},
    feed::{self, Feed, Trace},
    url::DatabaseUrl,
};
use diesel::connection::SimpleConnection;
use domain::{
    Error,
    audit::{Head, HeadMark, MarkKind, Seal},
    feed::{Fact, State},
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
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
    /// Does the work and keeps its outcome; returns what is to be recorded and told.
    fn run(&mut self, connection: &mut AnyConnection) -> Result<Trace, Failure>;
    /// Keeps a failure as the outcome.
    fn fail(&mut self, error: Error);
    /// Tells the outcome to whoever waits for it.
    fn answer(self: Box<Self>);
}

/// The way into a writer.
#[derive(Clone)]
pub(crate) struct WriterHandle {
    queue: mpsc::Sender<Box<dyn Command>>,
}

/// What a writer of audited changes does with each transaction. One of samples has none: nobody decided them.
pub(crate) struct Chain {
    seal: Seal,
    feed: Arc<Feed>,
    head: watch::Sender<Head>,
    written: watch::Sender<Option<HeadMark>>,
}

impl Chain {
    pub(crate) fn new(seal: Seal, feed: Arc<Feed>) -> Self {
        Self { seal, feed, head: watch::channel(Head::default()).0, written: watch::channel(None).0 }
    }

    /// The head of the audit log as this process last wrote it; changes whenever something was committed.
    pub(crate) fn head(&self) -> watch::Receiver<Head> {
        self.head.subscribe()
    }

    /// The same with its time, by which it can be told apart from what a restore brought later.
    pub(crate) fn written(&self) -> watch::Receiver<Option<HeadMark>> {
        self.written.subscribe()
    }
}

impl WriterHandle {
    /// Starts a writer's thread; it ends when the last handle is dropped and the queue is empty.
    pub(crate) fn start(url: DatabaseUrl, chain: Option<Chain>) -> Result<(Self, std::thread::JoinHandle<()>), Error> {
        let (queue, commands) = mpsc::channel(QUEUE);
        let name = if chain.is_some() { "writer" } else { "sample-writer" };
        let mut writer = Writer { url, chain, connection: None };
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || writer.work(commands))
            .map_err(Error::internal)?;
        Ok((Self { queue }, thread))
    }

    /// Hands a command in.
    pub(crate) async fn submit(&self, command: Box<dyn Command>) -> Result<(), Error> {
        let closed =
            |_| Error::Unavailable { reason: "the server is stopping; nothing was changed".to_owned(), source: None };
        self.queue.send(command).await.map_err(closed)
    }
}

struct Writer {
    url: DatabaseUrl,
    chain: Option<Chain>,
    connection: Option<(AnyConnection, Place)>,
}

impl Writer {
    fn work(&mut self, mut commands: mpsc::Receiver<Box<dyn Command>>) {
        let mut batch = Vec::with_capacity(BATCH);
        while commands.blocking_recv_many(&mut batch, BATCH) > 0 {
            self.serve(std::mem::take(&mut batch));
        }
    }

    /// Commits a batch, tells those who follow, and answers everybody in it.
    fn serve(&mut self, mut batch: Vec<Box<dyn Command>>) {
        // What panics is a fault of ours in one command; all that come later still need a writer. The connection goes
        // down with the panic, and so does what was not committed.
        let outcome = catch_unwind(AssertUnwindSafe(|| self.commit_patiently(&mut batch)));
        match outcome {
            Ok(Ok(committed)) => self.tell(committed),
            Ok(Err(failure)) => {
                tracing::warn!(error = ?failure, commands = batch.len(), "a batch of writes was not committed");
                fail_all(&mut batch, failure);
            }
            Err(_panic) => {
                self.lose();
                tracing::error!(commands = batch.len(), "a write panicked; its batch was not committed");
                fail_all(&mut batch, Error::internal("a write panicked").into());
            }
        }
        for command in batch {
            command.answer();
        }
    }

    /// What is committed stands whatever happens here: at worst, followers know nothing until they are told anew.
    fn tell(&mut self, committed: Committed) {
        let Some(feed) = self.chain.as_ref().map(|chain| chain.feed.clone()).filter(|feed| feed.is_wanted()) else {
            return;
        };
        let told = catch_unwind(AssertUnwindSafe(|| {
            if feed.follows_from(&committed.before) {
                feed.tell(&committed.facts, committed.after);
                return Ok(());
            }
            let (state, head) = self.read_all()?;
            feed.retell(&state, head);
            Ok::<_, Failure>(())
        }));
        match told {
            Ok(Ok(())) => {}
            Ok(Err(failure)) => {
                feed.lose();
                tracing::warn!(error = ?failure, "the state could not be read into memory");
            }
            Err(_panic) => {
                feed.lose();
                tracing::error!("taking in what was committed panicked; it is read anew");
            }
        }
    }

    /// Reads everything as it is at one head.
    fn read_all(&mut self) -> Result<(State, Head), Failure> {
        let place = Place::of(&self.url);
        let mut connection = self.connect(&place)?;
        let outcome = read_all(&mut connection);
        if connection.batch_execute("ROLLBACK").is_ok() {
            self.connection = Some((connection, place));
        }
        outcome
    }

    /// The connection that is open already, if it is to what is there now.
    fn connect(&mut self, place: &Place) -> Result<AnyConnection, Failure> {
        match self.connection.take() {
            Some((connection, opened)) if opened == *place => Ok(connection),
            _ => connect(&self.url, Purpose::Write),
        }
    }

    fn commit_patiently(&mut self, batch: &mut [Box<dyn Command>]) -> Result<Committed, Failure> {
        for _ in 1..TRIES {
            match self.commit(batch) {
                Err(Attempt::Repeatable(failure)) if repeats(failure.kind()) => {
                    tracing::debug!(error = %failure, "a transaction is repeated");
                }
                outcome => return outcome.map_err(|attempt| self.give_up(attempt)),
            }
        }
        self.commit(batch).map_err(|attempt| self.give_up(attempt))
    }

    fn give_up(&self, attempt: Attempt) -> Failure {
        if matches!(attempt, Attempt::Unknown(_)) {
            self.lose();
        }
        attempt.into_failure()
    }

    /// Nobody knows what followers ought to know.
    fn lose(&self) {
        if let Some(chain) = &self.chain {
            chain.feed.lose();
        }
    }

    /// One attempt; where a command fails, a second one that keeps the others apart from it.
    fn commit(&mut self, batch: &mut [Box<dyn Command>]) -> Result<Committed, Attempt> {
        match self.commit_once(batch, Apart::Never) {
            Err(Attempt::Spoilt(_)) => self.commit_once(batch, Apart::Each),
            outcome => outcome,
        }
    }

    /// Leaves no transaction open.
    fn commit_once(&mut self, batch: &mut [Box<dyn Command>], apart: Apart) -> Result<Committed, Attempt> {
        let place = Place::of(&self.url);
        let mut connection = self.connect(&place).map_err(Attempt::Repeatable)?;
        let outcome = transact(&mut connection, self.chain.as_ref().map(|chain| &chain.seal), batch, apart);
        match &outcome {
            Ok(committed) => {
                self.connection = Some((connection, place));
                if let (Some(mark), Some(chain)) = (&committed.mark, &self.chain) {
                    chain.written.send_replace(Some(mark.clone()));
                    chain.head.send_replace(mark.head.clone());
                }
            }
            // After a failed rollback the connection is dropped, which rolls back as well.
            Err(_) => self.connection = connection.batch_execute("ROLLBACK").is_ok().then_some((connection, place)),
        }
        outcome
    }
}

/// What a transaction did.
struct Committed {
    /// The head that it began at.
    before: Head,
    /// The head that it ended at; the same if nothing was recorded.
    after: Head,
    /// The head with its time, if something was recorded.
    mark: Option<HeadMark>,
    /// What is so from now on.
    facts: Vec<Fact>,
}

/// In a transaction that the caller ends. Writers of other processes wait, so that what is read belongs to the head.
fn read_all(connection: &mut AnyConnection) -> Result<(State, Head), Failure> {
    begin(connection)?;
    let head = lock_head(connection)?;
    Ok((feed::load(connection)?, head))
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

/// Runs the batch in one transaction. Without a seal nothing is recorded.
fn transact(
    connection: &mut AnyConnection,
    seal: Option<&Seal>,
    batch: &mut [Box<dyn Command>],
    apart: Apart,
) -> Result<Committed, Attempt> {
    begin(connection)?;
    // Writers of other processes wait here, before they hold anything that another could wait for: no deadlocks, and
    // whatever a command reads is what the one before it left, be it a name, a revision or an idempotency key.
    let before = if seal.is_some() { lock_head(connection)? } else { Head::default() };
    let Trace { entries, facts } = run_all(connection, batch, apart)?;
    let (after, mark) = match (entries.last(), seal) {
        (Some(last), Some(seal)) => {
            let (at, head) = (last.created_at, append(connection, seal, before.clone(), &entries)?);
            (head.clone(), Some(HeadMark { at, kind: MarkKind::Head, head }))
        }
        _ => (before.clone(), None),
    };
    connection.batch_execute("COMMIT").map_err(|error| {
        let failure = Failure::from(error);
        if failure.kind() == Some(Kind::Gone) { Attempt::Unknown(failure) } else { Attempt::Repeatable(failure) }
    })?;
    Ok(Committed { before, after, mark, facts })
}

fn run_all(connection: &mut AnyConnection, batch: &mut [Box<dyn Command>], apart: Apart) -> Result<Trace, Attempt> {
    let mut trace = Trace::default();
    for command in batch {
        if apart == Apart::Each {
            connection.batch_execute("SAVEPOINT command")?;
        }
        match command.run(connection) {
            Ok(left) => trace.append(left),
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
    Ok(trace)
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

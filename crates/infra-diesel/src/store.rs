//! A database in use, whatever it holds: reads from a small pool of connections, writes through one writer.

use crate::{
    connection::{AnyConnection, ReadConnections},
    database::DatabaseOptions,
    failure::{Failure, Kind},
    feed::Trace,
    url::DatabaseUrl,
    writer::{Chain, Command, WriterHandle},
};
use domain::{Error, Result};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot;

/// Readers and the writer. Clones share them.
#[derive(Clone)]
pub(crate) struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    url: DatabaseUrl,
    readers: r2d2::Pool<ReadConnections>,
    connections: ReadConnections,
    writer: Mutex<Option<WriterHandle>>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

/// Failed attempts to connect are told to whoever asked for the connection, and need not be told twice.
#[derive(Debug)]
struct Quiet;

impl r2d2::HandleError<Failure> for Quiet {
    fn handle_error(&self, error: Failure) {
        tracing::debug!(%error, "no connection to the database");
    }
}

impl Store {
    /// Opens it. With a chain, what is written is recorded in the audit log.
    ///
    /// # Errors
    /// If its threads cannot be started. A database that does not answer shows when it is used.
    pub(crate) fn open(url: DatabaseUrl, options: DatabaseOptions, chain: Option<Chain>) -> Result<Self> {
        let connections = ReadConnections::new(url.clone());
        let readers = r2d2::Pool::builder()
            .max_size(options.readers)
            .min_idle(Some(0))
            .connection_timeout(options.patience)
            .test_on_check_out(true)
            .error_handler(Box::new(Quiet))
            .build_unchecked(connections.clone());
        let (writer, thread) = WriterHandle::start(url.clone(), chain)?;
        let (writer, thread) = (Mutex::new(Some(writer)), Mutex::new(Some(thread)));
        Ok(Self { inner: Arc::new(Inner { url, readers, connections, writer, thread }) })
    }

    pub(crate) fn url(&self) -> &DatabaseUrl {
        &self.inner.url
    }

    /// Lets the writer finish what waits, and ends it. Later writes are refused as unavailable.
    pub(crate) async fn close(&self) {
        drop(self.inner.writer.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.inner.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // The writer caught its own failures; if it panicked there is nothing left to save.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }

    /// Runs a read on a thread that may block.
    pub(crate) async fn read<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(&mut AnyConnection) -> Result<T, Failure> + Send + 'static,
    {
        let inner = Arc::clone(&self.inner);
        let joined = tokio::task::spawn_blocking(move || inner.read(&work)).await;
        joined.map_err(Error::internal)?
    }

    /// Hands in a command that answers in its own way.
    pub(crate) async fn command(&self, command: Box<dyn Command>) -> Result<()> {
        self.writer()?.submit(command).await
    }

    /// Hands in a unit of work that says itself what is recorded and told.
    pub(crate) async fn submit<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(&mut AnyConnection) -> Result<(T, Trace), Failure> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        self.writer()?.submit(Box::new(Unit { work, outcome: None, sender })).await?;
        receiver.await.map_err(|_closed| stopping())?
    }

    fn writer(&self) -> Result<WriterHandle> {
        self.inner.writer.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(stopping)
    }
}

/// Nobody is there any more to do it.
pub(crate) fn stopping() -> Error {
    Error::Unavailable { reason: "the server is stopping".to_owned(), source: None }
}

impl Inner {
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

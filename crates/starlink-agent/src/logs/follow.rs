//! Reads a log without blocking, and waits for what is written later.

use super::{
    LogError, folder,
    reader::{Batch, Progress, Reader},
};
use domain::fleet::protocol::{LogLine, LogQuery};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::{collections::VecDeque, io, path::Path, time::Duration};
use tokio::{net::unix::pipe::Receiver, task::JoinHandle, time::timeout};

/// How long until it looks again although nobody told that something was written.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// The same where the kernel does not tell at all, because others use up what it has for that.
const LOOK_AGAIN_BLIND: Duration = Duration::from_millis(500);

/// The lines of a log. With `follow` they end when the log is finished, otherwise with what is there.
#[derive(Debug)]
pub struct Lines {
    state: State,
    ready: VecDeque<LogLine>,
    watch: Watch,
}

#[derive(Debug)]
enum State {
    /// Nothing is there to be read until something changes.
    Waiting(Box<Reader>),
    /// Something may be there.
    Idle(Box<Reader>),
    Reading(JoinHandle<(Box<Reader>, Result<Batch, LogError>)>),
    Ended,
}

impl Lines {
    /// Begins to read the log of the work with this folder, which must be there; its log need not yet.
    ///
    /// # Errors
    /// [`LogError`], if the cursor is none of this log, or the disk says no.
    pub async fn open(work_folder: &Path, query: LogQuery) -> Result<Self, LogError> {
        let (path, follow) = (work_folder.to_owned(), query.follow);
        let opened = tokio::task::spawn_blocking(move || Reader::open(&path, &query)).await;
        let reader = Box::new(opened.map_err(io::Error::other)??);
        let watch = if follow { Watch::new(&folder(work_folder)) } else { Watch::blind() };
        Ok(Self { state: State::Idle(reader), ready: VecDeque::new(), watch })
    }

    /// The next line; `None` once there will be none. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`LogError`], after which there is nothing more.
    pub async fn next(&mut self) -> Result<Option<LogLine>, LogError> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Ok(Some(line));
            }
            if let State::Waiting(_) = self.state {
                self.watch.changed().await;
            }
            self.state = match std::mem::replace(&mut self.state, State::Ended) {
                State::Ended => return Ok(None),
                State::Waiting(reader) | State::Idle(reader) => State::Reading(read(reader)),
                reading @ State::Reading(_) => reading,
            };
            let State::Reading(handle) = &mut self.state else { continue };
            let done = handle.await;
            self.state = State::Ended;
            let (reader, batch) = done.map_err(io::Error::other)?;
            let batch = batch?;
            self.ready.extend(batch.lines);
            self.state = match batch.progress {
                Progress::More => State::Idle(reader),
                Progress::Nothing => State::Waiting(reader),
                Progress::End => State::Ended,
            };
        }
    }
}

fn read(mut reader: Box<Reader>) -> JoinHandle<(Box<Reader>, Result<Batch, LogError>)> {
    tokio::task::spawn_blocking(move || {
        let batch = reader.read();
        (reader, batch)
    })
}

/// Tells when something changes in a folder.
#[derive(Debug)]
struct Watch(Option<Receiver>);

impl Watch {
    fn new(folder: &Path) -> Self {
        match Self::try_new(folder) {
            Ok(watch) => Self(Some(watch)),
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "the kernel does not tell what is written; looking now and then");
                Self::blind()
            }
        }
    }

    fn blind() -> Self {
        Self(None)
    }

    fn try_new(folder: &Path) -> io::Result<Receiver> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        // The end of the folder itself is not told for as long as a file that was in it is being read.
        let flags = AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        inotify.add_watch(folder, flags)?;
        // It is none, but is read like one.
        Receiver::from_owned_fd_unchecked(inotify.into())
    }

    /// Returns when something has changed since it was last asked, or now and then.
    async fn changed(&self) {
        let Some(watch) = &self.0 else { return tokio::time::sleep(LOOK_AGAIN_BLIND).await };
        if timeout(LOOK_AGAIN, watch.readable()).await.is_ok() {
            // What has changed does not matter, only that nothing of it is told again.
            let mut events = [0; 4096];
            while watch.try_read(&mut events).is_ok_and(|read| read > 0) {}
        }
    }
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;

//! What was measured and not told yet.
//!
//! Invariants: the oldest go first; there is one sample for a time, the first that came for it; a sample stays until the
//! server has answered for it, unless there are too many; what cannot be written to disk is kept in memory, and written
//! as soon as there is room. What is lost with the machine's power is what its disk had not written yet: samples are not
//! worth a wait for the disk each minute.

mod file;

use crate::state::StateDir;
use domain::{
    clock::Timestamp,
    observability::{Readings, Sample},
};
use file::BufferFile;
use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{sync::watch, task::spawn_blocking};

/// The most that are kept: those of a day.
const MOST: usize = 1_440;
/// After how many that were dropped it is said again.
const TOLD_AGAIN: u64 = 60;

/// The buffer.
#[derive(Debug)]
pub struct Buffer {
    /// Held, so that nobody else uses the directory while a line is still being written.
    _state: Option<StateDir>,
    /// Taken before `memory`, and for as long as the disk needs.
    file: Mutex<BufferFile>,
    /// Never kept waiting by the disk.
    memory: Mutex<Memory>,
    /// How many there are.
    count: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Memory {
    samples: BTreeMap<Timestamp, Readings>,
    /// How many were dropped since the server has answered last.
    dropped: u64,
    /// Whether something here is not in the file.
    behind: bool,
}

impl Buffer {
    /// Reads the buffer of a state directory. What cannot be read is said in the log, and does not keep anybody from
    /// going on.
    #[must_use]
    pub fn open(state: &StateDir) -> Self {
        Self::at(&state.join("samples"), Some(state.clone()))
    }

    fn at(path: &Path, state: Option<StateDir>) -> Self {
        let (file, samples) = BufferFile::open(path);
        let mut memory = Memory::default();
        for sample in samples {
            memory.add(&sample);
        }
        // Those were dropped, and counted, before.
        memory.dropped = 0;
        memory.behind = !file.is_open();
        let count = watch::Sender::new(memory.samples.len());
        Self { _state: state, file: Mutex::new(file), memory: Mutex::new(memory), count }
    }

    /// Keeps a sample, unless there is one of the same time.
    pub(super) async fn keep(self: &Arc<Self>, sample: &Sample) {
        let dropped = {
            let mut memory = self.memory();
            if memory.samples.contains_key(&sample.at) {
                return;
            }
            let dropped = memory.add(sample);
            self.count.send_replace(memory.samples.len());
            dropped
        };
        if let Some(dropped) = dropped.filter(|dropped| dropped % TOLD_AGAIN == 1) {
            tracing::warn!("the server is away for so long that the oldest samples are dropped: {dropped} by now");
        }
        let sample = *sample;
        self.with_file(move |buffer, file| {
            // It may have been told already.
            if buffer.has(sample.at) { file.append(&sample) } else { Ok(()) }
        })
        .await;
    }

    /// The oldest of them, at most so many.
    pub(super) fn oldest(&self, most: usize) -> Vec<Sample> {
        let memory = self.memory();
        memory.samples.iter().take(most).map(|(at, readings)| Sample { at: *at, readings: *readings }).collect()
    }

    /// Returns once there are some. Says whether that was so from the beginning.
    pub(super) async fn filled(&self) -> bool {
        let mut count = self.count.subscribe();
        if *count.borrow() > 0 {
            return true;
        }
        // The sender is a member of this, so that it cannot be gone.
        count.wait_for(|count| *count > 0).await.ok();
        false
    }

    /// Forgets samples that the server has answered for.
    pub(super) async fn forget(self: &Arc<Self>, samples: &[Sample]) {
        let dropped = {
            let mut memory = self.memory();
            for sample in samples {
                memory.samples.remove(&sample.at);
            }
            self.count.send_replace(memory.samples.len());
            std::mem::take(&mut memory.dropped)
        };
        if dropped > 0 {
            tracing::warn!("{dropped} samples were dropped while the server was away");
        }
        self.with_file(|buffer, file| {
            // What was told is told again if the agent is restarted before the rest is told, and known then.
            if buffer.oldest(1).is_empty() { file.clear() } else { Ok(()) }
        })
        .await;
    }

    /// Does something to the file; or, if that lacks something, writes it anew.
    async fn with_file(
        self: &Arc<Self>,
        change: impl FnOnce(&Self, &mut BufferFile) -> io::Result<()> + Send + 'static,
    ) {
        let buffer = self.clone();
        let work = move || {
            let mut file = buffer.file();
            let was_behind = buffer.memory().behind;
            let changed = if was_behind { Ok(()) } else { change(&buffer, &mut file) };
            let samples = buffer.oldest(MOST);
            let is_due = was_behind || file.is_wasteful(samples.len());
            let outcome = changed.and_then(|()| if is_due { file.rewrite(&samples) } else { Ok(()) });
            buffer.memory().behind = outcome.is_err();
            match outcome {
                Err(error) if !was_behind => {
                    tracing::warn!(%error, "samples cannot be written to {}, and are kept in memory", file.path());
                }
                Ok(()) if was_behind => tracing::info!("samples are written to {} again", file.path()),
                _ => {}
            }
        };
        if let Err(error) = spawn_blocking(work).await
            && error.is_panic()
        {
            tracing::error!("writing samples has panicked");
        }
    }

    fn has(&self, at: Timestamp) -> bool {
        self.memory().samples.contains_key(&at)
    }

    fn file(&self) -> MutexGuard<'_, BufferFile> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    /// Adds one. Says how many were dropped by now, if one was for this.
    fn add(&mut self, sample: &Sample) -> Option<u64> {
        self.samples.entry(sample.at).or_insert(sample.readings);
        if self.samples.len() <= MOST {
            return None;
        }
        self.samples.pop_first();
        self.dropped += 1;
        Some(self.dropped)
    }
}

#[cfg(test)]
#[path = "buffer_tests.rs"]
mod tests;

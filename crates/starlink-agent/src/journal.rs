//! The memory of what was begun: one line for each step of an operation, on disk before the step is taken.
//!
//! Invariants: what is not in it was not begun; a line that was torn by a crash is as if it had never been written;
//! what cannot be written because the disk is full is kept in memory, and written as soon as there is room. It holds
//! environments, so that only its owner can read it, and forgets them once the end of an operation is reported.

mod entry;
mod file;

pub use entry::{Entry, Record};

use crate::{
    state::{StateDir, StateError},
    work::WorkId,
};
use domain::ids::OperationId;
use file::JournalFile;
use std::{
    collections::{BTreeMap, VecDeque},
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Of how many operations whose end is reported the end is remembered: a delivery may have been under way meanwhile.
const REMEMBERED: usize = 512;

/// The journal.
#[derive(Debug)]
pub struct Journal {
    /// Held, so that nobody else uses the directory while a line is still being written.
    _state: Option<StateDir>,
    /// Taken before `memory`, and for as long as the disk needs.
    file: Mutex<JournalFile>,
    /// Never kept waiting by the disk.
    memory: Mutex<Memory>,
}

impl Journal {
    /// Reads the journal of a state directory, cuts off what a crash has torn, and rewrites it without what is over.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn open(state: &StateDir) -> Result<Self, StateError> {
        Self::at(&state.join("journal"), Some(state.clone()))
    }

    fn at(path: &Path, state: Option<StateDir>) -> Result<Self, StateError> {
        let error = |source| StateError::File { action: "read", path: path.to_owned(), source };
        let (file, entries) = JournalFile::open(path).map_err(error)?;
        let mut memory = Memory::default();
        for entry in entries {
            memory.apply(entry);
        }
        let journal = Self { _state: state, file: Mutex::new(file), memory: Mutex::new(memory) };
        // On a full disk the old file does as well.
        journal.compact(&mut journal.file()).ok();
        Ok(journal)
    }

    /// The installation whose operations are in it.
    #[must_use]
    pub fn installation(&self) -> Option<String> {
        self.memory().installation.clone()
    }

    /// What is known of an operation.
    #[must_use]
    pub fn record(&self, operation: OperationId) -> Option<Record> {
        self.memory().records.get(&operation).cloned()
    }

    /// Every operation whose end is not reported.
    #[must_use]
    pub fn open_records(&self) -> Vec<(OperationId, Record)> {
        let memory = self.memory();
        memory.records.iter().filter(|(_, record)| !record.reported).map(|(id, record)| (*id, record.clone())).collect()
    }

    /// What is known of the operation whose work has this name.
    #[must_use]
    pub fn record_of(&self, work: &WorkId) -> Option<Record> {
        self.memory().records.values().find(|record| record.work.as_ref() == Some(work)).cloned()
    }

    /// Writes an entry, durably if acting depends on it.
    ///
    /// # Errors
    /// If it is not on disk. That something was begun is then unknown to memory too; everything else is known to it.
    pub async fn write(self: &Arc<Self>, entry: Entry) -> io::Result<()> {
        let journal = self.clone();
        tokio::task::spawn_blocking(move || journal.write_blocking(entry)).await.map_err(io::Error::other)?
    }

    /// As [`Journal::write`], on this thread.
    ///
    /// # Errors
    /// As [`Journal::write`].
    pub fn write_blocking(&self, entry: Entry) -> io::Result<()> {
        let mut file = self.file();
        let ready = if self.memory().behind || file.is_suspect() { self.compact(&mut file) } else { Ok(()) };
        let written = ready.and_then(|()| file.append(&entry));
        let mut memory = self.memory();
        if written.is_ok() || !entry.permits() {
            memory.apply(entry);
            memory.behind |= written.is_err();
        }
        // Once nothing runs, the environments of what has run need not stay on disk.
        let least = if memory.is_idle() { 64 << 10 } else { 1 << 20 };
        drop(memory);
        if written.is_ok() && file.has_grown(least) {
            // What cannot be made smaller now is made smaller later.
            self.compact(&mut file).ok();
        }
        written
    }

    /// Writes what could not be written before, if there is anything.
    ///
    /// # Errors
    /// If there is still no room.
    pub async fn catch_up(self: &Arc<Self>) -> io::Result<()> {
        if !self.memory().behind {
            return Ok(());
        }
        let journal = self.clone();
        tokio::task::spawn_blocking(move || journal.compact(&mut journal.file())).await.map_err(io::Error::other)?
    }

    /// Puts away what is known of another installation's operations, beside itself, and begins anew.
    ///
    /// # Errors
    /// If what is to be put away cannot be written; that it begins anew is written later if need be.
    pub fn begin_anew(&self, installation: &str) -> io::Result<()> {
        let mut file = self.file();
        if let Some(old) = self.installation().filter(|old| old != installation) {
            file.copy_beside(&old)?;
            *self.memory() = Memory::default();
        }
        self.memory().installation = Some(installation.to_owned());
        self.memory().behind |= self.compact(&mut file).is_err();
        Ok(())
    }

    /// Replaces the file by one that has what is known, and no more.
    fn compact(&self, file: &mut JournalFile) -> io::Result<()> {
        let entries = self.memory().entries();
        file.rewrite(entries.into_iter())?;
        // Nothing is learnt without the file, which is ours.
        self.memory().behind = false;
        Ok(())
    }

    fn file(&self) -> MutexGuard<'_, JournalFile> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct Memory {
    installation: Option<String>,
    records: BTreeMap<OperationId, Record>,
    /// Those whose end is reported, oldest first.
    reported: VecDeque<OperationId>,
    /// Whether something here is not in the file.
    behind: bool,
}

impl Memory {
    fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::Installation { id } => self.installation = Some(id),
            Entry::Begun { operation, work, order, at } => {
                self.records.insert(operation, Record::begun(work, order, at));
            }
            Entry::Undertaken { operation, deed, at } => {
                self.records.insert(operation, Record::undertaken(deed, at));
            }
            Entry::Running { operation, at } => {
                if let Some(record) = self.records.get_mut(&operation) {
                    record.running_since = Some(at);
                }
            }
            Entry::Ending { operation } => {
                if let Some(record) = self.records.get_mut(&operation) {
                    record.ending = true;
                }
            }
            Entry::Retracted { operation } => {
                self.records.remove(&operation);
            }
            Entry::Ended { operation, work, deed, end } => {
                let record = self.records.entry(operation).or_insert_with(|| Record::not_begun(work, deed));
                record.end = Some(end);
            }
            Entry::Reported { operation } => self.close(operation),
            Entry::Unknown => {}
        }
    }

    fn close(&mut self, operation: OperationId) {
        let Some(record) = self.records.get_mut(&operation) else { return };
        if std::mem::replace(&mut record.reported, true) {
            return;
        }
        record.order = None;
        self.reported.push_back(operation);
        if self.reported.len() > REMEMBERED
            && let Some(oldest) = self.reported.pop_front()
        {
            self.records.remove(&oldest);
        }
    }

    fn is_idle(&self) -> bool {
        self.reported.len() == self.records.len()
    }

    /// What has to be written for this to be known.
    fn entries(&self) -> Vec<Entry> {
        let header = self.installation.clone().map(|id| Entry::Installation { id });
        let open = self.records.iter().filter(|(_, record)| !record.reported);
        // In the order of their reports, so that the oldest stays the first to be forgotten.
        let over = self.reported.iter().filter_map(|id| self.records.get_key_value(id));
        header.into_iter().chain(over.chain(open).flat_map(|(id, record)| record.entries(*id))).collect()
    }
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;

//! The file of the journal.

use super::entry::Entry;
use crate::state::{lines, renamed, sync_parent};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, BufWriter, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

#[derive(Debug)]
pub(super) struct JournalFile {
    file: File,
    path: PathBuf,
    /// How long what is known to be good is.
    length: u64,
    /// How long it was after it was last rewritten.
    base: u64,
    /// Whether there may be more behind that, or something else than memory believes.
    suspect: bool,
}

impl JournalFile {
    /// Opens it, made if it is not there, with what is in it.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Vec<Entry>)> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let (entries, good) = read(&file)?;
        if file.metadata()?.len() > good {
            tracing::warn!("the last line of {} was torn by a crash and is cut off", path.display());
            file.set_len(good)?;
            file.sync_all()?;
        }
        Ok((Self { file, path: path.to_owned(), length: good, base: good, suspect: false }, entries))
    }

    /// Adds a line. If this fails, it is as if nothing had been added.
    pub(super) fn append(&mut self, entry: &Entry) -> io::Result<()> {
        let line = lines::sealed(entry)?;
        let written = self.file.write_all_at(&line, self.length);
        let written = written.and_then(|()| if entry.is_durable() { self.file.sync_data() } else { Ok(()) });
        if written.is_ok() {
            self.length += u64::try_from(line.len()).map_err(io::Error::other)?;
            return Ok(());
        }
        // After a failed sync nobody knows what is on disk: the next line goes into a new file.
        self.suspect = true;
        if let Err(error) = self.file.set_len(self.length).and_then(|()| self.file.sync_data()) {
            tracing::error!(%error, "a line of {} can be neither written nor taken back", self.path.display());
        }
        written
    }

    /// Replaces everything by these lines.
    pub(super) fn rewrite(&mut self, entries: impl Iterator<Item = Entry>) -> io::Result<()> {
        let mut length = 0;
        let file = renamed(&self.path, |file| {
            let mut out = BufWriter::new(file);
            for entry in entries {
                let line = lines::sealed(&entry)?;
                length += u64::try_from(line.len()).map_err(io::Error::other)?;
                out.write_all(&line)?;
            }
            out.flush()
        })?;
        (self.file, self.length, self.base) = (file, length, length);
        let synced = sync_parent(&self.path);
        self.suspect = synced.is_err();
        synced
    }

    /// Whether it may not be what memory believes it is.
    pub(super) fn is_suspect(&self) -> bool {
        self.suspect
    }

    /// Whether rewriting it is worth it: so much was added, and as much again as there was.
    pub(super) fn has_grown(&self, least: u64) -> bool {
        self.length > self.base.saturating_mul(2).saturating_add(least)
    }

    /// Keeps a copy under another name.
    pub(super) fn copy_beside(&self, suffix: &str) -> io::Result<()> {
        let bytes = fs::read(&self.path)?;
        let path = self.path.with_file_name(format!("journal.{suffix}"));
        renamed(&path, |file| file.write_all(&bytes)).and_then(|_| sync_parent(&path))
    }
}

/// The entries, and how far the file is good. A line in the middle that is not (which no crash does) is left out.
fn read(file: &File) -> io::Result<(Vec<Entry>, u64)> {
    let mut reader = BufReader::new(file);
    let (mut entries, mut good, mut at, mut bad) = (Vec::new(), 0, 0, 0_u64);
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = reader.read_until(b'\n', &mut line)?;
        if length == 0 {
            break;
        }
        at += u64::try_from(length).map_err(io::Error::other)?;
        if let Some(entry) = parse(&line) {
            if bad > 0 {
                tracing::error!(
                    "{bad} damaged lines in the middle of the journal are left out: is the disk all right?"
                );
                bad = 0;
            }
            entries.push(entry);
            good = at;
        } else {
            bad += 1;
        }
    }
    Ok((entries, good))
}

fn parse(line: &[u8]) -> Option<Entry> {
    // What is whole and not understood was written by a newer agent.
    lines::opened(line).map(|json| serde_json::from_slice(json).unwrap_or(Entry::Unknown))
}

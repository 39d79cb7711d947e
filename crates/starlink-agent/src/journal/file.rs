//! The file of the journal: a line is eight hexadecimal digits of a digest, a space, JSON, and a line feed.

use super::entry::Entry;
use crate::state::{renamed, sync_parent};
use domain::digest::sha256_hex;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, BufWriter, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// The digits of a digest that are kept: enough to tell a torn line.
const DIGITS: usize = 8;

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
        let line = line(entry)?;
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
                let line = line(&entry)?;
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

fn line(entry: &Entry) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(entry)?;
    let mut line = digest(&json).into_bytes();
    line.push(b' ');
    line.extend(json);
    line.push(b'\n');
    Ok(line)
}

fn digest(json: &[u8]) -> String {
    let mut digest = sha256_hex(json);
    digest.truncate(DIGITS);
    digest
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
    let (sum, json) = line.strip_suffix(b"\n")?.split_at_checked(DIGITS)?;
    let json = json.strip_prefix(b" ")?;
    if digest(json).as_bytes() != sum {
        return None;
    }
    // What is whole and not understood was written by a newer agent.
    Some(serde_json::from_slice(json).unwrap_or(Entry::Unknown))
}

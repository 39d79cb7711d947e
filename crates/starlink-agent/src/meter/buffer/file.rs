//! The file of the buffer: a line for each sample.

use crate::state::{lines, renamed};
use domain::observability::Sample;
use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, BufWriter, Read, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{self, Path, PathBuf},
};

/// How long it may be: several times of what is ever written. Whatever is longer was not written by an agent.
const LONGEST: u64 = 16 << 20;
/// How many lines may be in it for nothing.
const WASTE: usize = 200;

#[derive(Debug)]
pub(super) struct BufferFile {
    path: PathBuf,
    /// Absent if it could not be opened.
    file: Option<File>,
    /// How long what is known to be good is.
    length: u64,
    /// How many lines that are.
    lines: usize,
}

impl BufferFile {
    /// Opens it, made if it is not there, with what is in it.
    pub(super) fn open(path: &Path) -> (Self, Vec<Sample>) {
        let nothing = Self { path: path.to_owned(), file: None, length: 0, lines: 0 };
        match Self::try_open(path) {
            Ok((file, found)) => {
                let Found { samples, lines, length } = found;
                (Self { file: Some(file), length, lines, ..nothing }, samples)
            }
            Err(error) => {
                tracing::error!(
                    %error,
                    "what was measured before and not told is lost: {} cannot be read",
                    path.display()
                );
                (nothing, Vec::new())
            }
        }
    }

    fn try_open(path: &Path) -> io::Result<(File, Found)> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let found = read(&file, path)?;
        if file.metadata()?.len() > found.length {
            file.set_len(found.length)?;
        }
        Ok((file, found))
    }

    pub(super) fn path(&self) -> path::Display<'_> {
        self.path.display()
    }

    /// Whether there is a file to be added to. Until it is rewritten with success, there may be none.
    pub(super) fn is_open(&self) -> bool {
        self.file.is_some()
    }

    /// Adds a line. If this fails, it is as if nothing had been added.
    pub(super) fn append(&mut self, sample: &Sample) -> io::Result<()> {
        let Some(file) = &self.file else { return Err(io::ErrorKind::NotFound.into()) };
        let line = lines::sealed(sample)?;
        if let Err(error) = file.write_all_at(&line, self.length) {
            // What is left of it would be a torn line, which is cut off at the next start otherwise.
            file.set_len(self.length).ok();
            return Err(error);
        }
        self.length += u64::try_from(line.len()).map_err(io::Error::other)?;
        self.lines += 1;
        Ok(())
    }

    /// Replaces everything by these.
    pub(super) fn rewrite(&mut self, samples: &[Sample]) -> io::Result<()> {
        let mut length = 0;
        let file = renamed(&self.path, |file| {
            let mut out = BufWriter::new(file);
            for sample in samples {
                let line = lines::sealed(sample)?;
                length += u64::try_from(line.len()).map_err(io::Error::other)?;
                out.write_all(&line)?;
            }
            out.flush()
        })?;
        (self.file, self.length, self.lines) = (Some(file), length, samples.len());
        Ok(())
    }

    /// Takes out everything.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        let Some(file) = &self.file else { return Err(io::ErrorKind::NotFound.into()) };
        file.set_len(0)?;
        (self.length, self.lines) = (0, 0);
        Ok(())
    }

    /// Whether most of it is there for nothing, if this many of its lines are not.
    pub(super) fn is_wasteful(&self, of_use: usize) -> bool {
        self.lines > 2 * of_use + WASTE
    }
}

/// What a file has.
struct Found {
    samples: Vec<Sample>,
    lines: usize,
    /// How far it is good.
    length: u64,
}

fn read(file: &File, path: &Path) -> io::Result<Found> {
    let mut reader = BufReader::new(file.take(LONGEST));
    let mut found = Found { samples: Vec::new(), lines: 0, length: 0 };
    let (mut at, mut damaged, mut line) = (0, 0_u64, Vec::new());
    loop {
        line.clear();
        let length = reader.read_until(b'\n', &mut line)?;
        if length == 0 {
            break;
        }
        at += u64::try_from(length).map_err(io::Error::other)?;
        found.lines += 1;
        match lines::opened(&line).and_then(|json| serde_json::from_slice(json).ok()) {
            Some(sample) => {
                found.samples.push(sample);
                found.length = at;
            }
            None => damaged += 1,
        }
    }
    if damaged > 0 {
        tracing::warn!("{damaged} lines of {} are torn or damaged, and left out", path.display());
    }
    Ok(found)
}

//! The head file: one line per noted head, only ever appended to.

use crate::data_dir::sync_parent;
use async_trait::async_trait;
use domain::{
    Error, Result,
    audit::{HeadFile, HeadMark, Seal},
};
use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};
use tokio::task::spawn_blocking;

/// Heads in a file beside the database.
#[derive(Debug, Clone)]
pub struct FileHeads {
    path: PathBuf,
    seal: Seal,
    /// An append looks at the end of the file first, so they go one by one.
    appending: Arc<Mutex<()>>,
}

impl FileHeads {
    /// The heads in the file at `path`, which is made when the first one is noted.
    #[must_use]
    pub fn new(path: PathBuf, seal: Seal) -> Self {
        Self { path, seal, appending: Arc::default() }
    }
}

#[async_trait]
impl HeadFile for FileHeads {
    async fn append(&self, mark: HeadMark) -> Result<()> {
        let this = self.clone();
        let work = move || {
            let _turn = this.appending.lock().unwrap_or_else(PoisonError::into_inner);
            append_line(&this.path, &this.seal.mark_line(&mark))
        };
        spawn_blocking(work).await.map_err(Error::internal)?.map_err(storage_fault)
    }

    async fn read(&self) -> Result<Vec<HeadMark>> {
        let this = self.clone();
        let work = move || read_marks(&this.path, &this.seal);
        spawn_blocking(work).await.map_err(Error::internal)?.map_err(storage_fault)
    }
}

fn storage_fault(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::StorageFull { source: Some(error.into()) },
        _ => Error::internal(error),
    }
}

fn append_line(path: &Path, line: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    let length = file.metadata()?.len();
    // After a crash the last line may be torn: the new one must not become part of it.
    let separator = if length > 0 && last_byte(&mut file)? != b'\n' { "\n" } else { "" };
    file.write_all(format!("{separator}{line}\n").as_bytes())?;
    file.sync_all()?;
    if length == 0 { sync_parent(path) } else { Ok(()) }
}

fn last_byte(file: &mut File) -> io::Result<u8> {
    let mut byte = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut byte)?;
    let [byte] = byte;
    Ok(byte)
}

fn read_marks(path: &Path, seal: &Seal) -> io::Result<Vec<HeadMark>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut marks = Vec::new();
    let mut foreign: Vec<usize> = Vec::new();
    for (index, line) in BufReader::new(file).split(b'\n').enumerate() {
        let line = line?;
        let mark = std::str::from_utf8(&line).ok().and_then(|line| seal.read_mark(line));
        match mark {
            Some(mark) => marks.push(mark),
            None if line.is_empty() => {}
            None => foreign.push(index + 1),
        }
    }
    if let Some(first) = foreign.first() {
        // One message however many there are, so that a file of garbage does not flood the log.
        tracing::warn!(
            lines = foreign.len(),
            first,
            "lines of {} were left out, since they are torn or were not written with this audit key; the first is line {first}",
            path.display()
        );
    }
    Ok(marks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::audit::{Head, MarkKind};
    use std::{fs, os::unix::fs::PermissionsExt};

    struct Setup {
        directory: tempfile::TempDir,
        heads: FileHeads,
    }

    fn setup() -> Setup {
        let directory = tempfile::tempdir().unwrap();
        let heads = FileHeads::new(directory.path().join("audit.heads"), Seal::new(&[7; 32]));
        Setup { directory, heads }
    }

    fn mark(seq: i64) -> HeadMark {
        let at = format!("2026-01-02T03:04:{seq:02}.000005Z").parse().unwrap();
        HeadMark { at, kind: MarkKind::Head, head: Head { seq, hash: "ab".repeat(32) } }
    }

    async fn check_read_after(edit: impl FnOnce(String) -> Vec<u8>, expected: &[i64]) {
        let Setup { directory: _directory, heads } = setup();
        for seq in 1..=3 {
            heads.append(mark(seq)).await.unwrap();
        }
        let edited = edit(fs::read_to_string(&heads.path).unwrap());
        fs::write(&heads.path, edited).unwrap();
        let read: Vec<i64> = heads.read().await.unwrap().iter().map(|mark| mark.head.seq).collect();
        assert_eq!(read, expected);
    }

    #[tokio::test]
    async fn marks_come_back_in_the_order_they_were_noted() {
        let Setup { directory, heads } = setup();
        assert_eq!(heads.read().await.unwrap(), []);
        heads.append(mark(1)).await.unwrap();
        let restore = HeadMark { kind: MarkKind::Restore, ..mark(2) };
        heads.append(restore.clone()).await.unwrap();
        let again = FileHeads::new(directory.path().join("audit.heads"), Seal::new(&[7; 32]));
        assert_eq!(again.read().await.unwrap(), [mark(1), restore]);
        assert_eq!(fs::metadata(&heads.path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn lines_that_are_not_ours_are_left_out() {
        let foreign = Seal::new(&[8; 32]).mark_line(&mark(9));
        check_read_after(|text| text.replace("head 2 ", "head 4 ").into_bytes(), &[1, 3]).await;
        check_read_after(|text| format!("{foreign}\n{text}").into_bytes(), &[1, 2, 3]).await;
        check_read_after(|text| [b"\xff\xfe\n\n", text.as_bytes()].concat(), &[1, 2, 3]).await;
    }

    #[tokio::test]
    async fn a_torn_last_line_is_left_out_and_costs_no_other() {
        check_read_after(|text| text.as_bytes()[..text.len() - 10].to_vec(), &[1, 2]).await;
        let Setup { directory: _directory, heads } = setup();
        heads.append(mark(1)).await.unwrap();
        let torn = format!("{}2026-01-02T03:0", fs::read_to_string(&heads.path).unwrap());
        fs::write(&heads.path, torn).unwrap();
        heads.append(mark(2)).await.unwrap();
        assert_eq!(heads.read().await.unwrap(), [mark(1), mark(2)]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn appends_at_the_same_time_never_mix() {
        let Setup { directory: _directory, heads } = setup();
        let tasks = (1..=20).map(|seq| {
            let heads = heads.clone();
            tokio::spawn(async move { heads.append(mark(seq)).await.unwrap() })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        assert_eq!(heads.read().await.unwrap().len(), 20);
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_written_is_a_fault() {
        let Setup { directory, .. } = setup();
        let heads = FileHeads::new(directory.path().join("absent/audit.heads"), Seal::new(&[7; 32]));
        assert!(matches!(heads.append(mark(1)).await, Err(Error::Internal { .. })));
    }
}

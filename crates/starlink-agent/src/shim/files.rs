//! What the agent and a shim tell each other, in the folder of the work.

use super::process::Mark;
use crate::cgroup::Group;
use chrono::{DateTime, Utc};
use domain::scheduling::RestartPolicy;
use nix::{errno::Errno, sys::stat::Mode, unistd::mkfifo};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// What is to be run, and how. It has the values of the task's environment, so it has no `Debug`.
#[derive(Serialize, Deserialize)]
pub(crate) struct Plan {
    /// The program and its arguments.
    pub(crate) command: Vec<String>,
    /// Everything that is in its environment.
    pub(crate) env: Vec<(String, String)>,
    /// Who it runs as; the shim's own user if absent.
    pub(crate) user: Option<Identity>,
    pub(crate) allow_root: bool,
    pub(crate) restart: RestartPolicy,
    pub(crate) timeout_seconds: Option<u64>,
    pub(crate) grace: Duration,
    pub(crate) log_limit_bytes: u64,
    pub(crate) group: Group,
    /// Said in the log before anything is run.
    pub(crate) notes: Vec<String>,
}

/// A user of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
}

/// Who runs it. It is there once, so that it is run once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claim {
    /// The shim; `None` if the agent claimed it, so that no shim does.
    pub(crate) shim: Option<Mark>,
}

/// A request to end it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stop {
    pub(crate) grace: Duration,
}

/// How it ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i64>,
    pub(crate) signal: Option<i64>,
    /// A code of [`domain::scheduling::reason`], if code and signal do not say it all.
    pub(crate) reason: Option<String>,
    pub(crate) detail: Option<String>,
    /// Whether nobody saw how it ended.
    pub(crate) lost: bool,
    pub(crate) started_at: Option<DateTime<Utc>>,
    pub(crate) finished_at: Option<DateTime<Utc>>,
    /// How often it was run.
    pub(crate) runs: u32,
}

/// The files in the folder of one work.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    folder: PathBuf,
}

const PLAN: &str = "shim.json";
const CLAIM: &str = "run.json";
const OUTCOME: &str = "exit.json";
/// The name of the request to end it.
pub(super) const STOP: &str = "stop.json";
const LIFE: &str = "life";
const COMPLAINTS: &str = "shim.err";
const DIRECTORY: &str = "run";

impl Files {
    pub(crate) fn of(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the program begins.
    pub(crate) fn directory(&self) -> PathBuf {
        self.folder.join(DIRECTORY)
    }

    /// A pipe that the shim holds open for as long as it lives.
    pub(crate) fn life(&self) -> PathBuf {
        self.folder.join(LIFE)
    }

    /// What the shim had to say when it could not do its work.
    pub(crate) fn complaints(&self) -> PathBuf {
        self.folder.join(COMPLAINTS)
    }

    pub(crate) fn plan(&self) -> io::Result<Option<Plan>> {
        self.load(PLAN)
    }

    pub(crate) fn save_plan(&self, plan: &Plan) -> io::Result<()> {
        self.save(PLAN, plan)
    }

    pub(crate) fn claim(&self) -> io::Result<Option<Claim>> {
        self.load(CLAIM)
    }

    pub(crate) fn outcome(&self) -> io::Result<Option<Outcome>> {
        self.load(OUTCOME)
    }

    /// Writes down how it ended, for good.
    pub(crate) fn save_outcome(&self, outcome: &Outcome) -> io::Result<()> {
        self.save(OUTCOME, outcome)
    }

    pub(crate) fn stop(&self) -> io::Result<Option<Stop>> {
        self.load(STOP)
    }

    pub(crate) fn save_stop(&self, grace: Duration) -> io::Result<()> {
        self.save(STOP, &Stop { grace })
    }

    /// Claims it; `false` if it is claimed already. Among any number of processes one succeeds, once.
    pub(crate) fn take(&self, claim: &Claim) -> io::Result<bool> {
        let own = self.new_name(CLAIM);
        write(&own, claim)?;
        let linked = fs::hard_link(&own, self.folder.join(CLAIM));
        fs::remove_file(&own)?;
        match linked {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            linked => linked?,
        }
        self.sync()?;
        Ok(true)
    }

    /// Makes the pipe that tells whether the shim lives.
    pub(crate) fn make_life(&self) -> io::Result<()> {
        match mkfifo(&self.life(), Mode::S_IRUSR | Mode::S_IWUSR) {
            Ok(()) | Err(Errno::EEXIST) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes everything but the log. The outcome last: as long as that is there, it is known not to run.
    pub(crate) fn remove(&self) -> io::Result<()> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        let mut paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
        paths.sort_by_key(|path| [CLAIM, OUTCOME].iter().position(|name| path.ends_with(name)));
        for path in paths.into_iter().filter(|path| *path != crate::logs::folder(&self.folder)) {
            remove(&path)?;
        }
        // It stays for as long as the log is in it.
        let _ = fs::remove_dir(&self.folder);
        Ok(())
    }

    /// Whether anything tells that it was begun.
    pub(crate) fn is_begun(&self) -> bool {
        [PLAN, CLAIM, OUTCOME].iter().any(|name| self.folder.join(name).exists())
    }

    /// Reads a file, if it is there.
    fn load<T: DeserializeOwned>(&self, name: &str) -> io::Result<Option<T>> {
        match fs::read(self.folder.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            // Not a word of what is in it: there may be secrets.
            bytes => serde_json::from_slice(&bytes?)
                .map(Some)
                .map_err(|error| invalid(format!("{name} cannot be read: column {}", error.column()))),
        }
    }

    /// Writes a file, so that it is there as a whole or not at all, also if the power fails.
    fn save<T: Serialize>(&self, name: &str, value: &T) -> io::Result<()> {
        let new = self.new_name(name);
        let saved = write(&new, value).and_then(|()| fs::rename(&new, self.folder.join(name)));
        if saved.is_err() {
            let _ = fs::remove_file(&new);
        }
        saved.and_then(|()| self.sync())
    }

    /// A name that nobody else writes to. What a kill leaves of it goes with the rest.
    fn new_name(&self, name: &str) -> PathBuf {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        self.folder.join(format!("{name}.{}-{number}", std::process::id()))
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }
}

/// Removes a file or a folder with everything in it, also if the program has taken itself the right to do so.
fn remove(path: &Path) -> io::Result<()> {
    let is_folder = fs::symlink_metadata(path).is_ok_and(|about| about.is_dir());
    let try_to = || if is_folder { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    let removed = match try_to() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && is_folder => {
            take_rights(path);
            try_to()
        }
        removed => removed,
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn take_rights(folder: &Path) {
    let _ = fs::set_permissions(folder, fs::Permissions::from_mode(0o700));
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        // A link is none, wherever it leads.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            take_rights(&entry.path());
        }
    }
}

fn invalid(detail: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, detail)
}

/// Writes a file that nobody else may read.
fn write<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(&serde_json::to_vec(value)?)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_many_claims_it() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::of(folder.path());
        let claim = Claim { shim: Some(Mark::own().unwrap()) };
        let taken: Vec<bool> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| files.take(&claim).unwrap())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(taken.iter().filter(|taken| **taken).count(), 1);
        assert!(!files.take(&Claim { shim: None }).unwrap());
        assert_eq!(files.claim().unwrap(), Some(claim));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left over");
    }

    #[test]
    fn files_are_whole_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::of(folder.path());
        assert_eq!(files.outcome().unwrap(), None);
        let outcome = Outcome { code: Some(3), runs: 1, ..Outcome::default() };
        files.save_outcome(&outcome).unwrap();
        assert_eq!(files.outcome().unwrap(), Some(outcome));
        assert_eq!(fs::metadata(folder.path().join(OUTCOME)).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(folder.path().join(PLAN), r#"{"env": ["s3cret"#).unwrap();
        let error = files.plan().err().unwrap().to_string();
        assert!(error.contains(PLAN) && !error.contains("s3cret"), "{error}");
    }
}

use domain::{
    fleet::protocol::{LogLine, LogQuery, LogStream},
    ids::TaskId,
    scheduling::{Environment, TaskDriver, TaskSpec},
    text::Name,
    units::Resources,
};
use starlink_agent::{
    drivers::{
        Driver,
        exec::{CgroupMode, ExecDriver, ExecOptions},
    },
    logs::Lines,
    work::{Exit, Failure, Work, WorkId},
};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Longer than anything takes; only a fault makes a test wait so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A machine with nothing on it. What a test leaves running on it ends with it.
pub(crate) struct Machine {
    pub(crate) driver: ExecDriver,
    pub(crate) options: ExecOptions,
    _root: TempDir,
    works: Vec<PathBuf>,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn without_groups() -> Self {
        Self::with(|options| options.cgroups = CgroupMode::Off)
    }

    pub(crate) fn with(change: impl FnOnce(&mut ExecOptions)) -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let shim = (env!("CARGO_BIN_EXE_starlink-agent").into(), vec!["shim".into()]);
        let mut options = ExecOptions::new(shim, root.path().to_owned());
        change(&mut options);
        Self { driver: ExecDriver::new(options.clone()), options, _root: root, works: Vec::new() }
    }

    /// A work of this command, which is not begun yet.
    pub(crate) fn work(&mut self, command: &[&str]) -> Work {
        self.work_with(command, |_| {})
    }

    pub(crate) fn shell(&mut self, script: &str) -> Work {
        self.work(&["sh", "-c", script])
    }

    pub(crate) fn work_with(&mut self, command: &[&str], change: impl FnOnce(&mut TaskSpec)) -> Work {
        static TASK: AtomicI64 = AtomicI64::new(1);
        let task = TASK.fetch_add(1, Ordering::Relaxed);
        // Control groups of different test runs must differ, too.
        let id = WorkId { installation: format!("{:x}", std::process::id()).into(), task: TaskId(task), attempt: 1 };
        let mut spec = TaskSpec::new(Name::parse("test").unwrap(), Resources::default());
        spec.driver = TaskDriver::Exec;
        spec.command = command.iter().map(|&word| word.to_owned()).collect();
        change(&mut spec);
        let folder = self.options.root.join(id.to_string());
        fs::create_dir(&folder).unwrap();
        self.works.push(folder.clone());
        Work { id, spec: spec.into(), folder }
    }

    pub(crate) async fn start(&self, work: &Work) -> Result<(), Failure> {
        in_time("start", self.driver.start(work, &|_| {})).await
    }

    pub(crate) async fn wait(&self, work: &Work) -> Exit {
        in_time("wait", self.driver.wait(work)).await
    }

    pub(crate) async fn stop(&self, work: &Work, grace: Duration) {
        in_time("stop", self.driver.stop(work, grace)).await.unwrap();
    }

    /// Starts it and waits for its end.
    pub(crate) async fn run(&self, work: &Work) -> Exit {
        self.start(work).await.unwrap();
        self.wait(work).await
    }

    /// What runs a script, and its end.
    pub(crate) async fn run_shell(&mut self, script: &str) -> Exit {
        let work = self.shell(script);
        self.run(&work).await
    }

    /// The agent is started again.
    pub(crate) fn restart(&mut self) {
        self.driver = ExecDriver::new(self.options.clone());
    }

    pub(crate) async fn remove(&self, work: &Work) {
        in_time("remove", self.driver.remove(work)).await.unwrap();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for folder in &self.works {
            if let Some(pid) = shim_of(folder) {
                kill(pid, "KILL");
            }
            for group in groups(folder) {
                if let Ok(pids) = fs::read_to_string(group.join("cgroup.procs")) {
                    pids.lines().for_each(|pid| kill(pid.parse().unwrap(), "KILL"));
                }
                let deadline = Instant::now() + Duration::from_secs(2);
                while group.exists() && fs::remove_dir(&group).is_err() && Instant::now() < deadline {
                    std::thread::yield_now();
                }
            }
        }
    }
}

/// The control groups of the work with this folder.
pub(crate) fn groups(folder: &Path) -> Vec<PathBuf> {
    let Ok(plan) = fs::read(folder.join("shim.json")) else { return Vec::new() };
    let plan: serde_json::Value = serde_json::from_slice(&plan).unwrap();
    plan["group"].as_array().unwrap().iter().map(|group| group["path"].as_str().unwrap().into()).collect()
}

/// The shim of the work with this folder, if it runs.
pub(crate) fn shim_of(folder: &Path) -> Option<i32> {
    let claim: serde_json::Value = serde_json::from_slice(&fs::read(folder.join("run.json")).ok()?).unwrap();
    let pid = i32::try_from(claim["shim"]["pid"].as_i64()?).unwrap();
    let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    (command.contains(folder.to_str().unwrap()) && is_running(pid)).then_some(pid)
}

pub(crate) fn kill(pid: i32, signal: &str) {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "kill -$0 $1 2>/dev/null", signal, &pid.to_string()]).status().unwrap();
}

/// Whether a process is there that has not ended.
pub(crate) fn is_running(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

pub(crate) async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} takes too long"))
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, mut so: impl FnMut() -> bool) {
    in_time(what, async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

pub(crate) fn query() -> LogQuery {
    LogQuery { task_id: TaskId(1), attempt: 1, follow: false, after: None, tail: None }
}

pub(crate) async fn lines(work: &Work, query: LogQuery) -> Vec<LogLine> {
    let mut lines = Lines::open(&work.folder, query).await.unwrap();
    let mut read = Vec::new();
    in_time("reading the log", async {
        while let Some(line) = lines.next().await.unwrap() {
            read.push(line);
        }
    })
    .await;
    read
}

/// What was written to a stream, without the line feeds.
pub(crate) async fn said(work: &Work, stream: LogStream) -> Vec<String> {
    lines(work, query()).await.into_iter().filter(|line| line.stream == stream).map(|line| line.text).collect()
}

pub(crate) async fn out(work: &Work) -> Vec<String> {
    said(work, LogStream::Stdout).await
}

/// Waits until it has written a line that begins like this, and tells the rest of the line.
pub(crate) async fn heard(work: &Work, begin: &str) -> String {
    let mut lines = Lines::open(&work.folder, LogQuery { follow: true, ..query() }).await.unwrap();
    in_time(begin, async {
        loop {
            let line = lines.next().await.unwrap().unwrap_or_else(|| panic!("it ended without {begin:?}"));
            if let Some(rest) = line.text.strip_prefix(begin) {
                return rest.trim().to_owned();
            }
        }
    })
    .await
}

pub(crate) fn env(variables: &[(&str, &str)]) -> Environment {
    Environment::parse(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
        .unwrap()
}

/// A file that may be executed, outside of any work's folder.
pub(crate) fn program(bytes: &[u8], mode: u32) -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = folder.path().join("program");
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (folder, path)
}

//! What the tests of the docker driver have in common.

use crate::engine::{Engine, images::BUSYBOX};
use bollard::{Docker, models::ContainerInspectResponse};
use chrono::{DateTime, Utc};
use domain::{
    clock::Clock,
    fleet::protocol::{LogQuery, LogStream},
    ids::TaskId,
    scheduling::{RestartPolicy, TaskDriver, TaskSpec},
    text::Name,
    units::Resources,
};
use starlink_agent::{
    drivers::{
        Driver,
        docker::{DockerDriver, DockerOptions},
    },
    logs::{Progress, Reader},
    work::{Exit, Failure, Work, WorkId},
};
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// The machine's clock.
pub(crate) struct Wall;

impl Clock for Wall {
    #[expect(clippy::disallowed_methods, reason = "the engine's times are real")]
    fn now(&self) -> DateTime<Utc> {
        chrono::SubsecRound::trunc_subsecs(Utc::now(), 6)
    }

    fn uptime(&self) -> Duration {
        static BEGAN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        BEGAN.get_or_init(Instant::now).elapsed()
    }
}

/// A driver with an installation and a folder of its own.
pub(crate) struct Bed {
    pub(crate) driver: Arc<DockerDriver>,
    pub(crate) options: DockerOptions,
    pub(crate) installation: Arc<str>,
    pub(crate) folder: tempfile::TempDir,
}

impl Bed {
    /// One on this engine.
    pub(crate) fn on(engine: &Engine) -> Self {
        Self::at(&engine.socket(), |_| {})
    }

    /// One on the engine with this socket, with other options than usual.
    pub(crate) fn at(socket: &Path, change: impl FnOnce(&mut DockerOptions)) -> Self {
        static COUNT: AtomicI64 = AtomicI64::new(1);
        let mut options = DockerOptions::new(socket.to_owned());
        options.grace = Duration::from_secs(1);
        change(&mut options);
        let driver = Arc::new(DockerDriver::new(options.clone(), Arc::new(Wall)));
        let installation = format!("{:x}{:04x}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)).into();
        Self { driver, options, installation, folder: tempfile::tempdir().unwrap() }
    }

    /// The agent as it is after a restart: it remembers nothing but what is on the disk.
    pub(crate) fn restarted(&self) -> Arc<DockerDriver> {
        Arc::new(DockerDriver::new(self.options.clone(), Arc::new(Wall)))
    }

    /// The first attempt of a task.
    pub(crate) fn work(&self, task: i64, spec: TaskSpec) -> Work {
        let id = WorkId { installation: Arc::clone(&self.installation), task: TaskId(task), attempt: 1 };
        let folder = self.folder.path().join(format!("{task}-1"));
        std::fs::create_dir_all(&folder).unwrap();
        Work { id, spec: Arc::new(spec), folder }
    }

    /// Starts the first attempt of a task.
    pub(crate) async fn start(&self, task: i64, spec: TaskSpec) -> Work {
        let work = self.work(task, spec);
        in_time("the start", self.driver.start(&work, &|_| {})).await.unwrap();
        work
    }

    /// Why it cannot be started.
    pub(crate) async fn refusal(&self, spec: TaskSpec) -> Failure {
        let work = self.work(1, spec);
        in_time("the refusal", self.driver.start(&work, &|_| {})).await.unwrap_err()
    }

    /// How it ends.
    pub(crate) async fn end(&self, work: &Work) -> Exit {
        in_time("the end", self.driver.wait(work)).await
    }

    /// Runs it to its end, and removes it.
    pub(crate) async fn run(&self, spec: TaskSpec) -> (Exit, Vec<String>) {
        static TASK: AtomicI64 = AtomicI64::new(1000);
        let work = self.start(TASK.fetch_add(1, Ordering::Relaxed), spec).await;
        let exit = self.end(&work).await;
        self.driver.remove(&work).await.unwrap();
        (exit, lines(&work))
    }

    /// Waits for it in the background.
    pub(crate) fn waiting(&self, work: &Work) -> tokio::task::JoinHandle<Exit> {
        waiting(&self.driver, work)
    }
}

/// Waits for work in the background.
pub(crate) fn waiting(driver: &Arc<DockerDriver>, work: &Work) -> tokio::task::JoinHandle<Exit> {
    let (driver, work) = (Arc::clone(driver), work.clone());
    tokio::spawn(async move { driver.wait(&work).await })
}

/// What came of waiting.
pub(crate) async fn ended(waiting: tokio::task::JoinHandle<Exit>) -> Exit {
    in_time("the end", waiting).await.unwrap()
}

/// A container of Busybox that runs this in its shell.
pub(crate) fn shell(script: &str) -> TaskSpec {
    container(BUSYBOX, &["sh", "-c", script])
}

/// The same, started again by the engine.
pub(crate) fn restarting(restart: RestartPolicy, script: &str) -> TaskSpec {
    TaskSpec { restart, ..shell(script) }
}

/// A container of this image with this command.
pub(crate) fn container(image: &str, command: &[&str]) -> TaskSpec {
    TaskSpec {
        driver: TaskDriver::Docker,
        image: Some(image.to_owned()),
        command: command.iter().map(|&text| text.to_owned()).collect(),
        ..TaskSpec::new(Name::parse("t").unwrap(), Resources::default())
    }
}

/// The code of the reason of a failure.
pub(crate) fn reason(exit: &Exit) -> Option<&'static str> {
    exit.failure.as_ref().map(|failure| failure.reason)
}

/// The log, as `stream: text`; what the agent says as `agent`.
pub(crate) fn lines(work: &Work) -> Vec<String> {
    let query = LogQuery { task_id: work.id.task, attempt: work.id.attempt, follow: false, after: None, tail: None };
    let mut reader = Reader::open(&work.folder, &query).unwrap();
    let mut lines = Vec::new();
    loop {
        let batch = reader.read().unwrap();
        lines.extend(batch.lines.into_iter().map(|line| match line.stream {
            LogStream::Agent => "agent".to_owned(),
            stream => format!("{}: {}", stream.as_str(), line.text),
        }));
        if batch.progress != Progress::More {
            return lines;
        }
    }
}

/// Its container.
pub(crate) async fn inspect(client: &Docker, work: &Work) -> ContainerInspectResponse {
    client.inspect_container(&work.id.to_string(), None).await.unwrap()
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < until, "{what}: not in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until the log has so many of this line.
pub(crate) async fn until_logged(work: &Work, line: &str, times: usize) {
    until(&format!("{times} × {line}"), async || count(&lines(work), line) >= times).await;
}

/// How often a line is there.
pub(crate) fn count(lines: &[String], line: &str) -> usize {
    lines.iter().filter(|other| *other == line).count()
}

/// What comes of it, in time.
pub(crate) async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}: not in time"))
}

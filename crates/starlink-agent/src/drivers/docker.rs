//! Runs work as containers of an engine that speaks Docker's API.
//!
//! Invariants: a container carries the installation, the task and the attempt in its labels, and one that does not is
//! never touched, whatever its name; each attempt has at most one container; the engine keeps it running while the agent
//! is away; each line of its output is in its log once, as long as the engine kept it.

mod containers;
mod create;
mod deeds;
mod end;
mod engine;
mod events;
mod gpus;
mod image;
mod images;
mod make;
mod mounts;
mod observe;
mod output;
mod processes;
pub(crate) mod program;
mod raw;
mod seen;
mod stats;
pub(crate) mod tail;
mod times;
pub(crate) mod usage;
mod watch;
mod window;

pub use containers::Containers;
pub use engine::Engine;
pub(crate) use engine::Trouble;

use crate::{
    drivers::Driver,
    work::{Exit, Failure, Work, WorkId},
};
use async_trait::async_trait;
use bollard::{
    Docker,
    errors::Error,
    query_parameters::{ListContainersOptions, RemoveContainerOptions},
};
use domain::{
    clock::Clock,
    containers::{EngineImage, ImageName, Logins, read_logins},
    fleet::protocol::{Order, Outcome},
    ids::TaskId,
    scheduling::{TaskSpec, reason},
};
use engine::Pauses;
use images::KnownImages;
use make::Making;
use seen::{Phase, Seen};
use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// The oldest API that is spoken: that of Docker 20.10.
pub const OLDEST_API: (u32, u32) = (1, 41);
/// Where engines listen unless they were told otherwise.
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";
/// How long the engine may take to remove a container.
const REMOVAL: Duration = Duration::from_secs(30);

const INSTALLATION: &str = "org.starlink.installation";
const TASK: &str = "org.starlink.task";
const ATTEMPT: &str = "org.starlink.attempt";

/// How the driver works; what the owner of the machine may decide.
#[derive(Debug, Clone)]
pub struct DockerOptions {
    /// The engine's socket.
    pub socket: PathBuf,
    /// Folders of the machine that containers may see, with all that is in them.
    pub allow_mounts: Vec<PathBuf>,
    /// Users of registries.
    pub logins: Logins,
    /// How long the engine may be away until what runs on it is given up.
    pub engine_patience: Duration,
    /// The most processes of one container.
    pub pids_limit: i64,
    /// How long work has to end by itself, if its task does not say.
    pub grace: Duration,
    /// Where `proc` and `sys` are looked for: `/`, but for tests.
    pub root: PathBuf,
}

impl DockerOptions {
    /// What is right unless the owner says otherwise: nothing may be mounted.
    #[must_use]
    pub fn new(socket: PathBuf) -> Self {
        Self {
            socket,
            allow_mounts: Vec::new(),
            logins: Logins::new(),
            engine_patience: Duration::from_mins(5),
            pids_limit: 4096,
            grace: Duration::from_secs(10),
            root: PathBuf::from("/"),
        }
    }
}

/// Whether something may be logged, whatever level was asked for: what the engine's client says below a warning includes
/// the environment of containers.
#[must_use]
pub fn is_discreet(metadata: &tracing::Metadata<'_>) -> bool {
    !metadata.target().starts_with("bollard") || *metadata.level() <= tracing::Level::WARN
}

/// The engine's socket by the value of `DOCKER_HOST`, which other tools understand, too.
///
/// # Errors
/// A sentence, if it names something else than a Unix socket.
pub fn socket(docker_host: Option<&str>) -> Result<PathBuf, String> {
    match docker_host.map(str::trim).filter(|host| !host.is_empty()) {
        None => Ok(PathBuf::from(DEFAULT_SOCKET)),
        Some(host) => match host.strip_prefix("unix://").filter(|path| path.starts_with('/')) {
            Some(path) => Ok(PathBuf::from(path)),
            None => Err(format!("the container engine's address {host:?} must be unix:// and an absolute path")),
        },
    }
}

/// The users of registries in a file as `docker login` writes it; none, if there is no file.
///
/// # Errors
/// A sentence that names the file and shows nothing secret.
pub fn logins(file: Option<&Path>) -> Result<Logins, String> {
    let Some(path) = file else { return Ok(Logins::new()) };
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    read_logins(&text).map_err(|reason| format!("{}: {reason}", path.display()))
}

/// Runs containers.
pub struct DockerDriver {
    options: DockerOptions,
    engine: Engine,
    clock: Arc<dyn Clock>,
    /// What is being ended on purpose.
    ending: Mutex<HashSet<WorkId>>,
    making: Making,
    images: KnownImages,
}

/// What the labels of a container say.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity {
    installation: Arc<str>,
    task: i64,
    attempt: u32,
}

impl Identity {
    fn of(id: &WorkId) -> Self {
        Self { installation: Arc::clone(&id.installation), task: id.task.0, attempt: id.attempt }
    }

    fn labels(&self) -> HashMap<String, String> {
        let labels = [
            (INSTALLATION, self.installation.to_string()),
            (TASK, self.task.to_string()),
            (ATTEMPT, self.attempt.to_string()),
        ];
        labels.map(|(name, value)| (name.to_owned(), value)).into()
    }

    fn matches(&self, labels: &HashMap<String, String>) -> bool {
        self.labels().iter().all(|(name, value)| labels.get(name) == Some(value))
    }

    fn read(labels: &HashMap<String, String>) -> Option<WorkId> {
        let installation = labels.get(INSTALLATION)?.as_str().into();
        let task = TaskId(labels.get(TASK)?.parse().ok()?);
        Some(WorkId { installation, task, attempt: labels.get(ATTEMPT)?.parse().ok()? })
    }
}

/// What there is under the name of some work.
enum There {
    Nothing,
    Ours(Seen),
    /// A container that something else made.
    Foreign,
}

impl DockerDriver {
    /// A driver. The engine need not be there yet.
    #[must_use]
    pub fn new(options: DockerOptions, clock: Arc<dyn Clock>) -> Self {
        let engine = Engine::at(&options.socket);
        Self {
            options,
            engine,
            clock,
            ending: Mutex::default(),
            making: Making::default(),
            images: KnownImages::default(),
        }
    }

    async fn patiently<T, F>(&self, question: impl Fn(Docker) -> F) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.engine.ask_patiently(self.options.engine_patience, question).await
    }

    async fn find(&self, id: &WorkId) -> Result<There, Trouble> {
        let name = &id.to_string();
        match self.patiently(|client: Docker| async move { client.inspect_container(name, None).await }).await {
            Ok(container) => Ok(Seen::read(container, &Identity::of(id)).map_or(There::Foreign, There::Ours)),
            Err(Trouble::Missing(_)) => Ok(There::Nothing),
            Err(trouble) => Err(trouble),
        }
    }

    fn grace(&self, spec: &TaskSpec) -> Duration {
        spec.grace_seconds.map_or(self.options.grace, Duration::from_secs)
    }

    fn ends_on_purpose(&self, id: &WorkId) -> bool {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner).contains(id)
    }

    /// Waits until the engine has removed what it is removing already.
    async fn removed(&self, id: &str) -> Result<(), Trouble> {
        let until = Instant::now() + REMOVAL;
        let mut pauses = Pauses::default();
        loop {
            match self.engine.ask(|client: Docker| async move { client.inspect_container(id, None).await }).await {
                Err(Trouble::Missing(_)) => return Ok(()),
                Ok(_) if Instant::now() < until => tokio::time::sleep(pauses.next()).await,
                Ok(_) => return Err(Trouble::Refused(format!("container {id} does not go away"))),
                Err(trouble) => return Err(trouble),
            }
        }
    }
}

#[async_trait]
impl Driver for DockerDriver {
    async fn start(&self, work: &Work, progress: &(dyn Fn(String) + Send + Sync)) -> Result<(), Failure> {
        let failed = |trouble: Trouble| trouble.into_failure(reason::START_FAILED);
        let id = &match self.find(&work.id).await.map_err(failed)? {
            There::Ours(Seen { phase: Phase::Created, id, .. }) => id,
            There::Ours(_) => return Ok(()),
            There::Nothing => self.make(work, progress).await?,
            There::Foreign => {
                let detail = format!("there is a container called {} that this agent did not make", work.id);
                return Err(Failure::new(reason::START_FAILED, detail));
            }
        };
        let start = |client: Docker| async move { client.start_container(id, None).await };
        self.patiently(start).await.map_err(failed)
    }

    async fn wait(&self, work: &Work) -> Exit {
        watch::Watch::new(self, work).run().await
    }

    async fn stop(&self, work: &Work, grace: Duration) -> Result<(), Failure> {
        let failed = |trouble: Trouble| trouble.into_failure(reason::ENGINE_GONE);
        let There::Ours(seen) = self.find(&work.id).await.map_err(failed)? else { return Ok(()) };
        self.ending.lock().unwrap_or_else(PoisonError::into_inner).insert(work.id.clone());
        end::end(&self.engine, self.options.engine_patience, &seen.id, grace).await.map_err(failed)
    }

    async fn remove(&self, work: &Work) -> Result<(), Failure> {
        let failed = |trouble: Trouble| trouble.into_failure(reason::ENGINE_GONE);
        self.making.done().await;
        if let There::Ours(seen) = self.find(&work.id).await.map_err(failed)? {
            let (id, options) = (&seen.id, RemoveContainerOptions { v: true, force: true, link: false });
            let remove = |client: Docker| {
                let options = options.clone();
                async move { client.remove_container(id, Some(options)).await }
            };
            match self.patiently(remove).await {
                Ok(()) | Err(Trouble::Missing(_)) => {}
                Err(Trouble::Conflict(_)) => self.removed(id).await.map_err(failed)?,
                Err(trouble) => return Err(failed(trouble)),
            }
        }
        self.ending.lock().unwrap_or_else(PoisonError::into_inner).remove(&work.id);
        Ok(())
    }

    async fn image(&self, name: &ImageName) -> Result<Option<EngineImage>, Failure> {
        self.engine_image(name).await
    }

    fn containers(&self) -> Option<Containers> {
        Some(self.containers())
    }

    async fn bring_about(
        &self,
        order: &Order,
        progress: &(dyn Fn(String) + Send + Sync),
    ) -> Result<Option<Outcome>, Failure> {
        self.carry_out(order, progress).await
    }

    async fn found(&self, installation: &str) -> Result<Vec<WorkId>, Failure> {
        let filters = HashMap::from([("label".to_owned(), vec![format!("{INSTALLATION}={installation}")])]);
        let options = ListContainersOptions { all: true, filters: Some(filters), ..ListContainersOptions::default() };
        // Not patiently: whoever asks this is just beginning, and has other things to do.
        let list = self.engine.ask(|client: Docker| async move { client.list_containers(Some(options)).await });
        let containers = list.await.map_err(|trouble| trouble.into_failure(reason::ENGINE_GONE))?;
        let ours = containers.into_iter().filter_map(|container| {
            let id = Identity::read(container.labels.as_ref()?)?;
            // An image that was made of a container of ours hands its labels on.
            let names = container.names.unwrap_or_default();
            names.iter().any(|name| name.trim_start_matches('/') == id.to_string()).then_some(id)
        });
        Ok(ours.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_where_other_tools_look_for_it() {
        assert_eq!(socket(None), Ok(PathBuf::from(DEFAULT_SOCKET)));
        assert_eq!(socket(Some(" ")), Ok(PathBuf::from(DEFAULT_SOCKET)));
        assert_eq!(socket(Some("unix:///run/user/1000/podman.sock")), Ok("/run/user/1000/podman.sock".into()));
        for other in ["tcp://10.0.0.1:2375", "ssh://host", "unix://relative", "/run/docker.sock"] {
            assert!(socket(Some(other)).unwrap_err().contains(other), "{other}");
        }
    }

    #[test]
    fn labels_read_back() {
        let id = WorkId { installation: "0a1b".into(), task: TaskId(7), attempt: 2 };
        let mut labels = Identity::of(&id).labels();
        assert_eq!(Identity::read(&labels), Some(id.clone()));
        assert!(Identity::of(&id).matches(&labels));
        labels.insert(ATTEMPT.to_owned(), "3".to_owned());
        assert!(!Identity::of(&id).matches(&labels));
        labels.remove(TASK);
        assert_eq!(Identity::read(&labels), None);
    }
}

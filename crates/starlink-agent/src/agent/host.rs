use crate::{
    drivers::{
        Driver,
        docker::{DockerDriver, DockerOptions},
        exec::{ExecDriver, ExecOptions},
    },
    inventory::{self, Kernel},
    meter::{Gauge, WorkPlace, gauges},
    runner::Drivers,
    session::Survey,
    shim::Files,
    state::{StateDir, StateError},
    work::{Exit, Failure, Work, WorkId},
};
use async_trait::async_trait;
use domain::{
    clock::Clock,
    containers::Logins,
    scheduling::{TaskDriver, reason},
};
use std::{
    error::Error,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// What the owner of a machine lets tasks do on it.
#[derive(Debug, Clone)]
pub struct HostOptions {
    /// The container engine's socket; `None` if it must not be used.
    pub docker_socket: Option<PathBuf>,
    /// Users of registries.
    pub logins: Logins,
    /// Folders that containers may mount, with all that is in them.
    pub allow_mounts: Vec<PathBuf>,
    /// Whether processes may be run on the machine itself.
    pub allow_exec: bool,
    /// The user that they run as; the agent's own if absent.
    pub exec_user: Option<String>,
    /// Whether that may be root.
    pub allow_root: bool,
    /// A program that has `shim DIR` as a command.
    pub program: PathBuf,
}

/// A machine, as an agent uses it.
pub struct Host {
    /// The ways to run work.
    pub drivers: Drivers,
    /// How to look at it.
    pub survey: Survey,
    /// How to measure it.
    pub gauges: Vec<Gauge>,
}

/// Why a machine cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The kernel does not say what it is.
    #[error("the kernel does not say what it is")]
    Kernel(#[from] io::Error),
    /// The folders of works cannot be made fit for processes.
    #[error(transparent)]
    State(#[from] StateError),
}

impl Host {
    /// The machine that this runs on.
    ///
    /// # Errors
    /// [`HostError`]
    pub fn real(options: &HostOptions, state: &StateDir, clock: Arc<dyn Clock>) -> Result<Self, HostError> {
        let (exec, can_exec) = exec(options, state)?;
        let mut drivers = vec![(TaskDriver::Exec, exec)];
        if let Some(socket) = &options.docker_socket {
            let docker = DockerOptions {
                allow_mounts: options.allow_mounts.clone(),
                logins: options.logins.clone(),
                ..DockerOptions::new(socket.clone())
            };
            let docker: Arc<dyn Driver> = Arc::new(DockerDriver::new(docker, clock.clone()));
            drivers.push((TaskDriver::Docker, docker));
        }
        let look = inventory::Options {
            root: PathBuf::from("/"),
            kernel: Kernel::running()?,
            engine: options.docker_socket.clone(),
            state_dir: state.path().to_owned(),
            exec: can_exec,
        };
        let place = WorkPlace::default();
        let gauges = gauges(&look.root, place.clone(), clock);
        let survey: Survey = Arc::new(move || {
            let (look, place) = (look.clone(), place.clone());
            Box::pin(async move {
                let found =
                    inventory::look(&look).await.map_err(|error| -> Box<dyn Error + Send + Sync> { error.into() })?;
                place.note(found.engine_disk, &look.state_dir);
                Ok(found.report)
            })
        });
        Ok(Self { drivers: Drivers::new(drivers), survey, gauges })
    }
}

/// The driver of processes, and whether new ones may be run by it.
fn exec(options: &HostOptions, state: &StateDir) -> Result<(Arc<dyn Driver>, bool), HostError> {
    let exec = ExecOptions {
        exec_user: options.exec_user.clone(),
        allow_root: options.allow_root,
        ..ExecOptions::new((options.program.clone(), vec!["shim".into()]), state.works())
    };
    if !options.allow_exec {
        // It finds out what the machine can enforce, which is no use where nothing is to be run.
        let before = has_begun(&state.works()).then(|| ExecDriver::new(exec));
        return Ok((Arc::new(NoMoreExec(before)), false));
    }
    state.let_through()?;
    let driver = ExecDriver::new(exec);
    let works = driver.check();
    if let Err(failure) = &works {
        tracing::warn!("no processes can be run for tasks: {}", failure.detail);
    }
    Ok((Arc::new(driver), works.is_ok()))
}

/// Whether a process was begun in one of the folders of works, and not removed.
fn has_begun(works: &Path) -> bool {
    let folders = std::fs::read_dir(works).into_iter().flatten().flatten();
    folders.map(|folder| folder.path()).any(|folder| Files::of(&folder).is_begun())
}

/// Processes that were begun while the owner allowed it, and no others.
struct NoMoreExec(Option<ExecDriver>);

#[async_trait]
impl Driver for NoMoreExec {
    async fn start(&self, work: &Work, progress: &(dyn Fn(String) + Send + Sync)) -> Result<(), Failure> {
        if let Some(driver) = &self.0
            && driver.found(&work.id.installation).await?.contains(&work.id)
        {
            return driver.start(work, progress).await;
        }
        let detail =
            "the owner of this server does not allow processes on it: its agent was started without --allow-exec";
        Err(Failure::new(reason::NOT_ALLOWED, detail))
    }

    async fn wait(&self, work: &Work) -> Exit {
        match &self.0 {
            Some(driver) => driver.wait(work).await,
            None => Exit::lost("nothing on this machine tells of it"),
        }
    }

    async fn stop(&self, work: &Work, grace: Duration) -> Result<(), Failure> {
        match &self.0 {
            Some(driver) => driver.stop(work, grace).await,
            None => Ok(()),
        }
    }

    async fn remove(&self, work: &Work) -> Result<(), Failure> {
        match &self.0 {
            Some(driver) => driver.remove(work).await,
            None => Ok(()),
        }
    }

    async fn found(&self, installation: &str) -> Result<Vec<WorkId>, Failure> {
        match &self.0 {
            Some(driver) => driver.found(installation).await,
            None => Ok(Vec::new()),
        }
    }
}

//! Processes, each under a shim of its own.
//!
//! A work has a folder, in which the agent and the shim tell each other things: what is to be run, who runs it, that it
//! is to end, how it ended. The shim holds a pipe in it open, so that its end is noticed at once, and whoever has got
//! its number since is never taken for it. See [`crate::shim`].
//!
//! Where control groups cannot be used, a task's demand is not enforced: its programs take what they get. Limits on
//! single processes would not do: a program may start any number of them, and address space is not memory. What a
//! program starts is ended with it all the same, because its shim adopts everything that is left behind; only once the
//! shim itself was killed, what has made itself a session of its own is not found any more.

mod aftermath;
mod life;
mod user;

use super::Driver;
use crate::{
    cgroup::{Bounds, Group, Hierarchies, Limits},
    logs,
    shim::{Files, GRACE, Plan},
    work::{Exit, Failure, Work, WorkId},
};
use async_trait::async_trait;
use domain::scheduling::reason;
use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::PathBuf,
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::AsyncReadExt,
    process::Command,
    time::{sleep, timeout},
};

/// The most processes and threads of one work, unless the machine's owner says otherwise.
pub const PROCESSES: u64 = 4096;
/// How long [`Driver::start`] waits for the program to take over; it goes on after that, too.
const BEGIN: Duration = Duration::from_mins(1);
/// When to look again where the disk keeps the outcome from being told.
const AGAIN: Duration = Duration::from_secs(1);
/// Where programs are, unless the task says otherwise.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Whether control groups are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CgroupMode {
    /// Where they can be.
    #[default]
    Auto,
    /// Never.
    Off,
}

/// How processes are run on this machine.
#[derive(Debug, Clone)]
pub struct ExecOptions {
    /// The program that runs [`crate::shim::main`], and its arguments before the folder of the work.
    pub shim: (PathBuf, Vec<OsString>),
    /// Where the folders of works are, each called after its [`WorkId`]. Everybody must be able to pass through it and
    /// what is above it, so that a program can use the path of its working directory.
    pub root: PathBuf,
    /// The user that work runs as. If absent, `nobody` if the agent is root and work may not be, otherwise the agent's.
    pub exec_user: Option<String>,
    /// Whether work may run as root.
    pub allow_root: bool,
    /// Whether control groups are used.
    pub cgroups: CgroupMode,
    /// The most processes and threads of one work.
    pub processes: u64,
}

impl ExecOptions {
    /// The safe choice of everything that can be chosen.
    #[must_use]
    pub fn new(shim: (PathBuf, Vec<OsString>), root: PathBuf) -> Self {
        Self { shim, root, exec_user: None, allow_root: false, cgroups: CgroupMode::Auto, processes: PROCESSES }
    }
}

/// Runs processes.
#[derive(Debug, Clone)]
pub struct ExecDriver {
    options: ExecOptions,
    hierarchies: Hierarchies,
}

impl ExecDriver {
    /// Finds out what can be enforced on this machine; what cannot is told in the log, once. It may move the agent into
    /// a control group below its own, see [`Hierarchies::find`].
    #[must_use]
    pub fn new(options: ExecOptions) -> Self {
        let hierarchies = match options.cgroups {
            CgroupMode::Auto => Hierarchies::find(),
            CgroupMode::Off => Hierarchies::none(),
        };
        let Limits { cpu, memory, processes, tree, missing } = hierarchies.limits();
        if missing.is_empty() {
            tracing::info!(cpu, memory, processes, tree, "the demand of tasks is enforced on processes");
        } else {
            let missing = missing.join("; ");
            tracing::warn!(
                cpu,
                memory,
                processes,
                tree,
                missing,
                "not all of a task's demand is enforced on processes"
            );
        }
        if let Some(folder) = user::barrier(&options) {
            let folder = folder.display();
            tracing::warn!(%folder, "programs cannot use the path of their folder: let everybody pass through this one");
        }
        Self { options, hierarchies }
    }

    /// What of a task's demand is enforced on this machine.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.hierarchies.limits()
    }

    /// Whether work can be run at all: there is a user that it may run as.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self) -> Result<(), Failure> {
        user::resolve(&self.options).map(drop)
    }

    /// Lays out what the shim needs; `false` if it was begun already.
    fn prepare(&self, work: &Work) -> Result<bool, Failure> {
        let files = Files::of(&work.folder);
        let begun = files.outcome().map_err(io_failure)?.is_some() || files.claim().map_err(io_failure)?.is_some();
        if begun {
            return Ok(false);
        }
        if !work.spec.mounts.is_empty() {
            let detail = "processes see the server's files as they are: mounts go only with the driver docker";
            return Err(Failure::new(reason::UNSUPPORTED, detail));
        }
        let who = user::resolve(&self.options)?;
        fs::set_permissions(&work.folder, fs::Permissions::from_mode(0o711)).map_err(io_failure)?;
        let directory = files.directory();
        match DirBuilder::new().mode(0o700).create(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(io_failure(error)),
            _ => {}
        }
        if let Some(identity) = &who.identity {
            std::os::unix::fs::chown(&directory, Some(identity.uid), Some(identity.gid)).map_err(io_failure)?;
        }
        let spec = &work.spec;
        let (cpu_millis, memory_mib) = (spec.demand.cpu_millis, spec.demand.memory_mib);
        let group = self.hierarchies.group(&work.id.to_string());
        let bounds = Bounds { cpu_millis, memory_mib, processes: self.options.processes };
        let notes = group.make(bounds).map_err(|error| io_failure(clear(&group, error)))?;
        let plan = Plan {
            command: spec.command.clone(),
            env: environment(work, &who.name, &directory.to_string_lossy()),
            user: who.identity,
            allow_root: self.options.allow_root,
            restart: spec.restart,
            timeout_seconds: spec.timeout_seconds,
            grace: spec.grace_seconds.map_or(GRACE, Duration::from_secs),
            log_limit_bytes: logs::limit_bytes(spec.log_limit_mib),
            group,
            notes,
        };
        let saved = files.make_life().and_then(|()| files.save_plan(&plan));
        saved.map_err(|error| io_failure(clear(&plan.group, error)))?;
        Ok(true)
    }

    /// Starts a shim, and waits until it has something to tell.
    async fn begin(&self, files: &Files) -> io::Result<()> {
        let (program, arguments) = &self.options.shim;
        let complaints = File::create(files.complaints())?;
        let mut command = Command::new(program);
        command.args(arguments).arg(files.folder()).env_clear().current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(complaints);
        let mut child = command.spawn()?;
        let mut told = child.stdout.take();
        // It ends when it likes; as long as the agent lives, it has to take note of that.
        tokio::spawn(async move { child.wait().await });
        if let Some(told) = &mut told {
            let mut nothing = Vec::new();
            let _ = timeout(BEGIN, told.read_to_end(&mut nothing)).await;
        }
        Ok(())
    }
}

#[async_trait]
impl Driver for ExecDriver {
    async fn start(&self, work: &Work, _progress: &(dyn Fn(String) + Send + Sync)) -> Result<(), Failure> {
        let files = Files::of(&work.folder);
        let (driver, work) = (self.clone(), work.clone());
        if blocking(move || driver.prepare(&work)).await? {
            self.begin(&files)
                .await
                .map_err(|error| Failure::new(reason::START_FAILED, format!("its shim: {error}")))?;
        }
        blocking(move || aftermath::check_begun(&files)).await
    }

    async fn wait(&self, work: &Work) -> Exit {
        let files = Files::of(&work.folder);
        loop {
            let known = files.clone();
            let mut exit = blocking(move || aftermath::known(&known)).await;
            if matches!(exit, Ok(None)) {
                life::ended(&files.life()).await;
                let ended = files.clone();
                exit = blocking(move || aftermath::settle(&ended)).await;
            }
            match exit {
                Ok(Some(exit)) => return exit,
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(work = %work.id, %error, "how it ended cannot be told yet");
                    sleep(AGAIN).await;
                }
            }
        }
    }

    async fn stop(&self, work: &Work, grace: Duration) -> Result<(), Failure> {
        let files = Files::of(&work.folder);
        let asked = blocking(move || aftermath::ask_to_end(&files, grace)).await;
        if asked? {
            self.wait(work).await;
        }
        Ok(())
    }

    async fn remove(&self, work: &Work) -> Result<(), Failure> {
        let files = Files::of(&work.folder);
        blocking(move || aftermath::remove(&files)).await
    }

    async fn found(&self, installation: &str) -> Result<Vec<WorkId>, Failure> {
        let (root, installation) = (self.options.root.clone(), installation.to_owned());
        blocking(move || aftermath::found(&root, &installation)).await
    }
}

/// What a program finds in its environment: what programs rely on, and the task's own variables.
fn environment(work: &Work, user: &str, directory: &str) -> Vec<(String, String)> {
    let variables = [("PATH", PATH), ("HOME", directory), ("USER", user), ("LOGNAME", user)];
    let own = work.spec.env.iter();
    let defaults = variables.into_iter().filter(|(name, _)| !work.spec.env.iter().any(|(own, _)| own == *name));
    defaults.chain(own).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Removes a group of which nobody would know any more, because of this.
fn clear(group: &Group, error: io::Error) -> io::Error {
    let _ = group.remove();
    error
}

/// Does what may wait for a disk where that keeps nobody else waiting.
async fn blocking<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(act).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

fn io_failure(error: io::Error) -> Failure {
    let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    Failure::new(if full { reason::DISK_FULL } else { reason::START_FAILED }, error)
}

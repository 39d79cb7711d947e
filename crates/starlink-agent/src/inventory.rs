//! What the machine is and what it has, found out anew each time and cheaply: a look every minute costs milliseconds.
//!
//! Invariants: the container engine's word about the architecture goes before the kernel's, and a 32-bit userland is
//! never taken for its 64-bit kin; a driver is named only if it was tried and works; two reports of a machine that did
//! not change are equal.

mod architecture;
mod emulation;
mod engine;
mod gpu;
mod machine;

use crate::drivers::docker::Engine;
use domain::{
    fleet::{Architecture, Driver, protocol::InventoryReport},
    units::Resources,
};
use std::{
    io,
    path::{Path, PathBuf},
};

/// What the kernel says of itself, as `uname` prints it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// Such as `x86_64` or `aarch64`.
    pub machine: String,
    /// Such as `6.1.0-18-amd64`.
    pub release: String,
}

impl Kernel {
    /// The one that runs.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn running() -> io::Result<Self> {
        let name = nix::sys::utsname::uname()?;
        let text = |field: &std::ffi::OsStr| field.to_string_lossy().into_owned();
        Ok(Self { machine: text(name.machine()), release: text(name.release()) })
    }
}

/// Where to look.
#[derive(Debug, Clone)]
pub struct Options {
    /// What `proc`, `sys`, `etc`, `usr` and `bin` are looked for in: `/`, but for tests.
    pub root: PathBuf,
    /// The kernel.
    pub kernel: Kernel,
    /// The socket of the container engine, if the owner has not forbidden it.
    pub engine: Option<PathBuf>,
    /// The agent's own directory: its disk counts where there is no engine.
    pub state_dir: PathBuf,
    /// Whether the owner allows processes to be run on the machine itself.
    pub exec: bool,
}

/// Why it could not be found out what the machine has.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// Something that every machine has could not be read.
    #[error("{}: {error}", path.display())]
    Unreadable {
        /// What.
        path: PathBuf,
        /// Why not.
        #[source]
        error: io::Error,
    },
    /// It could be read, and does not say what it should.
    #[error("{} does not say {what}", path.display())]
    Silent {
        /// What was read.
        path: PathBuf,
        /// What was looked for in it.
        what: &'static str,
    },
    /// The agent is being ended.
    #[error("the look at the machine was broken off")]
    BrokenOff,
}

/// What a look at the machine shows.
pub(crate) struct Look {
    /// What is told of it.
    pub(crate) report: InventoryReport,
    /// Where the container engine keeps what it has, if it says so.
    pub(crate) engine_disk: Option<PathBuf>,
}

/// Looks at the machine.
///
/// # Errors
/// If its processors or its memory cannot be told; all else is optional.
pub async fn take(options: &Options) -> Result<InventoryReport, InventoryError> {
    look(options).await.map(|look| look.report)
}

/// As [`take`], with what is of use on the machine alone.
pub(crate) async fn look(options: &Options) -> Result<Look, InventoryError> {
    let engine = match &options.engine {
        Some(socket) => engine::ask(&Engine::at(socket)).await,
        None => None,
    };
    let options = options.clone();
    let look = tokio::task::spawn_blocking(move || look_at(&options, engine.as_ref()));
    look.await.map_err(|_broken| InventoryError::BrokenOff)?
}

/// The architectures besides its own that a machine emulates; what is mounted there need not be its own kernel's.
pub(crate) fn emulated(root: &Path, native: Option<Architecture>) -> Vec<Architecture> {
    emulation::emulated(root, native)
}

/// How many GPUs there are.
pub(crate) fn gpus(root: &Path) -> i64 {
    gpu::find(root).count
}

fn look_at(options: &Options, engine: Option<&engine::Answers>) -> Result<Look, InventoryError> {
    let root = &options.root;
    let architecture = engine.and_then(|engine| architecture::of_engine(engine.info_word(), engine.version_word()));
    let architecture = architecture.unwrap_or_else(|| architecture::without_engine(root, &options.kernel.machine));
    let disk = engine.and_then(|engine| engine.data_root.as_deref()).filter(|path| path.is_dir());
    let gpus = gpu::find(root);
    let works = engine.is_some_and(engine::Answers::is_usable);
    let drivers = [(Driver::Docker, works), (Driver::Exec, options.exec)];
    let report = InventoryReport {
        emulated_architectures: emulated(root, Architecture::parse(&architecture).ok()),
        architecture,
        capacity: Resources {
            cpu_millis: machine::cpu_millis(root)?,
            memory_mib: machine::memory_mib(root)?,
            storage_mib: machine::storage_mib(disk.unwrap_or(&options.state_dir)),
            gpus: gpus.count,
        },
        gpu_model: gpus.model,
        drivers: drivers.into_iter().filter_map(|(driver, works)| works.then_some(driver)).collect(),
        os: machine::os(root).or_else(|| engine.and_then(|engine| engine.os.clone())),
        kernel: Some(options.kernel.release.clone()),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    Ok(Look { report, engine_disk: disk.map(Path::to_owned) })
}

//! The command line.
//!
//! Exit codes: 0 done, 1 failed, 2 the command line or what was agreed with the server is wrong, so that trying again
//! cannot help.

mod logging;
mod settings;

pub use logging::LogFormat;
pub use settings::Settings;

use crate::{
    agent::{Agent, Host, HostError, Options, Periods, StartError, SystemClock},
    client::{PlainHttp, ServerAddress, Wire},
    session::Stopped,
    shim,
    state::{StateDir, StateError},
};
use clap::{Args, Parser, Subcommand};
use domain::{error::with_causes, identity::Secret, text::Name};
use std::{
    error::Error,
    io::{self, Write},
    path::{Path, PathBuf},
    pin::pin,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

/// What the process was started with.
#[derive(Parser)]
#[command(name = "starlink-agent", version, about = "StarLink's agent: runs on every machine of a fleet")]
#[command(arg_required_else_help = true)]
pub struct Cli {
    /// Format of log lines
    #[arg(long, global = true, env = "STARLINK_LOG", value_name = "FORMAT", default_value = "text")]
    pub log: LogFormat,
    /// Which log lines are written: error, warn, info, debug, trace or off; MODULE=LEVEL for a module
    #[arg(long, global = true, env = "STARLINK_LOG_LEVEL", value_name = "LEVEL", default_value = "info")]
    pub log_level: String,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Make this machine a server of a fleet, unless it is one already, and run the agent
    Join(JoinArgs),
    /// Run the agent of a machine that has joined
    Run(SettingArgs),
    /// Look after one process; the agent calls it
    #[command(hide = true)]
    Shim {
        /// The folder of the process.
        folder: PathBuf,
    },
}

/// How to join.
#[derive(Args)]
pub struct JoinArgs {
    /// What to join with; others can see the command line, so rather set the variable or give a file
    #[arg(long, value_name = "JOIN_TOKEN", env = "STARLINK_JOIN_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// A file with what to join with
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    pub token_file: Option<PathBuf>,
    /// The settings.
    #[command(flatten)]
    pub settings: SettingArgs,
}

/// What the agent is told. `join` keeps it in the state directory, where `run` finds it; what is given to `run` goes
/// before that.
#[derive(Args, Default)]
pub struct SettingArgs {
    /// Directory for what the agent keeps
    #[arg(long, value_name = "DIRECTORY", env = "STARLINK_STATE_DIR", default_value = "/var/lib/starlink-agent")]
    pub state_dir: PathBuf,
    /// Address of the server
    #[arg(long, value_name = "URL", help = "Address of the server, such as https://starlink.example.org")]
    pub server: Option<String>,
    /// What this machine is to be called [default: its host name]
    #[arg(long, value_parser = |text: &str| Name::parse(text))]
    pub name: Option<Name>,
    /// Certificates of the authorities that are trusted, PEM [default: those of this machine]
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Speak plain HTTP with a server on another machine: whoever is on the way sees the tokens
    #[arg(long)]
    pub insecure_http: bool,
    /// Let tasks run processes on this machine itself
    #[arg(long)]
    pub allow_exec: bool,
    /// The user that processes run as [default: the agent's]
    #[arg(long, value_name = "USER")]
    pub exec_user: Option<String>,
    /// Let processes run as root
    #[arg(long)]
    pub allow_root: bool,
    /// A folder that tasks may mount, with all that is in it; may be given several times
    #[arg(long = "allow-mount", value_name = "PATH")]
    pub allow_mounts: Vec<PathBuf>,
    /// The container engine's socket
    #[arg(
        long,
        value_name = "PATH",
        help = "The container engine's socket [default: DOCKER_HOST, or /var/run/docker.sock]"
    )]
    pub docker_socket: Option<PathBuf>,
    /// A file with users of registries, as `docker login` writes it
    #[arg(long, value_name = "PATH")]
    pub registry_auth: Option<PathBuf>,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The agent was not started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The machine cannot be used.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The agent has ended by itself.
    #[error(transparent)]
    Stopped(Stopped),
    /// A setting is wrong.
    #[error("{0}")]
    Usage(String),
    /// The operating system does not let it run.
    #[error("the agent cannot run")]
    System(#[from] io::Error),
}

impl CliError {
    /// Whether trying again cannot help.
    fn is_usage(&self) -> bool {
        match self {
            Self::Usage(_) => true,
            Self::Start(error) => matches!(error, StartError::NotJoined | StartError::Setup(_)),
            Self::Stopped(stopped) => matches!(
                stopped,
                Stopped::JoinRefused(_)
                    | Stopped::TokenRefused(_)
                    | Stopped::Unsupported(_)
                    | Stopped::OtherInstallation { .. }
            ),
            Self::State(_) | Self::Host(_) | Self::System(_) => false,
        }
    }
}

/// The program `starlink-agent`.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // There is nobody left to tell if standard error is closed.
            error.print().ok();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    if let Command::Shim { folder } = &cli.command {
        return shim::main(folder);
    }
    match logging::start(cli.log, &cli.log_level).map_err(CliError::Usage).and_then(|()| execute(cli.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::from(if error.is_usage() { 2 } else { 1 })
        }
    }
}

/// Tells on standard error why the command failed.
fn report(error: &dyn Error) {
    writeln!(io::stderr(), "starlink-agent: {}", with_causes(error)).ok();
}

fn execute(command: Command) -> Result<(), CliError> {
    let (state, settings, token) = match command {
        Command::Join(args) => {
            let token = join_token(args.token, args.token_file.as_deref())?;
            let state = StateDir::open(&args.settings.state_dir)?;
            let settings = Settings::kept(&state)?.unwrap_or_default().joined(&args.settings)?;
            settings.keep(&state)?;
            (state, settings, token)
        }
        Command::Run(args) => {
            let state = StateDir::open(&args.state_dir)?;
            let settings = Settings::kept(&state)?.unwrap_or_default().overridden(&args)?;
            (state, settings, None)
        }
        Command::Shim { .. } => return Ok(()),
    };
    let options = options(state, settings, token)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_keep_alive(Duration::from_secs(2))
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(until_told(options));
    // What still waits for a disk or for an engine must not keep the process.
    runtime.shutdown_timeout(Duration::from_millis(500));
    outcome
}

fn join_token(token: Option<String>, file: Option<&Path>) -> Result<Option<Secret>, CliError> {
    let text = match (token, file) {
        (Some(token), _) => token,
        (None, Some(path)) => std::fs::read_to_string(path)
            .map_err(|error| CliError::Usage(format!("cannot read --token-file {}: {error}", path.display())))?,
        (None, None) => return Ok(None),
    };
    Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty()).map(Secret::from))
}

fn options(state: StateDir, settings: Settings, join_token: Option<Secret>) -> Result<Options, CliError> {
    let plain = if settings.insecure_http { PlainHttp::Anywhere } else { PlainHttp::Loopback };
    let server =
        settings.server.as_deref().ok_or_else(|| CliError::Usage("give the server with --server URL".to_owned()))?;
    let server = ServerAddress::parse(server, plain).map_err(|reason| CliError::Usage(format!("--server {reason}")))?;
    if !server.is_encrypted() && plain == PlainHttp::Anywhere {
        tracing::warn!("{server} is spoken to without encryption, as --insecure-http says");
    }
    let wire = Wire::new(server, settings.ca.as_deref()).map_err(StartError::from)?;
    let clock = Arc::new(SystemClock);
    let docker_host = std::env::var("DOCKER_HOST").ok();
    let host = settings.host(docker_host.as_deref())?;
    let Host { drivers, survey, gauges } = Host::real(&host, &state, clock.clone())?;
    let (name, periods) = (settings.name, Periods::default());
    Ok(Options { state, wire, name, join_token, drivers, survey, gauges, clock, periods })
}

/// Runs an agent until the operating system tells it to stop.
async fn until_told(options: Options) -> Result<(), CliError> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut told = pin!(async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    });
    let mut agent = Agent::start(options)?;
    tokio::select! {
        stopped = agent.ended() => return Err(CliError::Stopped(stopped)),
        () = &mut told => {}
    }
    tracing::info!("stopping; what runs here goes on");
    agent.stop().await;
    tracing::info!("stopped");
    Ok(())
}

#[cfg(test)]
#[path = "cli_tests.rs"]
mod tests;

//! `StarLink`'s server: configuration, wiring, background jobs, start and stop. No decisions.

pub mod adapters;
pub mod alerting;
pub mod bootstrap;
pub mod cli;
pub mod commands;
pub mod composition;
pub mod config;
pub mod data_dir;
pub mod jobs;
pub mod local_agent;
pub mod logging;
pub mod scheduling;
pub mod serve;
pub mod tls;

use crate::{
    cli::{Cli, Command, Exit, TokenCommand, check_config, report},
    composition::StartError,
    config::Config,
};
use clap::Parser;
use std::{error::Error, future::Future, io, process::ExitCode};

/// The program: reads the command line, does what it says, and tells how it went.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // It outlives the server, and what is configured for that is none of its business.
    if let Command::Shim { folder } = &cli.command {
        return starlink_agent::shim::main(folder);
    }
    let config = Config::load(&cli.settings, std::env::vars_os());
    let mut out = io::stdout();
    if matches!(cli.command, Command::CheckConfig) {
        return check_config(&config, &mut out).unwrap_or(Exit::Failed).into();
    }
    let config = match config {
        Ok(config) => config,
        Err(error) => {
            report(&error);
            return Exit::Usage.into();
        }
    };
    let outcome: Result<(), Box<dyn Error>> = match cli.command {
        Command::Serve => serve(&config),
        Command::Migrate => commands::migrate(&config, &mut out).map_err(Into::into),
        Command::Token { command: TokenCommand::Create(args) } => {
            run(commands::token_create(&config, args, &mut out)).map_err(Into::into)
        }
        Command::Backup { file } => commands::backup(&config, &file, &mut out).map_err(Into::into),
        Command::Restore { file } => run(commands::restore(&config, &file, &mut out)).map_err(Into::into),
        Command::Copy(args) => commands::copy(&args, &mut out).map_err(Into::into),
        Command::Version => {
            io::Write::write_fmt(&mut out, format_args!("starlink-server {}\n", env!("CARGO_PKG_VERSION")))
                .map_err(Into::into)
        }
        Command::CheckConfig | Command::Shim { .. } => Ok(()),
    };
    match outcome {
        Ok(()) => Exit::Done.into(),
        Err(error) => {
            report(&*error);
            Exit::Failed.into()
        }
    }
}

fn serve(config: &Config) -> Result<(), Box<dyn Error>> {
    logging::start(config.log, &config.log_level)?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    Ok(run(serve::until_told(config))?)
}

fn run(work: impl Future<Output = Result<(), StartError>>) -> Result<(), StartError> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?.block_on(work)
}

//! The command line: commands, and what `check-config` prints.
//!
//! Exit codes: 0 done, 1 failed, 2 the command line or the configuration is wrong, so that trying again cannot help.

use crate::{
    config::{Config, ConfigError, DatabaseUrl, Setting},
    data_dir, tls,
};
use clap::{
    Args, Parser, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use domain::{
    error::with_causes,
    identity::{Role, Room},
    text::Name,
};
use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

/// What the process was started with.
#[derive(Parser)]
#[command(name = "starlink-server", version, about = "StarLink's control plane", arg_required_else_help = true)]
#[command(
    after_help = "Settings come from flags, environment variables, the file of --config, and defaults, in this order."
)]
pub struct Cli {
    /// Settings; every command takes them, before or after its name.
    #[command(flatten)]
    pub settings: crate::config::SettingFlags,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Run the server until it is told to stop
    Serve,
    /// Bring the database to this version's schema, then exit
    Migrate,
    /// Show the configuration in force, without passwords, and whether it can be used
    CheckConfig,
    /// Manage API tokens without the API
    Token {
        /// What to do with them.
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// Write a consistent copy of the database to a new file
    Backup {
        /// The file to write; it must not exist.
        file: PathBuf,
    },
    /// Replace the database by a copy that `backup` wrote
    Restore {
        /// The file to read.
        file: PathBuf,
    },
    /// Copy everything from one database to another, empty one
    Copy(CopyArgs),
    /// Look after one process; the local agent calls it
    #[command(hide = true)]
    Shim {
        /// The folder of the process.
        folder: PathBuf,
    },
    /// Show the version
    Version,
}

/// What to do with API tokens.
#[derive(Subcommand)]
pub enum TokenCommand {
    /// Make a token and print its secret, once
    Create(TokenArgs),
}

/// A token to be made.
#[derive(Args)]
pub struct TokenArgs {
    /// What the audit log calls its bearer
    #[arg(long, value_parser = |text: &str| Name::parse(text))]
    pub name: Name,
    /// What its bearer may do
    #[arg(long, value_parser = PossibleValuesParser::new(Role::ALL.map(Role::as_str)).try_map(role))]
    pub role: Role,
    /// A room it opens; may be given several times [default: every room]
    #[arg(long = "scope", value_name = "ROOM",
        value_parser = PossibleValuesParser::new(Room::ALL.map(Room::as_str)).try_map(room))]
    pub scopes: Vec<Room>,
    /// Days until it stops working [default: never]
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub expires_in_days: Option<u32>,
}

/// Where to copy from and to.
#[derive(Args)]
pub struct CopyArgs {
    /// The database to read
    #[arg(long, value_name = "URL")]
    pub from: DatabaseUrl,
    /// The database to fill; it must be empty
    #[arg(long, value_name = "URL")]
    pub to: DatabaseUrl,
}

fn role(text: String) -> Result<Role, String> {
    Role::parse(&text).ok_or(text)
}

fn room(text: String) -> Result<Room, String> {
    Room::ALL.into_iter().find(|room| room.as_str() == text).ok_or(text)
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It did what it was asked to do.
    Done,
    /// It did not.
    Failed,
    /// The command line or the configuration is wrong.
    Usage,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
        })
    }
}

/// Tells on standard error why the command failed.
pub fn report(error: &dyn std::error::Error) {
    // There is nobody left to tell if standard error is closed.
    writeln!(io::stderr(), "starlink-server: {}", with_causes(error)).ok();
}

/// Writes the configuration in force and whether it can be used. The output is a configuration file itself.
///
/// # Errors
/// If `out` cannot be written to.
pub fn check_config(config: &Result<Config, ConfigError>, out: &mut dyn Write) -> io::Result<Exit> {
    let problems = match config {
        Ok(config) => {
            for setting in Setting::ALL {
                writeln!(out, "{}", config_line(config, *setting))?;
            }
            for warning in &config.warnings {
                writeln!(out, "# warning: {warning}")?;
            }
            unusable_files(config)
        }
        Err(error) => error.problems.iter().map(ToString::to_string).collect(),
    };
    for problem in &problems {
        writeln!(out, "# wrong: {problem}")?;
    }
    if problems.is_empty() {
        writeln!(out, "# the configuration can be used")?;
        return Ok(Exit::Done);
    }
    writeln!(out, "# the configuration cannot be used")?;
    Ok(Exit::Usage)
}

fn config_line(config: &Config, setting: Setting) -> String {
    match config.shown(setting) {
        Some(value) => format!("{} = {value} # {}", setting.name(), config.source(setting)),
        None => format!("# {} is not set", setting.name()),
    }
}

/// Looks into the files that the server would refuse to start with. Creates nothing.
fn unusable_files(config: &Config) -> Vec<String> {
    let tls = config.tls.as_ref().and_then(|files| tls::server_config(&files.cert, &files.key).err());
    let key = data_dir::read_key(&config.audit_key_file).err();
    tls.map(|error| with_causes(&error)).into_iter().chain(key.map(|error| with_causes(&error))).collect()
}

#[cfg(test)]
#[path = "cli_tests.rs"]
mod tests;

use super::{CliError, SettingArgs};
use crate::{
    agent::HostOptions,
    drivers::docker,
    state::{StateDir, StateError},
};
use domain::text::Name;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Where they are kept in the state directory.
const FILE: &str = "agent.json";

/// What the agent was told. What a newer agent has besides is ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// The address of the server.
    pub server: Option<String>,
    /// What the machine is to be called.
    pub name: Option<Name>,
    /// The file of authorities that are trusted.
    pub ca: Option<PathBuf>,
    /// Whether plain HTTP may be spoken with other machines.
    pub insecure_http: bool,
    /// Whether tasks may run processes on the machine itself.
    pub allow_exec: bool,
    /// The user that they run as.
    pub exec_user: Option<String>,
    /// Whether that may be root.
    pub allow_root: bool,
    /// Folders that tasks may mount.
    pub allow_mounts: Vec<PathBuf>,
    /// The container engine's socket.
    pub docker_socket: Option<PathBuf>,
    /// The file with users of registries.
    pub registry_auth: Option<PathBuf>,
}

impl Settings {
    /// What was kept, if anything was.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn kept(state: &StateDir) -> Result<Option<Self>, StateError> {
        state.read_json(FILE)
    }

    /// Keeps them for the next start.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn keep(&self, state: &StateDir) -> Result<(), StateError> {
        if Self::kept(state)?.as_ref() == Some(self) { Ok(()) } else { state.write_json(FILE, self) }
    }

    /// What `join` was given: only that, besides a server that was given before.
    ///
    /// # Errors
    /// If a path is empty.
    pub fn joined(self, args: &SettingArgs) -> Result<Self, CliError> {
        Self { server: self.server, ..Self::default() }.overridden(args)
    }

    /// These, where nothing else was given.
    ///
    /// # Errors
    /// If a path is empty.
    pub fn overridden(self, args: &SettingArgs) -> Result<Self, CliError> {
        let path = |name: &str, path: &Path| {
            // The next start may have another working directory.
            std::path::absolute(path).map_err(|error| CliError::Usage(format!("{name} {}: {error}", path.display())))
        };
        let given = |name, value: &Option<PathBuf>| value.as_deref().map(|value| path(name, value)).transpose();
        let mounts: Vec<PathBuf> =
            args.allow_mounts.iter().map(|mount| path("--allow-mount", mount)).collect::<Result<_, _>>()?;
        Ok(Self {
            server: args.server.clone().or(self.server),
            name: args.name.clone().or(self.name),
            ca: given("--ca", &args.ca)?.or(self.ca),
            insecure_http: args.insecure_http || self.insecure_http,
            allow_exec: args.allow_exec || self.allow_exec,
            exec_user: args.exec_user.clone().or(self.exec_user),
            allow_root: args.allow_root || self.allow_root,
            allow_mounts: if mounts.is_empty() { self.allow_mounts } else { mounts },
            docker_socket: given("--docker-socket", &args.docker_socket)?.or(self.docker_socket),
            registry_auth: given("--registry-auth", &args.registry_auth)?.or(self.registry_auth),
        })
    }

    /// What the agent may do on the machine.
    ///
    /// # Errors
    /// If `docker_host` (the variable `DOCKER_HOST`) names something else than a socket, or users of registries cannot be
    /// read.
    pub(super) fn host(&self, docker_host: Option<&str>) -> Result<HostOptions, CliError> {
        let socket = match &self.docker_socket {
            Some(socket) => socket.clone(),
            None => docker::socket(docker_host).map_err(CliError::Usage)?,
        };
        let logins = docker::logins(self.registry_auth.as_deref())
            .map_err(|reason| CliError::Usage(format!("--registry-auth {reason}")))?;
        Ok(HostOptions {
            docker_socket: Some(socket),
            logins,
            allow_mounts: self.allow_mounts.clone(),
            allow_exec: self.allow_exec,
            exec_user: self.exec_user.clone(),
            allow_root: self.allow_root,
            program: std::env::current_exe()?,
        })
    }
}

//! The configuration: settings from flags, environment variables, a TOML file and defaults, in this order of precedence.
//!
//! Invariants: [`Setting`] is the only list of settings; what is wrong is told all at once, each with its source; a
//! password is never shown; a [`Config`] that exists can be started with.

mod error;
mod layers;
mod settings;
mod values;

pub use error::{ConfigError, Problem, Source};
pub use infra_diesel::DatabaseUrl;
pub use layers::SettingFlags;
pub use settings::{Fallback, Kind, Setting};
pub use values::LogFormat;

use layers::{Environment, Layer, file_of, parse_file};
use std::{collections::BTreeMap, ffi::OsString, net::SocketAddr, path::PathBuf, thread};

/// The most threads that are started unless more are asked for: one process shares its machine with a database.
const DEFAULT_WORKERS: usize = 4;

/// Where certificate and key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and its chain, PEM.
    pub cert: PathBuf,
    /// The private key, PEM.
    pub key: PathBuf,
}

/// What the agent of the server's own machine may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalAgent {
    /// Whether it runs processes.
    pub allow_exec: bool,
    /// As whom.
    pub exec_user: Option<String>,
    /// Whether as root.
    pub exec_allow_root: bool,
    /// Directories that tasks may mount.
    pub allow_mounts: Vec<PathBuf>,
    /// The socket of the container engine.
    pub docker_socket: Option<PathBuf>,
    /// The file with users of image registries.
    pub registry_auth: Option<PathBuf>,
}

/// How the server is to run.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where to keep what is not in the database.
    pub data_dir: PathBuf,
    /// The database.
    pub database_url: DatabaseUrl,
    /// Origins of web pages that may call the API.
    pub cors_origins: Vec<String>,
    /// Certificate and key, to serve HTTPS.
    pub tls: Option<TlsFiles>,
    /// Whether `X-Forwarded-For` is believed.
    pub behind_proxy: bool,
    /// The key of the audit log.
    pub audit_key_file: PathBuf,
    /// After how many days audit rows go; 0 for never.
    pub audit_retention_days: u32,
    /// After how many days samples go.
    pub sample_retention_days: u32,
    /// How many seconds a task waits for room before a server is kept free for it.
    pub task_patience_seconds: u32,
    /// How many seconds an agent may be silent before its server is offline.
    pub agent_grace_seconds: u32,
    /// How often alerts are judged, in seconds.
    pub alert_interval_seconds: u32,
    /// Whether targets of alerts may be on this machine or in private networks.
    pub alert_private_targets: bool,
    /// The agent of this machine; `None` if there is to be none.
    pub local_agent: Option<LocalAgent>,
    /// The file with users of image registries.
    pub registry_auth: Option<PathBuf>,
    /// Registries that are asked over plain HTTP.
    pub insecure_registries: Vec<String>,
    /// How log lines are written.
    pub log: LogFormat,
    /// Which are.
    pub log_level: String,
    /// Whether `/metrics` needs no token.
    pub metrics_open: bool,
    /// Threads that answer requests.
    pub workers: usize,
    /// To be logged as soon as there is a log.
    pub warnings: Vec<String>,
    sources: BTreeMap<Setting, Source>,
}

impl Config {
    /// Puts the configuration together.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(
        flags: &SettingFlags,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        let mut environment = Environment::read(variables);
        let mut problems = std::mem::take(&mut environment.problems);
        let mut given = file_layer(flags, &environment, &mut problems);
        given.extend(std::mem::take(&mut environment.given));
        given.extend(flags.layer().clone());

        let mut reader = Reader { given, problems };
        let config = reader.config(environment.warnings);
        match config {
            Some(config) if reader.problems.is_empty() => Ok(config),
            _ => Err(ConfigError { problems: reader.problems }),
        }
    }

    /// Where the value of a setting came from.
    #[must_use]
    pub fn source(&self, setting: Setting) -> &Source {
        self.sources.get(&setting).unwrap_or(&Source::Default)
    }

    /// The value in force, as the configuration file would have it, without passwords; `None` if there is none.
    #[must_use]
    pub fn shown(&self, setting: Setting) -> Option<toml::Value> {
        let path = |path: &PathBuf| path.display().to_string();
        Some(match setting {
            Setting::Listen => self.listen.to_string().into(),
            Setting::DataDir => path(&self.data_dir).into(),
            Setting::DatabaseUrl => self.database_url.to_string().into(),
            Setting::CorsOrigin => self.cors_origins.clone().into(),
            Setting::TlsCert => path(&self.tls.as_ref()?.cert).into(),
            Setting::TlsKey => path(&self.tls.as_ref()?.key).into(),
            Setting::BehindProxy => self.behind_proxy.into(),
            Setting::AuditKeyFile => path(&self.audit_key_file).into(),
            Setting::AuditRetentionDays => self.audit_retention_days.into(),
            Setting::SampleRetentionDays => self.sample_retention_days.into(),
            Setting::TaskPatienceSeconds => self.task_patience_seconds.into(),
            Setting::AgentGraceSeconds => self.agent_grace_seconds.into(),
            Setting::AlertIntervalSeconds => self.alert_interval_seconds.into(),
            Setting::AlertPrivateTargets => self.alert_private_targets.into(),
            Setting::NoLocalAgent => self.local_agent.is_none().into(),
            Setting::AllowExec => self.local_agent.as_ref()?.allow_exec.into(),
            Setting::ExecUser => self.local_agent.as_ref()?.exec_user.clone()?.into(),
            Setting::ExecAllowRoot => self.local_agent.as_ref()?.exec_allow_root.into(),
            Setting::AllowMount => self.local_agent.as_ref()?.allow_mounts.iter().map(path).collect::<Vec<_>>().into(),
            Setting::DockerSocket => path(self.local_agent.as_ref()?.docker_socket.as_ref()?).into(),
            Setting::RegistryAuth => path(self.registry_auth.as_ref()?).into(),
            Setting::InsecureRegistry => self.insecure_registries.clone().into(),
            Setting::Log => self.log.as_str().into(),
            Setting::LogLevel => self.log_level.as_str().into(),
            Setting::MetricsOpen => self.metrics_open.into(),
            Setting::Workers => i64::try_from(self.workers).unwrap_or(i64::MAX).into(),
        })
    }
}

fn file_layer(flags: &SettingFlags, environment: &Environment, problems: &mut Vec<Problem>) -> Layer {
    let Some((path, named_by)) = file_of(flags, environment) else { return Layer::new() };
    match std::fs::read_to_string(&path) {
        Ok(text) => parse_file(&path, &text, problems),
        Err(error) => {
            problems.push(Problem::new("config", named_by, format!("cannot read {}: {error}", path.display())));
            Layer::new()
        }
    }
}

/// Turns texts into values and gathers what is wrong with them.
struct Reader {
    given: Layer,
    problems: Vec<Problem>,
}

impl Reader {
    fn config(&mut self, warnings: Vec<String>) -> Option<Config> {
        let listen = self.value(Setting::Listen, values::listen);
        let data_dir = self.value(Setting::DataDir, values::path);
        let database_url = self.given(Setting::DatabaseUrl, DatabaseUrl::parse);
        let cors_origins = self.list(Setting::CorsOrigin, values::origin);
        let cert = self.given(Setting::TlsCert, values::path);
        let key = self.given(Setting::TlsKey, values::path);
        let behind_proxy = self.value(Setting::BehindProxy, values::switch);
        let audit_key_file = self.given(Setting::AuditKeyFile, values::path);
        let audit_retention_days = self.value(Setting::AuditRetentionDays, values::retention_days);
        let sample_retention_days = self.value(Setting::SampleRetentionDays, values::sample_days);
        let task_patience_seconds = self.value(Setting::TaskPatienceSeconds, values::patience_seconds);
        let agent_grace_seconds = self.value(Setting::AgentGraceSeconds, values::grace_seconds);
        let alert_interval_seconds = self.value(Setting::AlertIntervalSeconds, values::interval_seconds);
        let alert_private_targets = self.value(Setting::AlertPrivateTargets, values::switch);
        let registry_auth = self.given(Setting::RegistryAuth, values::path);
        let local_agent = self.local_agent(registry_auth.clone());
        let insecure_registries = self.list(Setting::InsecureRegistry, values::registry);
        let log = self.value(Setting::Log, values::LogFormat::parse);
        let log_level = self.value(Setting::LogLevel, values::log_level);
        let metrics_open = self.value(Setting::MetricsOpen, values::switch);
        let workers = self.given(Setting::Workers, values::workers);

        let tls = self.tls(cert, key);
        self.refuse_plain_http(listen?, behind_proxy?);
        let data_dir = data_dir?;
        let beside = format!("sqlite:{}", data_dir.join("starlink.db").display());
        Some(Config {
            listen: listen?,
            database_url: database_url.or_else(|| DatabaseUrl::parse(&beside).ok())?,
            cors_origins,
            tls,
            behind_proxy: behind_proxy?,
            audit_key_file: audit_key_file.unwrap_or_else(|| data_dir.join("audit.key")),
            audit_retention_days: audit_retention_days?,
            sample_retention_days: sample_retention_days?,
            task_patience_seconds: task_patience_seconds?,
            agent_grace_seconds: agent_grace_seconds?,
            alert_interval_seconds: alert_interval_seconds?,
            alert_private_targets: alert_private_targets?,
            local_agent: local_agent?,
            registry_auth,
            insecure_registries,
            log: log?,
            log_level: log_level?,
            metrics_open: metrics_open?,
            workers: workers.unwrap_or_else(default_workers),
            warnings,
            sources: self.given.iter().map(|(setting, given)| (*setting, given.source.clone())).collect(),
            data_dir,
        })
    }

    /// What the agent of this machine may do; within, `None` if there is to be none.
    #[expect(clippy::option_option, reason = "the outer one says that something is wrong, as for every setting")]
    fn local_agent(&mut self, registry_auth: Option<PathBuf>) -> Option<Option<LocalAgent>> {
        let none = self.value(Setting::NoLocalAgent, values::switch);
        let allow_exec = self.value(Setting::AllowExec, values::switch);
        let exec_user = self.given(Setting::ExecUser, values::user);
        let exec_allow_root = self.value(Setting::ExecAllowRoot, values::switch);
        let allow_mounts = self.list(Setting::AllowMount, values::absolute);
        let docker_socket = self.given(Setting::DockerSocket, values::absolute);
        let agent = LocalAgent {
            allow_exec: allow_exec?,
            exec_user,
            exec_allow_root: exec_allow_root?,
            allow_mounts,
            docker_socket,
            registry_auth,
        };
        Some((!none?).then_some(agent))
    }

    /// The value of a setting that always has one.
    fn value<T>(&mut self, setting: Setting, parse: fn(&str) -> Result<T, String>) -> Option<T> {
        if self.given.contains_key(&setting) {
            return self.given(setting, parse);
        }
        match setting.fallback() {
            Fallback::Value(text) => parse(text).ok(),
            Fallback::Derived(_) | Fallback::Absent => None,
        }
    }

    /// The value of a setting, if it was given and is right.
    fn given<T>(&mut self, setting: Setting, parse: fn(&str) -> Result<T, String>) -> Option<T> {
        self.list(setting, parse).into_iter().next_back()
    }

    fn list<T>(&mut self, setting: Setting, parse: fn(&str) -> Result<T, String>) -> Vec<T> {
        let Some(given) = self.given.get(&setting) else { return Vec::new() };
        let mut values = Vec::new();
        for text in &given.values {
            match parse(text) {
                Ok(value) => values.push(value),
                Err(reason) => self.problems.push(Problem::new(setting.name(), given.source.clone(), reason)),
            }
        }
        values
    }

    fn tls(&mut self, cert: Option<PathBuf>, key: Option<PathBuf>) -> Option<TlsFiles> {
        let (has, lacks) = match (cert, key) {
            (Some(cert), Some(key)) => return Some(TlsFiles { cert, key }),
            (None, None) => return None,
            (Some(_), None) => (Setting::TlsCert, Setting::TlsKey),
            (None, Some(_)) => (Setting::TlsKey, Setting::TlsCert),
        };
        if !self.given.contains_key(&lacks) {
            self.note(has, format!("needs {} as well: HTTPS takes a certificate and its key", lacks.name()));
        }
        None
    }

    /// Tokens and passwords must not cross a network in the clear. Loopback is none.
    fn refuse_plain_http(&mut self, listen: SocketAddr, behind_proxy: bool) {
        let wants_tls = self.given.contains_key(&Setting::TlsCert) || self.given.contains_key(&Setting::TlsKey);
        if listen.ip().to_canonical().is_loopback() || behind_proxy || wants_tls {
            return;
        }
        self.note(
            Setting::Listen,
            format!(
                "{listen} is reachable from other machines, and plain HTTP would show them tokens and passwords: give \
                 tls_cert and tls_key, or set behind_proxy if a reverse proxy in front terminates TLS, or listen on \
                 127.0.0.1"
            ),
        );
    }

    fn note(&mut self, setting: Setting, reason: String) {
        let source = self.given.get(&setting).map_or(Source::Default, |given| given.source.clone());
        self.problems.push(Problem::new(setting.name(), source, reason));
    }
}

fn default_workers() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(DEFAULT_WORKERS)
}

#[cfg(test)]
mod tests;

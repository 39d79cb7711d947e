//! The list of settings: the one place where a setting is named, described and given its default.

use clap::{Arg, ArgAction};

/// What the values of a setting look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One text.
    Text,
    /// A whole number.
    Number,
    /// `true` or `false`; a flag alone means `true`.
    Switch,
    /// Several texts: a flag that repeats, a variable with commas, an array in the file.
    List,
}

/// What holds where a setting was not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// This value, written as it would be in a variable.
    Value(&'static str),
    /// A value that follows from something else, in words.
    Derived(&'static str),
    /// Nothing.
    Absent,
}

macro_rules! settings {
    ($($variant:ident = $name:literal, $kind:expr, $value:literal, $default:expr, $help:literal;)+) => {
        /// Something that can be configured.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Setting {
            $(#[doc = concat!("The setting `", $name, "`; [`Setting::help`] tells what it is for.")] $variant,)+
        }

        impl Setting {
            /// Every setting, in the order in which they are shown.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Its key in the configuration file, from which flag and variable follow.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What its values look like.
            #[must_use]
            pub fn kind(self) -> Kind {
                match self { $(Self::$variant => $kind,)+ }
            }

            /// What holds where it was not given.
            #[must_use]
            pub fn fallback(self) -> Fallback {
                match self { $(Self::$variant => $default,)+ }
            }

            /// What it is for, in one sentence.
            #[must_use]
            pub fn help(self) -> &'static str {
                match self { $(Self::$variant => $help,)+ }
            }

            fn value_name(self) -> &'static str {
                match self { $(Self::$variant => $value,)+ }
            }
        }
    };
}

settings! {
    Listen = "listen", Kind::Text, "ADDRESS:PORT", Fallback::Value("127.0.0.1:8000"),
        "IP address and port to listen on; port 0 takes a free one";
    DataDir = "data_dir", Kind::Text, "DIRECTORY", Fallback::Value("./starlink-data"),
        "Directory for what the server keeps beside the database";
    DatabaseUrl = "database_url", Kind::Text, "URL", Fallback::Derived("sqlite:<data_dir>/starlink.db"),
        "Database: sqlite:PATH or postgres://USER:PASSWORD@HOST/NAME";
    CorsOrigin = "cors_origin", Kind::List, "ORIGIN", Fallback::Absent,
        "Origin of a web page that may call the API from a browser; may be given several times";
    TlsCert = "tls_cert", Kind::Text, "FILE", Fallback::Absent,
        "PEM file with the server's certificate and its chain; serves HTTPS";
    TlsKey = "tls_key", Kind::Text, "FILE", Fallback::Absent,
        "PEM file with the private key of the certificate";
    BehindProxy = "behind_proxy", Kind::Switch, "BOOL", Fallback::Value("false"),
        "A reverse proxy in front terminates TLS and sets X-Forwarded-For, which is believed";
    AuditKeyFile = "audit_key_file", Kind::Text, "FILE", Fallback::Derived("<data_dir>/audit.key"),
        "Key that seals the audit log; created if it is missing";
    AuditRetentionDays = "audit_retention_days", Kind::Number, "DAYS", Fallback::Value("0"),
        "Days after which audit rows are let go; 0 keeps them for ever";
    SampleRetentionDays = "sample_retention_days", Kind::Number, "DAYS", Fallback::Value("30"),
        "Days after which samples of what servers were measured to be at are let go";
    TaskPatienceSeconds = "task_patience_seconds", Kind::Number, "SECONDS", Fallback::Value("600"),
        "Seconds that a task waits for room before a server is kept free for it";
    AgentGraceSeconds = "agent_grace_seconds", Kind::Number, "SECONDS", Fallback::Value("60"),
        "Seconds without a word from an agent after which its server is offline";
    AlertIntervalSeconds = "alert_interval_seconds", Kind::Number, "SECONDS", Fallback::Value("15"),
        "Seconds after which alerts are judged anew";
    AlertPrivateTargets = "alert_private_targets", Kind::Switch, "BOOL", Fallback::Value("false"),
        "Whether targets of alerts may be on this machine or in private networks, and be told over plain HTTP there";
    NoLocalAgent = "no_local_agent", Kind::Switch, "BOOL", Fallback::Value("false"),
        "Whether the machine that the server runs on is left alone; otherwise it joins the fleet";
    AllowExec = "allow_exec", Kind::Switch, "BOOL", Fallback::Value("false"),
        "Whether the local agent runs tasks as processes of this machine";
    ExecUser = "exec_user", Kind::Text, "USER", Fallback::Derived("nobody, if the server runs as root"),
        "User of this machine as whom the local agent runs processes";
    ExecAllowRoot = "exec_allow_root", Kind::Switch, "BOOL", Fallback::Value("false"),
        "Whether the local agent may run processes as root";
    AllowMount = "allow_mount", Kind::List, "DIRECTORY", Fallback::Absent,
        "Directory of this machine that tasks may mount; may be given several times";
    DockerSocket = "docker_socket", Kind::Text, "FILE", Fallback::Derived("DOCKER_HOST, or /var/run/docker.sock"),
        "Socket of the container engine of the local agent";
    RegistryAuth = "registry_auth", Kind::Text, "FILE", Fallback::Absent,
        "File with users of image registries, as docker login writes it; for look-ups and the local agent";
    InsecureRegistry = "insecure_registry", Kind::List, "HOST:PORT", Fallback::Absent,
        "Image registry that is asked over plain HTTP; may be given several times";
    Log = "log", Kind::Text, "FORMAT", Fallback::Value("text"),
        "Format of the log on standard output: text or json";
    LogLevel = "log_level", Kind::Text, "FILTER", Fallback::Value("info"),
        "What is logged: error, warn, info, debug, trace or off, also per module: info,domain=debug";
    MetricsOpen = "metrics_open", Kind::Switch, "BOOL", Fallback::Value("false"),
        "Whether /metrics can be read without a token";
    Workers = "workers", Kind::Number, "NUMBER", Fallback::Derived("number of cores, at most 4"),
        "Threads that answer requests";
}

impl Setting {
    /// The setting with this key.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|setting| setting.name() == name)
    }

    /// Its flag, without dashes in front.
    #[must_use]
    pub fn flag(self) -> String {
        self.name().replace('_', "-")
    }

    /// Its environment variable.
    #[must_use]
    pub fn variable(self) -> String {
        format!("STARLINK_{}", self.name().to_ascii_uppercase())
    }

    /// Its flag for clap. Variables and defaults are only told here: they are read elsewhere, where a source is kept.
    #[must_use]
    pub fn arg(self) -> Arg {
        let default = match self.fallback() {
            Fallback::Value(text) | Fallback::Derived(text) => format!(" [default: {text}]"),
            Fallback::Absent => String::new(),
        };
        let arg = Arg::new(self.name())
            .long(self.flag())
            .value_name(self.value_name())
            .help(format!("{} [env: {}]{default}", self.help(), self.variable()))
            .global(true)
            .help_heading("Settings");
        match self.kind() {
            Kind::Text | Kind::Number => arg.action(ArgAction::Set),
            Kind::List => arg.action(ArgAction::Append),
            Kind::Switch => {
                arg.action(ArgAction::Set).num_args(0..=1).require_equals(true).default_missing_value("true")
            }
        }
    }
}

/// The setting that the key `unknown` was probably meant to be: at most a third of it is wrong.
pub(super) fn nearest(unknown: &str) -> Option<Setting> {
    let distance = |setting: &Setting| strsim::damerau_levenshtein(unknown, setting.name());
    let close = |setting: &Setting| distance(setting) <= unknown.len().min(9) / 3;
    Setting::ALL.iter().copied().filter(close).min_by_key(distance)
}

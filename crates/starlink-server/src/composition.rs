//! Puts the floors together: one set of services over one database. Production and tests share this.

use crate::{
    adapters::{Argon2Hasher, Cost, FileHeads, OsEntropy},
    alerting::Alerting,
    config::Config,
    data_dir::{DataDir, DataDirError, KeyOrigin, read_or_create_key},
};
use api_actix::rooms::{
    containers::AskedEngines,
    fleet::{Bells, Orders, Streams},
};
use chrono::TimeDelta;
use domain::{
    Error,
    audit::{AuditService, HeadFile, Seal},
    clock::Clock,
    containers::{ContainerPorts, ContainerService, ImageService},
    digest::hex,
    entropy::Entropy,
    fleet::{
        AgentPorts, AgentService, EnrollmentService, Mailbox, MaintenancePorts, MaintenanceService, Presence,
        ServerService,
    },
    identity::{SessionPorts, SessionService, TokenService, UserService},
    lease::Leases,
    observability::{DashboardPorts, DashboardService, SamplePorts, SampleService, remote::RemoteWriteService},
    pools::PoolService,
    scheduling::{Desk, Engine, Scheduler, TaskPorts, TaskService},
};
use infra_diesel::{
    Database, DatabaseOptions, DatabaseUrl, DieselAgents, DieselAlerts, DieselAuditLog, DieselContainers,
    DieselEnrollments, DieselLeases, DieselMaintenanceWindows, DieselOperations, DieselPools, DieselSamples,
    DieselServers, DieselSessions, DieselTasks, DieselTokens, DieselUsers, MigrationReport, migrate,
};
use registry_client::{OciRegistries, RegistryOptions, SetupError};
use starlink_agent::{agent::SystemClock, drivers::docker};
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::sync::Notify;

/// Why the server, or a command, could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The domain or the database refused.
    #[error(transparent)]
    Domain(#[from] Error),
    /// TLS cannot be used.
    #[error(transparent)]
    Tls(#[from] crate::tls::TlsError),
    /// Registries cannot be asked.
    #[error(transparent)]
    Registries(#[from] SetupError),
    /// Targets of alerts cannot be told anything.
    #[error(transparent)]
    Notifier(#[from] notifier::SetupError),
    /// The users of registries cannot be read.
    #[error("--registry-auth {0}")]
    RegistryAuth(String),
    /// The API cannot be put together.
    #[error(transparent)]
    Mount(#[from] api_actix::mount::MountError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}; stop what listens there, or choose another address with --listen")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The operating system refused.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// The ports that nothing but the machine provides.
#[derive(Clone)]
pub struct Machine {
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Makes secrets.
    pub entropy: Arc<dyn Entropy>,
}

impl Machine {
    /// The real ones.
    #[must_use]
    pub fn real() -> Self {
        Self { clock: Arc::new(SystemClock), entropy: Arc::new(OsEntropy) }
    }
}

/// Where things are, before anything is opened.
pub struct Site {
    /// The data directory.
    pub data: DataDir,
    /// The database.
    pub url: DatabaseUrl,
    /// Seals the audit log.
    pub seal: Seal,
    /// Whether the audit key was made just now.
    pub key_origin: KeyOrigin,
    /// The heads noted outside the database.
    pub heads: Arc<dyn HeadFile>,
    /// After how long a server is kept free for a task that waits.
    pub task_patience: TimeDelta,
    /// How long an agent may be silent before its server is offline.
    pub agent_grace: Duration,
    /// How image registries are asked.
    pub registries: RegistryOptions,
    /// Where targets of alerts may be.
    pub alert_reach: notifier::Reach,
}

impl Site {
    /// Finds everything, and makes the data directory and the audit key if they are not there.
    ///
    /// # Errors
    /// If the directory, the key or the users of registries cannot be used.
    pub fn open(config: &Config, machine: &Machine) -> Result<Self, StartError> {
        let data = DataDir::open(&config.data_dir)?;
        let url = config.database_url.clone();
        let key = read_or_create_key(&config.audit_key_file, &*machine.entropy)?;
        let seal = Seal::new(&key.bytes);
        let heads = Arc::new(FileHeads::new(data.join("audit.heads"), seal.clone()));
        let task_patience = TimeDelta::seconds(config.task_patience_seconds.into());
        let agent_grace = Duration::from_secs(config.agent_grace_seconds.into());
        let registries = RegistryOptions {
            logins: docker::logins(config.registry_auth.as_deref()).map_err(StartError::RegistryAuth)?,
            insecure: config.insecure_registries.clone(),
            ..RegistryOptions::default()
        };
        let alert_reach = if config.alert_private_targets { notifier::Reach::Private } else { notifier::Reach::Public };
        Ok(Self { data, url, seal, key_origin: key.origin, heads, task_patience, agent_grace, registries, alert_reach })
    }

    /// What tells this data directory's server apart from others on the same database; the same after each restart.
    ///
    /// # Errors
    /// If the file that it is kept in cannot be read or made.
    pub fn node(&self, machine: &Machine) -> Result<Arc<str>, StartError> {
        let random = read_or_create_key(&self.data.join("node.id"), &*machine.entropy)?;
        Ok(hex(random.bytes.get(..8).unwrap_or_default()).into())
    }

    /// What names this installation on machines: all servers with the same audit key are one.
    #[must_use]
    pub fn installation(&self) -> Arc<str> {
        self.seal.blind("installation").chars().take(12).collect::<String>().into()
    }

    /// Brings the schema up to date; a file with data in it is saved before.
    ///
    /// # Errors
    /// As [`migrate()`].
    pub fn migrate(&self) -> Result<MigrationReport, StartError> {
        Ok(migrate(&self.url, &self.backups())?)
    }

    /// Where databases are saved before they are migrated.
    #[must_use]
    pub fn backups(&self) -> PathBuf {
        self.data.join("backups")
    }
}

/// Every service, over one database.
pub struct Services {
    /// The database.
    pub database: Database,
    /// Who does which background job.
    pub leases: Arc<dyn Leases>,
    /// The audit log.
    pub audit: Arc<AuditService>,
    /// Servers.
    pub fleet: Arc<ServerService>,
    /// Agents.
    pub agents: Arc<AgentService>,
    /// Join tokens.
    pub enrollments: Arc<EnrollmentService>,
    /// Maintenance windows.
    pub maintenance: Arc<MaintenanceService>,
    /// Wakes agents that wait.
    pub bells: Arc<Bells>,
    /// Streams that agents are asked for.
    pub streams: Arc<Streams>,
    /// Orders them.
    pub orders: Orders,
    /// Pools.
    pub pools: Arc<PoolService>,
    /// Tasks.
    pub tasks: Arc<TaskService>,
    /// Containers and images.
    pub containers: Arc<ContainerService>,
    /// What was measured, in the database.
    pub sample_rows: Arc<DieselSamples>,
    /// What was measured, and what is made of it.
    pub samples: Arc<SampleService>,
    /// Alerts.
    pub alerts: Alerting,
    /// Counts what there is.
    pub dashboard: Arc<DashboardService>,
    /// Takes in what Prometheus sends.
    pub remote_write: Arc<RemoteWriteService>,
    /// Places tasks.
    pub scheduler: Arc<Scheduler>,
    /// Rings when something was committed that may let a task be placed.
    pub bell: Arc<Notify>,
    /// Users.
    pub users: Arc<UserService>,
    /// API tokens.
    pub tokens: Arc<TokenService>,
    /// Sessions.
    pub sessions: Arc<SessionService>,
}

impl Services {
    /// Opens the database, whose schema must be current.
    ///
    /// # Errors
    /// If its threads cannot be started.
    pub fn open(site: &Site, machine: &Machine, cost: Cost) -> Result<Self, StartError> {
        let database = Database::open(site.url.clone(), site.seal.clone(), DatabaseOptions::default())?;
        let Machine { clock, entropy } = machine.clone();
        let hasher = Arc::new(Argon2Hasher::new(cost, entropy.clone())?);
        let users = Arc::new(DieselUsers::new(database.clone()));
        let tokens = Arc::new(DieselTokens::new(database.clone()));
        let ports = SessionPorts {
            sessions: Arc::new(DieselSessions::new(database.clone())),
            users: users.clone(),
            tokens: tokens.clone(),
            hasher: hasher.clone(),
            clock: clock.clone(),
            entropy: entropy.clone(),
        };
        let log = Arc::new(DieselAuditLog::new(database.clone()));
        let bell = Arc::new(Notify::new());
        let ringing = bell.clone();
        let desk = Arc::new(Desk::new(Engine::new(site.task_patience), Box::new(move || ringing.notify_one())));
        database.follow(desk.clone());
        let rows = Rows::of(&database);
        let scheduler = Scheduler::new(rows.tasks.clone(), desk.clone(), clock.clone());
        let bells = Arc::new(Bells::default());
        let presence = presence(site, &*clock, &database);
        let agents = Arc::new(AgentService::new(rows.agent_ports(site, machine, &bells, &presence)));
        let maintenance = Arc::new(MaintenanceService::new(rows.maintenance_ports(machine, &presence)));
        let streams = Arc::<Streams>::default();
        let orders = Orders { streams: streams.clone(), entropy: entropy.clone() };
        let engines = Arc::new(AskedEngines::new(agents.clone(), orders.clone()));
        let images = Arc::new(images(site, engines.clone())?);
        let containers = ContainerService::new(rows.container_ports(site, machine, engines, presence, log.clone()));
        let sample_rows = Arc::new(DieselSamples::open(&site.url, DatabaseOptions::default())?);
        let dashboard = Arc::new(DashboardService::new(rows.dashboard_ports()));
        let alerts = rows.alerting(site, machine, &sample_rows)?;
        let sample_ports = rows.sample_ports(machine, sample_rows.clone());
        let Rows { servers, enrollments, pools, tasks, .. } = rows;
        let task_ports = TaskPorts { tasks, desk, images, clock: clock.clone(), seal: site.seal.clone() };
        Ok(Self {
            tasks: Arc::new(TaskService::new(task_ports)),
            containers: Arc::new(containers),
            sample_rows,
            samples: Arc::new(SampleService::new(sample_ports.clone())),
            remote_write: Arc::new(RemoteWriteService::new(sample_ports)),
            alerts,
            dashboard,
            scheduler: Arc::new(scheduler),
            bell,
            leases: Arc::new(DieselLeases::new(database.clone())),
            audit: Arc::new(AuditService::new(log, site.heads.clone(), clock.clone())),
            agents,
            maintenance,
            enrollments: Arc::new(EnrollmentService::new(enrollments, clock.clone(), entropy.clone())),
            bells,
            streams,
            orders,
            fleet: Arc::new(ServerService::new(servers, clock.clone())),
            pools: Arc::new(PoolService::new(pools, clock.clone())),
            users: Arc::new(UserService::new(users, hasher, clock.clone())),
            tokens: Arc::new(TokenService::new(tokens, clock, entropy)),
            sessions: Arc::new(SessionService::new(ports)),
            database,
        })
    }

    /// Lets what waits to be written be written, and lets go of the databases.
    pub async fn close(&self) {
        self.sample_rows.close().await;
        self.database.close().await;
    }
}

/// What several services share of the database.
struct Rows {
    database: Database,
    servers: Arc<DieselServers>,
    pools: Arc<DieselPools>,
    enrollments: Arc<DieselEnrollments>,
    operations: Arc<DieselOperations>,
    tasks: Arc<DieselTasks>,
}

impl Rows {
    fn of(database: &Database) -> Self {
        Self {
            servers: Arc::new(DieselServers::new(database.clone())),
            pools: Arc::new(DieselPools::new(database.clone())),
            enrollments: Arc::new(DieselEnrollments::new(database.clone())),
            operations: Arc::new(DieselOperations::new(database.clone())),
            tasks: Arc::new(DieselTasks::new(database.clone())),
            database: database.clone(),
        }
    }

    fn container_ports(
        &self,
        site: &Site,
        machine: &Machine,
        engines: Arc<AskedEngines>,
        presence: Arc<Presence>,
        log: Arc<DieselAuditLog>,
    ) -> ContainerPorts {
        ContainerPorts {
            containers: Arc::new(DieselContainers::new(self.database.clone())),
            operations: self.operations.clone(),
            engines,
            servers: self.servers.clone(),
            presence,
            log,
            seal: site.seal.clone(),
            clock: machine.clock.clone(),
        }
    }

    fn agent_ports(&self, site: &Site, machine: &Machine, bells: &Arc<Bells>, presence: &Arc<Presence>) -> AgentPorts {
        AgentPorts {
            servers: self.servers.clone(),
            agents: Arc::new(DieselAgents::new(self.database.clone())),
            enrollments: self.enrollments.clone(),
            operations: self.operations.clone(),
            tasks: self.tasks.clone(),
            mailbox: mailbox(bells, &self.database),
            presence: presence.clone(),
            clock: machine.clock.clone(),
            entropy: machine.entropy.clone(),
            installation: site.installation(),
        }
    }

    fn dashboard_ports(&self) -> DashboardPorts {
        let pools = self.pools.clone();
        DashboardPorts { servers: self.servers.clone(), pools, tasks: self.tasks.clone() }
    }

    fn sample_ports(&self, machine: &Machine, samples: Arc<DieselSamples>) -> SamplePorts {
        let windows = Arc::new(DieselMaintenanceWindows::new(self.database.clone()));
        let (servers, pools) = (self.servers.clone(), self.pools.clone());
        let alerts = Arc::new(DieselAlerts::new(self.database.clone()));
        SamplePorts { samples, servers, windows, pools, alerts, clock: machine.clock.clone() }
    }

    fn alerting(
        &self,
        site: &Site,
        machine: &Machine,
        samples: &Arc<DieselSamples>,
    ) -> Result<Alerting, notifier::SetupError> {
        Alerting::new(&self.database, self.servers.clone(), samples, machine, site.alert_reach)
    }

    fn maintenance_ports(&self, machine: &Machine, presence: &Arc<Presence>) -> MaintenancePorts {
        MaintenancePorts {
            windows: Arc::new(DieselMaintenanceWindows::new(self.database.clone())),
            servers: self.servers.clone(),
            agents: Arc::new(DieselAgents::new(self.database.clone())),
            presence: presence.clone(),
            clock: machine.clock.clone(),
        }
    }
}

/// Which agents are there. Follows before the mailbox: whom that wakes looks whether the seat is still theirs.
fn presence(site: &Site, clock: &dyn Clock, database: &Database) -> Arc<Presence> {
    let presence = Arc::new(Presence::new(site.agent_grace, clock.uptime()));
    database.follow(presence.clone());
    presence
}

/// What agents have to be told, as it commits.
fn mailbox(bells: &Arc<Bells>, database: &Database) -> Arc<Mailbox> {
    let ringing = bells.clone();
    let mailbox = Arc::new(Mailbox::new(Box::new(move |server| ringing.ring(server))));
    database.follow(mailbox.clone());
    mailbox
}

fn images(site: &Site, engines: Arc<AskedEngines>) -> Result<ImageService, StartError> {
    Ok(ImageService::new(Arc::new(OciRegistries::new(site.registries.clone())?), engines))
}

//! Runs the server: start, listen, stop.

use crate::{
    adapters::Cost,
    bootstrap,
    composition::{Machine, Services, Site, StartError},
    config::Config,
    data_dir::{DataDirLock, KeyOrigin},
    jobs::{Jobs, Periods},
    local_agent,
    scheduling::SchedulerJob,
    tls,
};
use actix_cors::Cors;
use actix_web::{App, HttpServer, dev::ServerHandle, middleware::Condition, web::Data};
use api_actix::{
    Api,
    auth::{Gate, authenticate},
    middleware::context::{MakeId, context},
    mount::not_found,
    rooms::{
        LineUp, blueprint,
        containers::Live,
        identity::CookieTransport,
        system::{Changes, Metrics, Readiness, Stopping, measure},
    },
};
use domain::digest::hex;
use std::{
    net::{SocketAddr, TcpListener},
    pin::pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{sync::watch, task::JoinHandle};

/// How long open requests may take to end when the server stops.
const STOP_SECONDS: u64 = 3;

/// A server that is listening.
pub struct Server {
    /// Where.
    pub address: SocketAddr,
    services: Arc<Services>,
    handle: ServerHandle,
    http: JoinHandle<std::io::Result<()>>,
    jobs: JoinHandle<()>,
    scheduler: JoinHandle<()>,
    local_agent: Option<JoinHandle<()>>,
    stopping: watch::Sender<bool>,
    _lock: DataDirLock,
}

impl Server {
    /// Starts a server: takes the data directory, brings the schema up to date, and listens.
    ///
    /// # Errors
    /// If any of these is not possible; then nothing is left running.
    pub async fn start(config: &Config) -> Result<Self, StartError> {
        tls::install_provider();
        let machine = Machine::real();
        let site = Site::open(config, &machine)?;
        let lock = site.data.lock()?;
        let (site, migrated) = blocking(move || site.migrate().map(|report| (site, report))).await?;
        if let Some(backup) = &migrated.backup {
            tracing::info!("the database was saved to {} before it was migrated", backup.display());
        }
        for version in &migrated.applied {
            tracing::info!("applied migration {version}");
        }
        let services = Arc::new(Services::open(&site, &machine, Cost::OWASP)?);
        check_key(&site, &services).await?;
        check_heads(&site, &services).await;
        let token = bootstrap::admin_token(&services, &site.data).await?;
        let api = Api::build(&blueprint(), &[])?;
        let (stopping, stop) = watch::channel(false);
        let listener =
            TcpListener::bind(config.listen).map_err(|source| StartError::Listen { address: config.listen, source })?;
        let address = listener.local_addr()?;
        let inside = inside(config)?;
        let local = inside.as_ref().map_or(Ok(address), TcpListener::local_addr)?;
        let front = Front::new(config, &services, api, stop.clone(), &machine);
        let server = http(config, listener, inside, front)?;
        let handle = server.handle();
        let node = site.node(&machine)?;
        let periods = Periods::new(config);
        let jobs = Jobs::new(services.clone(), machine.clone(), node.clone(), periods);
        let scheduler = SchedulerJob::new(services.clone(), machine.clone(), node, rest(&site));
        greet(config, address, token.as_deref());
        tokio::spawn(verify(services.clone()));
        let http = tokio::spawn(server);
        let local_agent = match &config.local_agent {
            Some(settings) => {
                local_agent::start(settings, &services, &site.data, machine.clock.clone(), local, stop.clone()).await?
            }
            None => None,
        };
        Ok(Self {
            address,
            handle,
            http,
            local_agent,
            jobs: tokio::spawn(jobs.run(stop.clone())),
            scheduler: tokio::spawn(scheduler.run(stop)),
            stopping,
            services,
            _lock: lock,
        })
    }

    /// Stops: ends streams, answers open requests, writes down what is only in memory.
    pub async fn stop(self) {
        // Streams first: the HTTP server waits for them otherwise. Nobody may be left to hear it.
        let _ = self.stopping.send(true);
        if let Some(agent) = self.local_agent {
            let _ = tokio::time::timeout(Duration::from_secs(STOP_SECONDS), agent).await;
        }
        let http = async {
            self.handle.stop(true).await;
            let _ = self.http.await;
        };
        if tokio::time::timeout(Duration::from_secs(STOP_SECONDS + 1), http).await.is_err() {
            tracing::warn!("some requests did not end in time and were cut off");
        }
        // What it has begun is committed or not, like any other write.
        self.scheduler.abort();
        if tokio::time::timeout(Duration::from_millis(700), self.jobs).await.is_err() {
            tracing::warn!("the database did not answer in time; the head of the audit log was not noted");
        }
        self.services.close().await;
        tracing::info!("stopped");
    }
}

/// Starts a server and runs it until the operating system tells it to stop.
///
/// # Errors
/// As [`Server::start`], or if signals cannot be listened for.
pub async fn until_told(config: &Config) -> Result<(), StartError> {
    use tokio::signal::unix::{SignalKind, signal};
    // Before the start: whoever sees that it listens may tell it to stop the moment after.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut told = pin!(async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    });
    let server = tokio::select! {
        server = Server::start(config) => server?,
        () = &mut told => return Ok(()),
    };
    told.await;
    tracing::info!("stopping");
    server.stop().await;
    Ok(())
}

/// How often to look for what other processes did: a file has none that write tasks.
fn rest(site: &Site) -> Duration {
    Duration::from_secs(if site.url.sqlite_path().is_some() { 60 } else { 2 })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StartError> + Send + 'static,
) -> Result<T, StartError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| StartError::Domain(domain::Error::internal(error)))?
}

/// A new key cannot check what an old one sealed, so somebody should look for the old one.
async fn check_key(site: &Site, services: &Services) -> Result<(), StartError> {
    let rows = services.audit.head().await?.seq;
    if rows > 0 && site.key_origin == KeyOrigin::Created {
        tracing::error!(
            "the audit key was not there and a new one was made, but the audit log has {rows} rows that were sealed \
             with another key; put the old key back, or the log before this start cannot be verified"
        );
    }
    Ok(())
}

/// Without the head file a cut end of the log does not show, and whoever removed the one may have cut the other.
async fn check_heads(site: &Site, services: &Services) {
    // A new key explains it, and was told; what cannot be read is told by the check of the log.
    if site.key_origin == KeyOrigin::Found
        && let Ok(Some(began)) = services.audit.unnoted_since().await
    {
        tracing::warn!(
            "the audit log has rows since {began}, but no head of it is noted in audit.heads in {}: if rows were cut off \
             its end, that cannot be told; unless this data directory is a new one, or audit.heads was moved away on \
             purpose, find out who removed it, and compare the log with a backup or an export",
            site.data.path().display()
        );
    }
}

/// A broken log is told loudly and never prevents the start.
async fn verify(services: Arc<Services>) {
    match services.audit.verify().await {
        Ok(found) if found.valid => {
            tracing::info!("the audit log is intact: {} rows checked", found.checked);
            // It was proven just now, so it need not wait for the job that notes it.
            if let Err(error) = services.audit.head_note().await {
                tracing::warn!(%error, "the head of the audit log was not noted; it is tried again");
            }
        }
        Ok(found) => {
            let (row, reason) = (found.broken_at.unwrap_or_default(), found.reason.unwrap_or_default());
            tracing::error!(row, "THE AUDIT LOG IS BROKEN at row {row}: {reason}");
        }
        Err(error) => tracing::warn!(%error, "the audit log could not be checked"),
    }
}

fn greet(config: &Config, address: SocketAddr, token: Option<&std::path::Path>) {
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    tracing::info!("API:   {scheme}://{address}/");
    tracing::info!("docs:  {scheme}://{address}/docs");
    if let Some(file) = token {
        tracing::info!("token: {} (an admin's; keep it secret)", file.display());
    } else {
        tracing::info!("token: make one with `starlink-server token create --name NAME --role admin`");
    }
    tracing::info!("listening on {address}");
}

/// What each worker makes its application from.
#[derive(Clone)]
struct Front {
    api: Api,
    services: Arc<Services>,
    readiness: Data<Readiness>,
    metrics: Arc<Metrics>,
    stopping: Stopping,
    transport: CookieTransport,
    behind_proxy: bool,
    metrics_open: bool,
    origins: Vec<String>,
    make_id: MakeId,
    line_up: Data<LineUp>,
    live: Data<Live>,
}

impl Front {
    fn new(
        config: &Config,
        services: &Arc<Services>,
        api: Api,
        stop: watch::Receiver<bool>,
        machine: &Machine,
    ) -> Self {
        let encrypted = config.tls.is_some() || config.behind_proxy;
        Self {
            api,
            services: services.clone(),
            readiness: Data::new(Readiness::new(Arc::new(services.database.clone()))),
            metrics: Arc::new(Metrics::new()),
            line_up: Data::new(LineUp {
                orders: services.orders.clone(),
                sessions: services.sessions.clone(),
                stopping: Stopping(stop.clone()),
            }),
            live: Data::new(Live::default()),
            stopping: Stopping(stop),
            transport: if encrypted { CookieTransport::Encrypted } else { CookieTransport::Any },
            behind_proxy: config.behind_proxy,
            metrics_open: config.metrics_open,
            origins: config.cors_origins.clone(),
            make_id: request_ids(machine),
        }
    }

    fn gate(&self) -> Rc<Gate> {
        Rc::new(Gate {
            sessions: self.services.sessions.clone(),
            audit: self.services.audit.clone(),
            document: self.api.shared_document(),
            behind_proxy: self.behind_proxy,
            origins: self.origins.clone(),
            metrics_open: self.metrics_open,
        })
    }

    fn configure(&self, config: &mut actix_web::web::ServiceConfig) {
        let services = &self.services;
        config
            .app_data(Data::from(services.audit.clone()))
            .app_data(Data::from(services.fleet.clone()))
            .app_data(Data::from(services.agents.clone()))
            .app_data(Data::from(services.enrollments.clone()))
            .app_data(Data::from(services.maintenance.clone()))
            .app_data(Data::from(services.bells.clone()))
            .app_data(Data::from(services.streams.clone()))
            .app_data(self.line_up.clone())
            .app_data(self.live.clone())
            .app_data(Data::from(services.pools.clone()))
            .app_data(Data::from(services.tasks.clone()))
            .app_data(Data::from(services.containers.clone()))
            .app_data(Data::from(services.samples.clone()))
            .app_data(Data::from(services.dashboard.clone()))
            .app_data(Data::from(services.remote_write.clone()))
            .app_data(Data::from(services.alerts.service.clone()))
            .app_data(Data::from(services.alerts.targets.clone()))
            .app_data(Data::from(services.users.clone()))
            .app_data(Data::from(services.tokens.clone()))
            .app_data(Data::from(services.sessions.clone()))
            .app_data(Data::new(self.transport))
            .app_data(Data::new(Changes(services.database.head())))
            .app_data(Data::new(self.stopping.clone()))
            .app_data(Data::from(self.metrics.clone()))
            .app_data(self.readiness.clone());
        self.api.configure(config);
    }
}

/// Where the agent of this machine asks, if it cannot where everybody does: it has no certificate to check the server's
/// against, and needs none on the way through this machine.
fn inside(config: &Config) -> Result<Option<TcpListener>, StartError> {
    let apart = config.tls.is_some() || !config.listen.ip().to_canonical().is_loopback();
    Ok((config.local_agent.is_some() && apart).then(|| TcpListener::bind("127.0.0.1:0")).transpose()?)
}

fn http(
    config: &Config,
    listener: TcpListener,
    inside: Option<TcpListener>,
    front: Front,
) -> Result<actix_web::dev::Server, StartError> {
    let server = HttpServer::new(move || {
        App::new()
            .configure(|config| front.configure(config))
            .default_service(not_found())
            .wrap(front.api.guard())
            .wrap(authenticate(front.gate()))
            .wrap(Condition::new(!front.origins.is_empty(), cors(&front.origins)))
            .wrap(measure(front.metrics.clone(), front.api.shared_document()))
            .wrap(context(front.make_id.clone()))
    })
    .workers(config.workers)
    .shutdown_timeout(STOP_SECONDS)
    .disable_signals();
    let server = match inside {
        Some(inside) => server.listen_auto_h2c(inside)?,
        None => server,
    };
    let server = match &config.tls {
        Some(files) => server.listen_rustls_0_23(listener, tls::server_config(&files.cert, &files.key)?)?,
        None => server.listen_auto_h2c(listener)?,
    };
    Ok(server.run())
}

fn cors(origins: &[String]) -> Cors {
    let mut cors = Cors::default()
        .allowed_methods(["GET", "HEAD", "POST", "PATCH", "DELETE"])
        .allow_any_header()
        .expose_headers([
            "ETag",
            "Link",
            "Location",
            "Retry-After",
            "X-Request-Id",
            "X-Total-Count",
            "X-Audit-Head",
            "Idempotency-Replayed",
        ])
        .max_age(3600);
    for origin in origins {
        cors = cors.allowed_origin(origin);
    }
    cors
}

/// Ids that no other process makes: a random part per process, and a count.
fn request_ids(machine: &Machine) -> MakeId {
    let process = hex(machine.entropy.bytes().get(..6).unwrap_or_default());
    let count = AtomicU64::new(1);
    Arc::new(move || format!("{process}-{}", count.fetch_add(1, Ordering::Relaxed)))
}

//! A fresh database with everything that a test asks of it, and the things that tests put there.

use chrono::{DateTime, TimeDelta};
use diesel::{Connection, PgConnection, SqliteConnection, connection::SimpleConnection};
use domain::{
    Error, Result,
    audit::{AuditEntry, AuditFilter, AuditLog, AuditRow, Seal},
    change::{Change, Once},
    clock::Timestamp,
    fleet::{
        Architecture, Driver, Enrollment, EnrollmentRequest, Enrollments, Inventory, NewAgent, NewEnrollment,
        NewServer, Server, ServerFilter, ServerSort, ServerStatus, Servers,
    },
    identity::{Actor, NewSession, NewToken, NewUser, Role, Scopes, Session, Sessions, Token, Tokens, User, Users},
    ids::{PoolId, ServerId, UserId},
    page::{Page, PageRequest},
    pools::{NewPool, Pool, PoolStrategy, PoolType, Pools, Quotas, Watermarks},
    scheduling::{Desk, Engine, NewTask, Placement, Task, TaskDriver, TaskSpec, Tasks},
    text::{Name, Tags},
    units::Resources,
};
use infra_diesel::{
    Database, DatabaseOptions, DatabaseUrl, DieselAgents, DieselAlertRules, DieselAlertTargets, DieselAlerts,
    DieselAuditLog, DieselContainers, DieselDeliveries, DieselEnrollments, DieselMaintenanceWindows, DieselOperations,
    DieselPools, DieselServers, DieselSessions, DieselTasks, DieselTokens, DieselUsers, migrate,
};
use std::{
    fmt::Debug,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};
use tempfile::TempDir;

/// A database in use, as one process sees it.
pub(crate) struct Process {
    pub(crate) database: Database,
    pub(crate) servers: DieselServers,
    pub(crate) enrollments: DieselEnrollments,
    pub(crate) windows: DieselMaintenanceWindows,
    pub(crate) agents: DieselAgents,
    pub(crate) operations: DieselOperations,
    pub(crate) containers: DieselContainers,
    pub(crate) pools: DieselPools,
    pub(crate) rules: DieselAlertRules,
    pub(crate) alerts: DieselAlerts,
    pub(crate) targets: DieselAlertTargets,
    pub(crate) deliveries: DieselDeliveries,
    pub(crate) tasks: DieselTasks,
    pub(crate) users: DieselUsers,
    pub(crate) tokens: DieselTokens,
    pub(crate) sessions: DieselSessions,
    pub(crate) audit: DieselAuditLog,
}

/// A fresh database and the process that uses it. The database's file goes with the value.
pub(crate) struct Store {
    process: Process,
    pub(crate) url: DatabaseUrl,
    _directory: TempDir,
}

impl std::ops::Deref for Store {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl Process {
    pub(crate) fn open(url: &DatabaseUrl) -> Self {
        let database = Database::open(url.clone(), seal(), DatabaseOptions::default()).unwrap();
        Self {
            servers: DieselServers::new(database.clone()),
            enrollments: DieselEnrollments::new(database.clone()),
            windows: DieselMaintenanceWindows::new(database.clone()),
            agents: DieselAgents::new(database.clone()),
            operations: DieselOperations::new(database.clone()),
            containers: DieselContainers::new(database.clone()),
            pools: DieselPools::new(database.clone()),
            rules: DieselAlertRules::new(database.clone()),
            alerts: DieselAlerts::new(database.clone()),
            targets: DieselAlertTargets::new(database.clone()),
            deliveries: DieselDeliveries::new(database.clone()),
            tasks: DieselTasks::new(database.clone()),
            users: DieselUsers::new(database.clone()),
            tokens: DieselTokens::new(database.clone()),
            sessions: DieselSessions::new(database.clone()),
            audit: DieselAuditLog::new(database.clone()),
            database,
        }
    }

    /// A page of servers as plain values.
    pub(crate) async fn list(&self, filter: ServerFilter, sort: ServerSort, page: PageRequest) -> Result<Page<Server>> {
        let page = self.servers.list(filter, sort, page).await?;
        Ok(page.map(|entry| Server::clone(&entry)))
    }

    /// Registers a server with defaults for all but its name.
    pub(crate) async fn server(&self, name: &str) -> Server {
        self.servers.create(new_server(name), change("server.create")).await.unwrap().value
    }

    pub(crate) async fn pool(&self, name: &str) -> Pool {
        self.pools.create(new_pool(name), change("pool.create")).await.unwrap().value
    }

    /// A join token for 100 servers, good for an hour, whose secret's digest is `join-NAME`.
    pub(crate) async fn enrollment(&self, name: &str) -> Enrollment {
        self.enrollments.create(new_enrollment(name), change("enrollment.create")).await.unwrap().value
    }

    /// A server of a machine that joined with a token of its own, whose agent's token has the digest `agent-NAME`.
    pub(crate) async fn joined(&self, name: &str) -> Server {
        let enrollment = self.enrollment(name).await;
        self.join(&enrollment, name).await.unwrap()
    }

    /// Has a machine join a minute after the beginning.
    pub(crate) async fn join(&self, enrollment: &Enrollment, name: &str) -> Result<Server> {
        self.join_as(enrollment, name, new_agent(name)).await
    }

    /// The same with this agent.
    pub(crate) async fn join_as(&self, enrollment: &Enrollment, name: &str, agent: NewAgent) -> Result<Server> {
        let change = entry_at("agent.enroll", 60).into();
        let joined = self.enrollments.join(enrollment.id, new_server(name), inventory(), agent, change);
        joined.await.map(|done| done.value)
    }

    /// Posts a task that asks for one core and nothing else.
    pub(crate) async fn task(&self, name: &str) -> Task {
        self.tasks.create(new_task(name), change("task.create")).await.unwrap().value
    }

    /// A desk that follows what this process commits.
    pub(crate) fn desk(&self) -> Arc<Desk> {
        let desk = Arc::new(Desk::new(Engine::default(), Box::new(|| {})));
        self.database.follow(desk.clone());
        desk
    }

    pub(crate) async fn user(&self, name: &str) -> User {
        self.users.create(new_user(name), change("user.create")).await.unwrap().value
    }

    /// A token whose secret's digest is `digest-NAME`.
    pub(crate) async fn token(&self, name: &str) -> Token {
        self.tokens.create(new_token(name), change("token.create")).await.unwrap().value
    }

    /// A session of an hour.
    pub(crate) async fn session(&self, user: UserId, digest: &str) -> Session {
        self.sessions.create(new_session(user, digest), entry("session.create")).await.unwrap()
    }

    /// The whole log, oldest first.
    pub(crate) async fn log(&self) -> Vec<AuditRow> {
        let mut rows: Vec<AuditRow> = Vec::new();
        loop {
            let after = rows.last().map_or(0, |row| row.seq);
            let more = self.audit.after(AuditFilter::default(), after, 1000).await.unwrap();
            if more.is_empty() {
                return rows;
            }
            rows.extend(more);
        }
    }

    /// The last row of the log.
    pub(crate) async fn last_row(&self) -> AuditRow {
        self.log().await.pop().expect("the log has a row")
    }

    /// Fails unless the log is sealed, numbered without gaps, and has these actions.
    pub(crate) async fn check_log(&self, actions: &[&str]) {
        let rows = self.log().await;
        assert_eq!(rows.iter().map(|row| row.entry.action.as_str()).collect::<Vec<_>>(), actions);
        self.check_chain(rows.len()).await;
    }

    /// Fails unless the log has `count` rows, numbered from 1 without gaps, with a chain that verifies.
    pub(crate) async fn check_chain(&self, count: usize) {
        let rows = self.log().await;
        let count = i64::try_from(count).unwrap();
        assert!(rows.iter().map(|row| row.seq).eq(1..=count), "{count} rows without gaps");
        let verdict = self.audit.verify(Vec::new()).await.unwrap();
        assert!(verdict.valid, "{verdict:?}");
        assert_eq!((verdict.checked, verdict.head.seq), (count, count));
    }
}

static COUNT: AtomicU32 = AtomicU32::new(0);

impl Store {
    pub(crate) fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = DatabaseUrl::Sqlite(directory.path().join("starlink.db"));
        Self::on(url, directory)
    }

    pub(crate) fn postgres() -> Self {
        Self::on(fresh_postgres(), tempfile::tempdir().unwrap())
    }

    fn on(url: DatabaseUrl, directory: TempDir) -> Self {
        migrate(&url, directory.path()).unwrap();
        Self { process: Process::open(&url), url, _directory: directory }
    }

    /// What a second process on the same database would be.
    pub(crate) fn second_process(&self) -> Process {
        Process::open(&self.url)
    }

    /// Does what no port does, such as to reserve something.
    pub(crate) fn sql(&self, statement: &str) {
        execute(&self.url, statement);
    }
}

/// A new, empty database, which sorts text as people in America do, not by code point.
pub(crate) fn fresh_postgres() -> DatabaseUrl {
    let cluster = std::env::var("STARLINK_TEST_POSTGRES_URL").unwrap_or_else(|_| {
        panic!("these tests need PostgreSQL: run them with `make test` or `scripts/with-postgres cargo test …`")
    });
    let name = format!("contract_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let mut connection = PgConnection::establish(&cluster).unwrap();
    let create = format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'");
    let with_icu = format!("{create} LOCALE_PROVIDER icu ICU_LOCALE 'en-US'");
    // PostgreSQL before version 15, or one that was built without ICU.
    connection.batch_execute(&with_icu).or_else(|_| connection.batch_execute(&create)).unwrap();
    let (server, _) = cluster.rsplit_once('/').unwrap();
    DatabaseUrl::Postgres(format!("{server}/{name}"))
}

/// Runs a statement on a connection of its own.
pub(crate) fn execute(url: &DatabaseUrl, statement: &str) {
    match url {
        DatabaseUrl::Sqlite(path) => {
            let mut connection = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
            connection.batch_execute(&format!("PRAGMA busy_timeout = 5000; {statement}")).unwrap();
        }
        DatabaseUrl::Postgres(url) => PgConnection::establish(url).unwrap().batch_execute(statement).unwrap(),
    }
}

pub(crate) fn seal() -> Seal {
    Seal::new(&[7; 32])
}

/// When tests begin.
pub(crate) fn start() -> Timestamp {
    DateTime::from_timestamp_micros(1_767_225_600_123_456).unwrap()
}

/// So many seconds after the beginning.
pub(crate) fn at(seconds: i64) -> Timestamp {
    start() + TimeDelta::seconds(seconds)
}

pub(crate) fn entry(action: &str) -> AuditEntry {
    AuditEntry::new(&Actor::system("test"), action, start())
}

pub(crate) fn entry_at(action: &str, seconds: i64) -> AuditEntry {
    AuditEntry::new(&Actor::system("test"), action, at(seconds))
}

pub(crate) fn change(action: &str) -> Change {
    entry(action).into()
}

/// A change under this idempotency key, at so many seconds after the beginning.
pub(crate) fn once(action: &str, key: &str, seconds: i64) -> Change {
    let once = Once { caller: "token:ci".to_owned(), key: key.to_owned(), fingerprint: "f".repeat(64) };
    Change::new(entry_at(action, seconds), Some(once))
}

pub(crate) fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

pub(crate) fn tags(pairs: &[(&str, &str)]) -> Tags {
    Tags::parse(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()).unwrap()
}

pub(crate) fn resources(cpu_millis: i64) -> Resources {
    Resources { cpu_millis, memory_mib: 2048, storage_mib: 10_240, gpus: 1 }
}

pub(crate) fn new_server(text: &str) -> NewServer {
    NewServer {
        name: name(text),
        architecture: Architecture::X86_64,
        status: ServerStatus::Online,
        capacity: resources(4000),
        gpu_model: None,
        location: None,
        cluster: None,
        zone: None,
        pool_id: None,
        tags: Tags::default(),
    }
}

pub(crate) fn server_in(pool: PoolId, name: &str) -> NewServer {
    NewServer { pool_id: Some(pool), ..new_server(name) }
}

pub(crate) fn new_pool(text: &str) -> NewPool {
    NewPool {
        name: name(text),
        kind: PoolType::Compute,
        quotas: Quotas::default(),
        watermarks: Watermarks::default(),
        strategy: PoolStrategy::Spread,
        labels: Tags::default(),
        description: None,
    }
}

/// So many cores in thousandths, and nothing else.
pub(crate) fn millis(cpu_millis: i64) -> Resources {
    Resources { cpu_millis, ..Resources::default() }
}

/// A task that asks for one core and nothing else.
pub(crate) fn new_task(text: &str) -> NewTask {
    NewTask { spec: TaskSpec::new(name(text), millis(1000)) }
}

/// A task that an agent runs, that asks for one core and nothing else, and may be tried three times.
pub(crate) fn agents_task(text: &str) -> NewTask {
    NewTask { spec: TaskSpec { driver: TaskDriver::Docker, max_attempts: 3, ..new_task(text).spec } }
}

pub(crate) fn new_enrollment(text: &str) -> NewEnrollment {
    let request =
        EnrollmentRequest { name: name(text), pool_id: None, tags: Tags::default(), max_uses: 100, expires_at: None };
    let (created_by, secret_digest) = ("user:alice".to_owned(), format!("join-{text}"));
    NewEnrollment { request, expires_at: at(3600), created_by, secret_digest }
}

pub(crate) fn new_agent(text: &str) -> NewAgent {
    NewAgent { token_digest: format!("agent-{text}"), place: format!("place-{text}") }
}

/// What an agent found a minute after the beginning on a machine that can do everything.
pub(crate) fn inventory() -> Inventory {
    Inventory {
        emulated_architectures: vec![Architecture::Arm64],
        drivers: vec![Driver::Docker, Driver::Exec],
        os: Some("Debian 12".to_owned()),
        kernel: Some("6.1".to_owned()),
        agent_version: Some("0.1.0".to_owned()),
        last_seen_at: Some(at(60)),
    }
}

/// What a scheduler asks for that found this server for a task.
pub(crate) fn placement(task: &Task, server: ServerId) -> Placement {
    let entry =
        |before: &Task, after: &Task| entry_at("task.dispatch", 60).moved(after, before.position(), after.position());
    Placement::of(task, server, at(60), entry).expect("the task is pending")
}

pub(crate) fn new_user(text: &str) -> NewUser {
    NewUser { name: name(text), role: Role::Operator, password_hash: format!("hash-{text}"), created_at: start() }
}

pub(crate) fn new_token(text: &str) -> NewToken {
    NewToken {
        name: name(text),
        role: Role::Viewer,
        scopes: Scopes::all(),
        expires_at: None,
        created_by: "user:alice".to_owned(),
        secret_digest: format!("digest-{text}"),
        created_at: start(),
    }
}

pub(crate) fn new_session(user: UserId, digest: &str) -> NewSession {
    NewSession { user_id: user, secret_digest: digest.to_owned(), expires_at: at(3600), created_at: start() }
}

/// Runs all of them at once; their outcomes in the order given.
pub(crate) async fn at_once<F>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    let running: Vec<_> = futures.into_iter().map(tokio::spawn).collect();
    let mut outcomes = Vec::with_capacity(running.len());
    for outcome in running {
        outcomes.push(outcome.await.unwrap());
    }
    outcomes
}

/// Walks all pages of `limit` rows; between two of them, `meanwhile` happens.
pub(crate) async fn walk<T, F, M>(limit: u16, page: impl Fn(PageRequest) -> F, meanwhile: impl Fn() -> M) -> Vec<T>
where
    F: Future<Output = Result<Page<T>>>,
    M: Future<Output = ()>,
{
    let (mut items, mut after) = (Vec::new(), None);
    loop {
        let found = page(PageRequest { limit, after }).await.unwrap();
        assert!(found.items.len() <= usize::from(limit));
        items.extend(found.items);
        after = found.next;
        if after.is_none() {
            return items;
        }
        meanwhile().await;
    }
}

#[track_caller]
pub(crate) fn check_conflict<T: Debug>(outcome: Result<T>, expected: &str) -> String {
    match outcome {
        Err(Error::Conflict { code, reason }) if code == expected => reason,
        other => panic!("expected the conflict {expected}: {other:?}"),
    }
}

#[track_caller]
pub(crate) fn check_not_found<T: Debug>(outcome: Result<T>) {
    match outcome {
        Err(Error::NotFound { .. }) => {}
        other => panic!("expected that there is none: {other:?}"),
    }
}

#[track_caller]
pub(crate) fn check_stale<T: Debug>(outcome: Result<T>, now_at: i64) {
    match outcome {
        Err(Error::Stale { current, .. }) if current == now_at => {}
        other => panic!("expected a stale revision, now at {now_at}: {other:?}"),
    }
}

//! A database that an earlier version made keeps what is in it.

use crate::store::{Process, fresh_postgres, tags};
use diesel::{
    Connection, PgConnection, QueryableByName, RunQueryDsl, SqliteConnection, connection::SimpleConnection, sql_query,
    sql_types::Text,
};
use diesel_migrations::{FileBasedMigrations, MigrationHarness};
use domain::{
    fleet::{Server, ServerFilter, ServerSort, ServerStatus, Servers},
    ids::TaskId,
    page::PageRequest,
    pools::{PoolState, Pools},
    scheduling::{ArchitectureSet, TaskStatus, Tasks},
    text::Tags,
    units::Resources,
};
use infra_diesel::{DatabaseUrl, SchemaState, migrate, schema_state};
use std::path::Path;

/// The number of the newest version.
const NEWEST: u32 = 9;

fn migrations(database: &str) -> FileBasedMigrations {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations");
    FileBasedMigrations::from_path(root.join(database)).unwrap()
}

/// What the first version stored: a pool, and servers with and without tags, one of which had work on it.
const FIRST_DATA: &str = "
    INSERT INTO pools (name, kind, watermarks, strategy, labels, state, search_text, revision, created_at_us,
        updated_at_us)
    VALUES ('edge', 'compute', '{}', 'spread', '{}', 'open', 'edge', 2, 1000000, 2000000);
    INSERT INTO servers (name, architecture, status, cpu_millis, memory_mib, storage_mib, gpus, location, zone,
        pool_id, tags, cordoned, search_text, revision, created_at_us, updated_at_us)
    VALUES
        ('edge-1', 'arm64', 'online', 4000, 8192, 0, 1, 'Rack 7', 'a', 1, '{\"env\":\"prod\",\"team\":\"\"}', TRUE,
            'edge-1 rack 7 a env:prod team:', 5, 1000000, 2000000),
        ('edge-2', 'x86_64', 'offline', 1000, 1024, 10, 0, NULL, NULL, NULL, '{}', FALSE, 'edge-2', 1, 1000000,
            1000000);
    INSERT INTO server_tags (server_id, key, value) VALUES (1, 'env', 'prod'), (1, 'team', '');
";
const TAGS: &str = "SELECT server_id || ' ' || key || '=' || value AS line FROM server_tags ORDER BY 1";
const SEARCH_TEXTS: &str = "SELECT search_text AS line FROM servers ORDER BY id";

#[derive(Debug, QueryableByName)]
struct Line {
    #[diesel(sql_type = Text)]
    line: String,
}

/// A database as the first migration alone makes it, with data.
fn make_first<C>(connection: &mut C, source: FileBasedMigrations)
where
    C: MigrationHarness<C::Backend> + Connection + SimpleConnection,
{
    let first = connection.run_next_migration(source).unwrap().to_string();
    assert_eq!(first, "20261125000001");
    connection.batch_execute(FIRST_DATA).unwrap();
}

/// The versions that come after one. Samples have a file of their own on SQLite.
fn later(url: &DatabaseUrl, version: u32) -> Vec<String> {
    let has_samples = url.sqlite_path().is_none();
    let day = |number: u32| if number <= 4 { "20261125" } else { "20261130" };
    let numbers = (version + 1..=NEWEST).filter(|number| *number != 7 || has_samples);
    numbers.map(|number| format!("{}{number:06}", day(number))).collect()
}

async fn check_kept(url: &DatabaseUrl, backups: &Path) {
    let later = later(url, 1);
    assert_eq!(schema_state(url).unwrap(), SchemaState::Behind(later.clone()));
    assert_eq!(migrate(url, backups).unwrap().applied, later);
    assert_eq!(schema_state(url).unwrap(), SchemaState::Current);

    let process = Process::open(url);
    let sort = ServerSort::parse("id").unwrap();
    let listed = |filter| process.list(filter, sort, PageRequest::default());
    let [first, second]: [Server; 2] = listed(ServerFilter::default()).await.unwrap().items.try_into().unwrap();
    assert_eq!((first.id.0, first.revision, first.cordoned, first.pool_id.unwrap().0), (1, 5, true, 1));
    assert_eq!(first.tags, tags(&[("env", "prod"), ("team", "")]));
    assert_eq!((first.location.as_deref(), first.zone.as_deref()), (Some("Rack 7"), Some("a")));
    let capacity = Resources { cpu_millis: 4000, memory_mib: 8192, storage_mib: 0, gpus: 1 };
    assert_eq!((first.capacity, first.reserved), (capacity, Resources::default()));
    assert_eq!((second.id.0, second.status, second.tags.clone()), (2, ServerStatus::Offline, Tags::default()));
    for server in [&first, &second] {
        assert_eq!(process.servers.get(server.id).await.unwrap(), *server);
    }
    let tagged = ServerFilter { tags: vec![("env".to_owned(), "prod".to_owned())], ..ServerFilter::default() };
    let keyword = ServerFilter { keyword: Some("RACK 7".to_owned()), ..ServerFilter::default() };
    for filter in [tagged, keyword] {
        assert_eq!(listed(filter.clone()).await.unwrap().items, std::slice::from_ref(&first), "{filter:?}");
    }
    let pool = process.pools.get(first.pool_id.unwrap()).await.unwrap();
    assert_eq!((pool.pool.name.as_str(), pool.pool.state, pool.capacity.server_count), ("edge", PoolState::Open, 1));
    assert_eq!(process.tasks.ledger_check().await.unwrap(), [], "nothing is held");
    let made = process.server("edge-3").await;
    assert!(made.id > second.id);
    process.database.close().await;
}

/// Takes the later migrations back, and fails unless what the first version looked for is there again.
fn check_back<C, S>(connection: &mut C, source: &FileBasedMigrations, versions: usize, mut lines: S)
where
    C: MigrationHarness<C::Backend> + Connection,
    S: FnMut(&mut C, &str) -> Vec<String>,
{
    for _ in 0..versions {
        connection.revert_last_migration(source.clone()).unwrap();
    }
    assert_eq!(lines(connection, TAGS), ["1 env=prod", "1 team="]);
    let texts = lines(connection, SEARCH_TEXTS);
    assert_eq!(texts, ["edge-1\nrack 7\na\nenv:prod\nteam:", "edge-2", "edge-3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_and_tags_of_the_first_version_are_kept_on_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("starlink.db");
    let url = DatabaseUrl::Sqlite(path.clone());
    let open = || SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    make_first(&mut open(), migrations("sqlite"));
    check_kept(&url, &directory.path().join("backups")).await;
    check_back(&mut open(), &migrations("sqlite"), later(&url, 1).len(), |connection, query| {
        sql_query(query).load::<Line>(connection).unwrap().into_iter().map(|line| line.line).collect()
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_and_tags_of_the_first_version_are_kept_on_postgres() {
    let url = fresh_postgres();
    let DatabaseUrl::Postgres(text) = &url else { panic!("{url}") };
    let open = || PgConnection::establish(text).unwrap();
    make_first(&mut open(), migrations("postgres"));
    check_kept(&url, &std::env::temp_dir()).await;
    check_back(&mut open(), &migrations("postgres"), later(&url, 1).len(), |connection, query| {
        sql_query(query).load::<Line>(connection).unwrap().into_iter().map(|line| line.line).collect()
    });
}

/// A task that waits, as it was stored before there were bars.
const FOURTH_DATA: &str = r#"
    INSERT INTO tasks (spec, status, attempt, reason, search_text, revision, created_at_us, updated_at_us)
    VALUES ('{"name":"night","architecture":"arm64","demand":{"cpu_millis":1000,"memory_mib":0,"storage_mib":0,"gpus":0},
        "kind":"job","driver":"docker","image":"render:2","max_attempts":3}', 'pending', 1, 'exec_format', 'night', 4,
        1000000, 2000000);
"#;
const TASKS: &str = "SELECT status || ' ' || attempt || ' ' || reason AS line FROM tasks";

/// A database as the first four migrations make it, with data.
fn make_fourth<C>(connection: &mut C, source: &FileBasedMigrations)
where
    C: MigrationHarness<C::Backend> + Connection + SimpleConnection,
{
    for _ in 0..4 {
        connection.run_next_migration(source.clone()).unwrap();
    }
    connection.batch_execute(FOURTH_DATA).unwrap();
}

async fn check_nothing_barred(url: &DatabaseUrl, backups: &Path) {
    assert_eq!(migrate(url, backups).unwrap().applied, later(url, 4));
    let process = Process::open(url);
    let task = process.tasks.get(TaskId(1)).await.unwrap();
    assert_eq!((task.status, task.attempt, task.revision), (TaskStatus::Pending, 1, 4));
    assert_eq!(task.barred, ArchitectureSet::default());
    process.database.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_barred_to_tasks_of_the_fourth_version_on_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("starlink.db");
    let open = || SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    make_fourth(&mut open(), &migrations("sqlite"));
    let url = DatabaseUrl::Sqlite(path.clone());
    check_nothing_barred(&url, &directory.path().join("backups")).await;
    for _ in later(&url, 4) {
        open().revert_last_migration(migrations("sqlite")).unwrap();
    }
    let lines: Vec<Line> = sql_query(TASKS).load(&mut open()).unwrap();
    assert_eq!(lines[0].line, "pending 1 exec_format");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_barred_to_tasks_of_the_fourth_version_on_postgres() {
    let url = fresh_postgres();
    let DatabaseUrl::Postgres(text) = &url else { panic!("{url}") };
    let open = || PgConnection::establish(text).unwrap();
    make_fourth(&mut open(), &migrations("postgres"));
    check_nothing_barred(&url, &std::env::temp_dir()).await;
    for _ in later(&url, 4) {
        open().revert_last_migration(migrations("postgres")).unwrap();
    }
    let lines: Vec<Line> = sql_query(TASKS).load(&mut open()).unwrap();
    assert_eq!(lines[0].line, "pending 1 exec_format");
}

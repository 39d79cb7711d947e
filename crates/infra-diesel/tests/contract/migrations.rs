//! The schema: made once, and the same however often it was taken down and up.

use crate::store::{Store, fresh_postgres};
use diesel::{Connection, PgConnection, QueryableByName, RunQueryDsl, SqliteConnection, sql_query, sql_types::Text};
use diesel_migrations::{FileBasedMigrations, MigrationHarness};
use domain::Error;
use infra_diesel::{DatabaseUrl, SchemaState, migrate, schema_state};
use std::path::Path;

#[derive(Debug, PartialEq, QueryableByName)]
struct Line {
    #[diesel(sql_type = Text)]
    line: String,
}

fn migrations(database: &str) -> FileBasedMigrations {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations");
    FileBasedMigrations::from_path(root.join(database)).unwrap()
}

const SQLITE_SCHEMA: &str =
    "SELECT type || ' ' || name || ' ' || COALESCE(sql, '') AS line FROM sqlite_master ORDER BY 1";
const POSTGRES_SCHEMA: &str = "
    SELECT concat_ws(' ', table_name, column_name, data_type, is_nullable, column_default, collation_name, is_identity) AS line
    FROM information_schema.columns WHERE table_schema = current_schema()
    UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = current_schema()
    UNION ALL SELECT conrelid::regclass || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = current_schema()::regnamespace
    ORDER BY 1";

#[test]
fn migrations_go_up_and_down_and_up_on_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("starlink.db");
    let mut connection = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    let mut schema = |up: bool| {
        let source = migrations("sqlite");
        let done =
            if up { connection.run_pending_migrations(source) } else { connection.revert_all_migrations(source) };
        assert!(!done.unwrap().is_empty());
        sql_query(SQLITE_SCHEMA).load::<Line>(&mut connection).unwrap()
    };
    let first = schema(true);
    let bare = schema(false);
    assert!(bare.iter().all(|line| line.line.contains("sqlite_") || line.line.contains("__diesel")), "{bare:?}");
    assert_eq!(schema(true), first);
    drop(connection);
    assert_eq!(schema_state(&DatabaseUrl::Sqlite(path)).unwrap(), SchemaState::Current);
}

#[test]
fn migrations_go_up_and_down_and_up_on_postgres() {
    let url = fresh_postgres();
    let DatabaseUrl::Postgres(text) = &url else { panic!("{url}") };
    let mut connection = PgConnection::establish(text).unwrap();
    let mut schema = |up: bool| {
        let source = migrations("postgres");
        let done =
            if up { connection.run_pending_migrations(source) } else { connection.revert_all_migrations(source) };
        assert!(!done.unwrap().is_empty());
        sql_query(POSTGRES_SCHEMA).load::<Line>(&mut connection).unwrap()
    };
    let first = schema(true);
    let bare = schema(false);
    assert!(bare.iter().all(|line| line.line.contains("__diesel")), "{bare:?}");
    assert_eq!(schema(true), first);
    assert_eq!(schema_state(&url).unwrap(), SchemaState::Current);
}

fn check_migrated_once(store: &Store) {
    let directory = tempfile::tempdir().unwrap();
    let report = migrate(&store.url, directory.path()).unwrap();
    assert!(report.applied.is_empty() && report.backup.is_none(), "{report:?}");
    assert_eq!(schema_state(&store.url).unwrap(), SchemaState::Current);
    store.sql("INSERT INTO __diesel_schema_migrations (version) VALUES ('20990101000000')");
    for refused in [migrate(&store.url, directory.path()).map(drop), schema_state(&store.url).map(drop)] {
        let Err(Error::Conflict { code, reason }) = refused else { panic!("{refused:?}") };
        assert_eq!(code, "newer_database");
        assert!(reason.contains("20990101000000"), "{reason}");
    }
}

#[test]
fn a_database_is_migrated_once_and_a_newer_one_refused() {
    check_migrated_once(&Store::sqlite());
    check_migrated_once(&Store::postgres());
}

#[test]
fn a_database_of_somebody_else_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    for url in [DatabaseUrl::Sqlite(directory.path().join("other.db")), fresh_postgres()] {
        assert_eq!(schema_state(&url).unwrap(), SchemaState::Empty);
        crate::store::execute(&url, "CREATE TABLE theirs (id BIGINT)");
        let Err(Error::Conflict { code, .. }) = migrate(&url, directory.path()) else { panic!("{url} was taken") };
        assert_eq!(code, "unknown_database");
    }
}

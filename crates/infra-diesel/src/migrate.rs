//! Brings a database's schema up to date, and refuses one that this version does not understand.

use crate::{
    connection::{AnyConnection, Purpose, SQLITE_JOURNAL, connect, each},
    failure::Failure,
    transfer,
    url::DatabaseUrl,
};
use diesel::{
    RunQueryDsl, backend::Backend, connection::SimpleConnection, migration::MigrationSource, pg::Pg, sql_types::Text,
    sqlite::Sqlite,
};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use domain::{Error, Result};
use std::{
    fs::OpenOptions,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

const OURS: Migrations<EmbeddedMigrations> = Migrations {
    sqlite: embed_migrations!("../../migrations/sqlite"),
    postgres: embed_migrations!("../../migrations/postgres"),
    page_size: 4096,
};
/// Of the file of samples; on `PostgreSQL` they are in the same database as all else. A compressed column is some 2,000
/// bytes, of which large pages waste less.
const SAMPLES: Migrations<EmbeddedMigrations> = Migrations {
    sqlite: embed_migrations!("../../migrations/samples"),
    postgres: embed_migrations!("../../migrations/postgres"),
    page_size: 16384,
};
/// Keeps two processes from migrating the same `PostgreSQL` database at once; any number of our own will do.
const ADVISORY_LOCK: i64 = 0x7374_6172_6c69_6e6b;

/// The changes of the schema, for each database. Others than ours are for tests.
struct Migrations<S> {
    sqlite: S,
    postgres: S,
    /// Of a new file, in bytes.
    page_size: u32,
}

/// What was done to the schema.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MigrationReport {
    /// The versions that were applied, in order; empty if the schema was current.
    pub applied: Vec<String>,
    /// Where the database was saved before, if there was something to save.
    pub backup: Option<PathBuf>,
}

/// How a database's schema compares to this version's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchemaState {
    /// There is nothing in it yet.
    Empty,
    /// It is what this version expects.
    Current,
    /// These versions have to be applied.
    Behind(Vec<String>),
}

#[derive(diesel::QueryableByName)]
struct NameRow {
    #[diesel(sql_type = Text)]
    name: String,
}

/// Applies what is missing. A file with data in it is first copied into `backups`.
///
/// # Errors
/// [`Error::Conflict`] for a database that is newer than this version or was not made by it; [`Error::Unavailable`] if
/// it does not answer.
pub fn migrate(url: &DatabaseUrl, backups: &Path) -> Result<MigrationReport> {
    let report = migrate_by(OURS, url, backups)?;
    if url.sqlite_path().is_some() {
        migrate_by(SAMPLES, &url.of_samples(), backups)?;
    }
    Ok(report)
}

fn migrate_by<S>(migrations: Migrations<S>, url: &DatabaseUrl, backups: &Path) -> Result<MigrationReport>
where
    S: MigrationSource<Sqlite> + MigrationSource<Pg>,
{
    create_private(url)?;
    let mut connection = open(url)?;
    if let AnyConnection::Postgresql(postgres) = &mut connection {
        let lock = format!("SELECT pg_advisory_lock({ADVISORY_LOCK})");
        postgres.batch_execute(&lock).map_err(Failure::from)?;
    }
    let state = state_of(&migrations, &mut connection, url)?;
    let backup = match (&state, url) {
        (SchemaState::Behind(versions), DatabaseUrl::Sqlite(path)) => {
            let to = versions.last().map_or("unknown", String::as_str);
            Some(transfer::save_before_migration(path, backups, to)?)
        }
        _ => None,
    };
    if let AnyConnection::Sqlite(sqlite) = &mut connection {
        // The size is for good once there is anything in the file.
        let page_size = format!("PRAGMA page_size = {}", migrations.page_size);
        sqlite.batch_execute(&page_size).map_err(Failure::from)?;
        sqlite.batch_execute(SQLITE_JOURNAL).map_err(Failure::from)?;
    }
    let applied = if state == SchemaState::Current { Vec::new() } else { apply(migrations, &mut connection)? };
    Ok(MigrationReport { applied, backup })
}

/// Compares without changing anything.
///
/// # Errors
/// As [`migrate()`].
pub fn schema_state(url: &DatabaseUrl) -> Result<SchemaState> {
    if url.sqlite_path().is_some_and(|path| !path.exists()) {
        return Ok(SchemaState::Empty);
    }
    state_of(&OURS, &mut open(url)?, url)
}

/// Makes the file of a new database, so that only its owner can read it; what `SQLite` puts beside it is made alike.
fn create_private(url: &DatabaseUrl) -> Result<()> {
    let Some(path) = url.sqlite_path().filter(|path| !path.exists()) else { return Ok(()) };
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(Error::unavailable(format!("cannot create {}: {error}", path.display()), error))
        }
        _ => Ok(()),
    }
}

fn open(url: &DatabaseUrl) -> Result<AnyConnection> {
    connect(url, Purpose::Examine).map_err(|failure| {
        let text = cause_of(&failure);
        if text.contains("file is not a database") {
            return unknown(url, "it is no SQLite database");
        }
        Error::unavailable(format!("cannot open {url}: {text}"), failure)
    })
}

fn cause_of(failure: &Failure) -> String {
    std::error::Error::source(failure).map_or_else(|| failure.to_string(), ToString::to_string)
}

fn unknown(url: &DatabaseUrl, why: &str) -> Error {
    let reason = format!("refusing to touch {url}: {why}; name another database, or move this one away");
    Error::conflict("unknown_database", reason)
}

fn state_of<S>(migrations: &Migrations<S>, connection: &mut AnyConnection, url: &DatabaseUrl) -> Result<SchemaState>
where
    S: MigrationSource<Sqlite> + MigrationSource<Pg>,
{
    let tables = tables(connection)?;
    if !tables.iter().any(|name| name == "__diesel_schema_migrations") {
        if let Some(table) = tables.first() {
            return Err(unknown(url, &format!("it was not made by StarLink (it has a table \"{table}\")")));
        }
        return Ok(SchemaState::Empty);
    }
    let applied = applied(connection)?;
    let known = known(migrations, connection)?;
    if let Some(newer) = applied.iter().find(|version| !known.contains(version)) {
        let reason = format!(
            "{url} was used by a newer version of StarLink (migration {newer} is not known to this one); \
             start that version, or restore a backup from before the upgrade"
        );
        return Err(Error::conflict("newer_database", reason));
    }
    let missing: Vec<String> = known.into_iter().filter(|version| !applied.contains(version)).collect();
    if missing.is_empty() {
        return Ok(SchemaState::Current);
    }
    Ok(if applied.is_empty() { SchemaState::Empty } else { SchemaState::Behind(missing) })
}

fn tables(connection: &mut AnyConnection) -> Result<Vec<String>> {
    let query = match connection {
        AnyConnection::Sqlite(_) => {
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
        }
        AnyConnection::Postgresql(_) => {
            "SELECT tablename::text AS name FROM pg_tables WHERE schemaname = current_schema() ORDER BY tablename"
        }
    };
    let rows: Vec<NameRow> = diesel::sql_query(query).load(connection).map_err(Failure::from)?;
    Ok(rows.into_iter().map(|row| row.name).collect())
}

fn applied(connection: &mut AnyConnection) -> Result<Vec<String>> {
    each!(connection, c => c.applied_migrations())
        .map(|versions| versions.iter().rev().map(ToString::to_string).collect())
        .map_err(Error::internal)
}

fn known<S>(migrations: &Migrations<S>, connection: &AnyConnection) -> Result<Vec<String>>
where
    S: MigrationSource<Sqlite> + MigrationSource<Pg>,
{
    match connection {
        AnyConnection::Sqlite(_) => versions::<Sqlite>(&migrations.sqlite),
        AnyConnection::Postgresql(_) => versions::<Pg>(&migrations.postgres),
    }
}

fn versions<D: Backend>(source: &impl MigrationSource<D>) -> Result<Vec<String>> {
    let migrations = source.migrations().map_err(Error::internal)?;
    let mut versions: Vec<String> = migrations.iter().map(|migration| migration.name().version().to_string()).collect();
    versions.sort();
    Ok(versions)
}

fn apply<S>(migrations: Migrations<S>, connection: &mut AnyConnection) -> Result<Vec<String>>
where
    S: MigrationSource<Sqlite> + MigrationSource<Pg>,
{
    let versions = match connection {
        AnyConnection::Sqlite(c) => c.run_pending_migrations(migrations.sqlite),
        AnyConnection::Postgresql(c) => c.run_pending_migrations(migrations.postgres),
    };
    versions.map(|versions| versions.iter().map(ToString::to_string).collect()).map_err(Error::internal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use diesel_migrations::FileBasedMigrations;
    use std::{
        fs::{create_dir, write},
        os::unix::fs::PermissionsExt,
    };

    /// Migrations that make a table, and, where `count` is 2, one that adds a column to it.
    fn theirs(directory: &Path, count: usize) -> Migrations<FileBasedMigrations> {
        let steps = [
            ("2030-01-01-000001_first", "CREATE TABLE things (name TEXT); INSERT INTO things VALUES ('kept')"),
            ("2030-01-01-000002_second", "ALTER TABLE things ADD COLUMN size INTEGER"),
        ];
        let root = directory.join(format!("migrations-{count}"));
        create_dir(&root).unwrap();
        for (name, up) in steps.into_iter().take(count) {
            create_dir(root.join(name)).unwrap();
            write(root.join(name).join("up.sql"), up).unwrap();
        }
        let source = FileBasedMigrations::from_path(root).unwrap();
        Migrations { sqlite: source.clone(), postgres: source, page_size: 4096 }
    }

    fn names(url: &DatabaseUrl, query: &str) -> Vec<String> {
        let rows: Vec<NameRow> = diesel::sql_query(query).load(&mut open(url).unwrap()).unwrap();
        rows.into_iter().map(|row| row.name).collect()
    }

    #[test]
    fn a_file_with_data_is_saved_before_its_schema_changes() {
        let directory = tempfile::tempdir().unwrap();
        let (path, backups) = (directory.path().join("starlink.db"), directory.path().join("backups"));
        let url = DatabaseUrl::Sqlite(path);
        let report = migrate_by(theirs(directory.path(), 1), &url, &backups).unwrap();
        assert_eq!(report, MigrationReport { applied: vec!["20300101000001".to_owned()], backup: None });
        assert!(!backups.exists(), "there was nothing to save");

        let both = theirs(directory.path(), 2);
        let missing = SchemaState::Behind(vec!["20300101000002".to_owned()]);
        assert_eq!(state_of(&both, &mut open(&url).unwrap(), &url).unwrap(), missing);
        let report = migrate_by(both, &url, &backups).unwrap();
        assert_eq!(report.applied, ["20300101000002"]);
        let backup = report.backup.unwrap();
        assert_eq!(backup, backups.join("before-20300101000002-1.db"));
        assert_eq!(backup.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(&backups).unwrap().count(), 1, "nothing half-finished is left");

        let columns = "SELECT name FROM pragma_table_info('things')";
        let saved = DatabaseUrl::Sqlite(backup);
        for (url, expected) in [(&saved, &["name"][..]), (&url, &["name", "size"][..])] {
            assert_eq!(names(url, columns), expected);
            assert_eq!(names(url, "SELECT name FROM things"), ["kept"]);
        }
    }

    #[test]
    fn a_file_that_cannot_be_saved_is_not_changed() {
        let directory = tempfile::tempdir().unwrap();
        let (url, backups) =
            (DatabaseUrl::Sqlite(directory.path().join("starlink.db")), directory.path().join("backups"));
        migrate_by(theirs(directory.path(), 1), &url, &backups).unwrap();
        write(&backups, "not a directory").unwrap();
        let refused = migrate_by(theirs(directory.path(), 2), &url, &backups);
        assert!(matches!(refused, Err(Error::Unavailable { .. })), "{refused:?}");
        assert_eq!(names(&url, "SELECT name FROM pragma_table_info('things')"), ["name"]);
    }
}

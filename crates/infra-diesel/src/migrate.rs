//! Brings a database's schema up to date, and refuses one that this version does not understand.

use crate::{
    connection::{AnyConnection, DatabaseUrl, Purpose, connect, each},
    failure::Failure,
    transfer,
};
use diesel::{RunQueryDsl, connection::SimpleConnection, sql_types::Text};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use domain::{Error, Result};
use std::path::{Path, PathBuf};

const SQLITE: EmbeddedMigrations = embed_migrations!("../../migrations/sqlite");
const POSTGRES: EmbeddedMigrations = embed_migrations!("../../migrations/postgres");
/// Keeps two processes from migrating the same `PostgreSQL` database at once; any number of our own will do.
const ADVISORY_LOCK: i64 = 0x7374_6172_6c69_6e6b;

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
    let mut connection = open(url)?;
    if let AnyConnection::Postgresql(postgres) = &mut connection {
        let lock = format!("SELECT pg_advisory_lock({ADVISORY_LOCK})");
        postgres.batch_execute(&lock).map_err(Failure::from)?;
    }
    let state = state_of(&mut connection, url)?;
    let backup = match (&state, url) {
        (SchemaState::Behind(versions), DatabaseUrl::Sqlite(path)) => {
            let to = versions.last().map_or("unknown", String::as_str);
            Some(transfer::save_before_migration(path, backups, to)?)
        }
        _ => None,
    };
    let applied = if state == SchemaState::Current { Vec::new() } else { apply(&mut connection)? };
    Ok(MigrationReport { applied, backup })
}

/// Compares without changing anything.
///
/// # Errors
/// As [`migrate`].
pub fn schema_state(url: &DatabaseUrl) -> Result<SchemaState> {
    if url.sqlite_path().is_some_and(|path| !path.exists()) {
        return Ok(SchemaState::Empty);
    }
    state_of(&mut open(url)?, url)
}

fn open(url: &DatabaseUrl) -> Result<AnyConnection> {
    connect(url, Purpose::Write).map_err(|failure| {
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

fn state_of(connection: &mut AnyConnection, url: &DatabaseUrl) -> Result<SchemaState> {
    let tables = tables(connection)?;
    if !tables.iter().any(|name| name == "__diesel_schema_migrations") {
        if let Some(table) = tables.first() {
            return Err(unknown(url, &format!("it was not made by StarLink (it has a table \"{table}\")")));
        }
        return Ok(SchemaState::Empty);
    }
    let applied = applied(connection)?;
    let known = known(connection)?;
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
        AnyConnection::Sqlite(_) => "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name",
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

fn known(connection: &mut AnyConnection) -> Result<Vec<String>> {
    use diesel::migration::MigrationSource;
    let names = match connection {
        AnyConnection::Sqlite(_) => MigrationSource::<diesel::sqlite::Sqlite>::migrations(&SQLITE)
            .map(|all| all.iter().map(|migration| migration.name().version().to_string()).collect()),
        AnyConnection::Postgresql(_) => MigrationSource::<diesel::pg::Pg>::migrations(&POSTGRES)
            .map(|all| all.iter().map(|migration| migration.name().version().to_string()).collect()),
    };
    let mut names: Vec<String> = names.map_err(Error::internal)?;
    names.sort();
    Ok(names)
}

fn apply(connection: &mut AnyConnection) -> Result<Vec<String>> {
    let versions = match connection {
        AnyConnection::Sqlite(c) => c.run_pending_migrations(SQLITE),
        AnyConnection::Postgresql(c) => c.run_pending_migrations(POSTGRES),
    };
    versions.map(|versions| versions.iter().map(ToString::to_string).collect()).map_err(Error::internal)
}

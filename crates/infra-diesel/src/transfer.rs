//! Copies of a whole database: backup, restore, and moving between `SQLite` and `PostgreSQL`.
//!
//! A copy is made from one consistent view, written in one transaction, and read back row by row before that
//! transaction commits: it is there and equal, or it is not there at all.

mod tables;

use crate::{
    audit::{append, lock_head},
    connection::{AnyConnection, Purpose, connect},
    failure::Failure,
    migrate::{SchemaState, migrate, schema_state},
    url::DatabaseUrl,
};
use diesel::{RunQueryDsl, connection::SimpleConnection, sql_query, sql_types::Text};
use domain::{
    Error, Result,
    audit::{AuditEntry, Head, Seal},
};
use std::{
    fs::{File, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// What was copied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CopyReport {
    /// Each table with its number of rows, every one of which was read back and compared.
    pub tables: Vec<(&'static str, u64)>,
}

impl CopyReport {
    /// Rows in all tables together.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|(_, rows)| rows).sum()
    }
}

/// Copies everything into an empty database of either kind.
///
/// # Errors
/// [`Error::Conflict`] if `to` has data, or `from` has another schema than this version's.
pub fn copy(from: &DatabaseUrl, to: &DatabaseUrl) -> Result<CopyReport> {
    check_source(from)?;
    migrate(to, Path::new("."))?;
    let (mut source, mut target) = (open(from, Purpose::Read)?, open(to, Purpose::Write)?);
    let report = transfer(&mut source, &mut target, |target| {
        if tables::has_data(target)? {
            let reason = format!("{to} has data already; name an empty database, so that nothing is overwritten");
            return Err(Error::conflict("not_empty", reason).into());
        }
        Ok(())
    });
    Ok(report?.0)
}

/// Copies everything into a new file, which is a database of its own. The source may be in use.
///
/// # Errors
/// [`Error::Conflict`] if the file exists; [`Error::StorageFull`] if it does not fit.
pub fn backup(from: &DatabaseUrl, file: &Path) -> Result<CopyReport> {
    if file.exists() {
        let reason =
            format!("{} exists already; choose another name, so that no backup is overwritten", file.display());
        return Err(Error::conflict("file_exists", reason));
    }
    check_source(from)?;
    let part = part_of(file);
    let _ = std::fs::remove_file(&part);
    let report = write_backup(from, &part).and_then(|report| {
        publish(&part, file).map_err(|error| storage(file, error))?;
        Ok(report)
    });
    if report.is_err() {
        remove_database(&part);
    }
    report
}

fn write_backup(from: &DatabaseUrl, part: &Path) -> Result<CopyReport> {
    let to = DatabaseUrl::Sqlite(part.to_owned());
    let DatabaseUrl::Sqlite(_) = from else { return copy(from, &to) };
    vacuum_into(from, part)?;
    let (mut source, mut copy) = (open(from, Purpose::Read)?, open(&to, Purpose::Read)?);
    check_integrity(&mut copy, part)?;
    // The source may have gone on meanwhile, so the copy is counted, not compared: SQLite checked it page by page.
    drop(source.batch_execute("SELECT 1"));
    Ok(CopyReport { tables: tables::count(&mut copy)? })
}

/// Replaces everything in `to` by what the backup holds, in one transaction, and records that in the restored log.
/// The database may be in use. Returns the head of the restored log, which belongs into the head file.
///
/// # Errors
/// [`Error::Conflict`] if the file is no backup or newer than this version; then nothing was changed.
pub fn restore(file: &Path, to: &DatabaseUrl, seal: &Seal, entry: &AuditEntry) -> Result<(CopyReport, Head)> {
    if !file.is_file() {
        return Err(Error::NotFound { what: format!("backup {}", file.display()) });
    }
    // The backup itself stays as it is, also where it is from an older version and has to be migrated.
    let work = tempfile(file)?;
    let outcome = restore_from(&work, to, seal, entry);
    remove_database(&work);
    outcome
}

fn restore_from(work: &Path, to: &DatabaseUrl, seal: &Seal, entry: &AuditEntry) -> Result<(CopyReport, Head)> {
    let from = DatabaseUrl::Sqlite(work.to_owned());
    if schema_state(&from)? == SchemaState::Empty {
        return Err(Error::conflict(
            "not_a_backup",
            "the file holds no StarLink database; name a file that `backup` wrote",
        ));
    }
    migrate(&from, work.parent().unwrap_or(Path::new(".")))?;
    migrate(to, work.parent().unwrap_or(Path::new(".")))?;
    let (mut source, mut target) = (open(&from, Purpose::Read)?, open(to, Purpose::Write)?);
    check_integrity(&mut source, work)?;
    let (report, head) = transfer_with(&mut source, &mut target, tables::clear, |target| {
        let head = lock_head(target)?;
        append(target, seal, head, std::slice::from_ref(entry))
    })?;
    Ok((report, head))
}

fn transfer(
    source: &mut AnyConnection,
    target: &mut AnyConnection,
    prepare: impl FnOnce(&mut AnyConnection) -> Result<(), Failure>,
) -> Result<(CopyReport, ())> {
    transfer_with(source, target, prepare, |_| Ok(()))
}

/// One view of the source, one transaction of the target: prepare, copy, compare, finish.
fn transfer_with<T>(
    source: &mut AnyConnection,
    target: &mut AnyConnection,
    prepare: impl FnOnce(&mut AnyConnection) -> Result<(), Failure>,
    finish: impl FnOnce(&mut AnyConnection) -> Result<T, Failure>,
) -> Result<(CopyReport, T)> {
    let outcome = (|| {
        source.batch_execute(match source {
            AnyConnection::Sqlite(_) => "BEGIN",
            AnyConnection::Postgresql(_) => {
                "SET statement_timeout = 0; BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
            }
        })?;
        target.batch_execute(match target {
            AnyConnection::Sqlite(_) => "PRAGMA busy_timeout = 30000; BEGIN IMMEDIATE",
            AnyConnection::Postgresql(_) => "SET statement_timeout = 0; BEGIN",
        })?;
        prepare(target)?;
        let report = CopyReport { tables: tables::copy_all(source, target)? };
        let finished = finish(target)?;
        target.batch_execute("COMMIT")?;
        Ok::<_, Failure>((report, finished))
    })();
    // Dropped connections roll back; the source only ever read.
    Ok(outcome?)
}

/// Saves a file before its schema is changed: `before-<version>-<time>.db` in `backups`.
pub(crate) fn save_before_migration(path: &Path, backups: &Path, version: &str) -> Result<PathBuf> {
    std::fs::create_dir_all(backups).map_err(|error| storage(backups, error))?;
    let stem = format!("before-{version}");
    let free = (1..=u32::MAX).map(|n| backups.join(format!("{stem}-{n}.db"))).find(|path| !path.exists());
    let file = free.ok_or_else(|| Error::internal("no free name for a backup"))?;
    let part = part_of(&file);
    let _ = std::fs::remove_file(&part);
    vacuum_into(&DatabaseUrl::Sqlite(path.to_owned()), &part)?;
    check_integrity(&mut open(&DatabaseUrl::Sqlite(part.clone()), Purpose::Read)?, &part)?;
    publish(&part, &file).map_err(|error| storage(&file, error))?;
    Ok(file)
}

fn check_source(from: &DatabaseUrl) -> Result<()> {
    match schema_state(from)? {
        SchemaState::Current => Ok(()),
        SchemaState::Empty => Err(Error::conflict("empty_database", format!("{from} holds no StarLink database"))),
        SchemaState::Behind(_) => {
            let reason =
                format!("{from} is from an older version; bring it up to date with `starlink-server migrate` first");
            Err(Error::conflict("older_database", reason))
        }
    }
}

fn open(url: &DatabaseUrl, purpose: Purpose) -> Result<AnyConnection> {
    Ok(connect(url, purpose)?)
}

/// `SQLite`'s own way to copy a database that is in use: one consistent view, without holding up writers.
fn vacuum_into(from: &DatabaseUrl, file: &Path) -> Result<()> {
    let path = file.to_str().ok_or_else(|| Error::invalid("file", "must be valid UTF-8"))?;
    let mut connection = open(from, Purpose::Write)?;
    sql_query("VACUUM INTO ?").bind::<Text, _>(path).execute(&mut connection).map_err(Failure::from)?;
    Ok(())
}

fn check_integrity(connection: &mut AnyConnection, file: &Path) -> Result<()> {
    #[derive(diesel::QueryableByName)]
    struct Row {
        #[diesel(sql_type = Text)]
        integrity_check: String,
    }
    let rows: Vec<Row> = sql_query("PRAGMA integrity_check(1)").load(connection).map_err(Failure::from)?;
    match rows.first() {
        Some(row) if row.integrity_check == "ok" => Ok(()),
        found => {
            let said = found.map_or("nothing", |row| row.integrity_check.as_str());
            Err(Error::conflict("damaged_database", format!("{} is damaged: {said}", file.display())))
        }
    }
}

/// Makes a finished copy durable and gives it its name.
fn publish(part: &Path, file: &Path) -> std::io::Result<()> {
    std::fs::set_permissions(part, Permissions::from_mode(0o600))?;
    File::open(part)?.sync_all()?;
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(with_suffix(part, suffix));
    }
    std::fs::rename(part, file)?;
    match file.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => File::open(parent)?.sync_all(),
        None => File::open(".")?.sync_all(),
    }
}

fn part_of(file: &Path) -> PathBuf {
    with_suffix(file, ".part")
}

fn with_suffix(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// A copy beside the backup that may be migrated.
fn tempfile(file: &Path) -> Result<PathBuf> {
    let work = with_suffix(file, &format!(".restoring-{}", std::process::id()));
    std::fs::copy(file, &work).map_err(|error| storage(&work, error))?;
    std::fs::set_permissions(&work, Permissions::from_mode(0o600)).map_err(|error| storage(&work, error))?;
    Ok(work)
}

fn remove_database(file: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(with_suffix(file, suffix));
    }
}

fn storage(path: &Path, error: std::io::Error) -> Error {
    if error.kind() == std::io::ErrorKind::StorageFull {
        return Error::StorageFull { source: Some(error.into()) };
    }
    Error::unavailable(format!("cannot write {}: {error}", path.display()), error)
}

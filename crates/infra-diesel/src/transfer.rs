//! Copies of a whole database: backup, restore, and moving between `SQLite` and `PostgreSQL`.
//!
//! A copy is made from one consistent view, written in one transaction, and read back row by row before that
//! transaction commits: it is there and equal, or it is not there at all.

mod samples;
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
    let occupied = || {
        let reason = format!("{to} has data already; name an empty database, so that nothing is overwritten");
        Failure::from(Error::conflict("not_empty", reason))
    };
    let (mut source, mut target) = (open(from, Purpose::Read)?, open(to, Purpose::Write)?);
    let free = |has_data: bool| if has_data { Err(occupied()) } else { Ok(()) };
    free(tables::has_data(&mut target)?)?;
    let samples = copy_samples(from, to, |target| free(samples::has_data(target)?))?;
    let copied = transfer_with(&mut source, &mut target, |target| free(tables::has_data(target)?), tables::copy_all);
    let copied = copied.inspect_err(|_| drop(clear_samples(to)))?;
    Ok(CopyReport { tables: [copied, samples].concat() })
}

/// Copies samples, where there are any, in a transaction of their own: they have a database of their own.
fn copy_samples(
    from: &DatabaseUrl,
    to: &DatabaseUrl,
    prepare: impl FnOnce(&mut AnyConnection) -> Result<(), Failure>,
) -> Result<tables::Copied> {
    let (from, to) = (from.of_samples(), to.of_samples());
    if from.sqlite_path().is_some_and(|path| !path.exists()) {
        return Ok(Vec::new());
    }
    let (mut source, mut target) = (open(&from, Purpose::Read)?, open(&to, Purpose::Write)?);
    transfer_with(&mut source, &mut target, prepare, samples::copy_tables)
}

fn clear_samples(of: &DatabaseUrl) -> Result<()> {
    Ok(samples::clear_tables(&mut open(&of.of_samples(), Purpose::Write)?)?)
}

/// Copies everything into a new file, which is a database of its own. The source may be in use.
///
/// # Errors
/// [`Error::Conflict`] if the file exists; [`Error::StorageFull`] if it does not fit.
pub fn backup(from: &DatabaseUrl, file: &Path) -> Result<CopyReport> {
    let samples = samples_beside(file);
    for file in [file, &samples] {
        if file.exists() {
            let reason =
                format!("{} exists already; choose another name, so that no backup is overwritten", file.display());
            return Err(Error::conflict("file_exists", reason));
        }
    }
    check_source(from)?;
    let part = part_of(file);
    let part_of_samples = samples_beside(&part);
    remove_database(&part);
    remove_database(&part_of_samples);
    let report = write_backup(from, &part).and_then(|report| {
        // The database comes last: where it is, all of the backup is.
        if part_of_samples.exists() {
            publish(&part_of_samples, &samples).map_err(|error| storage(&samples, error))?;
        }
        publish(&part, file).map_err(|error| storage(file, error))?;
        Ok(report)
    });
    if report.is_err() {
        remove_database(&part);
        remove_database(&part_of_samples);
    }
    report
}

/// The file of the samples that belong to the database in this file.
#[must_use]
pub fn samples_beside(file: &Path) -> PathBuf {
    let samples = DatabaseUrl::Sqlite(file.to_owned()).of_samples();
    samples.sqlite_path().map(Path::to_owned).unwrap_or_default()
}

fn write_backup(from: &DatabaseUrl, part: &Path) -> Result<CopyReport> {
    let to = DatabaseUrl::Sqlite(part.to_owned());
    let DatabaseUrl::Sqlite(_) = from else { return copy(from, &to) };
    // The source may go on meanwhile, so the copy is counted, not compared: SQLite checked it page by page.
    let mut tables = tables::count(&mut vacuumed(from, part)?)?;
    let samples = from.of_samples();
    if samples.sqlite_path().is_some_and(Path::exists) {
        tables.extend(samples::count(&mut vacuumed(&samples, &samples_beside(part))?)?);
    }
    Ok(CopyReport { tables })
}

/// Copies a file of `SQLite`'s, and opens the copy.
fn vacuumed(from: &DatabaseUrl, file: &Path) -> Result<AnyConnection> {
    vacuum_into(from, file)?;
    let mut copy = open(&DatabaseUrl::Sqlite(file.to_owned()), Purpose::Read)?;
    check_integrity(&mut copy, file)?;
    Ok(copy)
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
    let work = with_suffix(file, &format!(".restoring-{}", std::process::id()));
    let (theirs, samples) = (samples_beside(file), samples_beside(&work));
    let outcome = (|| {
        duplicate(file, &work)?;
        if theirs.exists() {
            duplicate(&theirs, &samples)?;
        }
        let (report, head) = restore_from(&work, to, seal, entry)?;
        let samples = if theirs.exists() { restore_samples(&work, to)? } else { Vec::new() };
        Ok((CopyReport { tables: [report.tables, samples].concat() }, head))
    })();
    remove_database(&work);
    remove_database(&samples);
    outcome
}

/// Replaces samples by those of the backup. One without any leaves them as they are.
fn restore_samples(work: &Path, to: &DatabaseUrl) -> Result<tables::Copied> {
    let from = DatabaseUrl::Sqlite(work.to_owned());
    copy_samples(&from, to, samples::clear_tables).map_err(|error| {
        let reason = "the database was restored, but its samples were not and are as they were; restore it again";
        Error::unavailable(reason, error)
    })
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
    transfer_with(&mut source, &mut target, tables::clear, |source, target| {
        let report = CopyReport { tables: tables::copy_all(source, target)? };
        let head = lock_head(target)?;
        Ok((report, append(target, seal, head, std::slice::from_ref(entry))?))
    })
}

/// One view of the source, one transaction of the target: prepare, copy, compare.
fn transfer_with<T>(
    source: &mut AnyConnection,
    target: &mut AnyConnection,
    prepare: impl FnOnce(&mut AnyConnection) -> Result<(), Failure>,
    copy: impl FnOnce(&mut AnyConnection, &mut AnyConnection) -> Result<T, Failure>,
) -> Result<T> {
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
        let copied = copy(source, target)?;
        target.batch_execute("COMMIT")?;
        Ok::<_, Failure>(copied)
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

/// A copy of a file of the backup that may be migrated.
fn duplicate(file: &Path, work: &Path) -> Result<()> {
    std::fs::copy(file, work).map_err(|error| storage(work, error))?;
    std::fs::set_permissions(work, Permissions::from_mode(0o600)).map_err(|error| storage(work, error))
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

//! Every table with its columns, in the order in which they can be filled: what is referred to comes first.

use crate::{connection::AnyConnection, failure::Failure, schema, values::corrupt};
use diesel::{
    connection::{DefaultLoadingMode, SimpleConnection},
    pg::PgRowByRowLoadingMode,
    prelude::*,
};

/// Tables whose ids the database counts up.
const COUNTED: [&str; 14] = [
    "pools",
    "servers",
    "maintenance_windows",
    "alert_rules",
    "alerts",
    "alert_targets",
    "alert_deliveries",
    "enrollments",
    "tasks",
    "operations",
    "containers",
    "users",
    "tokens",
    "sessions",
];
/// Tables in which there is something from the start.
const SEEDED: [&str; 2] = ["audit_head", "alert_rules"];
/// Rows that are inserted by one statement; `SQLite` takes 32,766 parameters.
const STEP: usize = 500;

macro_rules! tables {
    ($($table:ident ($($key:ident),+) { $($column:ident: $type:ty),+ $(,)? })+) => {
        $(
            mod $table {
                use super::*;

                #[derive(Debug, PartialEq, Queryable, Insertable)]
                #[diesel(table_name = schema::$table)]
                #[diesel(treat_none_as_default_value = false)]
                struct Row { $($column: $type),+ }

                /// Hands every row, in the order of the primary key, to `each`, a few hundred at a time.
                fn stream(
                    connection: &mut AnyConnection,
                    mut each: impl FnMut(Vec<Row>) -> Result<(), Failure>,
                ) -> Result<(), Failure> {
                    let query = schema::$table::table.order(($(schema::$table::$key.asc(),)+));
                    match connection {
                        AnyConnection::Sqlite(c) => chunks(query.load_iter::<Row, DefaultLoadingMode>(c)?, &mut each),
                        AnyConnection::Postgresql(c) => chunks(query.load_iter::<Row, PgRowByRowLoadingMode>(c)?, &mut each),
                    }
                }

                pub(super) fn copy(from: &mut AnyConnection, to: &mut AnyConnection) -> Result<u64, Failure> {
                    let mut copied = 0;
                    stream(from, |rows| {
                        copied += rows.len();
                        match to {
                            AnyConnection::Sqlite(c) => diesel::insert_into(schema::$table::table).values(&rows).execute(c)?,
                            AnyConnection::Postgresql(c) => diesel::insert_into(schema::$table::table).values(&rows).execute(c)?,
                        };
                        Ok(())
                    })?;
                    compare(from, to)?;
                    u64::try_from(copied).map_err(|error| corrupt(error.to_string()))
                }

                /// Reads both sides again, side by side.
                fn compare(from: &mut AnyConnection, to: &mut AnyConnection) -> Result<(), Failure> {
                    let query = || schema::$table::table.order(($(schema::$table::$key.asc(),)+));
                    let mut rest: Box<dyn Iterator<Item = QueryResult<Row>>> = match to {
                        AnyConnection::Sqlite(c) => Box::new(query().load_iter::<Row, DefaultLoadingMode>(c)?.fuse()),
                        AnyConnection::Postgresql(c) => Box::new(query().load_iter::<Row, PgRowByRowLoadingMode>(c)?),
                    };
                    stream(from, |rows| {
                        for row in rows {
                            if rest.next().transpose()?.as_ref() != Some(&row) {
                                return Err(differs(stringify!($table)));
                            }
                        }
                        Ok(())
                    })?;
                    if rest.next().is_some() { Err(differs(stringify!($table))) } else { Ok(()) }
                }

                pub(super) fn count(connection: &mut AnyConnection) -> Result<u64, Failure> {
                    let rows: i64 = schema::$table::table.count().get_result(connection)?;
                    u64::try_from(rows).map_err(|error| corrupt(error.to_string()))
                }
            }
        )+

        /// Names of all tables.
        const NAMES: &[&str] = &[$(stringify!($table)),+];

        /// Every column that is copied, as `table.column`.
        #[cfg(test)]
        pub(super) const COLUMNS: &[&str] = &[$($(concat!(stringify!($table), ".", stringify!($column))),+),+];

        /// Copies and compares every table into ones that are empty.
        pub(super) fn copy_tables(from: &mut AnyConnection, to: &mut AnyConnection) -> Result<Copied, Failure> {
            Ok(vec![$((stringify!($table), $table::copy(from, to)?)),+])
        }

        /// Removes every row, what refers to others first.
        pub(super) fn clear_tables(connection: &mut AnyConnection) -> Result<(), Failure> {
            for name in NAMES.iter().rev() {
                connection.batch_execute(&format!("DELETE FROM {name}"))?;
            }
            Ok(())
        }

        /// Counts the rows of every table.
        pub(super) fn count(connection: &mut AnyConnection) -> Result<Copied, Failure> {
            Ok(vec![$((stringify!($table), $table::count(connection)?)),+])
        }
    };
}

pub(super) use tables;

/// Each table with its number of rows.
pub(super) type Copied = Vec<(&'static str, u64)>;

tables! {
    pools (id) {
        id: i64, name: String, kind: String, quota_cpu_millis: Option<i64>, quota_memory_mib: Option<i64>,
        quota_storage_mib: Option<i64>, quota_gpus: Option<i64>, watermarks: String, strategy: String, labels: String,
        description: Option<String>, state: String, search_text: String, revision: i64, created_at_us: i64,
        updated_at_us: i64, reserved_cpu_millis: i64, reserved_memory_mib: i64, reserved_storage_mib: i64,
        reserved_gpus: i64,
    }
    servers (id) {
        id: i64, name: String, architecture: String, status: String, cpu_millis: i64, memory_mib: i64,
        storage_mib: i64, gpus: i64, reserved_cpu_millis: i64, reserved_memory_mib: i64, reserved_storage_mib: i64,
        reserved_gpus: i64, gpu_model: Option<String>, location: Option<String>, cluster: Option<String>,
        zone: Option<String>, pool_id: Option<i64>, tags: String, cordoned: bool, emulated_architectures: String,
        drivers: String, os: Option<String>, kernel: Option<String>, agent_version: Option<String>,
        last_seen_at_us: Option<i64>, revision: i64, created_at_us: i64, updated_at_us: i64,
    }
    maintenance_windows (id) {
        id: i64, server_id: i64, title: String, description: Option<String>, scheduled_for_us: i64,
        duration_minutes: i64, status: String, started_at_us: Option<i64>, ended_at_us: Option<i64>,
        back_to: Option<String>, due_at_us: Option<i64>, revision: i64, created_by: String, created_at_us: i64,
        updated_at_us: i64,
    }
    alert_rules (id) {
        id: i64, name: String, enabled: bool, spec: String, revision: i64, created_by: String, created_at_us: i64,
        updated_at_us: i64,
    }
    alerts (id) {
        id: i64, rule_id: i64, rule_name: String, severity: String, metric: Option<String>, subject_kind: String,
        subject_id: i64, subject_name: String, state: String, since_us: i64, fired_at_us: Option<i64>,
        acknowledged_at_us: Option<i64>, acknowledged_by: Option<String>, note: Option<String>,
        ended_at_us: Option<i64>, reason: Option<String>, value: f64, notified_at_us: Option<i64>, revision: i64,
        created_at_us: i64, updated_at_us: i64,
    }
    alert_changes (alert_id, number) {
        alert_id: i64, number: i64, at_us: i64, from_state: Option<String>, to_state: String, value: f64,
        actor: String, note: Option<String>,
    }
    alert_targets (id) {
        id: i64, name: String, kind: String, enabled: bool, spec: String, secret: Option<String>, revision: i64,
        created_by: String, created_at_us: i64, updated_at_us: i64,
    }
    alert_deliveries (id) {
        id: i64, alert_id: Option<i64>, target_id: i64, target_name: String, event: String, message: String,
        state: String, tries: i64, due_at_us: Option<i64>, created_at_us: i64, finished_at_us: Option<i64>,
    }
    alert_tries (delivery_id, number) {
        delivery_id: i64, number: i64, at_us: i64, status: Option<i64>, error: Option<String>,
    }
    enrollments (id) {
        id: i64, name: String, pool_id: Option<i64>, tags: String, max_uses: i64, uses: i64, expires_at_us: i64,
        created_by: String, created_at_us: i64, secret_digest: String,
    }
    agents (server_id) { server_id: i64, token_digest: String, place: String, enrolled_at_us: i64 }
    tasks (id) {
        id: i64, spec: String, status: String, pool_id: Option<i64>, attempt: i64, server_id: Option<i64>,
        reason: Option<String>, detail: Option<String>, search_text: String, revision: i64, created_at_us: i64,
        updated_at_us: i64, scheduled_at_us: Option<i64>, started_at_us: Option<i64>, finished_at_us: Option<i64>,
        barred: String,
    }
    attempts (task_id, number) {
        task_id: i64, number: i64, server_id: i64, cpu_millis: i64, memory_mib: i64, storage_mib: i64, gpus: i64,
        held: bool, status: String, exit_code: Option<i64>, signal: Option<i64>, reason: Option<String>,
        created_at_us: i64, started_at_us: Option<i64>, finished_at_us: Option<i64>,
    }
    operations (id) {
        id: i64, server_id: i64, kind: String, task_id: Option<i64>, attempt: Option<i64>, state: String,
        cancel_requested: bool, progress: Option<String>, result: Option<String>, created_at_us: i64,
        started_at_us: Option<i64>, finished_at_us: Option<i64>, deed: Option<String>,
    }
    containers (id) {
        id: i64, server_id: i64, engine_id: String, state: String, project: Option<String>, task_id: Option<i64>,
        search_text: String, observed: String, usage: Option<String>,
    }
    container_reports (server_id) { server_id: i64, reported_at_us: i64, session: String }
    users (id) {
        id: i64, name: String, role: String, password_hash: String, disabled: bool, revision: i64,
        created_at_us: i64, updated_at_us: i64,
    }
    tokens (id) {
        id: i64, name: String, secret_digest: String, role: String, scopes: Option<String>,
        expires_at_us: Option<i64>, last_used_at_us: Option<i64>, created_by: String, created_at_us: i64,
    }
    sessions (id) { id: i64, user_id: i64, secret_digest: String, expires_at_us: i64, created_at_us: i64 }
    tickets (secret_digest) { secret_digest: String, credential_digest: String, expires_at_us: i64 }
    idempotency_keys (caller, idempotency_key) {
        caller: String, idempotency_key: String, fingerprint: String, answer: String, created_at_us: i64,
    }
    leases (job) { job: String, holder: String, expires_at_us: i64 }
    audit_logs (seq) {
        seq: i64, created_at_us: i64, actor: String, action: String, target: Option<String>, outcome: String,
        canonical: String, hash: String,
    }
    audit_head (id) { id: i64, seq: i64, hash: String }
    audit_checkpoints (seq) { seq: i64, hash: String, created_at_us: i64, mac: String }
}

pub(super) fn chunks<R>(
    rows: impl Iterator<Item = QueryResult<R>>,
    each: &mut impl FnMut(Vec<R>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    // A finished SQLite statement that is asked once more starts over.
    let mut rows = rows.fuse();
    loop {
        let chunk = rows.by_ref().take(STEP).collect::<QueryResult<Vec<_>>>()?;
        if chunk.is_empty() {
            return Ok(());
        }
        each(chunk)?;
    }
}

pub(super) fn differs(table: &str) -> Failure {
    corrupt(format!("a row of {table} was read back differently from how it was written; nothing was kept"))
}

/// Whether anything was ever written by somebody.
pub(super) fn has_data(connection: &mut AnyConnection) -> Result<bool, Failure> {
    let rows: u64 = count(connection)?.iter().filter(|(name, _)| !SEEDED.contains(name)).map(|(_, rows)| rows).sum();
    Ok(rows > 0)
}

/// Removes every row, what refers to others first.
pub(super) fn clear(connection: &mut AnyConnection) -> Result<(), Failure> {
    if let AnyConnection::Postgresql(postgres) = connection {
        // Writers begin with the head of the log: they wait there, rather than find it gone or write in between.
        postgres.batch_execute("LOCK TABLE audit_head IN EXCLUSIVE MODE")?;
    }
    clear_tables(connection)
}

/// Copies and compares everything into a database that is empty.
pub(super) fn copy_all(from: &mut AnyConnection, to: &mut AnyConnection) -> Result<Copied, Failure> {
    // Migrations put something there; the copy brings its own.
    for name in SEEDED {
        to.batch_execute(&format!("DELETE FROM {name}"))?;
    }
    let copied = copy_tables(from, to)?;
    set_sequences(to)?;
    Ok(copied)
}

/// `PostgreSQL` does not notice ids that were inserted; `SQLite` does.
fn set_sequences(connection: &mut AnyConnection) -> Result<(), Failure> {
    let AnyConnection::Postgresql(postgres) = connection else { return Ok(()) };
    for table in COUNTED {
        postgres.batch_execute(&format!(
            "SELECT setval(pg_get_serial_sequence('{table}', 'id'), COALESCE((SELECT MAX(id) FROM {table}), 0) + 1, false)"
        ))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{super::samples, *};
    use crate::{
        DatabaseUrl,
        connection::{Purpose, connect},
        migrate,
    };
    use diesel::{sql_query, sql_types::Text};
    use std::{collections::BTreeSet, path::Path};

    #[derive(QueryableByName)]
    struct Name {
        #[diesel(sql_type = Text)]
        name: String,
    }

    /// Fails unless a copy takes every column there is, and knows every table whose ids are counted up.
    fn check_complete(url: &DatabaseUrl, columns: &str, counted: &str) {
        migrate(url, Path::new(".")).unwrap();
        let mut connection = connect(url, Purpose::Read).unwrap();
        let mut names = |query: &str| {
            let rows: Vec<Name> = sql_query(query).load(&mut connection).unwrap();
            rows.into_iter().map(|row| row.name).collect::<BTreeSet<_>>()
        };
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let ours = match url {
            DatabaseUrl::Sqlite(_) => COLUMNS.to_vec(),
            DatabaseUrl::Postgres(_) => [COLUMNS, samples::COLUMNS].concat(),
        };
        assert_eq!(names(columns), set(&ours));
        assert_eq!(names(counted), set(&COUNTED));
    }

    #[test]
    fn every_column_on_sqlite_is_copied() {
        let directory = tempfile::tempdir().unwrap();
        let url = DatabaseUrl::Sqlite(directory.path().join("starlink.db"));
        let columns = "SELECT t.name || '.' || c.name AS name FROM sqlite_master t, pragma_table_info(t.name) c
            WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%' AND t.name NOT LIKE '\\_\\_diesel%' ESCAPE '\\'";
        check_complete(
            &url,
            columns,
            "SELECT name FROM sqlite_master WHERE type = 'table' AND sql LIKE '%AUTOINCREMENT%'",
        );
        let mut connection = connect(&url.of_samples(), Purpose::Read).unwrap();
        let rows: Vec<Name> = sql_query(columns).load(&mut connection).unwrap();
        let found: BTreeSet<_> = rows.into_iter().map(|row| row.name).collect();
        assert_eq!(found, samples::COLUMNS.iter().map(|name| (*name).to_owned()).collect());
    }

    #[test]
    fn every_column_on_postgres_is_copied() {
        let cluster = std::env::var("STARLINK_TEST_POSTGRES_URL").unwrap_or_else(|_| {
            panic!("this test needs PostgreSQL: run it with `make test` or `scripts/with-postgres cargo test …`")
        });
        let name = format!("tables_{}", std::process::id());
        let mut connection = PgConnection::establish(&cluster).unwrap();
        connection.batch_execute(&format!("CREATE DATABASE {name}")).unwrap();
        let (server, _) = cluster.rsplit_once('/').unwrap();
        let columns = "SELECT concat(table_name, '.', column_name) AS name FROM information_schema.columns
            WHERE table_schema = current_schema() AND table_name NOT LIKE '\\_\\_diesel%'";
        let counted = "SELECT table_name::text AS name FROM information_schema.columns
            WHERE table_schema = current_schema() AND is_identity = 'YES'";
        check_complete(&DatabaseUrl::Postgres(format!("{server}/{name}")), columns, counted);
    }
}

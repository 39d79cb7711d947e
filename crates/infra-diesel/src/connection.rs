//! Which database, and a connection to it with the settings that durability and concurrency need.

use crate::{failure::Failure, url::DatabaseUrl};
use diesel::{
    Connection, ConnectionError, PgConnection, QueryResult, RunQueryDsl, SqliteConnection,
    backend::Backend,
    connection::SimpleConnection,
    query_builder::{AstPass, QueryFragment, QueryId},
};
use std::{
    os::unix::fs::MetadataExt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// A connection to one or the other.
#[derive(diesel::MultiConnection)]
pub(crate) enum AnyConnection {
    Postgresql(PgConnection),
    Sqlite(SqliteConnection),
}

/// Runs an expression on the concrete connection, for what the combined one cannot express.
macro_rules! each {
    ($connection:expr, $concrete:ident => $body:expr) => {
        match $connection {
            $crate::connection::AnyConnection::Postgresql($concrete) => $body,
            $crate::connection::AnyConnection::Sqlite($concrete) => $body,
        }
    };
}
pub(crate) use each;

/// A statement whose text does not depend on what it writes, so that it is worth keeping: Diesel compiles every `UPDATE`
/// anew, because the columns of one may depend on the change.
pub(crate) struct Kept<S>(pub(crate) S);

impl<S: QueryFragment<DB>, DB: Backend> QueryFragment<DB> for Kept<S> {
    fn walk_ast<'b>(&'b self, pass: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        self.0.walk_ast(pass)
    }

    fn is_safe_to_cache_prepared(&self, _: &DB) -> QueryResult<bool> {
        Ok(true)
    }
}

/// It is found again by its text.
impl<S> QueryId for Kept<S> {
    type QueryId = ();

    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<S, C> RunQueryDsl<C> for Kept<S> {}

/// Runs an `UPDATE` of always the same columns: compiled once, and on `PostgreSQL` one round trip instead of two.
macro_rules! update {
    ($connection:expr, $statement:expr) => {
        $crate::connection::each!($connection, c => $crate::connection::Kept($statement).execute(c))
    };
}
pub(crate) use update;

/// Loads the rows of a query with these ids, in the order of the ids, which nobody else changes until the transaction
/// ends. `SQLite` has locked the whole database already. It is asked for one row at a time: that statement is compiled
/// once, one with so many ids each time anew.
macro_rules! locked {
    ($connection:expr, $ids:expr, $query:expr, $id:expr) => {
        match $connection {
            $crate::connection::AnyConnection::Sqlite(c) => {
                let mut rows = Vec::with_capacity($ids.len());
                for id in $ids {
                    if let Some(row) = $query.filter($id.eq(id)).first(c).optional()? {
                        rows.push(row);
                    }
                }
                rows
            }
            $crate::connection::AnyConnection::Postgresql(c) => {
                $query.filter($id.eq_any($ids)).order($id.asc()).for_update().load(c)?
            }
        }
    };
}
pub(crate) use locked;

/// Inserts rows: each with a statement that is compiled already, or all in one round trip.
macro_rules! insert_all {
    ($connection:expr, $table:expr, $rows:expr) => {
        match $connection {
            $crate::connection::AnyConnection::Sqlite(c) => {
                for row in $rows {
                    diesel::insert_into($table).values(row).execute(c)?;
                }
            }
            $crate::connection::AnyConnection::Postgresql(c) => {
                diesel::insert_into($table).values($rows).execute(c)?;
            }
        }
    };
}
pub(crate) use insert_all;

/// A password that was not percent-encoded makes libpq take parts of it for a port or a host, and quote them. Once it
/// has understood the URL, what it quotes is none.
fn without_fragments(message: &str, shown: &str) -> String {
    if message.starts_with("connection to server") {
        return message.to_owned();
    }
    let parts = message.split('"').enumerate();
    let kept = parts.map(|(n, part)| if n % 2 == 0 || shown.contains(part) { part } else { "…" });
    kept.collect::<Vec<_>>().join("\"")
}

/// What a connection will be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Read,
    Write,
    /// To find out what is there, which may be nothing yet, or a file of somebody else's that has to stay as it is.
    Examine,
}

/// It is kept in the file, so it may only be set in one that is known to be ours. Waits for its turn to set it.
pub(crate) const SQLITE_JOURNAL: &str = "PRAGMA journal_mode = WAL";

const SQLITE_SETUP: &str = "
    PRAGMA busy_timeout = 5000;
    PRAGMA synchronous = FULL;
    PRAGMA foreign_keys = ON;
    PRAGMA temp_store = MEMORY;
    PRAGMA trusted_schema = OFF;
";

/// A query that hangs must not take a thread with it for ever; an answer from a dead host must not be waited for.
const POSTGRES_SETUP: &str = "
    SET statement_timeout = '30s';
    SET lock_timeout = '10s';
    SET idle_in_transaction_session_timeout = '60s';
    SET synchronous_commit = on;
    SET timezone = 'UTC';
";

/// Opens a connection.
pub(crate) fn connect(url: &DatabaseUrl, purpose: Purpose) -> Result<AnyConnection, Failure> {
    match url {
        DatabaseUrl::Sqlite(path) => {
            let text = path.to_str().ok_or_else(|| Failure::gone("the path of the database is not valid UTF-8"))?;
            if purpose != Purpose::Examine && !path.exists() {
                // SQLite would put a new, empty database in its place.
                return Err(Failure::gone("the file of the database is not there"));
            }
            let mut connection = SqliteConnection::establish(text).map_err(Failure::connecting)?;
            connection.batch_execute(SQLITE_SETUP)?;
            connection.batch_execute(match purpose {
                Purpose::Read => "PRAGMA journal_mode = WAL; PRAGMA query_only = ON",
                Purpose::Write => SQLITE_JOURNAL,
                Purpose::Examine => "",
            })?;
            Ok(AnyConnection::Sqlite(connection))
        }
        DatabaseUrl::Postgres(text) => {
            let shown = url.to_string();
            let hidden = |error: ConnectionError| Failure::gone(&without_fragments(&error.to_string(), &shown));
            let mut connection = PgConnection::establish(&with_timeouts(text)).map_err(hidden)?;
            connection.batch_execute(POSTGRES_SETUP)?;
            Ok(AnyConnection::Postgresql(connection))
        }
    }
}

/// Adds the timeouts that only the connection string can carry, where the user gave none.
fn with_timeouts(url: &str) -> String {
    let mut url = url.to_owned();
    for (key, value) in [("connect_timeout", "5"), ("tcp_user_timeout", "10000"), ("application_name", "starlink")] {
        if !url.contains(key) {
            url.push(if url.contains('?') { '&' } else { '?' });
            url.extend([key, "=", value]);
        }
    }
    url
}

/// Which file a connection has open: `SQLite` does not notice when that is removed or replaced, and would go on writing
/// into what nobody can open any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    file: Option<(u64, u64)>,
}

impl Place {
    /// What is there at this moment.
    pub(crate) fn of(url: &DatabaseUrl) -> Self {
        let metadata = url.sqlite_path().and_then(|path| std::fs::metadata(path).ok());
        Self { file: metadata.map(|metadata| (metadata.dev(), metadata.ino())) }
    }
}

/// A pooled connection, and which generation of the database it belongs to.
pub(crate) struct Pooled {
    pub(crate) connection: AnyConnection,
    place: Place,
    generation: u64,
}

/// Opens connections for reading; those opened before the database went away are not used again.
#[derive(Debug, Clone)]
pub(crate) struct ReadConnections {
    url: DatabaseUrl,
    generation: Arc<AtomicU64>,
}

impl ReadConnections {
    pub(crate) fn new(url: DatabaseUrl) -> Self {
        Self { url, generation: Arc::default() }
    }

    /// Says that open connections are no longer good.
    pub(crate) fn forget(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
    }

    fn is_current(&self, pooled: &Pooled) -> bool {
        pooled.generation == self.generation.load(Ordering::Relaxed) && pooled.place == Place::of(&self.url)
    }
}

impl r2d2::ManageConnection for ReadConnections {
    type Connection = Pooled;
    type Error = Failure;

    fn connect(&self) -> Result<Pooled, Failure> {
        let generation = self.generation.load(Ordering::Relaxed);
        let place = Place::of(&self.url);
        Ok(Pooled { connection: connect(&self.url, Purpose::Read)?, place, generation })
    }

    fn is_valid(&self, pooled: &mut Pooled) -> Result<(), Failure> {
        if self.is_current(pooled) { Ok(()) } else { Err(Failure::gone("the database was restarted or replaced")) }
    }

    fn has_broken(&self, pooled: &mut Pooled) -> bool {
        !self.is_current(pooled)
    }
}

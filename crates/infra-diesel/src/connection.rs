//! Which database, and a connection to it with the settings that durability and concurrency need.

use crate::failure::Failure;
use diesel::{Connection, PgConnection, SqliteConnection, connection::SimpleConnection};
use std::{
    path::{Path, PathBuf},
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

/// Where the truth is kept. Printing it hides the password.
#[derive(Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// A file.
    Sqlite(PathBuf),
    /// A `PostgreSQL` server, by its URL.
    Postgres(String),
}

impl DatabaseUrl {
    /// Reads `sqlite:PATH` or `postgres://…`.
    ///
    /// # Errors
    /// A sentence that says what is expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() || path == ":memory:" {
                return Err("sqlite: needs the path of a file, such as sqlite:/var/lib/starlink/starlink.db".to_owned());
            }
            return Ok(Self::Sqlite(PathBuf::from(path)));
        }
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Ok(Self::Postgres(text.to_owned()));
        }
        Err("must start with sqlite: or postgres://".to_owned())
    }

    /// The file, if it is one.
    #[must_use]
    pub fn sqlite_path(&self) -> Option<&Path> {
        match self {
            Self::Sqlite(path) => Some(path),
            Self::Postgres(_) => None,
        }
    }
}

impl std::fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Postgres(url) => f.write_str(&without_password(url)),
        }
    }
}

impl std::fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

fn without_password(url: &str) -> String {
    let hide_query = |text: &str| match text.split_once('?') {
        Some((head, query)) if query.to_ascii_lowercase().contains("password") => format!("{head}?…"),
        _ => text.to_owned(),
    };
    let Some((scheme, rest)) = url.split_once("://") else { return "postgres://…".to_owned() };
    match rest.rsplit_once('@') {
        Some((user, host)) => {
            let name = user.split(':').next().unwrap_or_default();
            format!("{scheme}://{name}:…@{}", hide_query(host))
        }
        None => format!("{scheme}://{}", hide_query(rest)),
    }
}

/// What a connection will be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Read,
    Write,
}

/// Before the journal mode: switching it needs the lock that may have to be waited for.
const SQLITE_SETUP: &str = "
    PRAGMA busy_timeout = 5000;
    PRAGMA journal_mode = WAL;
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
            let mut connection = SqliteConnection::establish(text).map_err(Failure::connecting)?;
            connection.batch_execute(SQLITE_SETUP)?;
            if purpose == Purpose::Read {
                connection.batch_execute("PRAGMA query_only = ON")?;
            }
            Ok(AnyConnection::Sqlite(connection))
        }
        DatabaseUrl::Postgres(url) => {
            let mut connection = PgConnection::establish(&with_timeouts(url)).map_err(Failure::connecting)?;
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
            url.push_str(&format!("{key}={value}"));
        }
    }
    url
}

/// A pooled connection, and which generation of the database it belongs to.
pub(crate) struct Pooled {
    pub(crate) connection: AnyConnection,
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
        pooled.generation == self.generation.load(Ordering::Relaxed)
    }
}

impl r2d2::ManageConnection for ReadConnections {
    type Connection = Pooled;
    type Error = Failure;

    fn connect(&self) -> Result<Pooled, Failure> {
        let generation = self.generation.load(Ordering::Relaxed);
        Ok(Pooled { connection: connect(&self.url, Purpose::Read)?, generation })
    }

    fn is_valid(&self, pooled: &mut Pooled) -> Result<(), Failure> {
        if self.is_current(pooled) { Ok(()) } else { Err(Failure::gone("the database was restarted")) }
    }

    fn has_broken(&self, pooled: &mut Pooled) -> bool {
        !self.is_current(pooled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_printed_without_their_password() {
        let check = |text: &str, shown: &str| assert_eq!(DatabaseUrl::parse(text).unwrap().to_string(), shown);
        check("sqlite:a/b.db", "sqlite:a/b.db");
        check("sqlite:///var/b.db", "sqlite:/var/b.db");
        check("postgres://u:p@ss/w#rd@h:5/db", "postgres://u:…@h:5/db");
        check("postgresql://h/db", "postgresql://h/db");
        check("postgres://h/db?password=x", "postgres://h/db?…");
        for wrong in ["", "mysql://x", "sqlite:", "sqlite::memory:", "starlink.db"] {
            assert!(DatabaseUrl::parse(wrong).is_err(), "{wrong}");
        }
    }
}

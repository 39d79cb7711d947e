//! What can go wrong in a query, told apart by what has to be done about it.

use diesel::result::{ConnectionError, DatabaseErrorKind, Error as DieselError};
use domain::Error;

/// Why a unit of work did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The domain's own answer: there is no such row, the name is taken, …
    #[error(transparent)]
    Domain(#[from] Error),
    /// The database's answer.
    #[error("{0}")]
    Database(Kind, #[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What the database's answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A row with that key exists.
    Unique,
    /// A row that is referred to does not exist, or one that is referred to was to be removed.
    Reference,
    /// A row would break a rule that the schema has for it.
    Check,
    /// Somebody holds a lock, or a statement takes, longer than we wait. What a statement did not do in that time it
    /// would not do in the same time again, so it is not repeated.
    Busy,
    /// The disk is full.
    Full,
    /// The connection is of no use any more.
    Gone,
    /// Nothing is wrong; the transaction has to be tried again.
    Retry,
    /// A fault of ours.
    Fault,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unique => "a row with that key exists",
            Self::Reference => "a row refers to another that is not there",
            Self::Check => "a row would break a rule of the schema",
            Self::Busy => "the database is locked or too slow",
            Self::Full => "the database's disk is full",
            Self::Gone => "the database does not answer",
            Self::Retry => "the transaction has to be repeated",
            Self::Fault => "the database refused a query",
        })
    }
}

impl Failure {
    /// The connection is of no use.
    pub(crate) fn gone(why: &str) -> Self {
        Self::Database(Kind::Gone, why.into())
    }

    /// No connection could be made.
    pub(crate) fn connecting(error: ConnectionError) -> Self {
        Self::Database(Kind::Gone, error.into())
    }

    /// What the database meant; `None` if the domain spoke.
    pub(crate) fn kind(&self) -> Option<Kind> {
        match self {
            Self::Domain(_) => None,
            Self::Database(kind, _) => Some(*kind),
        }
    }

    /// Whether this spoils the whole transaction, not just the command it happened in.
    pub(crate) fn is_fatal(&self) -> bool {
        matches!(self.kind(), Some(Kind::Busy | Kind::Full | Kind::Gone | Kind::Retry))
    }

    /// Replaces a failure of this kind by the domain's word for it.
    pub(crate) fn when(self, kind: Kind, error: impl FnOnce() -> Error) -> Self {
        if self.kind() == Some(kind) { Self::Domain(error()) } else { self }
    }
}

impl From<DieselError> for Failure {
    fn from(error: DieselError) -> Self {
        Self::Database(classify(&error), error.into())
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Domain(error) => error,
            Failure::Database(Kind::Full, source) => Self::StorageFull { source: Some(source) },
            Failure::Database(Kind::Busy | Kind::Retry, source) => Self::unavailable(
                "the database is locked by somebody else, or too slow, at the moment; nothing was changed, try again",
                source,
            ),
            Failure::Database(Kind::Gone, source) => {
                Self::unavailable("the database does not answer at the moment; try again", source)
            }
            Failure::Database(Kind::Unique | Kind::Reference | Kind::Check | Kind::Fault, source) => {
                Self::Internal { source }
            }
        }
    }
}

fn classify(error: &DieselError) -> Kind {
    match error {
        DieselError::DatabaseError(kind, info) => classify_kind(*kind, info.message()),
        DieselError::BrokenTransactionManager => Kind::Gone,
        _ => Kind::Fault,
    }
}

fn classify_kind(kind: DatabaseErrorKind, message: &str) -> Kind {
    match kind {
        DatabaseErrorKind::UniqueViolation => Kind::Unique,
        DatabaseErrorKind::ForeignKeyViolation => Kind::Reference,
        DatabaseErrorKind::CheckViolation => Kind::Check,
        DatabaseErrorKind::SerializationFailure => Kind::Retry,
        DatabaseErrorKind::ClosedConnection | DatabaseErrorKind::UnableToSendCommand => Kind::Gone,
        _ => classify_message(&message.to_ascii_lowercase()),
    }
}

/// Neither database's driver tells these apart but by their words.
fn classify_message(message: &str) -> Kind {
    const WORDS: [(Kind, &[&str]); 4] = [
        (Kind::Full, &["disk is full", "no space left", "disk full"]),
        (
            Kind::Busy,
            &[
                "database is locked",
                "database table is locked",
                "database schema is locked",
                "lock timeout",
                "statement timeout",
            ],
        ),
        (Kind::Retry, &["deadlock detected", "could not serialize"]),
        (
            Kind::Gone,
            &[
                "server closed the connection",
                "terminating connection",
                "connection not open",
                "no connection to the server",
                "could not connect",
                "connection refused",
                "connection reset",
                "broken pipe",
                "shutting down",
                "starting up",
                "recovery mode",
                "ssl connection has been closed",
                "could not receive data",
                "could not send data",
                "disk i/o error",
                "unable to open database file",
                "readonly database",
                "read-only transaction",
                "too many connections",
                "too many clients",
            ],
        ),
    ];
    let told = WORDS.iter().find(|(_, words)| words.iter().any(|word| message.contains(word)));
    told.map_or(Kind::Fault, |(kind, _)| *kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use diesel::{Connection, RunQueryDsl, SqliteConnection, connection::SimpleConnection, sql_query};

    #[track_caller]
    fn check(message: &str, expected: Kind) {
        assert_eq!(classify_kind(DatabaseErrorKind::Unknown, message), expected, "{message}");
    }

    #[test]
    fn what_took_too_long_is_busy_and_what_hung_up_is_gone() {
        check("canceling statement due to statement timeout", Kind::Busy);
        check("canceling statement due to lock timeout", Kind::Busy);
        check("database is locked", Kind::Busy);
        check("terminating connection due to idle-in-transaction timeout", Kind::Gone);
        check("terminating connection due to administrator command", Kind::Gone);
        check("server closed the connection unexpectedly", Kind::Gone);
        check("could not extend file \"base/1/2\": No space left on device", Kind::Full);
        check("deadlock detected", Kind::Retry);
        check("syntax error at or near \"SELEC\"", Kind::Fault);
    }

    #[test]
    fn a_busy_database_spoils_the_transaction_and_a_broken_rule_only_the_command() {
        let failure = |kind| Failure::Database(kind, "no matter".into());
        assert!(failure(Kind::Busy).is_fatal());
        assert!(!failure(Kind::Check).is_fatal());
        assert!(matches!(Error::from(failure(Kind::Busy)), Error::Unavailable { .. }));
        assert!(matches!(Error::from(failure(Kind::Check)), Error::Internal { .. }));
    }

    #[test]
    fn a_rule_of_the_schema_is_told_apart_and_can_be_given_the_domains_words() {
        let mut connection = SqliteConnection::establish(":memory:").unwrap();
        connection.batch_execute("CREATE TABLE room (used INTEGER CHECK (used <= 4))").unwrap();
        let failure = Failure::from(sql_query("INSERT INTO room VALUES (5)").execute(&mut connection).unwrap_err());
        assert_eq!(failure.kind(), Some(Kind::Check));
        let worded = failure.when(Kind::Unique, || Error::conflict("name_taken", "a name is taken"));
        let worded = worded.when(Kind::Check, || Error::conflict("capacity_in_use", "too little is left"));
        assert!(matches!(worded, Failure::Domain(Error::Conflict { code: "capacity_in_use", .. })), "{worded:?}");
    }
}

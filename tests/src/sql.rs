//! A look into a database past the product.

use diesel::{
    Connection, PgConnection, QueryableByName, RunQueryDsl, SqliteConnection, connection::SimpleConnection, sql_query,
    sql_types::Text,
};
use serde_json::Value;

/// A connection of the test's own.
pub enum Sql {
    /// To a file.
    Sqlite(SqliteConnection),
    /// To a `PostgreSQL` database.
    Postgres(PgConnection),
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Text)]
    value: String,
}

impl Sql {
    /// Opens `sqlite:PATH` or `postgres://…`.
    ///
    /// # Panics
    /// If it cannot.
    #[must_use]
    pub fn open(url: &str) -> Self {
        match url.strip_prefix("sqlite:") {
            Some(path) => {
                let mut connection = SqliteConnection::establish(path).unwrap_or_else(|error| panic!("{url}: {error}"));
                let patient = connection.batch_execute("PRAGMA busy_timeout = 20000");
                patient.unwrap_or_else(|error| panic!("{url}: {error}"));
                Self::Sqlite(connection)
            }
            None => Self::Postgres(PgConnection::establish(url).unwrap_or_else(|error| panic!("{url}: {error}"))),
        }
    }

    /// Runs statements.
    ///
    /// # Panics
    /// If the database refuses one.
    pub fn run(&mut self, statements: &str) {
        let done = match self {
            Self::Sqlite(connection) => connection.batch_execute(statements),
            Self::Postgres(connection) => connection.batch_execute(statements),
        };
        done.unwrap_or_else(|error| panic!("{statements}: {error}"));
    }

    /// The texts in the column `value` of a query.
    ///
    /// # Panics
    /// If the database refuses it.
    pub fn texts(&mut self, query: &str) -> Vec<String> {
        let rows: Result<Vec<Row>, _> = match self {
            Self::Sqlite(connection) => sql_query(query).load(connection),
            Self::Postgres(connection) => sql_query(query).load(connection),
        };
        rows.unwrap_or_else(|error| panic!("{query}: {error}")).into_iter().map(|row| row.value).collect()
    }

    /// The one number that `SELECT count(*) FROM …` would give; the query names only what follows `FROM`.
    ///
    /// # Panics
    /// If the database refuses it.
    pub fn count(&mut self, from: &str) -> usize {
        let counted = self.texts(&format!("SELECT CAST(count(*) AS TEXT) AS value FROM {from}"));
        counted.first().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no count of {from}"))
    }

    /// Every row of every table but that of the migrations and those of samples, which `SQLite` has in another file;
    /// comparable between the databases.
    pub fn dump(&mut self) -> Vec<(String, Vec<Value>)> {
        let names = self.texts(match self {
            Self::Sqlite(_) => {
                "SELECT name AS value FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY 1"
            }
            Self::Postgres(_) => {
                "SELECT tablename::text AS value FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
            }
        });
        let ours = names.into_iter().filter(|name| !name.starts_with("__") && !name.starts_with("sample"));
        ours.map(|name| (name.clone(), self.rows(&name))).collect()
    }

    fn rows(&mut self, table: &str) -> Vec<Value> {
        let columns = self.texts(&match self {
            Self::Sqlite(_) => format!("SELECT name AS value FROM pragma_table_info('{table}') ORDER BY name"),
            Self::Postgres(_) => format!(
                "SELECT column_name::text AS value FROM information_schema.columns WHERE table_name = '{table}' \
                 AND table_schema = 'public' ORDER BY column_name"
            ),
        });
        let columns = columns.join(", ");
        let texts = self.texts(&match self {
            Self::Sqlite(_) => format!("SELECT json_array({columns}) AS value FROM {table}"),
            Self::Postgres(_) => format!("SELECT json_build_array({columns})::text AS value FROM {table}"),
        });
        let mut rows: Vec<Value> =
            texts.iter().map(|text| normal(serde_json::from_str(text).unwrap_or_default())).collect();
        rows.sort_by_key(ToString::to_string);
        rows
    }
}

/// One database has truth values where the other has numbers.
fn normal(row: Value) -> Value {
    match row {
        Value::Bool(value) => i64::from(value).into(),
        Value::Array(values) => values.into_iter().map(normal).collect(),
        other => other,
    }
}

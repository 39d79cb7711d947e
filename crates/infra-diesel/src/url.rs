//! Which database, and how to get in.

use std::{
    fmt,
    path::{Path, PathBuf},
};

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
    /// A sentence that says what such a URL looks like. It does not repeat the text, which may hold a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() || path == ":memory:" {
                return Err("names no file: write sqlite:PATH, such as sqlite:./starlink.db".to_owned());
            }
            return Ok(Self::Sqlite(PathBuf::from(path)));
        }
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Ok(Self::Postgres(text.to_owned()));
        }
        Err("must be sqlite:PATH or postgres://USER:PASSWORD@HOST/NAME (postgresql:// is the same)".to_owned())
    }

    /// Where the samples are that belong to what is kept there: on `SQLite` in the file `NAME.samples.db` beside it.
    #[must_use]
    pub fn of_samples(&self) -> Self {
        match self {
            Self::Sqlite(path) => Self::Sqlite(path.with_extension("samples.db")),
            Self::Postgres(url) => Self::Postgres(url.clone()),
        }
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

impl std::str::FromStr for DatabaseUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text)
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Postgres(url) => f.write_str(&without_passwords(url)),
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Hides the password of the user part and of parameters. A password that was not percent-encoded may hold any
/// character, so everything between the first colon and the last `@` goes: rather too much than too little.
fn without_passwords(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let shown = match rest.rsplit_once('@') {
        Some((user, host)) => match user.split_once(':') {
            Some((name, _)) => format!("{name}:***@{host}"),
            None => rest.to_owned(),
        },
        None => rest.to_owned(),
    };
    let (path, query) = shown.split_once('?').map_or((shown.as_str(), None), |(path, query)| (path, Some(query)));
    let query = query.map(|query| query.split('&').map(hide_parameter).collect::<Vec<_>>().join("&"));
    format!("{scheme}://{path}{}", query.map(|query| format!("?{query}")).unwrap_or_default())
}

fn hide_parameter(parameter: &str) -> String {
    match parameter.split_once('=') {
        Some((name, _)) if name.to_ascii_lowercase().contains("pass") => format!("{name}=***"),
        _ => parameter.to_owned(),
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
        check("postgres://u:p@ss/w#rd@h:5/db", "postgres://u:***@h:5/db");
        check("postgresql://h/db", "postgresql://h/db");
        check("postgres://h/db?password=x&sslmode=require", "postgres://h/db?password=***&sslmode=require");
        for wrong in ["", "mysql://x", "sqlite:", "sqlite::memory:", "starlink.db"] {
            assert!(DatabaseUrl::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn passwords_in_urls_are_hidden_wherever_they_stand() {
        for (url, shown) in [
            ("sqlite:/data/a@b:c.db", "sqlite:/data/a@b:c.db"),
            ("postgres://db:5432/x", "postgres://db:5432/x"),
            ("postgres://u@db/x?sslmode=require", "postgres://u@db/x?sslmode=require"),
            ("postgres://u:p@db:5432/x", "postgres://u:***@db:5432/x"),
            ("postgres://u:p/a?b#c@d@db/x", "postgres://u:***@db/x"),
            ("postgresql://:p@db/x", "postgresql://:***@db/x"),
            (
                "postgres:///x?host=/run&password=p&sslpassword=q",
                "postgres:///x?host=/run&password=***&sslpassword=***",
            ),
            ("postgres://u:p@db/x?PASSWORD=p", "postgres://u:***@db/x?PASSWORD=***"),
        ] {
            assert_eq!(DatabaseUrl::parse(url).unwrap().to_string(), shown);
        }
    }
}

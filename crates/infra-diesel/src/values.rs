//! How times and JSON stand in columns that both databases have.

use crate::failure::Failure;
use chrono::DateTime;
use domain::{Error, clock::Timestamp};
use serde::{Serialize, de::DeserializeOwned};

/// A time as microseconds since 1970.
pub(crate) fn to_us(at: Timestamp) -> i64 {
    at.timestamp_micros()
}

/// The time that a column holds.
pub(crate) fn from_us(us: i64) -> Result<Timestamp, Failure> {
    DateTime::from_timestamp_micros(us).ok_or_else(|| corrupt(format!("{us} is no time")))
}

/// A value as JSON text.
pub(crate) fn to_json<T: Serialize>(value: &T) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|error| Error::internal(error).into())
}

/// The value that a JSON column holds.
pub(crate) fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, Failure> {
    serde_json::from_str(text).map_err(|error| Error::internal(error).into())
}

/// A column holds what was never written to it.
pub(crate) fn corrupt(what: String) -> Failure {
    Error::internal(what).into()
}

/// Reads a word that the domain knows.
pub(crate) fn word<T>(text: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, Failure> {
    parse(text).ok_or_else(|| corrupt(format!("{text:?} is not a word that this version knows")))
}

/// A text to look for. `PostgreSQL` takes no NUL, and `SQLite` ends a pattern there; another control character is in
/// no text that is stored either.
pub(crate) fn sought(text: &str) -> String {
    text.replace('\0', "\u{1}")
}

/// A pattern for `LIKE … ESCAPE '\'` that finds `keyword` anywhere, in text that is in lower case.
pub(crate) fn contains_pattern(keyword: &str) -> String {
    let mut pattern = String::from("%");
    for character in sought(keyword).to_lowercase().chars() {
        if matches!(character, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push('%');
    pattern
}

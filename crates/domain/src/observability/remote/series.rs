use crate::clock::Timestamp;
use chrono::DateTime;

/// The label that a series' name stands in.
const NAME: &str = "__name__";
/// Says that a series is not measured any more; a NaN like no computation makes.
const STALE: u64 = 0x7ff0_0000_0000_0002;
/// The longest text that names a series.
const LONGEST: usize = 300;

/// What was measured of something, over time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Series {
    /// Names and values, its own name among them.
    pub labels: Vec<(String, String)>,
    /// The values.
    pub points: Vec<Point>,
}

/// A value at a time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Milliseconds since 1970.
    pub at_ms: i64,
    /// The value.
    pub value: f64,
}

impl Point {
    /// A value at a time.
    #[must_use]
    pub fn new(at_ms: i64, value: f64) -> Self {
        Self { at_ms, value }
    }

    /// The end of a series at this time, instead of a value.
    #[must_use]
    pub fn stale(at_ms: i64) -> Self {
        Self { at_ms, value: f64::from_bits(STALE) }
    }

    /// Whether it is no value but the end of a series.
    #[must_use]
    pub fn is_stale(self) -> bool {
        self.value.to_bits() == STALE
    }

    /// When; the end of time for what no calendar has, which no sample may be of.
    #[must_use]
    pub fn at(self) -> Timestamp {
        DateTime::from_timestamp_millis(self.at_ms).unwrap_or(Timestamp::MAX_UTC)
    }
}

impl Series {
    /// A series of these labels.
    #[must_use]
    pub fn new<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>, points: Vec<Point>) -> Self {
        let labels = labels.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self { labels, points }
    }

    /// The value of a label; one that is empty is none.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&str> {
        let found = self.labels.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        found.filter(|value| !value.is_empty())
    }

    /// Its name, empty if it has none.
    #[must_use]
    pub fn name(&self) -> &str {
        self.label(NAME).unwrap_or_default()
    }
}

/// As in a query, cut where it is too long for a message.
impl std::fmt::Display for Series {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = self.name().to_owned();
        let labels = self.labels.iter().filter(|(name, _)| name != NAME);
        let labels: Vec<String> = labels.take(LONGEST).map(|(name, value)| format!("{name}={value:?}")).collect();
        if !labels.is_empty() {
            text.extend(["{", &labels.join(","), "}"]);
        }
        match text.char_indices().nth(LONGEST) {
            Some((end, _)) => write!(f, "{}…", text.get(..end).unwrap_or_default()),
            None => f.write_str(&text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_named_as_in_a_query() {
        let series = Series::new([("__name__", "cpu_usage"), ("instance", "a\"b"), ("job", "node")], Vec::new());
        assert_eq!(series.to_string(), r#"cpu_usage{instance="a\"b",job="node"}"#);
        assert_eq!((series.name(), series.label("job"), series.label("host")), ("cpu_usage", Some("node"), None));
        assert_eq!(Series::new([("__name__", "up")], Vec::new()).to_string(), "up");
        let long = "ü".repeat(1000);
        let text = Series::new([("__name__", "up"), ("x", long.as_str())], Vec::new()).to_string();
        assert_eq!(text.chars().count(), LONGEST + 1);
    }

    #[test]
    fn an_end_is_no_other_nan() {
        assert!(Point::stale(0).is_stale() && !Point::new(0, f64::NAN).is_stale());
        assert_eq!(Point::new(i64::MAX, 0.0).at(), Timestamp::MAX_UTC);
    }
}

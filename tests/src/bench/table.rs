//! The table of results: a line as soon as it is known.

use std::time::Duration;

/// A line.
#[derive(Default)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) measurement: String,
    /// The number that the aim is about.
    pub(crate) result: String,
    /// How long a request took, as its client saw it.
    pub(crate) wall: String,
    /// What a request cost the server's process.
    pub(crate) cpu: String,
    /// What was hoped for.
    pub(crate) aim: &'static str,
}

/// The first lines.
pub(crate) fn heading() {
    line(["measurement", "result", "wall p50 / p99", "server CPU", "aim"]);
    line(["-----------", "------", "--------------", "----------", "---"]);
}

impl Row {
    /// Prints it.
    pub(crate) fn print(&self) {
        line([&self.measurement, &self.result, &self.wall, &self.cpu, self.aim]);
    }
}

fn line([measurement, result, wall, cpu, aim]: [&str; 5]) {
    println!("{measurement:<52} {result:>24}  {wall:>19}  {cpu:>11}  {aim}");
}

/// A duration in milliseconds.
pub(crate) fn ms(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1000.0)
}

/// Two durations in milliseconds.
pub(crate) fn pair(first: Duration, second: Duration) -> String {
    format!("{} / {}", ms(first), ms(second))
}

/// The middle of some measurements; the upper one of two.
pub(crate) fn median<T: Clone>(values: &[T], key: impl Fn(&T) -> Duration) -> Option<T> {
    let mut sorted = values.to_vec();
    sorted.sort_by_key(key);
    sorted.get(sorted.len() / 2).cloned()
}

/// The value that so many percent of sorted measurements are not above; nothing if there are none.
pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let index = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(index).copied().unwrap_or_default()
}

//! The log: lines on standard output, in the server's format.

use crate::drivers::docker::is_discreet;
use std::io::{self, IsTerminal};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{FilterFn, LevelFilter},
    fmt::{self},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Starts the log of this process.
///
/// # Errors
/// A sentence, if there is no such level.
pub(super) fn start(format: LogFormat, level: &str) -> Result<(), String> {
    let filter = filter(level)?;
    let colours = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    // What goes wrong while writing would be told on standard error, which panics if that is closed as well.
    let layer = fmt::layer().with_writer(io::stdout).log_internal_errors(false);
    let layer = match format {
        LogFormat::Text => layer.with_ansi(colours).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).with_current_span(false).with_span_list(true).boxed(),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(FilterFn::new(is_discreet))
        .with(layer)
        .try_init()
        .map_err(|error| error.to_string())
}

/// A bare word that is no level would be taken for the name of a module, and silence all the rest: it is refused.
fn filter(text: &str) -> Result<EnvFilter, String> {
    let is_level = |word: &str| !word.is_empty() && word.parse::<LevelFilter>().is_ok();
    let wrong = |word: &str| {
        format!(
            "--log-level {word:?} is not a level: use error, warn, info, debug, trace or off, and MODULE=LEVEL for a \
             module, such as info,starlink_agent=debug"
        )
    };
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    if let Some(word) = parts.iter().find(|part| !part.contains(['=', '[']) && !is_level(part)) {
        return Err(wrong(word));
    }
    EnvFilter::try_new(parts.join(",")).map_err(|_error| wrong(text))
}

#[cfg(test)]
mod tests {
    use super::filter;

    #[test]
    fn a_level_that_would_silence_the_log_is_refused() {
        for text in ["info", "off", "WARN", "info,starlink_agent=debug"] {
            assert!(filter(text).is_ok(), "{text}");
        }
        for text in ["", "verbose", "info,starlink_agent", "info,"] {
            assert!(filter(text).unwrap_err().contains("is not a level"), "{text}");
        }
    }
}

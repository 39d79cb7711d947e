//! The log: lines on standard output, for people or for machines.
//!
//! Invariants: a reader that goes away ends neither a request nor the process; in JSON, every line is one object whose
//! `spans` carry what the request was known by, its `request_id` first of all.

use crate::config::LogFormat;
use starlink_agent::drivers::docker::is_discreet;
use std::io::{self, IsTerminal};
use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::FilterFn,
    fmt::{self, MakeWriter},
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter is malformed.
    #[error("the log level cannot be used")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Another log was started in this process before.
    #[error("the log was started twice")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Starts the log of this process.
///
/// # Errors
/// [`LoggingError`]
pub fn start(format: LogFormat, level: &str) -> Result<(), LoggingError> {
    let filter = EnvFilter::try_new(level)?;
    let colours = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    tracing_subscriber::registry()
        .with(filter)
        .with(FilterFn::new(is_discreet))
        .with(lines(format, colours, io::stdout))
        .try_init()?;
    Ok(())
}

fn lines<S, W>(format: LogFormat, colours: bool, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    // What goes wrong while writing would be told on standard error, which panics if that is closed as well.
    let layer = fmt::layer().with_writer(writer).log_internal_errors(false);
    match format {
        LogFormat::Text => layer.with_ansi(colours).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).with_current_span(false).with_span_list(true).boxed(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::{
        io::Write,
        sync::{Arc, Mutex},
    };

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, level: &str, work: impl FnOnce()) -> String {
        let memory = Memory::default();
        let writer = memory.clone();
        let layer = lines(format, false, move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(EnvFilter::new(level)).with(layer);
        tracing::subscriber::with_default(subscriber, work);
        let bytes = memory.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn one_request() {
        let span = tracing::info_span!("request", request_id = "r-1");
        let _entered = span.enter();
        tracing::debug!("a detail");
        tracing::warn!(server = 7, "a \"quoted\"\nmessage");
    }

    #[test]
    fn a_json_line_names_message_level_time_and_request() {
        let text = logged(LogFormat::Json, "info", one_request);
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["message"], "a \"quoted\"\nmessage");
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["server"], 7);
        assert_eq!(line["spans"][0]["request_id"], "r-1");
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'), "{text}");
    }

    #[test]
    fn a_text_line_carries_the_request_too() {
        let text = logged(LogFormat::Text, "info", one_request);
        assert!(text.contains("WARN") && text.contains("request_id=\"r-1\"") && text.contains("server=7"), "{text}");
    }

    #[test]
    fn the_filter_decides_what_is_logged() {
        assert_eq!(logged(LogFormat::Json, "error", one_request), "");
        assert_eq!(logged(LogFormat::Json, "debug", one_request).lines().count(), 2);
    }

    #[test]
    fn a_closed_pipe_does_not_panic() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let layer = lines(LogFormat::Text, false, move || writer.try_clone().unwrap());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), one_request);
    }
}

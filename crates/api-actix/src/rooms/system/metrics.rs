//! The product's own metrics.

use crate::{middleware::route, openapi::Document, reply::Media};
use actix_web::{
    Error,
    body::MessageBody,
    dev::{Service, ServiceRequest, ServiceResponse, Transform},
    middleware::{Next, from_fn},
};
use domain::{Result, observability::remote::Written};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use std::{collections::BTreeSet, sync::Arc, time::Instant};

/// Prometheus' text format.
#[derive(Debug)]
pub(super) struct MetricsMedia;

impl Media for MetricsMedia {
    const TYPES: &'static [&'static str] = &["text/plain"];
    const DESCRIPTION: &'static str = "The metrics.";
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    operation: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// Counts and times requests.
pub struct Metrics {
    registry: Registry,
    requests: Family<Labels, Counter>,
    durations: Histogram,
    rows: Gauge,
    written: Family<Outcome, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Nothing counted so far.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("starlink");
        let (requests, rows) = (Family::<Labels, Counter>::default(), Gauge::default());
        let durations = Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]);
        registry.register("http_requests", "Requests by operation and status", requests.clone());
        registry.register_with_unit("http_request_duration", "Time to answer", Unit::Seconds, durations.clone());
        registry.register("audit_rows", "The number of the last row of the audit log", rows.clone());
        let written = Family::<Outcome, Counter>::default();
        registry.register("remote_write_samples", "Samples of remote-write by what became of them", written.clone());
        let metrics = Self { registry, requests, durations, rows, written };
        // What has not happened yet is 0, so that a first time is seen as a rise.
        metrics.written(&Written::default());
        metrics
    }

    /// Notes what became of what Prometheus sent.
    pub(crate) fn written(&self, written: &Written) {
        for (outcome, count) in [
            ("stored", written.stored),
            ("duplicate", written.duplicate),
            ("gathered", written.gathered),
            ("computed", written.computed),
            ("left_out", written.left_out),
            ("refused", written.refused),
            ("unknown_server", written.unknown_server),
            ("unknown_metric", written.unknown_metric),
        ] {
            self.written.get_or_create(&Outcome { outcome }).inc_by(u64::try_from(count).unwrap_or_default());
        }
    }

    /// Notes the number of the last audit row.
    pub fn audit_head(&self, seq: i64) {
        self.rows.set(seq);
    }

    /// The metrics as text.
    ///
    /// # Errors
    /// [`domain::Error::Internal`] if they cannot be written.
    pub fn encode(&self) -> Result<String> {
        let mut text = String::new();
        encode(&mut text, &self.registry).map_err(domain::Error::internal)?;
        Ok(plain(&text))
    }

    fn note(&self, operation: String, status: u16, began: Instant) {
        self.requests.get_or_create(&Labels { operation, status }).inc();
        self.durations.observe(began.elapsed().as_secs_f64());
    }
}

/// `OpenMetrics` as Prometheus' text format, which knows no units and no end, and calls a counter by the name that its
/// samples have. Every scraper reads it, and other texts may follow.
fn plain(text: &str) -> String {
    let counters: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let mut plain = String::with_capacity(text.len());
    for line in text.lines().filter(|line| !line.starts_with("# UNIT ") && *line != "# EOF") {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(kind), Some(name), Some(rest)) if counters.contains(name) => {
                plain.extend(["# ", kind, " ", name, "_total ", rest]);
            }
            _ => plain.push_str(line),
        }
        plain.push('\n');
    }
    plain
}

/// The middleware that counts and times requests.
pub fn measure<S, B>(
    metrics: Arc<Metrics>,
    document: Arc<Document>,
) -> impl Transform<S, ServiceRequest, Response = ServiceResponse<B>, Error = Error, InitError = ()>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: MessageBody + 'static,
{
    from_fn(move |request: ServiceRequest, next: Next<B>| {
        let (metrics, document, began) = (Arc::clone(&metrics), Arc::clone(&document), Instant::now());
        async move {
            let pattern = route(&request);
            let promise = pattern.and_then(|pattern| document.promise(&pattern, request.method().as_str()));
            let operation = promise.map_or_else(|| "none".to_owned(), |promise| promise.operation_id.clone());
            let outcome = next.call(request).await;
            let status = match &outcome {
                Ok(response) => response.status(),
                Err(error) => error.as_response_error().status_code(),
            };
            metrics.note(operation, status.as_u16(), began);
            outcome
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_called_as_their_samples_are() {
        let metrics = Metrics::new();
        metrics.note("a \"b\"".to_owned(), 200, Instant::now());
        let text = metrics.encode().unwrap();
        assert!(text.contains("# TYPE starlink_http_requests_total counter\n"), "{text}");
        assert!(text.contains("# HELP starlink_http_requests_total Requests by operation and status.\n"), "{text}");
        assert!(text.contains("starlink_http_requests_total{operation=\"a \\\"b\\\"\",status=\"200\"} 1\n"), "{text}");
        assert!(text.contains("# TYPE starlink_audit_rows gauge\n"), "{text}");
        assert!(!text.contains("# EOF") && !text.contains("# UNIT"), "{text}");
    }
}

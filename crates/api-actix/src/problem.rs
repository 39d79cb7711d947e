//! What goes wrong becomes a problem document (RFC 9457) here and nowhere else.
//!
//! Every kind of [`domain::Error`] is mapped to its status, exhaustively. The cause of a failure is logged once, here,
//! and never sent to a client.

use std::{borrow::Cow, error::Error as _, time::Duration};

use actix_web::{
    HttpResponse, HttpResponseBuilder, ResponseError,
    http::{StatusCode, header},
};
use domain::{Error, FieldError};
use paperclip::v2::schema::Apiv2Errors;
use schemars::JsonSchema;
use serde::Serialize;

use crate::middleware::context;

/// The media type of problem documents.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// Why a request failed: by a rule of the domain, or by one of HTTP itself.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The domain did not do it.
    #[error(transparent)]
    Domain(#[from] Error),
    /// The path exists, with other methods.
    #[error("this path answers {allow} only")]
    MethodNotAllowed {
        /// The methods it has, as in `Allow`.
        allow: String,
    },
    /// The client takes none of the media types there are.
    #[error("this can be had as {offered}; change the Accept header")]
    NotAcceptable {
        /// The media types there are.
        offered: String,
    },
    /// The body is too large.
    #[error("the body may have at most {limit} bytes")]
    TooLarge {
        /// The most bytes.
        limit: usize,
    },
    /// The body is too large once it is unpacked, or has too much in it.
    #[error("{reason}")]
    TooMuch {
        /// What would be right.
        reason: String,
    },
    /// The body is of another media type.
    #[error("{reason}")]
    UnsupportedMediaType {
        /// What would be right.
        reason: String,
        /// The media type that would be.
        accept: &'static str,
    },
}

impl From<FieldError> for ApiError {
    fn from(error: FieldError) -> Self {
        Self::Domain(error.into())
    }
}

/// What went wrong (RFC 9457).
#[derive(Debug, Serialize, JsonSchema)]
pub struct Problem {
    /// `urn:starlink:problem:` and the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// What this kind of problem is called.
    pub title: String,
    /// The status of the answer.
    #[schemars(range(min = 400, max = 599))]
    pub status: u16,
    /// What went wrong this time, and what to do next where there is something to do.
    pub detail: String,
    /// Stable and machine-readable.
    #[schemars(regex(pattern = "^[a-z][a-z0-9_]*$"))]
    pub code: String,
    /// Names the request in the log.
    pub request_id: String,
    /// What is wrong with the input; empty if it is not the input.
    pub errors: Vec<ProblemField>,
}

/// One thing that is wrong with an input.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ProblemField {
    /// A JSON path such as `quotas.cpu`, or the name of a parameter; empty if it is the request as a whole.
    pub field: String,
    /// What is wrong and what would be right.
    pub reason: String,
}

/// Left in the extensions of a failed response, for middleware that keeps account of refusals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The status of the answer.
    pub status: StatusCode,
    /// The code of the problem.
    pub code: String,
    /// What the client was told.
    pub detail: String,
}

/// How a kind of failure looks on the wire.
struct Look {
    status: StatusCode,
    code: Cow<'static, str>,
    title: &'static str,
    headers: Vec<(header::HeaderName, String)>,
}

impl Look {
    fn new(status: StatusCode, code: &'static str, title: &'static str) -> Self {
        Self { status, code: code.into(), title, headers: Vec::new() }
    }

    fn with(mut self, name: header::HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

fn look(error: &ApiError) -> Look {
    match error {
        ApiError::Domain(error) => domain_look(error),
        ApiError::MethodNotAllowed { allow } => {
            Look::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "Method not allowed")
                .with(header::ALLOW, allow)
        }
        ApiError::NotAcceptable { .. } => Look::new(StatusCode::NOT_ACCEPTABLE, "not_acceptable", "Not acceptable"),
        ApiError::TooLarge { .. } | ApiError::TooMuch { .. } => {
            Look::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "Too large")
        }
        ApiError::UnsupportedMediaType { accept, .. } => {
            Look::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "Unsupported media type")
                .with(header::ACCEPT, *accept)
        }
    }
}

fn domain_look(error: &Error) -> Look {
    match error {
        Error::NotFound { .. } => Look::new(StatusCode::NOT_FOUND, "not_found", "Not found"),
        Error::Invalid { .. } => Look::new(StatusCode::BAD_REQUEST, "invalid", "Invalid request"),
        Error::Unauthenticated { .. } => Look::new(StatusCode::UNAUTHORIZED, "unauthenticated", "Not authenticated")
            .with(header::WWW_AUTHENTICATE, "Bearer"),
        Error::Forbidden { .. } => Look::new(StatusCode::FORBIDDEN, "forbidden", "Forbidden"),
        Error::Conflict { code, .. } => Look::new(StatusCode::CONFLICT, code, "Conflict"),
        Error::Stale { .. } => Look::new(StatusCode::PRECONDITION_FAILED, "stale", "Changed meanwhile"),
        Error::Exhausted { retry_after, .. } => Look::new(StatusCode::TOO_MANY_REQUESTS, "slow_down", "Slow down")
            .with(header::RETRY_AFTER, whole_seconds(*retry_after)),
        Error::Capacity { .. } => Look::new(StatusCode::CONFLICT, "no_capacity", "No capacity"),
        Error::Unavailable { .. } => {
            Look::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Unavailable").with(header::RETRY_AFTER, "1")
        }
        Error::StorageFull { .. } => Look::new(StatusCode::INSUFFICIENT_STORAGE, "storage_full", "Storage full"),
        Error::Internal { .. } => Look::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal fault"),
    }
}

/// Rounded up, so that nobody comes back too early.
fn whole_seconds(duration: Duration) -> String {
    (duration.as_secs() + u64::from(duration.subsec_nanos() > 0)).to_string()
}

fn fields(error: &ApiError) -> Vec<ProblemField> {
    match error {
        ApiError::Domain(Error::Invalid { errors }) => {
            errors.iter().map(|e| ProblemField { field: e.field.clone(), reason: e.reason.clone() }).collect()
        }
        _ => Vec::new(),
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        look(self).status
    }

    fn error_response(&self) -> HttpResponse {
        let look = look(self);
        let detail = self.to_string();
        log(self, &look, &detail);
        let mut builder = HttpResponse::build(look.status);
        for header in &look.headers {
            builder.insert_header((header.0.clone(), header.1.as_str()));
        }
        finish(&mut builder, look, detail, fields(self))
    }
}

/// The problem document for a failed response that is not one of ours, such as a refused WebSocket handshake.
pub(crate) fn foreign(status: StatusCode) -> HttpResponse {
    let title = status.canonical_reason().unwrap_or("Failed");
    let code = title.to_ascii_lowercase().replace([' ', '-'], "_").replace('\'', "");
    let look = Look { status, code: code.into(), title, headers: Vec::new() };
    finish(&mut HttpResponse::build(status), look, "the request failed".to_owned(), Vec::new())
}

fn finish(builder: &mut HttpResponseBuilder, look: Look, detail: String, errors: Vec<ProblemField>) -> HttpResponse {
    let problem = Problem {
        kind: format!("urn:starlink:problem:{}", look.code),
        title: look.title.to_owned(),
        status: look.status.as_u16(),
        detail,
        code: look.code.into_owned(),
        request_id: context::request_id(),
        errors,
    };
    let mut response = builder.content_type(PROBLEM_JSON).body(serde_json::to_vec(&problem).unwrap_or_default());
    response.extensions_mut().insert(Refusal { status: look.status, code: problem.code, detail: problem.detail });
    response
}

/// The one place where a failure is logged; the span carries the request's id.
fn log(error: &ApiError, look: &Look, detail: &str) {
    let (code, status) = (look.code.as_ref(), look.status.as_u16());
    if look.status.is_server_error() {
        tracing::error!(code, status, causes = %causes(error), "request failed: {detail}");
    } else {
        tracing::debug!(code, status, "request refused: {detail}");
    }
}

fn causes(error: &ApiError) -> String {
    let sources = std::iter::successors(error.source(), |source| (*source).source());
    sources.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

impl Apiv2Errors for ApiError {}

//! Gives each request its id, its span, its line in the log and the headers that every answer has.
//!
//! The outermost middleware. Whatever fails inside leaves as a problem document.

use std::{cell::Cell, panic::AssertUnwindSafe, rc::Rc, sync::Arc, time::Instant};

use actix_web::{
    Error, HttpMessage, HttpResponse,
    body::{BoxBody, MessageBody},
    dev::{Service, ServiceRequest, ServiceResponse, Transform},
    error::InternalError,
    http::header::{self, HeaderMap, HeaderName, HeaderValue},
    middleware::{Next, from_fn},
};
use futures_util::FutureExt;
use tracing::Instrument;

use super::route;
use crate::problem::{self, ApiError};

/// The header that carries a request's id.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const DEFAULT_HEADERS: [(HeaderName, HeaderValue); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
];

/// Questions that machines ask all day long. Their lines would hide all others, and tell nothing unless they are refused.
const ROUTINE: [&str; 7] =
    ["/agent/operations", "/agent/containers", "/agent/metrics", "/api/v1/write", "/healthz", "/readyz", "/metrics"];

/// Makes the id of a request whose client gave none.
pub type MakeId = Arc<dyn Fn() -> String + Send + Sync>;

/// The id of a request, in its extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(pub String);

tokio::task_local! {
    static CURRENT: String;
}

/// The id of the request that is being served; empty outside of one.
#[must_use]
pub fn request_id() -> String {
    CURRENT.try_with(Clone::clone).unwrap_or_default()
}

/// The middleware.
pub fn context<S, B>(
    make_id: MakeId,
) -> impl Transform<S, ServiceRequest, Response = ServiceResponse<BoxBody>, Error = Error, InitError = ()>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: MessageBody + 'static,
{
    from_fn(move |request: ServiceRequest, next: Next<B>| {
        let id = given_id(request.headers()).unwrap_or_else(|| make_id());
        let span = tracing::info_span!("request", request_id = %id);
        CURRENT.scope(id.clone(), serve(id, request, next)).instrument(span)
    })
}

async fn serve<B: MessageBody + 'static>(
    id: String,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let line = Line::begin(&request, &id);
    request.extensions_mut().insert(RequestId(id.clone()));
    match survive(next.call(request)).await {
        Ok(response) => {
            let mut response = as_problem(response.map_into_boxed_body());
            finish(response.headers_mut(), &id);
            line.end(response.status().as_u16());
            Ok(response)
        }
        Err(error) => {
            let mut response = error.error_response();
            finish(response.headers_mut(), &id);
            line.end(response.status().as_u16());
            Err(InternalError::from_response(error, response).into())
        }
    }
}

/// A panic is a fault like any other; without this the client would see nothing but a closed connection.
async fn survive<T>(answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let panicked =
        |_| Err(ApiError::from(domain::Error::internal("a handler panicked; the panic message has the place")).into());
    AssertUnwindSafe(answer).catch_unwind().await.unwrap_or_else(panicked)
}

/// The client's own id, if it is one that may stand in a log.
fn given_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(X_REQUEST_ID)?.to_str().ok()?;
    let harmless = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    ((1..=64).contains(&id.len()) && id.bytes().all(harmless)).then(|| id.to_owned())
}

/// A failure without a document of its own gets one.
fn as_problem(response: ServiceResponse<BoxBody>) -> ServiceResponse<BoxBody> {
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !(status.is_client_error() || status.is_server_error()) || !(kind.is_empty() || kind.starts_with("text/plain")) {
        return response;
    }
    let (request, old) = response.into_parts();
    let mut new: HttpResponse = problem::foreign(status);
    for (name, value) in old.headers().iter().filter(|(name, _)| !describes_body(name)) {
        new.headers_mut().append(name.clone(), value.clone());
    }
    ServiceResponse::new(request, new)
}

/// Headers that describe the body, which is another one now.
fn describes_body(name: &HeaderName) -> bool {
    [header::CONTENT_TYPE, header::CONTENT_LENGTH, header::CONTENT_ENCODING, header::TRANSFER_ENCODING].contains(name)
}

fn finish(headers: &mut HeaderMap, id: &str) {
    if let Ok(value) = HeaderValue::from_str(id) {
        headers.insert(X_REQUEST_ID, value);
    }
    for (name, value) in DEFAULT_HEADERS {
        if !headers.contains_key(&name) {
            headers.insert(name, value);
        }
    }
}

/// The request's line in the log. A request whose client goes away before the answer is told as well.
struct Line {
    id: String,
    method: String,
    path: Option<Rc<str>>,
    begun: Instant,
    ended: Cell<bool>,
}

impl Line {
    fn begin(request: &ServiceRequest, id: &str) -> Self {
        Self {
            id: id.to_owned(),
            method: request.method().to_string(),
            path: route(request),
            begun: Instant::now(),
            ended: Cell::new(false),
        }
    }

    fn end(&self, status: u16) {
        self.ended.set(true);
        macro_rules! tell {
            ($level:ident) => {
                tracing::$level!(method = %self.method, path = %self.path(), status, duration_ms = self.duration_ms(), request_id = %self.id, "request answered")
            };
        }
        if matches!(status, 200 | 204) && ROUTINE.contains(&self.path()) { tell!(debug) } else { tell!(info) }
    }

    fn path(&self) -> &str {
        self.path.as_deref().unwrap_or("-")
    }

    fn duration_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if !self.ended.get() {
            tracing::info!(method = %self.method, path = %self.path(), duration_ms = self.duration_ms(), request_id = %self.id, "request given up by its client");
        }
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderMap, HeaderValue};

    use super::{X_REQUEST_ID, given_id};

    #[test]
    fn only_a_harmless_id_is_taken_from_the_client() {
        let check = |id: &str, expected: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(X_REQUEST_ID, HeaderValue::from_str(id).unwrap());
            assert_eq!(given_id(&headers).is_some(), expected, "{id}");
        };
        check("abc-1.2_3", true);
        check(&"a".repeat(64), true);
        check(&"a".repeat(65), false);
        check("", false);
        check("a b", false);
        check("a\"b", false);
    }
}

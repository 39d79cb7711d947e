//! The `Idempotency-Key` header, with a fingerprint of the request that it stands for.
//!
//! The body can be read only once, by another extractor, in no fixed order. So the two share a slot in the request's
//! extensions: [`Body`](super::Body) fills it, and [`Once`] looks when the handler asks, when both are done.

use std::{
    future::{Ready, ready},
    sync::{Arc, OnceLock},
};

use actix_web::{
    FromRequest, HttpMessage, HttpRequest,
    dev::Payload,
    http::header::{HeaderMap, HeaderName},
};
use domain::FieldError;
use paperclip::{
    actix::OperationModifier,
    v2::{models::DefaultOperationRaw, schema::Apiv2Schema},
};
use sha2::{Digest, Sha256};

use crate::{
    openapi::facts::{self, Fact},
    problem::ApiError,
};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A request that is to be carried out once, even if it is sent repeatedly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnceKey {
    /// What the client calls the request.
    pub key: String,
    /// SHA-256 over method, path with query, and body: tells the same request from another one under the same key.
    pub fingerprint: [u8; 32],
}

/// The client's wish that the request be carried out once.
#[derive(Debug)]
pub struct Once {
    key: Option<String>,
    seed: Seed,
    slot: Slot,
}

impl Once {
    /// The key and the fingerprint, if the client sent a key.
    #[must_use]
    pub fn into_key(self) -> Option<OnceKey> {
        let fingerprint = self.slot.get().copied().unwrap_or_else(|| self.seed.fingerprint(&[]));
        self.key.map(|key| OnceKey { key, fingerprint })
    }
}

impl FromRequest for Once {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let key = read_key(request.headers()).map_err(ApiError::from);
        ready(key.map(|key| Self { key, seed: Seed::of(request), slot: slot(request) }))
    }
}

fn read_key(headers: &HeaderMap) -> Result<Option<String>, FieldError> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY);
    let Some(value) = values.next() else { return Ok(None) };
    let key =
        value.to_str().ok().filter(|key| (1..=255).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic()));
    match (key, values.next()) {
        (Some(key), None) => Ok(Some(key.to_owned())),
        _ => Err(FieldError::new("Idempotency-Key", "must be one text of 1 to 255 visible ASCII characters")),
    }
}

/// Where the fingerprint of a request will be once its body is read.
pub(super) type Slot = Arc<OnceLock<[u8; 32]>>;

/// The request's slot.
pub(super) fn slot(request: &HttpRequest) -> Slot {
    let mut extensions = request.extensions_mut();
    if let Some(slot) = extensions.get::<Slot>() {
        return slot.clone();
    }
    let slot = Slot::default();
    extensions.insert(slot.clone());
    slot
}

/// The part of a fingerprint that is known before the body.
#[derive(Debug, Clone)]
pub(super) struct Seed(Sha256);

impl Seed {
    pub(super) fn of(request: &HttpRequest) -> Self {
        // Neither a method nor a target can contain a line feed, so the parts cannot run into each other.
        let head =
            format!("{}\n{}\n", request.method(), request.uri().path_and_query().map_or("", |target| target.as_str()));
        Self(Sha256::new_with_prefix(head))
    }

    pub(super) fn fingerprint(&self, body: &[u8]) -> [u8; 32] {
        self.0.clone().chain_update(body).finalize().into()
    }
}

impl Apiv2Schema for Once {}
impl OperationModifier for Once {
    fn update_parameter(operation: &mut DefaultOperationRaw) {
        facts::note(operation, Fact::Once);
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderMap, HeaderValue};

    use super::{IDEMPOTENCY_KEY, read_key};

    #[test]
    fn a_key_is_visible_ascii() {
        let check = |key: &str, good: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(IDEMPOTENCY_KEY, HeaderValue::from_str(key).unwrap());
            assert_eq!(read_key(&headers).is_ok(), good, "{key}");
        };
        assert_eq!(read_key(&HeaderMap::new()), Ok(None));
        check("a", true);
        check(&"k".repeat(255), true);
        check(&"k".repeat(256), false);
        check("", false);
        check("a b", false);
        check("schlüssel", false);
    }
}

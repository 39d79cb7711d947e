//! JSON bodies, read strictly: a field that is unknown, missing, repeated or of the wrong type is refused by name.

use actix_web::{
    FromRequest, HttpMessage, HttpRequest,
    dev::Payload,
    http::{Method, header},
    web::{Bytes, BytesMut},
};
use domain::{Error, FieldError};
use futures_util::{StreamExt, future::LocalBoxFuture};
use paperclip::{
    actix::OperationModifier,
    v2::{models::DefaultOperationRaw, schema::Apiv2Schema},
};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::{
    once::{Seed, slot},
    shape,
    strict::Strict,
};
use crate::{
    openapi::facts::{self, Fact, Presence},
    problem::ApiError,
};

/// The most bytes of a body.
pub const BODY_LIMIT: usize = 1024 * 1024;

/// The body as a `T`. Let `T` deny unknown fields. With `PATCH` it may call itself a merge patch.
#[derive(Debug)]
pub struct Body<T>(pub T);

/// Like [`Body`], but may be absent, which means `T`'s default.
#[derive(Debug)]
pub struct OptionalBody<T>(pub T);

impl<T: DeserializeOwned> FromRequest for Body<T> {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (request, payload) = (request.clone(), payload.take());
        Box::pin(async move {
            check_media_type(&request)?;
            parse(&read(&request, payload, BODY_LIMIT).await?).map(Self)
        })
    }
}

impl<T: DeserializeOwned + Default> FromRequest for OptionalBody<T> {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (request, payload) = (request.clone(), payload.take());
        Box::pin(async move {
            let bytes = read(&request, payload, BODY_LIMIT).await?;
            if bytes.is_empty() {
                return Ok(Self(T::default()));
            }
            check_media_type(&request)?;
            parse(&bytes).map(Self)
        })
    }
}

pub(super) fn check_media_type(request: &HttpRequest) -> Result<(), ApiError> {
    let refuse =
        |reason: &str| Err(ApiError::UnsupportedMediaType { reason: reason.to_owned(), accept: "application/json" });
    if request.headers().get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return refuse("send the body without Content-Encoding");
    }
    let kind = request.content_type().to_ascii_lowercase();
    let is_json = match kind.strip_prefix("application/") {
        Some("json") => true,
        Some("merge-patch+json") => request.method() == Method::PATCH,
        Some(other) => other.ends_with("+json") && !other.ends_with("patch+json"),
        None => false,
    };
    if !is_json {
        return refuse("send JSON, with \"Content-Type: application/json\"");
    }
    match request.encoding() {
        Ok(encoding) if encoding.name() == "UTF-8" => Ok(()),
        _ => refuse("send JSON as UTF-8"),
    }
}

/// Reads the whole body and leaves the request's fingerprint for [`Once`](super::Once).
pub(crate) async fn read(request: &HttpRequest, mut payload: Payload, limit: usize) -> Result<Bytes, ApiError> {
    let too_large = || ApiError::TooLarge { limit };
    let announced =
        request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let mut bytes = BytesMut::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|error| {
            tracing::debug!(%error, "body not readable");
            Error::from(FieldError::new("", "the body could not be read to its end"))
        })?;
        if bytes.len() + chunk.len() > limit {
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
    // A request has one body, so whoever filled the slot before filled in the same.
    slot(request).get_or_init(|| Seed::of(request).fingerprint(&bytes));
    Ok(bytes.freeze())
}

pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(Strict(&mut deserializer)).map_err(|error| {
        if error.inner().is_data() {
            shape::field_error(&error.path().to_string(), &error.inner().to_string())
        } else {
            malformed(error.inner())
        }
    })?;
    deserializer.end().map_err(|error| malformed(&error))?;
    Ok(value)
}

pub(super) fn malformed(error: &serde_json::Error) -> FieldError {
    FieldError::new("", format!("the body is not valid JSON: {error}"))
}

impl<T> Apiv2Schema for Body<T> {}
impl<T: JsonSchema> OperationModifier for Body<T> {
    fn update_parameter(operation: &mut DefaultOperationRaw) {
        facts::note(operation, Fact::Body(facts::named::<T>, Presence::Required));
    }
}

impl<T> Apiv2Schema for OptionalBody<T> {}
impl<T: JsonSchema> OperationModifier for OptionalBody<T> {
    fn update_parameter(operation: &mut DefaultOperationRaw) {
        facts::note(operation, Fact::Body(facts::named::<T>, Presence::Optional));
    }
}

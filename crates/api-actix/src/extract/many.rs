//! A JSON body that is one thing or an array of them, which are read one by one, so that what is wrong with one says
//! nothing against the others.

use actix_web::{FromRequest, HttpRequest, dev::Payload};
use domain::{Error, FieldError};
use futures_util::future::LocalBoxFuture;
use paperclip::{
    actix::OperationModifier,
    v2::{models::DefaultOperationRaw, schema::Apiv2Schema},
};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::body::{check_media_type, malformed, parse, read};
use crate::{
    openapi::facts::{self, Fact, Presence},
    problem::ApiError,
};

/// The most bytes of such a body.
pub const MANY_LIMIT: usize = 16 * 1024 * 1024;

/// The body as one `T`, or as an array of them. Let `T` deny unknown fields.
#[derive(Debug)]
pub enum OneOrMany<T> {
    /// One.
    One(T),
    /// Each as it was read, or what is wrong with it.
    Many(Vec<Result<T, FieldError>>),
}

impl<T: DeserializeOwned> FromRequest for OneOrMany<T> {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (request, payload) = (request.clone(), payload.take());
        Box::pin(async move {
            check_media_type(&request)?;
            read_all(&read(&request, payload, MANY_LIMIT).await?)
        })
    }
}

fn read_all<T: DeserializeOwned>(bytes: &[u8]) -> Result<OneOrMany<T>, ApiError> {
    if bytes.trim_ascii_start().first() != Some(&b'[') {
        return Ok(OneOrMany::One(parse(bytes)?));
    }
    let items: Vec<&RawValue> = serde_json::from_slice(bytes).map_err(|error| malformed(&error))?;
    Ok(OneOrMany::Many(items.into_iter().map(|item| read_one(item.get())).collect()))
}

fn read_one<T: DeserializeOwned>(item: &str) -> Result<T, FieldError> {
    // Whoever sends thousands has them right; what is wrong is read again by what can say so.
    if let Ok(value) = serde_json::from_str(item) {
        return Ok(value);
    }
    parse(item.as_bytes()).map_err(|error| {
        let first = match error {
            ApiError::Domain(Error::Invalid { errors }) => errors.into_iter().next(),
            _ => None,
        };
        first.unwrap_or_else(|| FieldError::new("", "it cannot be read"))
    })
}

/// How it is documented.
#[derive(JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "{T}OrMany")]
#[expect(dead_code, reason = "it is only documented, never made")]
enum Documented<T> {
    /// One.
    One(T),
    /// Many.
    Many(Vec<T>),
}

impl<T> Apiv2Schema for OneOrMany<T> {}
impl<T: JsonSchema> OperationModifier for OneOrMany<T> {
    fn update_parameter(operation: &mut DefaultOperationRaw) {
        facts::note(operation, Fact::Body(facts::inline::<Documented<T>>, Presence::Required));
    }
}

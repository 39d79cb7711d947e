//! Query strings. A parameter may be repeated where its type is a list.

use std::future::{Ready, ready};

use actix_web::{FromRequest, HttpRequest, dev::Payload};
use paperclip::{
    actix::OperationModifier,
    v2::{models::DefaultOperationRaw, schema::Apiv2Schema},
};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::shape;
use crate::{
    openapi::facts::{self, Fact},
    problem::ApiError,
};

/// The query string as a `T`, each member of which is documented as a parameter. Unknown parameters have been refused
/// before ([`crate::middleware::guard`]), so `T` need not deny them.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned> FromRequest for Query<T> {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(read(request.query_string()).map(Self))
    }
}

fn read<T: DeserializeOwned>(query: &str) -> Result<T, ApiError> {
    let deserializer = serde_html_form::Deserializer::from_bytes(query.as_bytes());
    serde_path_to_error::deserialize(deserializer)
        .map_err(|error| shape::field_error(&error.path().to_string(), &error.inner().to_string()).into())
}

impl<T> Apiv2Schema for Query<T> {}
impl<T: JsonSchema> OperationModifier for Query<T> {
    fn update_parameter(operation: &mut DefaultOperationRaw) {
        facts::note(operation, Fact::Query(facts::inline::<T>));
    }
}

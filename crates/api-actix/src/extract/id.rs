//! The `{id}` of a path.

use std::future::{Ready, ready};

use actix_web::{FromRequest, HttpRequest, dev::Payload};
use domain::FieldError;
use paperclip::{
    actix::OperationModifier,
    v2::{models::DefaultOperationRaw, schema::Apiv2Schema},
};
use serde::de::{DeserializeOwned, IntoDeserializer, value};
use serde_json::json;

use crate::{
    openapi::facts::{self, Fact},
    problem::ApiError,
};

/// The `{id}` of the path as one of the domain's ids. What is not a positive integer is refused; whether such a thing
/// exists is for the use case to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Id<T>(pub T);

impl<T: DeserializeOwned> FromRequest for Id<T> {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let id = parse(request.match_info().query("id"));
        ready(id.map(Self).ok_or_else(|| FieldError::new("id", "must be a positive integer").into()))
    }
}

fn parse<T: DeserializeOwned>(text: &str) -> Option<T> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let id: i64 = text.parse().ok().filter(|id| digits && *id >= 1)?;
    let deserializer: value::I64Deserializer<value::Error> = id.into_deserializer();
    T::deserialize(deserializer).ok()
}

impl<T> Apiv2Schema for Id<T> {}
impl<T> OperationModifier for Id<T> {
    fn update_parameter(operation: &mut DefaultOperationRaw) {
        let schema = json!({ "type": "integer", "format": "int64", "minimum": 1 });
        facts::note(operation, Fact::Path { name: "id", description: "Which one.", schema });
    }
}

#[cfg(test)]
mod tests {
    use domain::ids::ServerId;

    use super::parse;

    #[test]
    fn an_id_is_a_positive_integer() {
        let check = |text: &str, expected: Option<i64>| assert_eq!(parse(text), expected.map(ServerId), "{text}");
        check("7", Some(7));
        check("9223372036854775807", Some(i64::MAX));
        check("9223372036854775808", None);
        check("0", None);
        check("-1", None);
        check("+1", None);
        check("1.0", None);
        check("", None);
        check("seven", None);
    }
}

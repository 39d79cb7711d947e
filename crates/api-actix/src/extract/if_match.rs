//! The `If-Match` header.

use std::future::{Ready, ready};

use actix_web::{
    FromRequest, HttpRequest,
    dev::Payload,
    http::header::{self, HeaderMap},
};
use domain::FieldError;
use paperclip::{
    actix::OperationModifier,
    v2::{models::DefaultOperationRaw, schema::Apiv2Schema},
};

use crate::{
    openapi::facts::{self, Fact},
    problem::ApiError,
};

/// A revision that nothing ever has.
const NEVER: i64 = 0;

/// The revision the resource must have, or `None` for any (no header, or `*`).
///
/// Of several revisions the highest counts: who has seen it knows that the others are past. A weak tag or one that is
/// not of ours is revision 0, which nothing has, so that the use case answers as for any other stale revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IfMatch(pub Option<i64>);

impl FromRequest for IfMatch {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(read(request.headers()).map(Self).map_err(ApiError::from))
    }
}

fn read(headers: &HeaderMap) -> Result<Option<i64>, FieldError> {
    let malformed = || FieldError::new("If-Match", "must be the resource's ETag with its quotes, such as \"7\", or *");
    let mut revision = None;
    for value in headers.get_all(header::IF_MATCH) {
        let value = value.to_str().ok().ok_or_else(malformed)?.trim();
        if value == "*" {
            return Ok(None);
        }
        for tag in value.split(',') {
            revision = revision.max(Some(read_tag(tag.trim()).ok_or_else(malformed)?));
        }
    }
    Ok(revision)
}

fn read_tag(tag: &str) -> Option<i64> {
    let (weak, quoted) = tag.strip_prefix("W/").map_or((false, tag), |rest| (true, rest));
    let opaque = quoted.strip_prefix('"')?.strip_suffix('"').filter(|opaque| !opaque.contains('"'))?;
    Some(if weak { NEVER } else { opaque.parse().ok().filter(|revision| *revision > NEVER).unwrap_or(NEVER) })
}

impl Apiv2Schema for IfMatch {}
impl OperationModifier for IfMatch {
    fn update_parameter(operation: &mut DefaultOperationRaw) {
        facts::note(operation, Fact::IfMatch);
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderMap, HeaderValue, IF_MATCH};

    use super::read;

    #[test]
    fn only_strong_tags_of_ours_can_match() {
        let check = |value: &str, expected: Option<Option<i64>>| {
            let mut headers = HeaderMap::new();
            headers.insert(IF_MATCH, HeaderValue::from_str(value).unwrap());
            assert_eq!(read(&headers).ok(), expected, "{value}");
        };
        assert_eq!(read(&HeaderMap::new()), Ok(None));
        check("*", Some(None));
        check("\"7\"", Some(Some(7)));
        check("\"7\", \"9\"", Some(Some(9)));
        check("W/\"7\"", Some(Some(0)));
        check("\"abc\"", Some(Some(0)));
        check("\"\"", Some(Some(0)));
        check("7", None);
        check("\"7", None);
        check("", None);
        check("\"7\",", None);
    }
}

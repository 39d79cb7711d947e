//! How long a client would wait for work that takes time (RFC 7240, `Prefer: wait=20`).

use std::{
    future::{Ready, ready},
    time::Duration,
};

use actix_web::{FromRequest, HttpRequest, dev::Payload};
use paperclip::{
    actix::OperationModifier,
    v2::{models::DefaultOperationRaw, schema::Apiv2Schema},
};
use serde_json::json;

use crate::{
    openapi::facts::{self, Fact},
    problem::ApiError,
};

/// The longest that a request is kept open.
const LONGEST: Duration = Duration::from_mins(1);

/// How long to wait for the outcome before answering 202; not at all if the client did not say. A preference that is not
/// understood is ignored, as the RFC wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PreferWait(pub Duration);

impl FromRequest for PreferWait {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let texts = request.headers().get_all("prefer").filter_map(|value| value.to_str().ok());
        ready(Ok(Self(texts.flat_map(|text| text.split([',', ';'])).find_map(wait).unwrap_or_default())))
    }
}

fn wait(preference: &str) -> Option<Duration> {
    let (name, value) = preference.split_once('=')?;
    let seconds = value.trim().trim_matches('"').parse().ok()?;
    name.trim().eq_ignore_ascii_case("wait").then(|| Duration::from_secs(seconds).min(LONGEST))
}

impl Apiv2Schema for PreferWait {}
impl OperationModifier for PreferWait {
    fn update_parameter(operation: &mut DefaultOperationRaw) {
        facts::note(
            operation,
            Fact::Header {
                name: "Prefer",
                description: "`wait=20` waits up to so many seconds (at most 60) for the outcome, which is then answered \
                    with 200; otherwise 202 tells what is under way.",
                schema: json!({ "type": "string" }),
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    #[test]
    fn what_is_understood_is_waited_for_and_the_rest_ignored() {
        let check = |header: &str, seconds: u64| {
            let request = TestRequest::default().insert_header(("Prefer", header)).to_http_request();
            let found = PreferWait::from_request(&request, &mut Payload::None).into_inner().unwrap();
            assert_eq!(found.0, Duration::from_secs(seconds), "{header}");
        };
        check("wait=20", 20);
        check("respond-async, wait=\"7\"", 7);
        check("return=minimal; Wait = 5", 5);
        check("wait=100000", 60);
        check("wait=soon", 0);
        check("", 0);
        assert_eq!(
            PreferWait::from_request(&TestRequest::default().to_http_request(), &mut Payload::None)
                .into_inner()
                .unwrap()
                .0,
            Duration::ZERO
        );
    }
}

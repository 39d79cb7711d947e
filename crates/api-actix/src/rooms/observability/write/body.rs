//! The body of a remote-write: series in protobuf, packed by snappy in its block format.

use super::wire;
use crate::{
    ApiError,
    extract::read_body,
    openapi::facts::{self, Fact},
};
use actix_web::{FromRequest, HttpMessage, HttpRequest, dev::Payload, http::header, web};
use domain::{Error, FieldError, observability::remote::Series};
use futures_util::future::LocalBoxFuture;
use paperclip::{
    actix::OperationModifier,
    v2::{models::DefaultOperationRaw, schema::Apiv2Schema},
};
use serde_json::json;

/// The most bytes as they are sent.
const PACKED_LIMIT: usize = 8 * 1024 * 1024;
/// The most bytes after that.
const UNPACKED_LIMIT: usize = 32 * 1024 * 1024;

const MEDIA_TYPE: &str = "application/x-protobuf";
const VERSION: &str = "X-Prometheus-Remote-Write-Version";

/// What was sent.
pub(in crate::rooms::observability) struct WriteBody(pub(super) Vec<Series>);

impl FromRequest for WriteBody {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (request, payload) = (request.clone(), payload.take());
        Box::pin(async move {
            check_headers(&request)?;
            let packed = read_body(&request, payload, PACKED_LIMIT).await?;
            // Large ones take a while, in which this thread answers others.
            let series = web::block(move || wire::read(&unpack(&packed)?)).await.map_err(Error::internal)??;
            Ok(Self(series))
        })
    }
}

fn check_headers(request: &HttpRequest) -> Result<(), ApiError> {
    let refuse = |reason: &str| Err(ApiError::UnsupportedMediaType { reason: reason.to_owned(), accept: MEDIA_TYPE });
    let text = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap_or("?").trim());
    if !request.content_type().eq_ignore_ascii_case(MEDIA_TYPE) {
        return refuse("send protobuf, with \"Content-Type: application/x-protobuf\"");
    }
    let kind = text(header::CONTENT_TYPE.as_str()).unwrap_or_default();
    if kind.contains("proto=") && !kind.contains("proto=prometheus.WriteRequest") {
        return refuse("send remote-write 1.0, which is prometheus.WriteRequest");
    }
    if !text(header::CONTENT_ENCODING.as_str()).is_some_and(|coding| coding.eq_ignore_ascii_case("snappy")) {
        return refuse("send it packed by snappy, with \"Content-Encoding: snappy\"");
    }
    // Whoever does not tell the version sends the only one that there was before there were two.
    match text(VERSION) {
        Some(version) if !version.starts_with("0.1.") => Err(FieldError::new(VERSION, "must be 0.1.0").into()),
        _ => Ok(()),
    }
}

/// The size is told at the beginning, and nothing is made before it is judged.
fn unpack(packed: &[u8]) -> Result<Vec<u8>, ApiError> {
    let broken = |error: snap::Error| FieldError::new("", format!("the body is not in snappy's block format: {error}"));
    let size = snap::raw::decompress_len(packed).map_err(broken)?;
    if size > UNPACKED_LIMIT {
        let reason = format!("the body may have at most {UNPACKED_LIMIT} bytes when it is unpacked, and has {size}");
        return Err(ApiError::TooMuch { reason });
    }
    Ok(snap::raw::Decoder::new().decompress_vec(packed).map_err(broken)?)
}

impl Apiv2Schema for WriteBody {}
impl OperationModifier for WriteBody {
    fn update_parameter(operation: &mut DefaultOperationRaw) {
        for (name, description, value) in [
            ("Content-Encoding", "Must be there, and be `snappy`, which is its block format.", "snappy"),
            (VERSION, "The version of the protocol.", "0.1.0"),
        ] {
            let schema = json!({ "type": "string", "enum": [value] });
            facts::note(operation, Fact::Header { name, description, schema });
        }
        facts::note(operation, Fact::Packed(MEDIA_TYPE, "A `prometheus.WriteRequest`, packed by snappy."));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_too_large_is_not_unpacked() {
        // A size of 4 GiB, and of one byte more than is taken, and nothing behind it.
        for size in [&[0xff, 0xff, 0xff, 0xff, 0x0f][..], &[0x81, 0x80, 0x80, 0x10]] {
            assert!(matches!(unpack(size), Err(ApiError::TooMuch { .. })), "{size:?}");
        }
        for broken in [&[][..], &[0x05], &[0x05, 0x10, b'a'], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff], b"hello"] {
            assert!(matches!(unpack(broken), Err(ApiError::Domain(Error::Invalid { .. }))), "{broken:?}");
        }
        assert_eq!(unpack(&[0x00]).unwrap(), b"");
        assert_eq!(unpack(&[0x01, 0x00, b'a']).unwrap(), b"a");
    }
}

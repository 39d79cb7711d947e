//! `/openapi.json` and `/docs`, its display by Swagger UI. All of it is part of the binary, so it works without a
//! network, and no script is inline, so the content security policy can forbid that.

use std::{
    io::{Cursor, Read},
    sync::{Arc, OnceLock},
};

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{self, HeaderValue},
    web::{self, Bytes, Data, ServiceConfig},
};
use utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED;
use zip::{ZipArchive, result::ZipError};

use crate::{ApiError, openapi::Document};

/// The patterns that [`configure`] serves.
pub const PATTERNS: [&str; 5] =
    ["/openapi.json", "/docs", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css", "/docs/start.js"];

const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const PAGE: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>StarLink Orchestration API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
<script src="docs/swagger-ui-bundle.js" defer></script>
<script src="docs/start.js" defer></script>
</head>
<body>
<div id="documentation"></div>
<noscript>This page needs JavaScript; the document itself is at <a href="openapi.json">openapi.json</a>.</noscript>
</body>
</html>
"#;

const START: &str = r##"window.addEventListener("DOMContentLoaded", () => {
  window.SwaggerUIBundle({ url: "openapi.json", dom_id: "#documentation", deepLinking: true, validatorUrl: null });
});
"##;

/// The files of Swagger UI. They are unpacked when somebody first looks at them: that costs milliseconds and megabytes,
/// which a server that nobody reads about should not pay at its start.
#[derive(Debug, Clone)]
pub struct Assets {
    script: Asset,
    style: Asset,
}

#[derive(Debug, Clone)]
struct Asset {
    /// Its place in the archive.
    index: usize,
    unpacked: Arc<OnceLock<Bytes>>,
}

impl Assets {
    /// Finds them in the archive that is part of the binary.
    ///
    /// # Errors
    /// If the archive is not as expected.
    pub fn find() -> Result<Self, ZipError> {
        let archive = archive()?;
        let asset = |suffix: &str| -> Result<Asset, ZipError> {
            let mut names = archive.file_names().flatten();
            let name = names.find(|name| name.ends_with(suffix)).ok_or(ZipError::FileNotFound)?;
            let index = archive.index_for_name(&name).ok_or(ZipError::FileNotFound)?;
            Ok(Asset { index, unpacked: Arc::default() })
        };
        Ok(Self { script: asset("/dist/swagger-ui-bundle.js")?, style: asset("/dist/swagger-ui.css")? })
    }
}

impl Asset {
    fn bytes(&self) -> Result<Bytes, ApiError> {
        if let Some(bytes) = self.unpacked.get() {
            return Ok(bytes.clone());
        }
        let bytes = self.unpack().map_err(domain::Error::internal)?;
        Ok(self.unpacked.get_or_init(|| bytes).clone())
    }

    fn unpack(&self) -> Result<Bytes, ZipError> {
        let mut archive = archive()?;
        let mut file = archive.by_index(self.index)?;
        let mut bytes = Vec::with_capacity(usize::try_from(file.size()).unwrap_or_default());
        file.read_to_end(&mut bytes)?;
        Ok(bytes.into())
    }
}

fn archive() -> Result<ZipArchive<Cursor<&'static [u8]>>, ZipError> {
    ZipArchive::new(Cursor::new(SWAGGER_UI_VENDORED))
}

/// Registers [`PATTERNS`].
pub fn configure(config: &mut ServiceConfig, document: Arc<Document>, assets: Assets) {
    config
        .app_data(Data::from(document))
        .app_data(Data::new(assets))
        .service(web::resource("/openapi.json").get(openapi))
        .service(web::resource("/docs").get(async || html(PAGE)))
        .service(
            web::resource("/docs/swagger-ui-bundle.js")
                .get(async |assets: Data<Assets>| assets.script.bytes().map(|bytes| file("text/javascript", bytes))),
        )
        .service(
            web::resource("/docs/swagger-ui.css")
                .get(async |assets: Data<Assets>| assets.style.bytes().map(|bytes| file("text/css", bytes))),
        )
        .service(
            web::resource("/docs/start.js").get(async || file("text/javascript", Bytes::from_static(START.as_bytes()))),
        );
}

async fn openapi(request: HttpRequest, document: Data<Document>) -> HttpResponse {
    let known = request.headers().get_all(header::IF_NONE_MATCH).filter_map(|tags| tags.to_str().ok());
    let fresh =
        known.flat_map(|tags| tags.split(',')).any(|tag| tag.trim().trim_start_matches("W/") == document.etag());
    let mut builder = if fresh { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    builder.insert_header((header::ETAG, document.etag())).insert_header((header::CACHE_CONTROL, "no-cache"));
    if fresh { builder.finish() } else { builder.content_type("application/json").body(document.bytes()) }
}

fn html(page: &'static str) -> HttpResponse {
    let mut response = file("text/html", Bytes::from_static(page.as_bytes()));
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY));
    response
}

fn file(kind: &str, bytes: Bytes) -> HttpResponse {
    HttpResponse::Ok()
        .content_type(format!("{kind}; charset=utf-8"))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .body(bytes)
}

//! Puts the API together once, so that each worker can register the same routes without making the document again.

use std::{future::ready, sync::Arc};

use actix_web::{
    Error, HttpRequest, ResponseError, Route,
    body::{BoxBody, MessageBody},
    dev::{Service, ServiceRequest, ServiceResponse, Transform},
    web::{self, ServiceConfig},
};

use crate::{
    docs::{self, Assets},
    middleware::guard::{self, no_such_path},
    openapi::{Blueprint, Document, DocumentError, assemble::assemble, facts::Routes},
};

/// Why there is no API.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// There is no document.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The documentation's files are not in the binary.
    #[error("the files of the API documentation are not in this program")]
    Assets(#[from] zip::result::ZipError),
}

/// The API, ready to be registered; clones share everything.
#[derive(Clone)]
pub struct Api {
    routes: Routes,
    document: Arc<Document>,
    assets: Assets,
    plain: Arc<[String]>,
}

impl Api {
    /// Makes the document. `plain` are the patterns that the application serves itself, undocumented, such as the
    /// console's files; any other pattern that is not documented is answered with 404 by [`Api::guard`].
    ///
    /// # Errors
    /// If a handler leaves something undocumented.
    pub fn build(blueprint: &Blueprint, plain: &[&str]) -> Result<Self, MountError> {
        let document = Arc::new(assemble(blueprint)?);
        let plain = docs::PATTERNS.iter().chain(plain).map(|pattern| (*pattern).to_owned()).collect();
        Ok(Self { routes: blueprint.routes, document, assets: Assets::find()?, plain })
    }

    /// The document.
    #[must_use]
    pub fn document(&self) -> &Document {
        &self.document
    }

    /// The document, for middleware that outlives a borrow.
    #[must_use]
    pub fn shared_document(&self) -> Arc<Document> {
        self.document.clone()
    }

    /// Registers the documented routes, `/openapi.json` and `/docs`.
    pub fn configure(&self, config: &mut ServiceConfig) {
        (self.routes)(&mut paperclip::actix::web::ServiceConfig::from(&mut *config));
        docs::configure(config, self.document.clone(), self.assets.clone());
    }

    /// The middleware that refuses what the document does not promise.
    #[must_use]
    pub fn guard<S, B>(
        &self,
    ) -> impl Transform<S, ServiceRequest, Response = ServiceResponse<BoxBody>, Error = Error, InitError = ()> + use<S, B>
    where
        S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
        B: MessageBody + 'static,
    {
        guard::guard(self.document.clone(), self.plain.clone())
    }
}

/// The default service of the application: there is nothing at this path.
#[must_use]
pub fn not_found() -> Route {
    web::to(|request: HttpRequest| ready(no_such_path(request.path()).error_response()))
}

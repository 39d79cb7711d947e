//! Who is asking.

use std::{
    future::{Ready, ready},
    ops::Deref,
    sync::Arc,
};

use actix_web::{FromRequest, HttpMessage, HttpRequest, dev::Payload};
use domain::Error;
use paperclip::{
    actix::OperationModifier,
    v2::{models::DefaultOperationRaw, schema::Apiv2Schema},
};

use crate::{
    openapi::facts::{self, Fact},
    problem::ApiError,
};

/// The one who asks, as middleware left it in the request's extensions (`Arc<A>`); without it the answer is 401. An
/// operation that takes it is documented as being for authenticated callers.
#[derive(Debug)]
pub struct Caller<A>(pub Arc<A>);

impl<A> Deref for Caller<A> {
    type Target = A;

    fn deref(&self) -> &A {
        &self.0
    }
}

impl<A: 'static> FromRequest for Caller<A> {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let found = request.extensions().get::<Arc<A>>().cloned();
        let nobody = || Error::Unauthenticated {
            reason: "send a valid token as \"Authorization: Bearer <token>\", or log in".to_owned(),
        };
        ready(found.map(Self).ok_or_else(|| nobody().into()))
    }
}

impl<A> Apiv2Schema for Caller<A> {}
impl<A> OperationModifier for Caller<A> {
    fn update_parameter(operation: &mut DefaultOperationRaw) {
        facts::note(operation, Fact::Authenticated);
    }
}

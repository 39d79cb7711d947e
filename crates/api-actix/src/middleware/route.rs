//! Which route a request is for. The router tries one pattern after the other, so it is asked once for all who want to know.

use actix_web::{HttpMessage, dev::ServiceRequest};
use std::rc::Rc;

/// What the router said; in the request's extensions.
#[derive(Clone)]
struct Route(Option<Rc<str>>);

/// The path template that a request's path matches, as registered; `None` if there is nothing at this path.
#[must_use]
pub fn route(request: &ServiceRequest) -> Option<Rc<str>> {
    if let Some(known) = request.extensions().get::<Route>() {
        return known.0.clone();
    }
    let found = Route(request.match_pattern().map(Rc::from));
    request.extensions_mut().insert(found.clone());
    found.0
}

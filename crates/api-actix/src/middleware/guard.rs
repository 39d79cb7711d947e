//! Refuses what the document does not promise: unknown paths, methods, query parameters and media types.
//!
//! So an operation that is missing from the document cannot be reached, and a typo in a parameter is not silently
//! ignored. `HEAD` is answered like `GET`; the server leaves out the body.

use std::{collections::BTreeMap, sync::Arc};

use actix_web::{
    Error, ResponseError,
    body::{BoxBody, MessageBody},
    dev::{Service, ServiceRequest, ServiceResponse, Transform},
    http::{Method, header},
    middleware::{Next, from_fn},
};
use domain::FieldError;

use super::{accept::accepts, route};
use crate::{
    openapi::{Document, Promise, facts::template},
    problem::ApiError,
};

/// The middleware. `plain` are the patterns that are served besides what is documented, such as `/docs`.
pub fn guard<S, B>(
    document: Arc<Document>,
    plain: Arc<[String]>,
) -> impl Transform<S, ServiceRequest, Response = ServiceResponse<BoxBody>, Error = Error, InitError = ()>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: MessageBody + 'static,
{
    from_fn(move |request: ServiceRequest, next: Next<B>| {
        let verdict = judge(&request, &document, &plain);
        admit(verdict, request, next)
    })
}

async fn admit<B: MessageBody + 'static>(
    verdict: Result<(), ApiError>,
    mut request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    if let Err(refusal) = verdict {
        return Ok(request.into_response(refusal.error_response()));
    }
    if request.method() == Method::HEAD {
        request.head_mut().method = Method::GET;
    }
    Ok(next.call(request).await?.map_into_boxed_body())
}

fn judge(request: &ServiceRequest, document: &Document, plain: &[String]) -> Result<(), ApiError> {
    let Some(pattern) = route(request) else { return Ok(()) };
    let Some(methods) = document.promises(&template(&pattern)) else {
        return if plain.iter().any(|plain| **plain == *pattern) { Ok(()) } else { Err(no_such_path(request.path())) };
    };
    let method = match request.method() {
        &Method::HEAD => "GET",
        other => other.as_str(),
    };
    let promise = methods.get(method).ok_or_else(|| ApiError::MethodNotAllowed { allow: allow(methods) })?;
    let parameters: Vec<(String, String)> = serde_html_form::from_str(request.query_string()).unwrap_or_default();
    let errors: Vec<_> =
        parameters.into_iter().filter_map(|(name, value)| parameter_fault(promise, name, &value)).collect();
    if !errors.is_empty() {
        return Err(domain::Error::Invalid { errors }.into());
    }
    let accept =
        request.headers().get_all(header::ACCEPT).filter_map(|value| value.to_str().ok()).collect::<Vec<_>>().join(",");
    if !promise.produces.is_empty() && !accepts(&accept, &promise.produces) {
        let offered = promise.produces.iter().cloned().collect::<Vec<_>>().join(" or ");
        return Err(ApiError::NotAcceptable { offered });
    }
    Ok(())
}

fn parameter_fault(promise: &Promise, name: String, value: &str) -> Option<FieldError> {
    if !promise.query.contains(&name) {
        return Some(FieldError::new(name, unknown_parameter(promise.query.iter())));
    }
    let empty = value.is_empty() && promise.typed.contains(&name);
    empty.then(|| FieldError::new(name, "must not be empty; leave it out instead"))
}

/// There is nothing at this path.
#[must_use]
pub fn no_such_path(path: &str) -> ApiError {
    domain::Error::NotFound { what: format!("path {path}; /docs shows those there are") }.into()
}

fn allow<T>(methods: &BTreeMap<String, T>) -> String {
    let mut allow: Vec<&str> = methods.keys().map(String::as_str).collect();
    if let Some(get) = allow.iter().position(|method| *method == "GET") {
        allow.insert(get + 1, "HEAD");
    }
    allow.join(", ")
}

fn unknown_parameter<'a>(known: impl Iterator<Item = &'a String>) -> String {
    let known = known.map(String::as_str).collect::<Vec<_>>().join(", ");
    if known.is_empty() {
        "is not a parameter of this operation, which takes none".to_owned()
    } else {
        format!("is not a parameter of this operation; it takes {known}")
    }
}

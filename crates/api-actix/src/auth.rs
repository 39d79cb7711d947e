//! Finds out who asks, before anything else is looked at, and has refusals recorded.
//!
//! A secret comes as a bearer token or in the session's cookie. A cookie is sent by browsers whether the page that
//! asks is ours or not, so for changes, and for each `WebSocket`, the request must also come from a page of ours. Where a
//! browser opens one, a ticket stands for the secret: it comes in the query, is taken here, and is never logged.

use std::{net::IpAddr, rc::Rc, sync::Arc};

use actix_web::{
    Error, HttpMessage, HttpRequest, ResponseError,
    body::{BoxBody, MessageBody},
    dev::{Service, ServiceRequest, ServiceResponse, Transform},
    http::{
        StatusCode,
        header::{self, HeaderMap},
    },
    middleware::{Next, from_fn},
};
use domain::{
    audit::{self, AuditService},
    identity::{Access, Actor, Denied, Operation, Secret, SessionService},
};

use crate::{
    ApiError,
    middleware::{context::RequestId, route},
    openapi::Document,
    problem,
};

/// The cookie of a console session.
pub const SESSION_COOKIE: &str = "starlink_session";

/// What the middleware needs.
pub struct Gate {
    /// Says who the bearer of a secret is.
    pub sessions: Arc<SessionService>,
    /// Records refusals.
    pub audit: Arc<AuditService>,
    /// Says which operation a request is for.
    pub document: Arc<Document>,
    /// Whether the last `X-Forwarded-For` is from a proxy of ours.
    pub behind_proxy: bool,
    /// Origins whose pages may use a session, besides our own.
    pub origins: Vec<String>,
    /// Whether metrics may be read without a token.
    pub metrics_open: bool,
}

/// Where a request came from; in its extensions.
#[derive(Debug, Clone)]
pub struct Source(pub String);

/// The digest of the secret that the actor came with; in the request's extensions.
#[derive(Debug, Clone)]
pub struct CredentialDigest(pub String);

/// The user name that somebody tried to sign in with; in the request's extensions.
#[derive(Debug, Clone)]
pub struct Tried(pub String);

/// Whose secret was refused; in the request's extensions.
#[derive(Debug, Clone)]
struct Owner(String);

/// The middleware; goes around the guard and inside the context.
#[must_use]
pub fn authenticate<S, B>(
    gate: Rc<Gate>,
) -> impl Transform<S, ServiceRequest, Response = ServiceResponse<BoxBody>, Error = Error, InitError = ()>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: MessageBody + 'static,
{
    from_fn(move |request: ServiceRequest, next: Next<B>| {
        let gate = Rc::clone(&gate);
        async move {
            let operation = operation(&gate.document, &request);
            let source = source(&request, gate.behind_proxy);
            request.extensions_mut().insert(Source(source.clone()));
            let response = admit(&gate, operation, request, next).await?;
            record(&gate, operation, source, &response).await;
            Ok(response)
        }
    })
}

async fn admit<B: MessageBody + 'static>(
    gate: &Gate,
    operation: Option<Operation>,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let open = operation.is_none_or(|operation| {
        operation.access() == Access::Public || (gate.metrics_open && operation == Operation::MetricsGet)
    });
    match identify(gate, operation, &request).await {
        Ok(Some((actor, digest))) => {
            request.extensions_mut().insert(Arc::new(actor));
            request.extensions_mut().insert(CredentialDigest(digest));
        }
        // A cookie that has ended must not stand in the way of signing in again.
        Ok(None) | Err(_) if open => anonymous(&request, gate, operation),
        Ok(None) => return Ok(refuse(request, nobody())),
        Err(denied) => {
            if let Some(owner) = denied.owner {
                request.extensions_mut().insert(Owner(owner));
            }
            return Ok(refuse(request, denied.error));
        }
    }
    Ok(next.call(request).await?.map_into_boxed_body())
}

/// Metrics that are configured to be open are read by an actor who may read them.
fn anonymous(request: &ServiceRequest, gate: &Gate, operation: Option<Operation>) {
    if gate.metrics_open && operation == Some(Operation::MetricsGet) {
        request.extensions_mut().insert(Arc::new(Actor::system("metrics")));
    }
}

fn nobody() -> domain::Error {
    domain::Error::Unauthenticated {
        reason: "send a valid token as \"Authorization: Bearer <token>\", or sign in".to_owned(),
    }
}

fn refuse(request: ServiceRequest, error: domain::Error) -> ServiceResponse<BoxBody> {
    request.into_response(ApiError::from(error).error_response())
}

/// Who asks, with the digest of their secret; `None` for nobody in particular.
async fn identify(
    gate: &Gate,
    operation: Option<Operation>,
    request: &ServiceRequest,
) -> Result<Option<(Actor, String)>, Denied> {
    let request_id = request.extensions().get::<RequestId>().map(|id| id.0.clone());
    if let Some(ticket) = ticket_of(operation, request) {
        return gate.sessions.ticket_redeem(&ticket, request_id).await.map(Some);
    }
    let Some(secret) = secret_of(gate, request)? else { return Ok(None) };
    let actor = gate.sessions.authenticate(&secret, request_id).await?;
    Ok(Some((actor, secret.digest())))
}

/// The ticket of a request that may come with one. A token is worth more, and leaves it untaken.
fn ticket_of(operation: Option<Operation>, request: &ServiceRequest) -> Option<Secret> {
    if operation != Some(Operation::ContainerExec) || request.headers().contains_key(header::AUTHORIZATION) {
        return None;
    }
    let parameters: Vec<(String, String)> = serde_html_form::from_str(request.query_string()).unwrap_or_default();
    parameters.into_iter().find(|(name, _)| name == "ticket").map(|(_, ticket)| Secret::from(ticket))
}

/// Whether a WebSocket is to be opened, which browsers let any page do, and send cookies along.
fn opens_websocket(request: &ServiceRequest) -> bool {
    let mut upgrades = request.headers().get_all(header::UPGRADE).filter_map(|value| value.to_str().ok());
    upgrades.any(|upgrade| upgrade.to_ascii_lowercase().contains("websocket"))
}

fn secret_of(gate: &Gate, request: &ServiceRequest) -> Result<Option<Secret>, domain::Error> {
    if let Some(value) = request.headers().get(header::AUTHORIZATION) {
        let token = value.to_str().ok().and_then(|text| {
            let (scheme, token) = text.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
        });
        return token.map(|token| Some(Secret::from(token))).ok_or_else(nobody);
    }
    let Some(cookie) = request.cookie(SESSION_COOKIE) else { return Ok(None) };
    let harmless = request.method().is_safe() && !opens_websocket(request);
    if !harmless && !from_our_page(request, &gate.origins) {
        let reason = "a session can only be used by pages of this console; use a token instead";
        return Err(domain::Error::Forbidden { reason: reason.to_owned() });
    }
    Ok(Some(Secret::from(cookie.value().to_owned())))
}

/// Whether a page of ours sent the request, as far as the browser says.
fn from_our_page(request: &ServiceRequest, origins: &[String]) -> bool {
    let text = |name: header::HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok());
    let origin = text(header::ORIGIN);
    if origin.is_some_and(|origin| origins.iter().any(|ours| ours == origin)) {
        return true;
    }
    let same_site = text(header::HeaderName::from_static("sec-fetch-site"))
        .is_none_or(|site| matches!(site, "same-origin" | "none"));
    let own = origin
        .is_none_or(|origin| origin.split_once("://").map(|(_, host)| host) == Some(request.connection_info().host()));
    same_site && own
}

fn operation(document: &Document, request: &ServiceRequest) -> Option<Operation> {
    let pattern = route(request)?;
    Operation::by_id(&document.promise(&pattern, request.method().as_str())?.operation_id)
}

/// Where the request came from. A proxy of ours appends the address that it saw; what stands before that is hearsay.
fn source(request: &ServiceRequest, behind_proxy: bool) -> String {
    let peer = || request.peer_addr().map_or_else(|| "unknown".to_owned(), |address| address.ip().to_string());
    if behind_proxy { forwarded(request.headers()).map_or_else(peer, |address| address.to_string()) } else { peer() }
}

fn forwarded(headers: &HeaderMap) -> Option<IpAddr> {
    let last = headers.get_all(header::X_FORWARDED_FOR).last()?.to_str().ok()?;
    last.rsplit(',').next()?.trim().parse().ok()
}

/// Has a 401 or 403 recorded. A log that cannot be written must not turn a refusal into something else.
async fn record(gate: &Gate, operation: Option<Operation>, source: String, response: &ServiceResponse<BoxBody>) {
    let Some(refusal) = operation.and_then(|operation| refusal_of(operation, source, response)) else { return };
    if let Err(error) = gate.audit.refusal_record(refusal).await {
        tracing::error!(%error, "a refusal could not be recorded");
    }
}

fn refusal_of(operation: Operation, source: String, response: &ServiceResponse<BoxBody>) -> Option<audit::Refusal> {
    if !matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        return None;
    }
    let reason = response.response().extensions().get::<problem::Refusal>()?.detail.clone();
    let request = response.request();
    let extensions = request.extensions();
    let actor = extensions.get::<Arc<Actor>>().map(|actor| actor.label());
    let owner = extensions.get::<Owner>().map(|owner| owner.0.clone());
    let tried = extensions.get::<Tried>().map(|tried| format!("user:{}", printable(&tried.0)));
    let noun = operation.action().split('.').next().unwrap_or_default();
    Some(audit::Refusal {
        proven: actor.is_some(),
        actor: actor.or(owner).or(tried).unwrap_or_else(|| "anonymous".to_owned()),
        source,
        action: operation.action().to_owned(),
        target: id_in_path(request).map(|id| format!("{noun}:{id}")),
        reason,
        request_id: extensions.get::<RequestId>().map(|id| id.0.clone()),
    })
}

/// The id in the path. Who is refused at the door never comes to the router, so that it is read from the pattern here.
fn id_in_path(request: &HttpRequest) -> Option<String> {
    let pattern = request.match_pattern()?;
    let (_, id) = pattern.split('/').zip(request.path().split('/')).find(|(name, _)| *name == "{id}")?;
    ((1..=19).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_digit())).then(|| id.to_owned())
}

/// A name that anybody can send, cut to what a row should hold.
fn printable(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(domain::text::MAX_NAME).collect()
}

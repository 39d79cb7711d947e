//! Users, API tokens, console sessions and tickets over HTTP.

mod dto;

use crate::{
    ApiError,
    auth::{CredentialDigest, SESSION_COOKIE, Source, Tried},
    extract::{Body, Id, IfMatch, Once, Query},
    middleware::context::RequestId,
    reply::{Created, Listed, NoContent, Reply, Versioned, WithCookie},
    rooms::{Actor, delivery, dto::Paging, once_of},
};
use actix_web::{
    HttpMessage, HttpRequest,
    cookie::{Cookie, SameSite, time::Duration},
    web::Data,
};
use domain::{
    identity::{SESSION_HOURS, Secret, SessionService, TokenService, UserService},
    ids::{TokenId, UserId},
};
use dto::{
    ActorView, LoginRequest, LoginView, SignedOut, TicketView, TokenCreate, TokenCreated, TokenView, UserCreate,
    UserPatchBody, UserView,
};
use paperclip::actix::{
    api_v2_operation,
    web::{self, ServiceConfig},
};

/// Whether cookies may only travel encrypted: where the server is reached over TLS, by itself or through a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CookieTransport {
    /// Over anything; the server is on loopback.
    Any,
    /// Over TLS only.
    Encrypted,
}

/// This room's routes.
pub fn routes(config: &mut ServiceConfig<'_>) {
    config
        .service(web::resource("/auth/login").route(web::post().to(auth_login)))
        .service(web::resource("/auth/logout").route(web::post().to(auth_logout)))
        .service(web::resource("/auth/me").route(web::get().to(auth_me)))
        .service(web::resource("/auth/tickets").route(web::post().to(ticket_create)))
        .service(web::resource("/auth/tokens").route(web::get().to(token_list)).route(web::post().to(token_create)))
        .service(
            web::resource("/auth/tokens/{id}").route(web::get().to(token_get)).route(web::delete().to(token_delete)),
        )
        .service(web::resource("/auth/users").route(web::get().to(user_list)).route(web::post().to(user_create)))
        .service(
            web::resource("/auth/users/{id}")
                .route(web::get().to(user_get))
                .route(web::patch().to(user_update))
                .route(web::delete().to(user_delete)),
        );
}

/// Sign in
///
/// Begins a session of 12 hours with a password. The session's secret is set as a cookie that scripts cannot read; with
/// `"cookie": false` it is in the answer instead, for programs, and is sent as a bearer token. After a few failures
/// further tries have to wait (429).
#[api_v2_operation(tags("identity"), operation_id = "auth_login")]
async fn auth_login(
    request: HttpRequest,
    sessions: Data<SessionService>,
    transport: Data<CookieTransport>,
    body: Body<LoginRequest>,
) -> Result<WithCookie<LoginView>, ApiError> {
    let LoginRequest { name, password, cookie } = body.0;
    request.extensions_mut().insert(Tried(name.clone()));
    let source = request.extensions().get::<Source>().map(|source| source.0.clone()).unwrap_or_default();
    let request_id = request.extensions().get::<RequestId>().map(|id| id.0.clone());
    let login = sessions.auth_login(&name, Secret::from(password), &source, request_id).await?;
    let secret = login.secret.expose().to_owned();
    let (cookie, token) =
        if cookie.unwrap_or(true) { (Some(session_cookie(secret, **transport)), None) } else { (None, Some(secret)) };
    Ok(WithCookie::new(LoginView::new(&login, token), cookie))
}

/// Sign out
///
/// Ends the session that the request came with, and takes its cookie back.
#[api_v2_operation(tags("identity"), operation_id = "auth_logout")]
async fn auth_logout(
    actor: Actor,
    sessions: Data<SessionService>,
    transport: Data<CookieTransport>,
) -> Result<WithCookie<SignedOut>, ApiError> {
    sessions.auth_logout(&actor).await?;
    let mut cookie = session_cookie(String::new(), **transport);
    cookie.make_removal();
    Ok(WithCookie::new(SignedOut::default(), Some(cookie)))
}

/// Who am I
///
/// The one whom the request's token or session belongs to, and what they may do.
#[api_v2_operation(tags("identity"), operation_id = "auth_me")]
async fn auth_me(actor: Actor) -> Result<Reply<ActorView>, ApiError> {
    actor.authorize(domain::identity::Operation::AuthMe)?;
    Ok(Reply::new(ActorView::from(&*actor.0)))
}

/// Ask for a ticket
///
/// A ticket opens one WebSocket within 30 seconds, since browsers cannot send a token with those.
#[api_v2_operation(tags("identity"), operation_id = "ticket_create")]
async fn ticket_create(
    request: HttpRequest,
    actor: Actor,
    sessions: Data<SessionService>,
) -> Result<Reply<TicketView>, ApiError> {
    let digest = request.extensions().get::<CredentialDigest>().map(|digest| digest.0.clone()).unwrap_or_default();
    let ticket = sessions.ticket_create(&actor, digest).await?;
    Ok(Reply::new(TicketView::from(&ticket)))
}

/// Make an API token
///
/// Its secret is in this answer and nowhere else.
#[api_v2_operation(tags("identity"), operation_id = "token_create")]
async fn token_create(
    actor: Actor,
    tokens: Data<TokenService>,
    once: Once,
    body: Body<TokenCreate>,
) -> Result<Created<TokenCreated>, ApiError> {
    let once = once_of(&actor, once);
    let new = body.0.parse()?;
    let (token, secret) = tokens.token_create(&actor, new.name, new.role, new.scopes, new.expires_at, once).await?;
    let location = format!("/auth/tokens/{}", token.id);
    Ok(Created::at(location, TokenCreated::new(&token, &secret)))
}

/// List API tokens
///
/// Newest first, without their secrets.
#[api_v2_operation(tags("identity"), operation_id = "token_list")]
async fn token_list(
    actor: Actor,
    tokens: Data<TokenService>,
    query: Query<Paging>,
) -> Result<Listed<TokenView>, ApiError> {
    let found = tokens.token_list(&actor, query.0.parse("-id")?).await?;
    Ok(Listed(found.map(|token| TokenView::from(&token))))
}

/// Look at an API token
///
/// Without its secret.
#[api_v2_operation(tags("identity"), operation_id = "token_get")]
async fn token_get(actor: Actor, tokens: Data<TokenService>, id: Id<TokenId>) -> Result<Reply<TokenView>, ApiError> {
    let token = tokens.token_get(&actor, id.0).await?;
    Ok(Reply::new(TokenView::from(&token)))
}

/// Revoke an API token
///
/// It opens nothing any more, at once.
#[api_v2_operation(tags("identity"), operation_id = "token_delete")]
async fn token_delete(actor: Actor, tokens: Data<TokenService>, id: Id<TokenId>) -> Result<NoContent, ApiError> {
    tokens.token_delete(&actor, id.0).await?;
    Ok(NoContent)
}

/// Make a user
///
/// Somebody who signs in to the console with a password.
#[api_v2_operation(tags("identity"), operation_id = "user_create")]
async fn user_create(
    actor: Actor,
    users: Data<UserService>,
    once: Once,
    body: Body<UserCreate>,
) -> Result<Created<UserView>, ApiError> {
    let once = once_of(&actor, once);
    let (name, role, password) = body.0.parse()?;
    let done = users.user_create(&actor, name, role, password, once).await?;
    let location = format!("/auth/users/{}", done.value.id);
    let view = UserView::from(&done.value);
    Ok(Created::at(location, view).revision(done.value.revision).delivered(delivery(&done)))
}

/// List users
///
/// Newest first.
#[api_v2_operation(tags("identity"), operation_id = "user_list")]
async fn user_list(actor: Actor, users: Data<UserService>, query: Query<Paging>) -> Result<Listed<UserView>, ApiError> {
    let found = users.user_list(&actor, query.0.parse("-id")?).await?;
    Ok(Listed(found.map(|user| UserView::from(&user))))
}

/// Look at a user
///
/// Without their password.
#[api_v2_operation(tags("identity"), operation_id = "user_get")]
async fn user_get(actor: Actor, users: Data<UserService>, id: Id<UserId>) -> Result<Versioned<UserView>, ApiError> {
    let user = users.user_get(&actor, id.0).await?;
    Ok(Versioned::new(user.revision, UserView::from(&user)))
}

/// Change a user
///
/// A JSON merge patch. A new password, or locking out, ends their sessions.
#[api_v2_operation(tags("identity"), operation_id = "user_update")]
async fn user_update(
    actor: Actor,
    users: Data<UserService>,
    id: Id<UserId>,
    revision: IfMatch,
    body: Body<UserPatchBody>,
) -> Result<Versioned<UserView>, ApiError> {
    let user = users.user_update(&actor, id.0, revision.0, body.0.parse()?).await?;
    Ok(Versioned::new(user.revision, UserView::from(&user)))
}

/// Remove a user
///
/// Their sessions end. What they did stays in the audit log.
#[api_v2_operation(tags("identity"), operation_id = "user_delete")]
async fn user_delete(
    actor: Actor,
    users: Data<UserService>,
    id: Id<UserId>,
    revision: IfMatch,
) -> Result<NoContent, ApiError> {
    users.user_delete(&actor, id.0, revision.0).await?;
    Ok(NoContent)
}

fn session_cookie(secret: String, transport: CookieTransport) -> Cookie<'static> {
    Cookie::build(SESSION_COOKIE, secret)
        .http_only(true)
        .same_site(SameSite::Strict)
        .secure(transport == CookieTransport::Encrypted)
        .path("/")
        .max_age(Duration::hours(SESSION_HOURS))
        .finish()
}

//! A toy API that shows all of the plumbing: two resources, a stream, something public.

mod document;
mod requests;
mod wire;

use std::sync::Arc;

use actix_web::{
    App, HttpMessage,
    dev::Service,
    web::{Bytes, Data, resource},
};
use domain::{
    Error,
    ids::{PoolId, ServerId},
    page::{Cursor, Page, PageRequest},
    patch::Patch,
};
use paperclip::actix::{api_v2_operation, web};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    extract::{Body, Caller, Id, IfMatch, Once, OptionalBody, Query, patch},
    middleware::context::{MakeId, context},
    mount::{Api, not_found},
    openapi::{Blueprint, OperationNote},
    problem::ApiError,
    reply::{Created, Delivery, Listed, Media, NoContent, Reply, Streamed, Versioned},
};

/// Who asks.
struct Person;

#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Architecture {
    Arm64,
    Riscv64,
}

/// What a server has.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Limits {
    /// Cores.
    #[schemars(range(min = 0.0))]
    cpu: Option<f64>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ServerCreate {
    /// Unique.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z]"))]
    name: String,
    architecture: Option<Architecture>,
    limits: Option<Limits>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ServerPatch {
    #[serde(default, deserialize_with = "patch::read")]
    #[schemars(with = "Option<String>")]
    location: Patch<String>,
}

#[derive(Deserialize, JsonSchema)]
struct ServerListQuery {
    /// The most rows.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<i64>,
    cursor: Option<String>,
    architecture: Option<Architecture>,
    /// Repeats.
    #[serde(default)]
    tag: Vec<String>,
}

#[derive(Serialize, JsonSchema)]
struct ServerView {
    id: i64,
    location: Option<String>,
    architecture: Option<Architecture>,
    limits: Limits,
    tags: Vec<String>,
}

#[derive(Deserialize, JsonSchema, Default)]
#[serde(deny_unknown_fields)]
struct CordonOptions {
    reason: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct Health {
    status: &'static str,
}

struct Lines;

impl Media for Lines {
    const TYPES: &'static [&'static str] = &["text/csv", "application/x-ndjson"];
    const DESCRIPTION: &'static str = "Rows.";
}

fn view(id: i64, location: Option<String>) -> ServerView {
    ServerView { id, location, architecture: Some(Architecture::Arm64), limits: Limits { cpu: None }, tags: Vec::new() }
}

/// List servers
///
/// Newest first.
#[api_v2_operation(tags("fleet"), operation_id = "server_list")]
async fn server_list(_caller: Caller<Person>, query: Query<ServerListQuery>) -> Result<Listed<ServerView>, ApiError> {
    let page = PageRequest::parse(query.0.limit, query.0.cursor.as_deref(), "id")?;
    assert!(query.0.architecture.is_none_or(|architecture| architecture == Architecture::Riscv64));
    let rows =
        (0..=i64::from(page.limit)).map(|id| ServerView { tags: query.0.tag.clone(), ..view(id, None) }).collect();
    let cursor = |row: &ServerView| Cursor { sort: "id".to_owned(), key: String::new(), id: row.id };
    Ok(Listed(Page::cut(rows, page.limit, 5000, cursor)))
}

/// Register a server
///
/// It is offline at first.
#[api_v2_operation(tags("fleet"), operation_id = "server_create")]
async fn server_create(
    _caller: Caller<Person>,
    once: Once,
    body: Body<ServerCreate>,
) -> Result<Created<ServerView>, ApiError> {
    if body.0.name == "taken" {
        return Err(Error::conflict("name_taken", "there is a server of this name").into());
    }
    let location = once.into_key().map(|once| format!("{} {}", once.key, once.fingerprint[0]));
    let view = ServerView {
        architecture: body.0.architecture,
        limits: body.0.limits.unwrap_or(Limits { cpu: None }),
        ..view(7, location)
    };
    Ok(Created::at("/servers/7", view).revision(1).delivered(Delivery::Replayed))
}

/// Read a server
///
/// As it is now.
#[api_v2_operation(tags("fleet"), operation_id = "server_get")]
async fn server_get(_caller: Caller<Person>, id: Id<ServerId>) -> Result<Versioned<ServerView>, ApiError> {
    match id.0.0 {
        7 => Ok(Versioned::new(3, view(7, None))),
        501 => panic!("on purpose"),
        500 => Err(Error::internal("the cellar is flooded").into()),
        503 => Err(Error::unavailable("the agent is away", "no route").into()),
        other => Err(Error::not_found("server", other).into()),
    }
}

/// Change a server
///
/// Only what is mentioned changes.
#[api_v2_operation(tags("fleet"), operation_id = "server_patch")]
async fn server_patch(
    _caller: Caller<Person>,
    id: Id<ServerId>,
    revision: IfMatch,
    body: Body<ServerPatch>,
) -> Result<Versioned<ServerView>, ApiError> {
    if revision.0.is_some_and(|revision| revision != 3) {
        return Err(Error::Stale { what: format!("server {}", id.0), current: 3 }.into());
    }
    Ok(Versioned::new(4, view(id.0.0, body.0.location.apply(Some("cellar".to_owned())))))
}

/// Remove a server
///
/// For good.
#[api_v2_operation(tags("fleet"), operation_id = "server_delete")]
async fn server_delete(_caller: Caller<Person>, _id: Id<ServerId>, _revision: IfMatch) -> Result<NoContent, ApiError> {
    Ok(NoContent)
}

/// Cordon a pool
///
/// Nothing new is placed there.
#[api_v2_operation(tags("pools"), operation_id = "pool_cordon")]
async fn pool_cordon(
    _caller: Caller<Person>,
    id: Id<PoolId>,
    once: Once,
    body: OptionalBody<CordonOptions>,
) -> Result<Reply<ServerView>, ApiError> {
    let key = once.into_key().map(|once| once.key);
    Ok(Reply::new(view(id.0.0, body.0.reason.or(key))))
}

/// Export servers
///
/// As CSV.
#[api_v2_operation(tags("fleet"), operation_id = "server_export")]
async fn server_export(_caller: Caller<Person>) -> Result<Streamed<Lines>, ApiError> {
    let rows = futures_util::stream::iter([
        Ok::<_, std::io::Error>(Bytes::from_static(b"id\n")),
        Ok(Bytes::from_static(b"7\n")),
    ]);
    Ok(Streamed::new("text/csv", rows).saved_as("servers.csv"))
}

/// Tell whether it lives
///
/// Open to all.
#[api_v2_operation(tags("fleet"), operation_id = "health")]
async fn health(_uses: Data<()>) -> Result<Reply<Health>, ApiError> {
    Ok(Reply::new(Health { status: "ok" }))
}

fn routes(config: &mut web::ServiceConfig<'_>) {
    config
        .service(web::resource("/healthz").route(web::get().to(health)))
        .service(web::resource("/servers").route(web::get().to(server_list)).route(web::post().to(server_create)))
        .service(web::resource("/servers/export").route(web::get().to(server_export)))
        .service(
            web::resource("/servers/{id}")
                .route(web::get().to(server_get))
                .route(web::patch().to(server_patch))
                .route(web::delete().to(server_delete)),
        )
        .service(web::scope("/pools").service(web::resource("/{id}/cordon").route(web::post().to(pool_cordon))));
}

fn blueprint() -> Blueprint {
    let notes = |id: &str| match id {
        "health" => OperationNote { sentence: None, statuses: vec![401] },
        _ => OperationNote { sentence: Some("Needs the role operator.".to_owned()), statuses: Vec::new() },
    };
    Blueprint { routes, tags: vec![("fleet", "Servers."), ("pools", "Pools.")], handmade: Vec::new(), notes }
}

fn api() -> Api {
    Api::build(&blueprint(), &["/console"]).unwrap()
}

/// The application as the server would compose it; `X-Toy-Anonymous` leaves the caller out.
fn app(
    api: &Api,
) -> App<
    impl actix_web::dev::ServiceFactory<
        actix_web::dev::ServiceRequest,
        Config = (),
        Response = actix_web::dev::ServiceResponse<actix_web::body::BoxBody>,
        Error = actix_web::Error,
        InitError = (),
    > + use<>,
> {
    let make_id: MakeId = Arc::new(|| "made-1".to_owned());
    App::new()
        .app_data(Data::new(()))
        .configure(|config| api.configure(config))
        .service(resource("/console").get(async || "console"))
        .service(resource("/hidden").get(async || "hidden"))
        .default_service(not_found())
        .wrap(api.guard())
        .wrap_fn(|request, next| {
            if !request.headers().contains_key("x-toy-anonymous") {
                request.extensions_mut().insert(Arc::new(Person));
            }
            next.call(request)
        })
        .wrap(context(make_id))
}

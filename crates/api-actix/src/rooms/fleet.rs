//! Servers over HTTP.

mod agents;
mod bells;
mod dto;
mod enrollments;
mod maintenance;
mod operations;
mod orders;
mod relay;
mod wire;

use crate::{
    ApiError,
    extract::{Body, Id, IfMatch, Once, Query},
    reply::{Created, Joined, NoContent, Reply, Versioned},
    rooms::{Actor, delivery, once_of},
};
use actix_web::web::Data;
pub(super) use agents::handmade;
pub use bells::Bells;
pub use bells::Streams;
pub(crate) use bells::{Cause, Sent, Told};
use domain::{fleet::ServerService, ids::ServerId};
pub(crate) use dto::pair;
use dto::{ServerCreate, ServerListQuery, ServerPatchBody, ServerView};
pub(crate) use orders::Ordered;
pub use orders::Orders;
use paperclip::actix::{
    api_v2_operation,
    web::{self, ServiceConfig},
};

/// This room's routes.
pub fn routes(config: &mut ServiceConfig<'_>) {
    agents::routes(config);
    enrollments::routes(config);
    maintenance::routes(config);
    operations::routes(config);
    config
        .service(web::resource("/servers").route(web::get().to(server_list)).route(web::post().to(server_create)))
        .service(
            web::resource("/servers/{id}")
                .route(web::get().to(server_get))
                .route(web::patch().to(server_update))
                .route(web::delete().to(server_delete)),
        )
        .service(web::resource("/servers/{id}/cordon").route(web::post().to(server_cordon)))
        .service(web::resource("/servers/{id}/uncordon").route(web::post().to(server_uncordon)));
}

/// Register a server
///
/// A server that has no agent keeps the status that its operators give it.
#[api_v2_operation(tags("fleet"), operation_id = "server_create")]
async fn server_create(
    actor: Actor,
    fleet: Data<ServerService>,
    once: Once,
    body: Body<ServerCreate>,
) -> Result<Created<ServerView>, ApiError> {
    let once = once_of(&actor, once);
    let done = fleet.server_create(&actor, body.0.parse()?, once).await?;
    let (delivery, server) = (delivery(&done), done.value);
    let (location, revision) = (format!("/servers/{}", server.id), server.revision);
    Ok(Created::at(location, ServerView::from(server)).revision(revision).delivered(delivery))
}

/// List servers
///
/// Newest first, unless sorted otherwise. Every filter that is given must match.
#[api_v2_operation(tags("fleet"), operation_id = "server_list")]
async fn server_list(
    actor: Actor,
    fleet: Data<ServerService>,
    query: Query<ServerListQuery>,
) -> Result<Joined<ServerView>, ApiError> {
    let (filter, sort, page) = query.0.parse()?;
    let servers = fleet.server_list(&actor, filter, sort, page).await?;
    Ok(Joined::new(&servers, |server| server.shown(dto::text)))
}

/// Look at a server
///
/// What it has, what is reserved on it, and what its agent reported.
#[api_v2_operation(tags("fleet"), operation_id = "server_get")]
async fn server_get(
    actor: Actor,
    fleet: Data<ServerService>,
    id: Id<ServerId>,
) -> Result<Versioned<ServerView>, ApiError> {
    let server = fleet.server_get(&actor, id.0).await?;
    Ok(Versioned::new(server.revision, ServerView::from(server)))
}

/// Change a server
///
/// A JSON merge patch: what is left out stays, `null` clears. The pool is not changed here but by moving the server. The
/// status is not changed while a maintenance window of the server is in progress.
#[api_v2_operation(tags("fleet"), operation_id = "server_update")]
async fn server_update(
    actor: Actor,
    fleet: Data<ServerService>,
    id: Id<ServerId>,
    revision: IfMatch,
    body: Body<ServerPatchBody>,
) -> Result<Versioned<ServerView>, ApiError> {
    let server = fleet.server_update(&actor, id.0, revision.0, body.0.parse()?).await?;
    Ok(Versioned::new(server.revision, ServerView::from(server)))
}

/// Remove a server
///
/// Refused while something is reserved on it. Its maintenance windows go with it.
#[api_v2_operation(tags("fleet"), operation_id = "server_delete")]
async fn server_delete(
    actor: Actor,
    fleet: Data<ServerService>,
    id: Id<ServerId>,
    revision: IfMatch,
) -> Result<NoContent, ApiError> {
    fleet.server_delete(&actor, id.0, revision.0).await?;
    Ok(NoContent)
}

/// Cordon a server
///
/// No new work is placed on it; what runs there keeps running. Without effect if it is cordoned already.
#[api_v2_operation(tags("fleet"), operation_id = "server_cordon")]
async fn server_cordon(
    actor: Actor,
    fleet: Data<ServerService>,
    id: Id<ServerId>,
    once: Once,
) -> Result<Reply<ServerView>, ApiError> {
    let once = once_of(&actor, once);
    let done = fleet.server_cordon(&actor, id.0, once).await?;
    let delivery = delivery(&done);
    Ok(Reply::new(ServerView::from(done.value)).delivered(delivery))
}

/// Uncordon a server
///
/// New work may be placed on it again. Without effect if it is not cordoned.
#[api_v2_operation(tags("fleet"), operation_id = "server_uncordon")]
async fn server_uncordon(
    actor: Actor,
    fleet: Data<ServerService>,
    id: Id<ServerId>,
    once: Once,
) -> Result<Reply<ServerView>, ApiError> {
    let once = once_of(&actor, once);
    let done = fleet.server_uncordon(&actor, id.0, once).await?;
    let delivery = delivery(&done);
    Ok(Reply::new(ServerView::from(done.value)).delivered(delivery))
}

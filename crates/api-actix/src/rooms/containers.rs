//! Containers and images over HTTP.

mod create;
mod dto;
mod engines;
mod images;
mod live;
mod reports;

pub use engines::AskedEngines;
pub use live::Live;
pub(super) use live::handmade;

use crate::{
    ApiError,
    extract::{Body, Id, Once, PreferWait, Query},
    reply::{Listed, Reply, Settled},
    rooms::{Actor, delivery, once_of, settled, system::Changes},
};
use actix_web::web::Data;
use domain::{
    Error,
    change::Done,
    containers::{Container, ContainerAction, ContainerService, Insistence},
    fleet::operations::Operation,
    ids::ContainerId,
};
use dto::{ActedView, ActionBody, ContainerDeleteQuery, ContainerListQuery, ContainerView};
use paperclip::actix::{
    api_v2_operation,
    web::{self, ServiceConfig},
};
use std::time::Duration;

/// This room's routes.
pub fn routes(config: &mut ServiceConfig<'_>) {
    create::routes(config);
    images::routes(config);
    live::routes(config);
    reports::routes(config);
    config
        .service(
            web::resource("/api/containers")
                .route(web::get().to(container_list))
                .route(web::post().to(create::container_create)),
        )
        .service(
            web::resource("/api/containers/{id}")
                .route(web::get().to(container_get))
                .route(web::delete().to(container_delete)),
        )
        .service(web::resource("/api/containers/{id}/actions").route(web::post().to(container_act)));
}

/// List containers
///
/// What the engines of all servers have, StarLink's own and others', as their agents last reported it; newest first.
/// Every filter that is given must match.
#[api_v2_operation(tags("containers"), operation_id = "container_list")]
async fn container_list(
    actor: Actor,
    containers: Data<ContainerService>,
    query: Query<ContainerListQuery>,
) -> Result<Listed<ContainerView>, ApiError> {
    let (filter, page) = query.0.parse()?;
    let found = containers.container_list(&actor, filter, page).await?;
    Ok(Listed(found.map(ContainerView::from)))
}

/// Look at a container
///
/// As its agent last reported it, which `reported_at` tells the time of.
#[api_v2_operation(tags("containers"), operation_id = "container_get")]
async fn container_get(
    actor: Actor,
    containers: Data<ContainerService>,
    id: Id<ContainerId>,
) -> Result<Reply<ContainerView>, ApiError> {
    Ok(Reply::new(containers.container_get(&actor, id.0).await?.into()))
}

/// Do something to a container
///
/// Its agent is told to, which is answered with 202; with `Prefer: wait=20` the answer waits for the end. A container
/// that StarLink did not start needs `force` (409 `container_foreign`). One that runs a task is not started or removed
/// by hand (409 `container_of_task`).
#[api_v2_operation(tags("containers"), operation_id = "container_act")]
async fn container_act(
    actor: Actor,
    containers: Data<ContainerService>,
    changes: Data<Changes>,
    id: Id<ContainerId>,
    once: Once,
    prefer: PreferWait,
    body: Body<ActionBody>,
) -> Result<Settled<Reply<ActedView>, ActedView>, ApiError> {
    let (action, insistence) = body.0.parse()?;
    let once = once_of(&actor, once);
    act(&actor, &containers, &changes, Asked { id: id.0, action, insistence, wait: prefer.0 }, once).await
}

/// Remove a container
///
/// As the action `remove` does.
#[api_v2_operation(tags("containers"), operation_id = "container_delete")]
async fn container_delete(
    actor: Actor,
    containers: Data<ContainerService>,
    changes: Data<Changes>,
    id: Id<ContainerId>,
    prefer: PreferWait,
    query: Query<ContainerDeleteQuery>,
) -> Result<Settled<Reply<ActedView>, ActedView>, ApiError> {
    let (action, insistence) = query.0.parse();
    let asked = Asked { id: id.0, action, insistence, wait: prefer.0 };
    act(&actor, &containers, &changes, asked, None).await
}

/// What was asked for.
struct Asked {
    id: ContainerId,
    action: ContainerAction,
    insistence: Insistence,
    wait: Duration,
}

async fn act(
    actor: &Actor,
    containers: &ContainerService,
    changes: &Changes,
    asked: Asked,
    once: Option<domain::change::Once>,
) -> Result<Settled<Reply<ActedView>, ActedView>, ApiError> {
    // What happens after this moment wakes whoever waits.
    let changes = changes.0.clone();
    let Asked { id, action, insistence, wait } = asked;
    let mut done = containers.container_act(actor, id, action, insistence, once).await?;
    done.value = ended(containers, wait, changes, done.value).await?;
    let container = now(containers, id).await?;
    let view = ActedView::new(container, &done.value);
    Ok(settled_as(&done, view))
}

/// An operation once it has ended, or when there was no more patience.
async fn ended(
    containers: &ContainerService,
    wait: Duration,
    changes: tokio::sync::watch::Receiver<domain::audit::Head>,
    operation: Operation,
) -> Result<Operation, ApiError> {
    let id = operation.id;
    let look = async || Ok(containers.order_now(id).await?);
    settled(wait, changes, operation, |operation| operation.state.is_open(), look).await
}

fn settled_as<V>(done: &Done<Operation>, view: V) -> Settled<Reply<V>, V> {
    if done.value.state.is_open() {
        Settled::Underway(view)
    } else {
        Settled::Done(Reply::new(view).delivered(delivery(done)))
    }
}

async fn now(containers: &ContainerService, id: ContainerId) -> Result<Option<Container>, ApiError> {
    match containers.container_now(id).await {
        Err(Error::NotFound { .. }) => Ok(None),
        found => Ok(Some(found?)),
    }
}

//! Resource pools over HTTP.

mod dto;
mod quotas;
mod watermarks;

use crate::{
    ApiError,
    extract::{Body, Id, IfMatch, Once, Query},
    reply::{Created, Listed, NoContent, Versioned},
    rooms::{Actor, delivery, once_of},
};
use actix_web::web::Data;
use domain::{ids::PoolId, pools::PoolService};
use dto::{PoolCreate, PoolListQuery, PoolPatchBody, PoolView};
use paperclip::actix::{
    api_v2_operation,
    web::{self, ServiceConfig},
};

/// This room's routes.
pub fn routes(config: &mut ServiceConfig<'_>) {
    config.service(web::resource("/pools").route(web::get().to(pool_list)).route(web::post().to(pool_create))).service(
        web::resource("/pools/{id}")
            .route(web::get().to(pool_get))
            .route(web::patch().to(pool_update))
            .route(web::delete().to(pool_delete)),
    );
}

/// Make a pool
///
/// Servers join it when they are registered with its id.
#[api_v2_operation(tags("pools"), operation_id = "pool_create")]
async fn pool_create(
    actor: Actor,
    pools: Data<PoolService>,
    once: Once,
    body: Body<PoolCreate>,
) -> Result<Created<PoolView>, ApiError> {
    let once = once_of(&actor, once);
    let done = pools.pool_create(&actor, body.0.parse()?, once).await?;
    let (delivery, summary) = (delivery(&done), done.value);
    let location = format!("/pools/{}", summary.pool.id);
    Ok(Created::at(location, PoolView::from(&summary)).revision(summary.pool.revision).delivered(delivery))
}

/// List pools
///
/// Newest first, each with what its servers have and hold together.
#[api_v2_operation(tags("pools"), operation_id = "pool_list")]
async fn pool_list(
    actor: Actor,
    pools: Data<PoolService>,
    query: Query<PoolListQuery>,
) -> Result<Listed<PoolView>, ApiError> {
    let (filter, page) = query.0.parse()?;
    let found = pools.pool_list(&actor, filter, page).await?;
    Ok(Listed(found.map(|summary| PoolView::from(&summary))))
}

/// Look at a pool
///
/// With what its servers have and hold together.
#[api_v2_operation(tags("pools"), operation_id = "pool_get")]
async fn pool_get(actor: Actor, pools: Data<PoolService>, id: Id<PoolId>) -> Result<Versioned<PoolView>, ApiError> {
    let summary = pools.pool_get(&actor, id.0).await?;
    Ok(Versioned::new(summary.pool.revision, PoolView::from(&summary)))
}

/// Change a pool
///
/// A JSON merge patch: what is left out stays, `null` clears.
#[api_v2_operation(tags("pools"), operation_id = "pool_update")]
async fn pool_update(
    actor: Actor,
    pools: Data<PoolService>,
    id: Id<PoolId>,
    revision: IfMatch,
    body: Body<PoolPatchBody>,
) -> Result<Versioned<PoolView>, ApiError> {
    let summary = pools.pool_update(&actor, id.0, revision.0, body.0.parse()?).await?;
    Ok(Versioned::new(summary.pool.revision, PoolView::from(&summary)))
}

/// Remove a pool
///
/// Refused while it has servers.
#[api_v2_operation(tags("pools"), operation_id = "pool_delete")]
async fn pool_delete(
    actor: Actor,
    pools: Data<PoolService>,
    id: Id<PoolId>,
    revision: IfMatch,
) -> Result<NoContent, ApiError> {
    pools.pool_delete(&actor, id.0, revision.0).await?;
    Ok(NoContent)
}

//! Who is told of alerts, over HTTP.

mod bodies;
mod views;

use crate::{
    ApiError,
    extract::{Body, Id, IfMatch, Once, Query},
    reply::{Created, Listed, NoContent, Reply, Versioned},
    rooms::{Actor, dto::Paging, once_of},
};
use actix_web::web::Data;
use bodies::{TargetBody, TargetPatchBody};
use domain::{ids::TargetId, observability::alerts::TargetService};
use paperclip::actix::{
    api_v2_operation,
    web::{self, ServiceConfig},
};
pub(super) use views::DeliveryView;
use views::{TargetCreatedView, TargetView};

/// These routes.
pub(super) fn routes(config: &mut ServiceConfig<'_>) {
    config
        .service(
            web::resource("/alerts/targets")
                .route(web::get().to(alert_target_list))
                .route(web::post().to(alert_target_create)),
        )
        .service(
            web::resource("/alerts/targets/{id}")
                .route(web::get().to(alert_target_get))
                .route(web::patch().to(alert_target_update))
                .route(web::delete().to(alert_target_delete)),
        )
        .service(web::resource("/alerts/targets/{id}/test").route(web::post().to(alert_target_test)));
}

/// Make an alert target
///
/// Rules name it in `target_ids`. The `signing_key` of a webhook is in this answer and nowhere else: each message has the
/// header `X-StarLink-Signature: t=<unix time>,v1=<hex>`, the HMAC-SHA256 under that key of the time, a full stop and the
/// body. URLs and passwords are not shown again either.
#[api_v2_operation(tags("observability"), operation_id = "alert_target_create")]
async fn alert_target_create(
    actor: Actor,
    targets: Data<TargetService>,
    once: Once,
    body: Body<TargetBody>,
) -> Result<Created<TargetCreatedView>, ApiError> {
    let once = once_of(&actor, once);
    let (target, key) = targets.target_create(&actor, body.0.parse()?, once).await?;
    let (location, revision) = (format!("/alerts/targets/{}", target.id), target.revision);
    Ok(Created::at(location, TargetCreatedView::new(target, key.as_ref())).revision(revision))
}

/// List alert targets
///
/// Newest first, without what is secret of them.
#[api_v2_operation(tags("observability"), operation_id = "alert_target_list")]
async fn alert_target_list(
    actor: Actor,
    targets: Data<TargetService>,
    query: Query<Paging>,
) -> Result<Listed<TargetView>, ApiError> {
    let found = targets.target_list(&actor, query.0.parse("-id")?).await?;
    Ok(Listed(found.map(TargetView::from)))
}

/// Look at an alert target
///
/// Without what is secret of it.
#[api_v2_operation(tags("observability"), operation_id = "alert_target_get")]
async fn alert_target_get(
    actor: Actor,
    targets: Data<TargetService>,
    id: Id<TargetId>,
) -> Result<Versioned<TargetView>, ApiError> {
    let target = targets.target_get(&actor, id.0).await?;
    Ok(Versioned::new(target.revision, TargetView::from(target)))
}

/// Change an alert target
///
/// A JSON merge patch: what is left out stays, `null` clears. Its kind and its signing key stay. Whoever names another mail
/// server gives the password again. To one that is disabled nothing is sent, and what was on its way is given up.
#[api_v2_operation(tags("observability"), operation_id = "alert_target_update")]
async fn alert_target_update(
    actor: Actor,
    targets: Data<TargetService>,
    id: Id<TargetId>,
    revision: IfMatch,
    body: Body<TargetPatchBody>,
) -> Result<Versioned<TargetView>, ApiError> {
    let target = targets.target_update(&actor, id.0, revision.0, body.0.parse()?).await?;
    Ok(Versioned::new(target.revision, TargetView::from(target)))
}

/// Remove an alert target
///
/// One that a rule names cannot be removed.
#[api_v2_operation(tags("observability"), operation_id = "alert_target_delete")]
async fn alert_target_delete(
    actor: Actor,
    targets: Data<TargetService>,
    id: Id<TargetId>,
    revision: IfMatch,
) -> Result<NoContent, ApiError> {
    targets.target_delete(&actor, id.0, revision.0).await?;
    Ok(NoContent)
}

/// Send a test message
///
/// It is sent now and once, and the answer says what came of it.
#[api_v2_operation(tags("observability"), operation_id = "alert_target_test")]
async fn alert_target_test(
    actor: Actor,
    targets: Data<TargetService>,
    id: Id<TargetId>,
    once: Once,
) -> Result<Reply<DeliveryView>, ApiError> {
    let once = once_of(&actor, once);
    Ok(Reply::new(targets.target_test(&actor, id.0, once).await?.into()))
}

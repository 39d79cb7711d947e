//! Alerts and the rules that make them, over HTTP.

mod bodies;
mod patches;
mod views;
mod words;

use crate::{
    ApiError,
    extract::{Body, Id, IfMatch, Once, OptionalBody, Query},
    reply::{Created, Listed, NoContent, Reply, Versioned},
    rooms::{Actor, delivery, dto::Paging, once_of},
};
use actix_web::web::Data;
use bodies::{AcknowledgeBody, AlertListQuery, PreviewBody, RuleBody};
use domain::{
    ids::{AlertId, RuleId},
    observability::alerts::AlertService,
};
use paperclip::actix::{
    api_v2_operation,
    web::{self, ServiceConfig},
};
use patches::RulePatchBody;
pub(super) use views::AlertView;
use views::{AlertDetailView, PreviewView, RuleView};

/// These routes.
pub(super) fn routes(config: &mut ServiceConfig<'_>) {
    config
        .service(
            web::resource("/alerts/rules")
                .route(web::get().to(alert_rule_list))
                .route(web::post().to(alert_rule_create)),
        )
        .service(web::resource("/alerts/rules/preview").route(web::post().to(alert_rule_preview)))
        .service(
            web::resource("/alerts/rules/{id}")
                .route(web::get().to(alert_rule_get))
                .route(web::patch().to(alert_rule_update))
                .route(web::delete().to(alert_rule_delete)),
        )
        .service(web::resource("/alerts").route(web::get().to(alert_list)))
        .service(web::resource("/alerts/{id}").route(web::get().to(alert_get)))
        .service(web::resource("/alerts/{id}/acknowledge").route(web::post().to(alert_acknowledge)));
}

/// Make an alert rule
///
/// It makes an alert of each server or pool on which its condition holds for long enough. How long that is is told by the
/// times of samples; where nothing is measured, nothing changes. Between `clear_threshold` and `threshold` nothing changes
/// either, so that what hovers there does not flap.
#[api_v2_operation(tags("observability"), operation_id = "alert_rule_create")]
async fn alert_rule_create(
    actor: Actor,
    alerts: Data<AlertService>,
    once: Once,
    body: Body<RuleBody>,
) -> Result<Created<RuleView>, ApiError> {
    let once = once_of(&actor, once);
    let done = alerts.rule_create(&actor, body.0.parse()?, once).await?;
    let (delivery, rule) = (delivery(&done), done.value);
    let (location, revision) = (format!("/alerts/rules/{}", rule.id), rule.revision);
    Ok(Created::at(location, RuleView::from(rule)).revision(revision).delivered(delivery))
}

/// List alert rules
///
/// Newest first. Some are there from the start; they can be changed and removed like all others.
#[api_v2_operation(tags("observability"), operation_id = "alert_rule_list")]
async fn alert_rule_list(
    actor: Actor,
    alerts: Data<AlertService>,
    query: Query<Paging>,
) -> Result<Listed<RuleView>, ApiError> {
    let found = alerts.rule_list(&actor, query.0.parse("-id")?).await?;
    Ok(Listed(found.map(RuleView::from)))
}

/// Look at an alert rule
///
/// What it looks for, of whom, and who is told.
#[api_v2_operation(tags("observability"), operation_id = "alert_rule_get")]
async fn alert_rule_get(
    actor: Actor,
    alerts: Data<AlertService>,
    id: Id<RuleId>,
) -> Result<Versioned<RuleView>, ApiError> {
    let rule = alerts.rule_get(&actor, id.0).await?;
    Ok(Versioned::new(rule.revision, RuleView::from(rule)))
}

/// Change an alert rule
///
/// A JSON merge patch: what is left out stays, `null` clears. Another `kind` of condition begins with nothing, and so do
/// `quiet_hours` and `target_ids`, which are replaced as a whole. What fires ends if the rule is disabled, or looks for
/// something else from now on; with other numbers alone it goes on, and is judged by them.
#[api_v2_operation(tags("observability"), operation_id = "alert_rule_update")]
async fn alert_rule_update(
    actor: Actor,
    alerts: Data<AlertService>,
    id: Id<RuleId>,
    revision: IfMatch,
    body: Body<RulePatchBody>,
) -> Result<Versioned<RuleView>, ApiError> {
    let rule = alerts.rule_update(&actor, id.0, revision.0, body.0.parse()?).await?;
    Ok(Versioned::new(rule.revision, RuleView::from(rule)))
}

/// Remove an alert rule
///
/// Its alerts end with it, and stay in the list.
#[api_v2_operation(tags("observability"), operation_id = "alert_rule_delete")]
async fn alert_rule_delete(
    actor: Actor,
    alerts: Data<AlertService>,
    id: Id<RuleId>,
    revision: IfMatch,
) -> Result<NoContent, ApiError> {
    alerts.rule_delete(&actor, id.0, revision.0).await?;
    Ok(NoContent)
}

/// Try out an alert rule
///
/// What it would have done in the last days, by the samples that are stored: on which servers it would have fired, and
/// when. It is judged as a rule in force is, and what was measured in maintenance is left out. Nothing is written. Of
/// other conditions than metrics no past is stored.
#[api_v2_operation(tags("observability"), operation_id = "alert_rule_preview")]
async fn alert_rule_preview(
    actor: Actor,
    alerts: Data<AlertService>,
    body: Body<PreviewBody>,
) -> Result<Reply<PreviewView>, ApiError> {
    let (rule, days) = body.0.parse()?;
    let previews = alerts.rule_preview(&actor, rule, days).await?;
    Ok(Reply::new(PreviewView::new(days, previews)))
}

/// List alerts
///
/// Newest first, also those that have ended. Every filter that is given must match.
#[api_v2_operation(tags("observability"), operation_id = "alert_list")]
async fn alert_list(
    actor: Actor,
    alerts: Data<AlertService>,
    query: Query<AlertListQuery>,
) -> Result<Listed<AlertView>, ApiError> {
    let (filter, page) = query.0.parse()?;
    let found = alerts.alert_list(&actor, filter, page).await?;
    Ok(Listed(found.map(AlertView::from)))
}

/// Look at an alert
///
/// With what happened to it and what its targets were told, oldest first.
#[api_v2_operation(tags("observability"), operation_id = "alert_get")]
async fn alert_get(
    actor: Actor,
    alerts: Data<AlertService>,
    id: Id<AlertId>,
) -> Result<Versioned<AlertDetailView>, ApiError> {
    let story = alerts.alert_get(&actor, id.0).await?;
    Ok(Versioned::new(story.seen.alert.revision, AlertDetailView::from(story)))
}

/// Acknowledge an alert
///
/// Says that somebody is on it. It fires on until what it is about is over; an alert that fires in quiet hours is not told
/// to its targets afterwards if somebody is on it by then.
#[api_v2_operation(tags("observability"), operation_id = "alert_acknowledge")]
async fn alert_acknowledge(
    actor: Actor,
    alerts: Data<AlertService>,
    id: Id<AlertId>,
    once: Once,
    body: OptionalBody<AcknowledgeBody>,
) -> Result<Versioned<AlertView>, ApiError> {
    let once = once_of(&actor, once);
    let done = alerts.alert_acknowledge(&actor, id.0, body.0.parse()?, once).await?;
    let (delivery, seen) = (delivery(&done), done.value);
    Ok(Versioned::new(seen.alert.revision, AlertView::from(seen)).delivered(delivery))
}

//! Maintenance windows over HTTP.

use crate::{
    ApiError,
    extract::{Body, Id, IfMatch, Once, Query, patch},
    reply::{Created, Listed, Versioned},
    rooms::{Actor, delivery, dto, once_of},
};
use actix_web::web::Data;
use domain::{
    Error, Result,
    clock::Timestamp,
    error::Checks,
    fleet::{
        MAX_DURATION_MINUTES, MaintenanceService, NewWindow, Window, WindowFilter, WindowPatch, WindowStatus,
        parse_duration_minutes,
    },
    ids::{ServerId, WindowId},
    page::PageRequest,
    patch::Patch,
    text::{self, Name},
};
use paperclip::actix::{
    api_v2_operation,
    web::{self, ServiceConfig},
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// The most servers that a list is filtered by.
const MOST_SERVERS: usize = 1000;

/// These routes.
pub(super) fn routes(config: &mut ServiceConfig<'_>) {
    config
        .service(web::resource("/servers/{id}/maintenance").route(web::post().to(maintenance_create)))
        .service(web::resource("/maintenance").route(web::get().to(maintenance_list)))
        .service(
            web::resource("/maintenance/{id}")
                .route(web::get().to(maintenance_get))
                .route(web::patch().to(maintenance_update)),
        );
}

fn words() -> Vec<&'static str> {
    WindowStatus::ALL.iter().map(|status| status.as_str()).collect()
}

fn status(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": words() })
}

fn optional_status(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["string", "null"], "enum": words() })
}

fn duration(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "format": "int64", "minimum": 1, "maximum": MAX_DURATION_MINUTES })
}

fn paragraph(text: String) -> Result<String, String> {
    text::paragraph(text, dto::MAX_DESCRIPTION)
}

/// A maintenance window to be planned.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct MaintenanceCreate {
    /// What it is for, in a line.
    #[schemars(schema_with = "dto::name")]
    title: String,
    /// What else is to be known.
    #[serde(default)]
    #[schemars(schema_with = "dto::description")]
    description: Option<String>,
    /// When it is to begin; at once, if that is past.
    scheduled_for: Timestamp,
    /// How long it is to last.
    #[schemars(schema_with = "duration")]
    duration_minutes: i64,
}

impl MaintenanceCreate {
    fn parse(self) -> Result<NewWindow> {
        let mut checks = Checks::default();
        let title = checks.take("title", Name::parse(self.title));
        let description = self.description.and_then(|text| checks.take("description", paragraph(text)));
        let scheduled_for = checks.take("scheduled_for", dto::moment(self.scheduled_for));
        let minutes = checks.take("duration_minutes", parse_duration_minutes(self.duration_minutes));
        checks.finish()?;
        let complete = title.zip(scheduled_for).zip(minutes);
        let ((title, scheduled_for), duration_minutes) =
            complete.ok_or_else(|| Error::internal("a checked window is incomplete"))?;
        Ok(NewWindow { title, description, scheduled_for, duration_minutes })
    }
}

/// A merge patch of a maintenance window.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "MaintenancePatch")]
struct MaintenancePatchBody {
    /// Another title.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(schema_with = "dto::name")]
    title: Patch<String>,
    /// Another description.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(schema_with = "dto::description")]
    description: Patch<String>,
    /// Another time, as long as it has not begun.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(with = "Timestamp")]
    scheduled_for: Patch<Timestamp>,
    /// Another duration, as long as it has not ended.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(schema_with = "duration")]
    duration_minutes: Patch<i64>,
    /// `cancelled` calls it off, `completed` ends it while it is in progress.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(schema_with = "status")]
    status: Patch<WindowStatus>,
}

impl MaintenancePatchBody {
    fn parse(self) -> Result<WindowPatch> {
        let mut checks = Checks::default();
        let patch = WindowPatch {
            title: dto::replaced(&mut checks, "title", self.title, Name::parse),
            description: dto::patched(&mut checks, "description", self.description, paragraph),
            scheduled_for: dto::replaced(&mut checks, "scheduled_for", self.scheduled_for, dto::moment),
            duration_minutes: dto::replaced(
                &mut checks,
                "duration_minutes",
                self.duration_minutes,
                parse_duration_minutes,
            ),
            status: dto::replaced(&mut checks, "status", self.status, Ok),
        };
        checks.finish()?;
        Ok(patch)
    }
}

/// Filters of the list of maintenance windows.
#[derive(Debug, Deserialize, JsonSchema)]
struct MaintenanceListQuery {
    /// Of this server; repeated, of one of these.
    #[serde(default)]
    #[schemars(length(max = MOST_SERVERS), inner(range(min = 1)))]
    server_id: Vec<i64>,
    /// In this status.
    #[serde(default)]
    #[schemars(schema_with = "optional_status")]
    status: Option<WindowStatus>,
    /// `true`: only those that are still to come or in progress.
    upcoming_only: Option<bool>,
    /// The most rows; 100 if left out.
    #[serde(default)]
    #[schemars(schema_with = "dto::limit")]
    limit: Option<i64>,
    /// Where to go on, from the `Link` header of the page before.
    cursor: Option<String>,
}

impl MaintenanceListQuery {
    fn parse(self) -> Result<(WindowFilter, PageRequest)> {
        let mut checks = Checks::default();
        if self.server_id.len() > MOST_SERVERS {
            checks.note("server_id", format!("must not be repeated more than {MOST_SERVERS} times"));
        }
        let ids = self.server_id.into_iter().filter_map(|id| dto::reference(&mut checks, "server_id", Some(id)));
        let servers = ids.map(ServerId).collect();
        checks.finish()?;
        let upcoming_only = self.upcoming_only.unwrap_or_default();
        let filter = WindowFilter { servers, status: self.status, upcoming_only };
        Ok((filter, PageRequest::parse(self.limit, self.cursor.as_deref(), "-id")?))
    }
}

/// A maintenance window.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Maintenance")]
struct MaintenanceView {
    id: i64,
    server_id: i64,
    title: String,
    description: Option<String>,
    scheduled_for: Timestamp,
    duration_minutes: u32,
    #[schemars(schema_with = "status")]
    status: &'static str,
    /// When it took its server out of use; `null` if it has not, or never did.
    started_at: Option<Timestamp>,
    /// When it let go of its server.
    ended_at: Option<Timestamp>,
    /// What else is to be known of how it went, such as that it was missed.
    note: Option<&'static str>,
    revision: i64,
    created_by: String,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<Window> for MaintenanceView {
    fn from(window: Window) -> Self {
        let note = window.note();
        Self {
            id: window.id.0,
            server_id: window.server_id.0,
            title: window.title.as_str().to_owned(),
            description: window.description,
            scheduled_for: window.scheduled_for,
            duration_minutes: window.duration_minutes,
            status: window.status.as_str(),
            started_at: window.started_at,
            ended_at: window.ended_at,
            note,
            revision: window.revision,
            created_by: window.created_by,
            created_at: window.created_at,
            updated_at: window.updated_at,
        }
    }
}

/// Plan a maintenance window
///
/// It begins and ends by itself. While it is in progress the server's status is `maintenance` and no new work is placed
/// on it; what runs there keeps running. If its time has come already, it begins at once; if that is over, it is refused.
#[api_v2_operation(tags("fleet"), operation_id = "maintenance_create")]
async fn maintenance_create(
    actor: Actor,
    maintenance: Data<MaintenanceService>,
    id: Id<ServerId>,
    once: Once,
    body: Body<MaintenanceCreate>,
) -> Result<Created<MaintenanceView>, ApiError> {
    let once = once_of(&actor, once);
    let done = maintenance.maintenance_create(&actor, id.0, body.0.parse()?, once).await?;
    let (delivery, window) = (delivery(&done), done.value);
    let (location, revision) = (format!("/maintenance/{}", window.id), window.revision);
    Ok(Created::at(location, MaintenanceView::from(window)).revision(revision).delivered(delivery))
}

/// List maintenance windows
///
/// Newest first, of all servers, also those that have ended. Every filter that is given must match.
#[api_v2_operation(tags("fleet"), operation_id = "maintenance_list")]
async fn maintenance_list(
    actor: Actor,
    maintenance: Data<MaintenanceService>,
    query: Query<MaintenanceListQuery>,
) -> Result<Listed<MaintenanceView>, ApiError> {
    let (filter, page) = query.0.parse()?;
    let found = maintenance.maintenance_list(&actor, filter, page).await?;
    Ok(Listed(found.map(MaintenanceView::from)))
}

/// Look at a maintenance window
///
/// When it was to begin and to end, and when it did.
#[api_v2_operation(tags("fleet"), operation_id = "maintenance_get")]
async fn maintenance_get(
    actor: Actor,
    maintenance: Data<MaintenanceService>,
    id: Id<WindowId>,
) -> Result<Versioned<MaintenanceView>, ApiError> {
    let window = maintenance.maintenance_get(&actor, id.0).await?;
    Ok(Versioned::new(window.revision, MaintenanceView::from(window)))
}

/// Change a maintenance window
///
/// A JSON merge patch: what is left out stays, `null` clears. Its start can be moved until it has begun, its duration
/// changed until it has ended, title and description always. `"status": "cancelled"` calls it off, before or while it is
/// in progress; `"status": "completed"` ends it while it is in progress. Other changes of the status are its own.
#[api_v2_operation(tags("fleet"), operation_id = "maintenance_update")]
async fn maintenance_update(
    actor: Actor,
    maintenance: Data<MaintenanceService>,
    id: Id<WindowId>,
    revision: IfMatch,
    body: Body<MaintenancePatchBody>,
) -> Result<Versioned<MaintenanceView>, ApiError> {
    let window = maintenance.maintenance_update(&actor, id.0, revision.0, body.0.parse()?).await?;
    Ok(Versioned::new(window.revision, MaintenanceView::from(window)))
}

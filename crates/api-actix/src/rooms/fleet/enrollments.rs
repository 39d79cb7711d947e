//! Join tokens over HTTP.

use crate::{
    ApiError,
    extract::{Body, Id, Once, Query},
    reply::{Created, Listed, NoContent, Reply},
    rooms::{Actor, dto, once_of},
};
use actix_web::{HttpRequest, web::Data};
use domain::{
    Result,
    clock::Timestamp,
    error::Checks,
    fleet::{Enrollment, EnrollmentRequest, EnrollmentService, MAX_USES},
    identity::Secret,
    ids::{EnrollmentId, PoolId},
    page::PageRequest,
    text::Name,
};
use paperclip::actix::{
    api_v2_operation,
    web::{self, ServiceConfig},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// These routes.
pub(super) fn routes(config: &mut ServiceConfig<'_>) {
    config
        .service(
            web::resource("/enrollments")
                .route(web::get().to(enrollment_list))
                .route(web::post().to(enrollment_create)),
        )
        .service(
            web::resource("/enrollments/{id}")
                .route(web::get().to(enrollment_get))
                .route(web::delete().to(enrollment_delete)),
        );
}

/// A join token to be made.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct EnrollmentCreate {
    /// What it is for.
    #[schemars(schema_with = "dto::name")]
    name: String,
    /// The pool that servers join.
    #[schemars(range(min = 1))]
    pool_id: Option<i64>,
    /// The tags that servers get.
    #[serde(default)]
    #[schemars(schema_with = "dto::tags")]
    tags: Option<BTreeMap<String, String>>,
    /// How many servers may join with it; one if left out.
    #[schemars(range(min = 1, max = MAX_USES))]
    max_uses: Option<u32>,
    /// When it stops working; after a day if left out.
    expires_at: Option<Timestamp>,
}

impl EnrollmentCreate {
    fn parse(self) -> Result<EnrollmentRequest> {
        let mut checks = Checks::default();
        let name = checks.take("name", Name::parse(self.name));
        let pool_id = dto::reference(&mut checks, "pool_id", self.pool_id).map(PoolId);
        let tags = checks.take("tags", domain::text::Tags::parse(self.tags.unwrap_or_default()));
        checks.finish()?;
        let (Some(name), Some(tags)) = (name, tags) else { return Err(domain::Error::internal("checked above")) };
        Ok(EnrollmentRequest { name, pool_id, tags, max_uses: self.max_uses.unwrap_or(1), expires_at: self.expires_at })
    }
}

/// A join token, without its secret.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Enrollment")]
struct EnrollmentView {
    id: i64,
    name: String,
    pool_id: Option<i64>,
    tags: BTreeMap<String, String>,
    max_uses: u32,
    /// How many servers have joined with it.
    uses: u32,
    expires_at: Timestamp,
    created_by: String,
    created_at: Timestamp,
}

impl From<Enrollment> for EnrollmentView {
    fn from(enrollment: Enrollment) -> Self {
        Self {
            id: enrollment.id.0,
            name: enrollment.name.as_str().to_owned(),
            pool_id: enrollment.pool_id.map(|pool| pool.0),
            tags: enrollment.tags.into_map(),
            max_uses: enrollment.max_uses,
            uses: enrollment.uses,
            expires_at: enrollment.expires_at,
            created_by: enrollment.created_by,
            created_at: enrollment.created_at,
        }
    }
}

/// A new join token.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "EnrollmentCreated")]
struct CreatedView {
    #[serde(flatten)]
    enrollment: EnrollmentView,
    /// The join token itself; it is shown here and nowhere else.
    token: String,
    /// What to run on a machine, as root, to have it join.
    command: String,
}

/// Make a join token
///
/// Whoever has it makes a machine a server of the fleet: run the `command` of the answer there. The token is shown once.
#[api_v2_operation(tags("fleet"), operation_id = "enrollment_create")]
async fn enrollment_create(
    request: HttpRequest,
    actor: Actor,
    enrollments: Data<EnrollmentService>,
    once: Once,
    body: Body<EnrollmentCreate>,
) -> Result<Created<CreatedView>, ApiError> {
    let once = once_of(&actor, once);
    let (enrollment, secret) = enrollments.enrollment_create(&actor, body.0.parse()?, once).await?;
    let location = format!("/enrollments/{}", enrollment.id);
    let command = command(&request, &secret);
    let view = CreatedView { enrollment: enrollment.into(), token: secret.expose().to_owned(), command };
    Ok(Created::at(location, view))
}

/// In the environment a secret is not shown to every user of the machine, as an argument would be.
fn command(request: &HttpRequest, secret: &Secret) -> String {
    let seen = request.connection_info();
    let host: String = seen.host().chars().filter(|c| c.is_ascii_alphanumeric() || ".:-[]".contains(*c)).collect();
    let scheme = if seen.scheme() == "https" { "https" } else { "http" };
    format!("STARLINK_JOIN_TOKEN={} starlink-agent join --server {scheme}://{host}", secret.expose())
}

/// Which part of the list.
#[derive(Debug, Deserialize, JsonSchema)]
struct EnrollmentListQuery {
    /// The most rows; 100 if left out.
    #[serde(default)]
    #[schemars(schema_with = "dto::limit")]
    limit: Option<i64>,
    /// Where to go on, from the `Link` header of the page before.
    cursor: Option<String>,
}

/// List join tokens
///
/// Newest first, also those that are used up or have expired.
#[api_v2_operation(tags("fleet"), operation_id = "enrollment_list")]
async fn enrollment_list(
    actor: Actor,
    enrollments: Data<EnrollmentService>,
    query: Query<EnrollmentListQuery>,
) -> Result<Listed<EnrollmentView>, ApiError> {
    let page = PageRequest::parse(query.0.limit, query.0.cursor.as_deref(), "-id")?;
    let found = enrollments.enrollment_list(&actor, page).await?;
    Ok(Listed(found.map(EnrollmentView::from)))
}

/// Look at a join token
///
/// Its secret is not shown any more.
#[api_v2_operation(tags("fleet"), operation_id = "enrollment_get")]
async fn enrollment_get(
    actor: Actor,
    enrollments: Data<EnrollmentService>,
    id: Id<EnrollmentId>,
) -> Result<Reply<EnrollmentView>, ApiError> {
    Ok(Reply::new(enrollments.enrollment_get(&actor, id.0).await?.into()))
}

/// Revoke a join token
///
/// Nobody joins with it any more. Servers that have stay.
#[api_v2_operation(tags("fleet"), operation_id = "enrollment_delete")]
async fn enrollment_delete(
    actor: Actor,
    enrollments: Data<EnrollmentService>,
    id: Id<EnrollmentId>,
) -> Result<NoContent, ApiError> {
    enrollments.enrollment_delete(&actor, id.0).await?;
    Ok(NoContent)
}

//! The images that engines have.

use super::{
    dto::{self, DeedView},
    ended, settled_as,
};
use crate::{
    ApiError,
    extract::{Body, Once, PreferWait, Query},
    reply::{Reply, Settled},
    rooms::{Actor, once_of, system::Changes},
};
use actix_web::web::Data;
use chrono::TimeDelta;
use domain::{
    Error, Result,
    change::Done,
    clock::Timestamp,
    containers::{
        ContainerService, EngineId, ImageName, Platform, PrunePlan, PruneRequest, PruneScope,
        wire::{ImagePull, ListedImage},
    },
    error::Checks,
    fleet::{
        operations::Operation,
        protocol::{KeptImage, Outcome},
    },
    ids::ServerId,
    text,
};
use paperclip::actix::{
    api_v2_operation,
    web::{self, ServiceConfig},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The longest age by which images are chosen, in hours: ten years.
const MOST_HOURS: u32 = 87_600;
/// The longest plan token.
const MOST_TOKEN: usize = 128;

/// These routes.
pub(super) fn routes(config: &mut ServiceConfig<'_>) {
    config
        .service(web::resource("/api/images").route(web::get().to(image_list)))
        .service(web::resource("/api/images/pull").route(web::post().to(image_pull)))
        .service(web::resource("/api/images/prune").route(web::post().to(image_prune)));
}

/// Whose images.
#[derive(Debug, Deserialize, JsonSchema)]
struct ImageListQuery {
    /// The server; it must be given.
    #[schemars(range(min = 1))]
    host: Option<i64>,
}

/// An image that a server's engine has.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Image")]
struct ImageView {
    /// The engine's id of it.
    id: String,
    /// Its names; none, if it has lost them to a newer one.
    names: Vec<String>,
    /// The names with digests by which registries have it.
    digests: Vec<String>,
    /// What it was built for, such as `linux/arm64/v8`; `null` if it does not say.
    platform: Option<String>,
    /// How much it takes on the disk, layers that it shares with others included.
    size_bytes: u64,
    created_at: Option<Timestamp>,
    /// The engine's ids of the containers that were made from it, whether they run or not.
    used_by: Vec<String>,
}

impl From<ListedImage> for ImageView {
    fn from(image: ListedImage) -> Self {
        Self {
            id: image.id,
            names: image.names,
            digests: image.digests,
            platform: image.platform.as_ref().map(Platform::to_string),
            size_bytes: image.size_bytes,
            created_at: image.created_at,
            used_by: image.used_by.into_iter().map(EngineId::into).collect(),
        }
    }
}

/// List images
///
/// What the engine of a server has at this moment, with what uses it: its agent is asked.
#[api_v2_operation(tags("containers"), operation_id = "image_list")]
async fn image_list(
    actor: Actor,
    containers: Data<ContainerService>,
    query: Query<ImageListQuery>,
) -> Result<Reply<Vec<ImageView>>, ApiError> {
    let found = containers.image_list(&actor, query.0.host.map(dto::host).transpose()?).await?;
    Ok(Reply::new(found.into_iter().map(ImageView::from).collect()))
}

/// An image to be pulled.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ImagePull")]
struct PullBody {
    /// The server.
    #[schemars(range(min = 1))]
    host: i64,
    /// The image, such as `nginx:1.27` or `registry.example.com/team/web@sha256:…`.
    #[schemars(length(min = 1, max = 512))]
    image: String,
}

impl PullBody {
    fn parse(self) -> Result<(ServerId, ImagePull)> {
        let name = ImageName::parse(&self.image).map_err(|reason| Error::invalid("image", reason))?;
        Ok((dto::host(self.host)?, ImagePull { name }))
    }
}

/// What is done to a server's images.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ImagesActed")]
struct ImagesView {
    /// What its agent was told to do.
    operation: DeedView,
    /// What it is at, until it has ended.
    progress: Option<String>,
    /// The engine's id of the image that was pulled.
    image_id: Option<String>,
    /// The digest by which its registry has it.
    digest: Option<String>,
    /// The engine's ids of images that were removed.
    removed: Option<Vec<String>>,
    /// Images that are still there, and why.
    kept: Option<Vec<KeptView>>,
    /// How much the disk gained.
    freed_bytes: Option<u64>,
}

/// An image that was not removed.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "KeptImage")]
struct KeptView {
    image_id: String,
    /// In the engine's words.
    reason: String,
}

impl From<KeptImage> for KeptView {
    fn from(kept: KeptImage) -> Self {
        Self { image_id: kept.image_id, reason: kept.reason }
    }
}

impl From<&Operation> for ImagesView {
    fn from(operation: &Operation) -> Self {
        let progress = operation.progress.clone();
        let none = Self {
            operation: operation.into(),
            progress,
            image_id: None,
            digest: None,
            removed: None,
            kept: None,
            freed_bytes: None,
        };
        match operation.result.as_ref().and_then(|end| end.outcome.as_deref().cloned()) {
            Some(Outcome::Pulled { image_id, digest }) => Self { image_id: Some(image_id), digest, ..none },
            Some(Outcome::Pruned { removed, kept, freed_bytes }) => Self {
                removed: Some(removed),
                kept: Some(kept.into_iter().map(KeptView::from).collect()),
                freed_bytes: Some(freed_bytes),
                ..none
            },
            Some(Outcome::Unknown) | None => none,
        }
    }
}

/// Pull an image
///
/// A server's engine pulls it for its own platform, which is answered with 202; `GET /operations/{id}` tells how far it
/// is.
#[api_v2_operation(tags("containers"), operation_id = "image_pull")]
async fn image_pull(
    actor: Actor,
    containers: Data<ContainerService>,
    changes: Data<Changes>,
    once: Once,
    prefer: PreferWait,
    body: Body<PullBody>,
) -> Result<Settled<Reply<ImagesView>, ImagesView>, ApiError> {
    let once = once_of(&actor, once);
    // What happens after this moment wakes whoever waits.
    let changes = changes.0.clone();
    let (server, pull) = body.0.parse()?;
    let done = containers.image_pull(&actor, server, pull, once).await?;
    let operation = ended(&containers, prefer.0, changes, done.value).await?;
    let view = ImagesView::from(&operation);
    Ok(settled_as(&Done { value: operation, replayed: done.replayed }, view))
}

/// Which images are to be removed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ImagePrune")]
struct PruneBody {
    /// The server.
    #[schemars(range(min = 1))]
    host: i64,
    /// `true`: everything that no container was made from; otherwise only what has no name any more.
    #[serde(default)]
    unused: Option<bool>,
    /// Only what was built at least so many hours ago.
    #[serde(default)]
    #[schemars(range(min = 0, max = MOST_HOURS))]
    older_than_hours: Option<u32>,
    /// Whether only to say what would be removed; nothing is then.
    #[serde(default)]
    dry_run: Option<bool>,
    /// The token of a dry run: what is removed is what that said, or nothing (409 `plan_stale`).
    #[serde(default)]
    #[schemars(length(max = MOST_TOKEN))]
    plan_token: Option<String>,
}

impl PruneBody {
    fn parse(&self) -> Result<PruneRequest> {
        let server = dto::host(self.host)?;
        let mut checks = Checks::default();
        if self.older_than_hours.is_some_and(|hours| hours > MOST_HOURS) {
            checks.note("older_than_hours", format!("must be from 0 to {MOST_HOURS}"));
        }
        if let Some(token) = &self.plan_token {
            checks.take("plan_token", text::line(token.clone(), MOST_TOKEN));
        }
        if self.dry_run == Some(true) && self.plan_token.is_some() {
            checks.note("plan_token", "belongs to the call that removes, not to a dry run");
        }
        checks.finish()?;
        let scope = if self.unused.unwrap_or(false) { PruneScope::Unused } else { PruneScope::Dangling };
        let older_than = self.older_than_hours.map(|hours| TimeDelta::hours(hours.into()));
        Ok(PruneRequest { server, scope, older_than })
    }
}

/// What is removed, or would be.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ImagesPruned")]
struct PrunedView {
    /// Of a dry run: what would be removed now, the biggest first.
    plan: Option<PlanView>,
    /// What the agent was told to do, and what came of it; `null` for a dry run.
    done: Option<ImagesView>,
}

/// Images that would be removed.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ImagePrunePlan")]
struct PlanView {
    remove: Vec<ImageView>,
    /// How many images stay.
    kept: usize,
    /// The most that the disk gains: layers that images share with others stay.
    frees_at_most_bytes: u64,
    /// Makes the real call remove just these.
    plan_token: String,
}

impl PlanView {
    fn new(plan: PrunePlan, plan_token: String) -> Self {
        Self {
            remove: plan.remove.into_iter().map(ImageView::from).collect(),
            kept: plan.kept,
            frees_at_most_bytes: plan.frees_at_most_bytes,
            plan_token,
        }
    }
}

/// Remove images
///
/// Those that no container was made from. A dry run says which ones they are. What is used by the time it is removed
/// stays, and is told.
#[api_v2_operation(tags("containers"), operation_id = "image_prune")]
async fn image_prune(
    actor: Actor,
    containers: Data<ContainerService>,
    changes: Data<Changes>,
    once: Once,
    prefer: PreferWait,
    body: Body<PruneBody>,
) -> Result<Settled<Reply<PrunedView>, PrunedView>, ApiError> {
    let once = once_of(&actor, once);
    let changes = changes.0.clone();
    let request = body.0.parse()?;
    if body.0.dry_run.unwrap_or(false) {
        let (plan, token) = containers.image_prune_plan(&actor, request).await?;
        let view = PrunedView { plan: Some(PlanView::new(plan, token)), done: None };
        return Ok(Settled::Done(Reply::new(view)));
    }
    let done = containers.image_prune(&actor, request, body.0.plan_token.as_deref(), once).await?;
    let operation = ended(&containers, prefer.0, changes, done.value).await?;
    let view = PrunedView { plan: None, done: Some(ImagesView::from(&operation)) };
    Ok(settled_as(&Done { value: operation, replayed: done.replayed }, view))
}

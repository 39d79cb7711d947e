//! The images that engines have: listing, pulling, and removing what nothing uses.

use super::{
    name::ImageName,
    prune::{self, PrunePlan, PruneScope},
    service::ContainerService,
    wire::{ImagePrune, ImagePull, ListedImage},
};
use crate::{
    Error, Result,
    audit::AuditEntry,
    change::{Done, Once},
    fleet::operations::{Deed, Operation},
    identity::{self, Actor},
    ids::ServerId,
    scheduling::{RestartPolicy, TaskDriver, TaskKind, TaskSpec},
    text::Name,
    units::Resources,
};
use chrono::TimeDelta;
use serde_json::{Value, json};

/// Which images are to be removed from a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PruneRequest {
    /// The server.
    pub server: ServerId,
    /// Which of those that nothing uses.
    pub scope: PruneScope,
    /// Only what was built at least so long ago.
    pub older_than: Option<TimeDelta>,
}

impl ContainerService {
    /// The images that a server's engine has at this moment, in the engine's order.
    ///
    /// # Errors
    /// [`Error::Invalid`] if no server is given; [`Error::NotFound`] if there is no such server;
    /// [`Error::Unavailable`] if its engine cannot be asked.
    pub async fn image_list(&self, actor: &Actor, server: Option<ServerId>) -> Result<Vec<ListedImage>> {
        actor.authorize(identity::Operation::ImageList)?;
        let server = server.ok_or_else(|| Error::invalid("host", "is missing: give the id of a server"))?;
        self.images(actor, identity::Operation::ImageList, server).await
    }

    async fn images(
        &self,
        actor: &Actor,
        operation: identity::Operation,
        server: ServerId,
    ) -> Result<Vec<ListedImage>> {
        actor.authorize(operation)?;
        self.ports.servers.get(server).await?;
        self.check_there(server)?;
        self.ports.engines.images(server).await
    }

    /// The task that starts a container of an image on a server, with nothing but that: it has no limits, reserves nothing,
    /// is named after its image, and is started again when it fails.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such server; [`Error::Invalid`] if that is no image.
    pub async fn image_to_start(&self, actor: &Actor, server: ServerId, image: Option<String>) -> Result<TaskSpec> {
        actor.authorize(identity::Operation::ServerDocker)?;
        self.ports.servers.get(server).await?;
        let invalid = |reason| Error::invalid("image", reason);
        let image = image.ok_or_else(|| invalid("is missing: give an image".to_owned()))?;
        let parsed = ImageName::parse(&image).map_err(invalid)?;
        let last = parsed.as_str().rsplit('/').next().unwrap_or_default();
        let name = Name::parse(last.split([':', '@']).next().unwrap_or_default()).map_err(invalid)?;
        let spec = TaskSpec {
            kind: TaskKind::Service,
            driver: TaskDriver::Docker,
            image: Some(image),
            required_server_id: Some(server),
            restart: RestartPolicy::OnFailure,
            ..TaskSpec::new(name, Resources::default())
        };
        spec.checked()
    }

    /// Has a server's engine pull an image.
    ///
    /// # Errors
    /// As [`ContainerService::image_list`].
    pub async fn image_pull(
        &self,
        actor: &Actor,
        server: ServerId,
        pull: ImagePull,
        once: Option<Once>,
    ) -> Result<Done<Operation>> {
        let operation = identity::Operation::ImagePull;
        actor.authorize(operation)?;
        let possible = self.ports.servers.get(server).await.and_then(|_| self.check_there(server));
        if let Err(refusal) = possible {
            // A request that is repeated gets the answer of the first, whatever has become of the server.
            return self.answered(once).await?.ok_or(refusal);
        }
        let entry = self.image_entry(actor, operation, server, json!({ "image": pull.name }));
        self.order(server, Deed::ImagePull(pull), entry, once).await
    }

    /// What [`ContainerService::image_prune`] would remove now, and the token that makes it do just that.
    ///
    /// # Errors
    /// As [`ContainerService::image_list`].
    pub async fn image_prune_plan(&self, actor: &Actor, request: PruneRequest) -> Result<(PrunePlan, String)> {
        let images = self.images(actor, identity::Operation::ImagePrune, request.server).await?;
        let plan = prune::plan(images, request.scope, request.older_than, self.ports.clock.now());
        let ids: Vec<&str> = plan.remove.iter().map(|image| image.id.as_str()).collect();
        let token = self.ports.seal.blind(&format!("prune\n{}\n{}", request.server, ids.join("\n")));
        Ok((plan, token))
    }

    /// Has a server's engine remove images that nothing uses. One that is used by then stays, and is told.
    ///
    /// # Errors
    /// `plan_stale` if the token is of another plan than would be made now; `nothing_to_do`; as
    /// [`ContainerService::image_list`].
    pub async fn image_prune(
        &self,
        actor: &Actor,
        request: PruneRequest,
        plan_token: Option<&str>,
        once: Option<Once>,
    ) -> Result<Done<Operation>> {
        let operation = identity::Operation::ImagePrune;
        actor.authorize(operation)?;
        // A request that is repeated finds other images than the first one did.
        if let Some(done) = self.answered(once.clone()).await? {
            return Ok(done);
        }
        let (plan, token) = self.image_prune_plan(actor, request).await?;
        if plan_token.is_some_and(|given| given != token) {
            let reason = "the server's images are not as they were when this plan was made; plan again, and use the \
                          new plan_token";
            return Err(Error::conflict("plan_stale", reason));
        }
        if plan.remove.is_empty() {
            return Err(Error::conflict("nothing_to_do", "no image of the server is unused in that way"));
        }
        let ids = plan.remove.into_iter().map(|image| image.id).collect();
        let prune = ImagePrune { ids };
        let entry = self.image_entry(actor, operation, request.server, json!({ "ids": prune.ids }));
        self.order(request.server, Deed::ImagePrune(prune), entry, once).await
    }

    fn image_entry(&self, actor: &Actor, operation: identity::Operation, server: ServerId, after: Value) -> AuditEntry {
        let entry = AuditEntry::new(actor, operation.action(), self.ports.clock.now());
        AuditEntry { target: Some(format!("server:{server}")), after: Some(after), ..entry }
    }
}

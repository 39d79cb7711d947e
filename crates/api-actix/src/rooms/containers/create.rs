//! Starting a container on a server: a task that is bound to that server.

use super::dto;
use crate::{
    ApiError,
    extract::{Body, Id, Once, Query},
    reply::Created,
    rooms::{
        Actor, delivery, once_of,
        scheduling::{TaskBody, TaskView, beside},
    },
};
use actix_web::web::Data;
use domain::{
    Error, FieldError, Result,
    containers::ContainerService,
    ids::ServerId,
    scheduling::{TaskDriver, TaskService, TaskSpec},
};
use paperclip::actix::{
    api_v2_operation,
    web::{self, ServiceConfig},
};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer};
use serde_json::json;
use std::borrow::Cow;

/// These routes. That of the list is in the same resource.
pub(super) fn routes(config: &mut ServiceConfig<'_>) {
    config.service(web::resource("/servers/{id}/actions/docker").route(web::post().to(server_docker)));
}

const HOST: &str = "host";

const REQUIRED_SERVER: &str = "required_server_id";

/// A container to be started: a task, and the server for it.
pub(super) struct ContainerCreate {
    task: TaskBody,
    host: Option<i64>,
}

impl ContainerCreate {
    fn parse(self) -> Result<TaskSpec> {
        let host = self.host.ok_or_else(|| FieldError::new(HOST, "is missing: give the id of a server"))?;
        let host = dto::host(host)?;
        let spec = self.task.parse()?;
        if spec.driver != TaskDriver::Docker {
            return Err(Error::invalid(
                "image",
                "is what makes a container: give one, and no other driver than docker",
            ));
        }
        if spec.required_server_id.is_some_and(|server| server != host) {
            return Err(Error::invalid(REQUIRED_SERVER, "is another server than host; leave it out"));
        }
        Ok(TaskSpec { required_server_id: Some(host), ..spec })
    }
}

impl<'de> Deserialize<'de> for ContainerCreate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (task, host) = beside::read(deserializer, HOST)?;
        Ok(Self { task, host })
    }
}

impl JsonSchema for ContainerCreate {
    fn schema_name() -> Cow<'static, str> {
        "ContainerCreate".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = TaskBody::json_schema(generator);
        if let Some(members) = schema.get_mut("properties").and_then(serde_json::Value::as_object_mut) {
            let host = json!({ "type": "integer", "format": "int64", "minimum": 1, "description": "The server." });
            members.insert(HOST.to_owned(), host);
        }
        for member in [HOST, "image"] {
            if let Some(required) = schema.get_mut("required").and_then(serde_json::Value::as_array_mut) {
                required.push(json!(member));
            }
        }
        schema.insert("description".to_owned(), "A container to be started on a server.".into());
        schema
    }
}

/// Start a container
///
/// Posts a task with the driver `docker` that is bound to the server `host`: what it reserves is counted, its image is
/// looked up first, and it is placed as soon as it fits there. The answer is that task; its container is in the list once
/// the engine has it (`?task_id=`).
#[api_v2_operation(tags("containers"), operation_id = "container_create")]
pub(super) async fn container_create(
    actor: Actor,
    tasks: Data<TaskService>,
    once: Once,
    body: Body<ContainerCreate>,
) -> Result<Created<TaskView>, ApiError> {
    let once = once_of(&actor, once);
    let spec = body.0.parse()?;
    Ok(post(&actor, &tasks, spec, once).await.map_err(about_host)?)
}

/// A refusal of the server that the task is bound to, said of the member that named it: [`ContainerCreate::parse`] has
/// seen to it that there is no other.
fn about_host(refusal: Error) -> Error {
    match refusal {
        Error::Invalid { errors } if errors.iter().any(|error| error.field == REQUIRED_SERVER) => {
            Error::invalid(HOST, "names no server; GET /servers lists them")
        }
        refusal => refusal,
    }
}

/// What to start.
#[derive(Debug, Deserialize, JsonSchema)]
struct DockerQuery {
    /// The image; it must be given.
    #[schemars(length(min = 1, max = 512))]
    image: Option<String>,
}

/// Start a container of an image
///
/// Short for starting a container on this server with nothing but an image: it has no limits, reserves nothing, is named
/// after its image, and is started again when it fails.
#[api_v2_operation(tags("containers"), operation_id = "server_docker")]
async fn server_docker(
    actor: Actor,
    tasks: Data<TaskService>,
    containers: Data<ContainerService>,
    id: Id<ServerId>,
    once: Once,
    query: Query<DockerQuery>,
) -> Result<Created<TaskView>, ApiError> {
    let once = once_of(&actor, once);
    let spec = containers.image_to_start(&actor, id.0, query.0.image).await?;
    Ok(post(&actor, &tasks, spec, once).await?)
}

async fn post(
    actor: &Actor,
    tasks: &TaskService,
    spec: TaskSpec,
    once: Option<domain::change::Once>,
) -> Result<Created<TaskView>> {
    let done = tasks.task_create(actor, spec, None, once).await?;
    let (delivery, task) = (delivery(&done), done.value);
    let location = format!("/tasks/{}", task.id);
    Ok(Created::at(location, TaskView::from(&task)).revision(task.revision).delivered(delivery))
}

//! Tasks over HTTP: posting, planning, placing and ending them, and the ledger of what they hold.

pub(in crate::rooms) mod beside;
mod body;
mod create;
mod dto;
mod ledger;
mod limits;
mod logs;
mod plan;
mod schemas;
mod words;

use crate::{
    ApiError,
    extract::{Body, Id, IfMatch, Once, OptionalBody, PreferWait, Query},
    reply::{Created, Listed, NoContent, Reply, Settled, Versioned},
    rooms::{Actor, delivery, once_of, settled, system::Changes},
};
use actix_web::web::Data;
pub(in crate::rooms) use body::TaskBody;
use create::TaskCreate;
use domain::{
    change::Done,
    fleet::AgentService,
    ids::TaskId,
    scheduling::{Task, TaskService, reason},
};
pub(in crate::rooms) use dto::TaskView;
use dto::{AttemptView, TaskCancelQuery, TaskCompleteQuery, TaskListQuery, UnderwayView};
use ledger::{LedgerMended, LedgerView};
use paperclip::actix::{
    api_v2_operation,
    web::{self, ServiceConfig},
};
use plan::{DryRunView, TaskDispatchBody};

/// This room's routes.
pub fn routes(config: &mut ServiceConfig<'_>) {
    config
        .service(web::resource("/tasks").route(web::get().to(task_list)).route(web::post().to(task_create)))
        .service(web::resource("/tasks/dry-run").route(web::post().to(task_dry_run)))
        .service(web::resource("/tasks/{id}").route(web::get().to(task_get)).route(web::delete().to(task_delete)))
        .service(web::resource("/tasks/{id}/attempts").route(web::get().to(task_attempt_list)))
        .service(web::resource("/tasks/{id}/logs").route(web::get().to(logs::task_logs)))
        .service(web::resource("/tasks/{id}/dry-run").route(web::post().to(task_plan)))
        .service(web::resource("/tasks/{id}/dispatch").route(web::post().to(task_dispatch)))
        .service(web::resource("/tasks/{id}/start").route(web::post().to(task_start)))
        .service(web::resource("/tasks/{id}/complete").route(web::post().to(task_complete)))
        .service(web::resource("/tasks/{id}/cancel").route(web::post().to(task_cancel)))
        .service(web::resource("/tasks/{id}/retry").route(web::post().to(task_retry)))
        .service(web::resource("/scheduling/ledger").route(web::get().to(ledger_check)))
        .service(web::resource("/scheduling/ledger/mend").route(web::post().to(ledger_mend)));
}

/// Post a task
///
/// It is pending at first and is placed on a server as soon as it fits on one. With the plan token of a dry run it is
/// placed at once, as planned, or not posted at all (409 `plan_stale`).
#[api_v2_operation(tags("scheduling"), operation_id = "task_create")]
async fn task_create(
    actor: Actor,
    tasks: Data<TaskService>,
    once: Once,
    body: Body<TaskCreate>,
) -> Result<Created<TaskView>, ApiError> {
    let once = once_of(&actor, once);
    let (spec, plan_token) = body.0.parse()?;
    let done = tasks.task_create(&actor, spec, plan_token.as_deref(), once).await?;
    let (delivery, task) = (delivery(&done), done.value);
    let location = format!("/tasks/{}", task.id);
    Ok(Created::at(location, TaskView::from(&task)).revision(task.revision).delivered(delivery))
}

/// Plan a task that is not posted
///
/// Where it would go now, and every server with every reason why it would not take it. Writes nothing. Post the same
/// body with the `plan_token` to have it placed like this or not at all.
#[api_v2_operation(tags("scheduling"), operation_id = "task_dry_run")]
async fn task_dry_run(
    actor: Actor,
    tasks: Data<TaskService>,
    body: Body<TaskBody>,
) -> Result<Reply<DryRunView>, ApiError> {
    let found = tasks.task_dry_run(&actor, body.0.parse()?).await?;
    Ok(Reply::new(found.into()))
}

/// Plan a pending task
///
/// Where it would go if it were dispatched now, and every server with every reason why it would not take it. Writes
/// nothing.
#[api_v2_operation(tags("scheduling"), operation_id = "task_plan")]
async fn task_plan(actor: Actor, tasks: Data<TaskService>, id: Id<TaskId>) -> Result<Reply<DryRunView>, ApiError> {
    let found = tasks.task_plan(&actor, id.0).await?;
    Ok(Reply::new(found.into()))
}

/// List tasks
///
/// Newest first. Every filter that is given must match.
#[api_v2_operation(tags("scheduling"), operation_id = "task_list")]
async fn task_list(
    actor: Actor,
    tasks: Data<TaskService>,
    query: Query<TaskListQuery>,
) -> Result<Listed<TaskView>, ApiError> {
    let (filter, page) = query.0.parse()?;
    let found = tasks.task_list(&actor, filter, page).await?;
    Ok(Listed(found.map(|task| TaskView::from(&task))))
}

/// Look at a task
///
/// While it is pending, with the reasons why no server takes it, those of the nearest miss first.
#[api_v2_operation(tags("scheduling"), operation_id = "task_get")]
async fn task_get(actor: Actor, tasks: Data<TaskService>, id: Id<TaskId>) -> Result<Versioned<TaskView>, ApiError> {
    let details = tasks.task_get(&actor, id.0).await?;
    Ok(Versioned::new(details.task.revision, details.into()))
}

/// Remove a task
///
/// With its attempts. Refused while it holds room on a server: cancel it first.
#[api_v2_operation(tags("scheduling"), operation_id = "task_delete")]
async fn task_delete(
    actor: Actor,
    tasks: Data<TaskService>,
    id: Id<TaskId>,
    revision: IfMatch,
) -> Result<NoContent, ApiError> {
    tasks.task_delete(&actor, id.0, revision.0).await?;
    Ok(NoContent)
}

/// List the attempts of a task
///
/// Newest first, all of them.
#[api_v2_operation(tags("scheduling"), operation_id = "task_attempt_list")]
async fn task_attempt_list(
    actor: Actor,
    tasks: Data<TaskService>,
    id: Id<TaskId>,
) -> Result<Reply<Vec<AttemptView>>, ApiError> {
    let attempts = tasks.task_attempt_list(&actor, id.0).await?;
    Ok(Reply::new(attempts.into_iter().map(AttemptView::from).collect()))
}

/// Place a task now
///
/// Whatever is before it in the queue. 409 `no_capacity` with the reasons if it fits nowhere; without effect if it is
/// scheduled already.
#[api_v2_operation(tags("scheduling"), operation_id = "task_dispatch")]
async fn task_dispatch(
    actor: Actor,
    tasks: Data<TaskService>,
    id: Id<TaskId>,
    once: Once,
    body: OptionalBody<TaskDispatchBody>,
) -> Result<Versioned<TaskView>, ApiError> {
    let once = once_of(&actor, once);
    let plan_token = body.0.parse()?;
    let done = tasks.task_dispatch(&actor, id.0, plan_token.as_deref(), once).await?;
    Ok(changed(&done))
}

/// Start a task
///
/// For tasks with the driver `none`, which nobody but their user runs: says that it runs from now on.
#[api_v2_operation(tags("scheduling"), operation_id = "task_start")]
async fn task_start(
    actor: Actor,
    tasks: Data<TaskService>,
    id: Id<TaskId>,
    once: Once,
) -> Result<Versioned<TaskView>, ApiError> {
    let once = once_of(&actor, once);
    let done = tasks.task_start(&actor, id.0, once).await?;
    Ok(changed(&done))
}

/// Complete a task
///
/// For tasks with the driver `none`: says that it has ended, well or badly. After a failure it is pending again while
/// it has attempts left.
#[api_v2_operation(tags("scheduling"), operation_id = "task_complete")]
async fn task_complete(
    actor: Actor,
    tasks: Data<TaskService>,
    id: Id<TaskId>,
    once: Once,
    query: Query<TaskCompleteQuery>,
) -> Result<Versioned<TaskView>, ApiError> {
    let once = once_of(&actor, once);
    let done = tasks.task_complete(&actor, id.0, query.0.success(), once).await?;
    Ok(changed(&done))
}

/// Cancel a task
///
/// Ends it wherever it is, and gives back what it holds. What an agent runs is ended by the agent: until it has said so,
/// the task has the reason `cancelling`, and keeps its room; that is answered with 202. An `unknown` task, whose agent
/// may never be back, is given up with `force=true`: its room is free at once, and if it runs its agent ends it later.
#[expect(clippy::too_many_arguments, reason = "each is an extractor")]
#[api_v2_operation(tags("scheduling"), operation_id = "task_cancel")]
async fn task_cancel(
    actor: Actor,
    tasks: Data<TaskService>,
    agents: Data<AgentService>,
    changes: Data<Changes>,
    id: Id<TaskId>,
    once: Once,
    query: Query<TaskCancelQuery>,
    prefer: PreferWait,
) -> Result<Settled<Versioned<TaskView>, UnderwayView>, ApiError> {
    let once = once_of(&actor, once);
    // What happens after this moment wakes whoever waits.
    let changes = changes.0.clone();
    let mut done = if query.0.force.unwrap_or(false) {
        tasks.task_give_up(&actor, id.0, once).await?
    } else {
        tasks.task_cancel(&actor, id.0, once).await?
    };
    if is_underway(&done.value) {
        let look = async || Ok(tasks.task_get(&actor, id.0).await?.task);
        done.value = settled(prefer.0, changes, done.value, is_underway, look).await?;
    }
    if !is_underway(&done.value) {
        return Ok(Settled::Done(changed(&done)));
    }
    let operation = agents.operation_of(id.0, done.value.attempt).await?;
    Ok(Settled::Underway(UnderwayView::new(&done.value, operation.as_ref())))
}

fn is_underway(task: &Task) -> bool {
    task.status.is_live() && task.reason.as_deref() == Some(reason::CANCELLING)
}

/// Run a task again
///
/// A task that failed or was cancelled is pending again, for at least one more attempt.
#[api_v2_operation(tags("scheduling"), operation_id = "task_retry")]
async fn task_retry(
    actor: Actor,
    tasks: Data<TaskService>,
    id: Id<TaskId>,
    once: Once,
) -> Result<Versioned<TaskView>, ApiError> {
    let once = once_of(&actor, once);
    let done = tasks.task_retry(&actor, id.0, once).await?;
    Ok(changed(&done))
}

/// Check the ledger
///
/// Compares what servers and pools say is reserved with what tasks hold.
#[api_v2_operation(tags("scheduling"), operation_id = "ledger_check")]
async fn ledger_check(actor: Actor, tasks: Data<TaskService>) -> Result<Reply<LedgerView>, ApiError> {
    let found = tasks.ledger_check(&actor).await?;
    Ok(Reply::new(found.into()))
}

/// Mend the ledger
///
/// Sets what servers and pools say is reserved to what tasks hold, and tells what was different.
#[api_v2_operation(tags("scheduling"), operation_id = "ledger_mend")]
async fn ledger_mend(actor: Actor, tasks: Data<TaskService>, once: Once) -> Result<Reply<LedgerMended>, ApiError> {
    let once = once_of(&actor, once);
    let done = tasks.ledger_mend(&actor, once).await?;
    let delivery = delivery(&done);
    Ok(Reply::new(done.value.into()).delivered(delivery))
}

/// A task after a change.
fn changed(done: &Done<Task>) -> Versioned<TaskView> {
    Versioned::new(done.value.revision, TaskView::from(&done.value)).delivered(delivery(done))
}

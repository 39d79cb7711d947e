//! The rooms of the house, one file each, and what they share.

pub mod audit;
pub mod containers;
pub mod fleet;
pub mod identity;
pub mod observability;
pub mod pools;
pub mod scheduling;
pub mod system;

mod dto;
mod output;
mod settled;

use crate::{
    extract::{Caller, Once},
    openapi::{Blueprint, OperationNote},
    reply::Delivery,
};
use domain::{
    change::Done,
    digest::hex,
    identity::{Access, Operation},
};
pub use output::LineUp;
use paperclip::actix::web::ServiceConfig;
use settled::settled;

/// Who asks.
pub type Actor = Caller<domain::identity::Actor>;

/// All documented routes.
pub fn routes(config: &mut ServiceConfig<'_>) {
    system::routes(config);
    identity::routes(config);
    audit::routes(config);
    fleet::routes(config);
    pools::routes(config);
    scheduling::routes(config);
    containers::routes(config);
    observability::routes(config);
}

/// What the API document is made from.
#[must_use]
pub fn blueprint() -> Blueprint {
    Blueprint {
        routes,
        tags: vec![
            ("system", "Health, metrics and the stream of changes."),
            ("identity", "Users, API tokens and console sessions."),
            ("audit", "Who did what, when, to what, with what outcome."),
            ("fleet", "Servers: what they are, what they have, and whether they take work."),
            ("agent", "The agents' side: what the program on each server says and asks."),
            ("pools", "Resource pools: groups of servers with quotas and a placement strategy."),
            ("scheduling", "Tasks, where they run and why they do not, and the ledger of what they hold."),
            ("containers", "Containers and images, as the engines on the servers have them."),
            ("observability", "What servers were measured to be at: samples, trends, percentiles, alerts."),
        ],
        handmade: vec![fleet::handmade(), containers::handmade()],
        notes,
    }
}

/// What the permission table says about an operation, for its description.
fn notes(id: &str) -> OperationNote {
    let Some(operation) = Operation::by_id(id) else {
        return OperationNote { sentence: None, statuses: Vec::new() };
    };
    let sentence = match operation.access() {
        Access::Public => "Open to everybody.".to_owned(),
        Access::Known => "For everybody who is signed in or has a token.".to_owned(),
        Access::Read(room) => format!("Needs any role, and the scope `{}`.", room.as_str()),
        Access::Change(room) => format!("Needs the role operator or admin, and the scope `{}`.", room.as_str()),
        Access::Agent => "Needs the token of a server's agent.".to_owned(),
        Access::Manage(room) => format!("Needs the role admin, and the scope `{}`.", room.as_str()),
    };
    let statuses = match operation {
        Operation::AuthLogin => vec![401],
        // The join token comes in the body.
        Operation::AgentEnroll => vec![401, 409],
        // The server is not named by the path.
        Operation::ImageList | Operation::ImagePull | Operation::ImagePrune | Operation::TrendGet => vec![404],
        // There may be no output, or it cannot be read, or nothing runs.
        Operation::TaskLogs | Operation::ContainerLogs | Operation::ContainerLogsAlias | Operation::ContainerStats => {
            vec![409]
        }
        _ => Vec::new(),
    };
    OperationNote { sentence: Some(sentence), statuses }
}

/// The idempotency key of a request, as the repository keeps it.
fn once_of(actor: &domain::identity::Actor, once: Once) -> Option<domain::change::Once> {
    let key = once.into_key()?;
    Some(domain::change::Once { caller: actor.label(), key: key.key, fingerprint: hex(&key.fingerprint) })
}

fn delivery<T>(done: &Done<T>) -> Delivery {
    if done.replayed { Delivery::Replayed } else { Delivery::Fresh }
}

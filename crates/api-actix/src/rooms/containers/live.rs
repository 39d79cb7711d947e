//! What goes on while it is watched: output, what a container uses, and programs that are run in one by hand.

mod block;
mod closings;
mod exec;
mod feed;
mod hub;
mod logs;
mod places;
mod reader;
mod ring;
mod stats;
mod talk;

#[cfg(test)]
mod played;

use crate::{openapi::Handmade, rooms::LineUp};
use actix_web::web::Data;
pub(super) use closings::explain;
use closings::explained;
use domain::{
    fleet::{AgentService, protocol::StreamSource},
    ids::ServerId,
};
use feed::Opener;
use futures_util::StreamExt;
use hub::Hubs;
use paperclip::actix::web::{self, ServiceConfig};
use places::Places;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// How many of a kind may be open at once.
const MOST: usize = 64;
/// How many of a kind one who asks may have open at once, so that nobody shuts the others out.
const EACH: usize = 16;
/// How many outputs may be read at once; those who follow one share what it takes.
const MOST_OUTPUTS: usize = 1024;

/// What is open at the moment; one for all who ask.
pub struct Live {
    hubs: Arc<Hubs>,
    /// Places for those who read output.
    outputs: Places,
    /// Places for streams of what was written before.
    archives: Arc<Semaphore>,
    /// Places for streams of what containers use.
    readings: Places,
    /// Places for programs that are run by hand.
    sessions: Places,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            hubs: Arc::default(),
            outputs: Places::new("outputs", MOST_OUTPUTS, EACH),
            archives: Arc::new(Semaphore::new(MOST)),
            readings: Places::new("readings", MOST, EACH),
            sessions: Places::new("programs", MOST, EACH),
        }
    }
}

/// Orders a container's output of the agent of its server.
fn opener(line: &Data<LineUp>, agents: &Arc<AgentService>, server: ServerId) -> Opener {
    let (line, agents) = (line.clone(), agents.clone());
    Arc::new(move |query| {
        agents.check_there(server)?;
        Ok(explained(server, line.orders.order(&agents, server, StreamSource::ContainerLogs(query))).boxed())
    })
}

/// These routes.
pub(super) fn routes(config: &mut ServiceConfig<'_>) {
    config
        .service(web::resource("/api/containers/{id}/logs").route(web::get().to(logs::container_logs)))
        .service(web::resource("/api/logs/containers/{id}").route(web::get().to(logs::container_logs_alias)))
        .service(web::resource("/api/containers/{id}/stats").route(web::get().to(stats::container_stats)))
        .service(web::resource("/api/containers/{id}/exec").route(web::get().to(exec::container_exec)));
}

/// What paperclip does not see.
pub(in crate::rooms) fn handmade() -> Handmade {
    exec::handmade()
}

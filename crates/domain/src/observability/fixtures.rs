//! What tests of this room share.

use crate::{
    fleet::{Architecture, NewServer, Server, ServerStatus},
    ids::ServerId,
    testing::{START, name},
    text::Tags,
    units::Resources,
};

/// A server named `edge-ID`, in the cluster `odd` or `even`.
pub(super) fn server(id: i64) -> Server {
    NewServer {
        name: name(&format!("edge-{id}")),
        architecture: Architecture::Arm64,
        status: ServerStatus::Online,
        capacity: Resources::default(),
        gpu_model: None,
        location: None,
        cluster: Some(if id % 2 == 1 { "odd" } else { "even" }.to_owned()),
        zone: None,
        pool_id: None,
        tags: Tags::default(),
    }
    .into_server(ServerId(id), START)
}

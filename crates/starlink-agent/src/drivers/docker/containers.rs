//! The containers and images of an engine, whoever made them.

use super::{DockerDriver, engine::Engine, images::KnownImages};
use domain::clock::Clock;
use std::sync::Arc;

/// A way to an engine for whoever wants to see what it has.
#[derive(Clone)]
pub struct Containers {
    pub(super) engine: Engine,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) images: KnownImages,
}

impl DockerDriver {
    /// What its engine has.
    #[must_use]
    pub fn containers(&self) -> Containers {
        let (engine, clock) = (self.engine.clone(), Arc::clone(&self.clock));
        Containers { engine, clock, images: self.images.clone() }
    }
}

//! Containers and the images that they are made from.
//!
//! What an image was built for is read where it is kept, never guessed: in its registry, or in the container engines
//! that have it. Where neither can say, nothing is assumed, and the task that names the image is refused.
//!
//! A container is shown as its engine last said, with the age of that; nothing shows what was asked for as if it were so.
//! What `StarLink` did not start is not touched unless somebody insists, and that is recorded.

mod action;
mod cursor;
mod exec;
mod image;
mod images;
mod login;
mod manifest;
mod model;
mod name;
mod observed;
mod platform;
mod ports;
mod prune;
mod report;
mod service;
mod service_images;
mod usage;
pub mod wire;

pub use action::{ContainerAction, Insistence, judge};
pub use cursor::{LogCursor, NoCursor};
pub use exec::{LONGEST_EXEC_FOLDER, LONGEST_EXEC_USER, MOST_COMMAND_BYTES, MOST_COMMAND_WORDS};
pub use image::{EngineImage, Engines, ImageTruth, Registries, RegistryFailure};
#[cfg(any(test, feature = "mocks"))]
pub use image::{MockEngines, MockRegistries};
pub use images::ImageService;
pub use login::{Login, Logins, read_logins};
pub use manifest::{MAX_MANIFEST, Manifest, platform_of_config};
pub use model::{Container, ContainerFilter};
pub use name::ImageName;
pub use observed::{
    ContainerState, EngineId, Health, Observed, ObservedMount, ObservedNetwork, ObservedPort, RunsTask,
};
pub use platform::Platform;
pub use ports::Containers;
#[cfg(any(test, feature = "mocks"))]
pub use ports::MockContainers;
pub use prune::{PrunePlan, PruneScope};
pub use service::{ContainerPorts, ContainerService};
pub use service_images::PruneRequest;
pub use usage::{ContainerUsage, CpuReading, MemoryReading, Usage};

//! Containers and the images that they are made from.
//!
//! What an image was built for is read where it is kept, never guessed: in its registry, or in the container engines
//! that have it. Where neither can say, nothing is assumed, and the task that names the image is refused.

mod image;
mod login;
mod manifest;
mod name;
mod platform;
mod service;

pub use image::{EngineImage, Engines, ImageTruth, Registries, RegistryFailure};
#[cfg(any(test, feature = "mocks"))]
pub use image::{MockEngines, MockRegistries};
pub use login::{Login, Logins, read_logins};
pub use manifest::{MAX_MANIFEST, Manifest, platform_of_config};
pub use name::ImageName;
pub use platform::Platform;
pub use service::ImageService;

//! Members of a merge patch: left out, `null`, or a value.
//!
//! ```
//! use api_actix::extract::patch;
//! use domain::patch::Patch;
//!
//! #[derive(serde::Deserialize, schemars::JsonSchema)]
//! struct ServerPatch {
//!     #[serde(default, deserialize_with = "patch::read")]
//!     #[schemars(with = "Option<String>")]
//!     location: Patch<String>,
//! }
//! let patch: ServerPatch = serde_json::from_str(r#"{ "location": null }"#).unwrap();
//! assert_eq!(patch.location, Patch::Clear);
//! ```

use domain::patch::Patch;
use serde::{Deserialize, Deserializer};

/// Reads a member that is there; one that is left out is [`Patch::Keep`] by `serde(default)`.
///
/// # Errors
/// What the deserializer says about a value that is not a `T`.
pub fn read<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Patch<T>, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.map_or(Patch::Clear, Patch::Set))
}

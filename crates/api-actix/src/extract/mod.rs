//! What handlers take out of a request. Each extractor refuses what is malformed with a problem document that names the
//! field, and notes what it reads for the `OpenAPI` document.
//!
//! Take [`Caller`] first: extractors run in order, so nobody learns about inputs before saying who they are.

mod body;
mod caller;
mod id;
mod if_match;
mod many;
mod once;
pub mod patch;
mod prefer;
mod query;
mod shape;
mod strict;

pub(crate) use body::read as read_body;
pub use body::{BODY_LIMIT, Body, OptionalBody};
pub use caller::Caller;
pub use id::Id;
pub use if_match::IfMatch;
pub use many::{MANY_LIMIT, OneOrMany};
pub use once::{Once, OnceKey};
pub use prefer::PreferWait;
pub use query::Query;

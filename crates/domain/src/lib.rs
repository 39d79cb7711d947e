//! `StarLink`'s pure decisions: the rooms' types, the ports they need and the use cases over those ports.
//!
//! Nothing in here does I/O, reads a clock or draws a random number; what needs one of these takes a port
//! ([`clock::Clock`], [`entropy::Entropy`], or a room's own). A room is a folder with `model.rs` (types),
//! `ports.rs` (traits), `service.rs` (use cases) and one file per piece of logic.

pub mod audit;
pub mod change;
pub mod clock;
pub mod containers;
pub mod digest;
pub mod entropy;
pub mod error;
pub mod feed;
pub mod fleet;
pub mod health;
pub mod identity;
pub mod ids;
pub mod lease;
pub mod observability;
pub mod page;
pub mod patch;
pub mod pools;
pub mod scheduling;
#[cfg(test)]
mod testing;
pub mod text;
pub mod units;
mod words;

pub use error::{Error, FieldError, Result};

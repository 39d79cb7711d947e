//! Asks container registries what an image is, without pulling it: the OCI distribution API 1.1, and Docker's registry
//! API, version 2, with its tokens.
//!
//! Invariants: what a registry sends counts only if it has the digest that was asked for; no answer is longer than what
//! is made room for, and nothing that is remembered grows without bound; a login goes to its registry and to where that
//! registry hands out tokens, a token to its registry alone, neither over a connection that is less protected than the
//! registry's own; and neither is printed.

mod address;
mod auth;
mod challenge;
mod digest;
mod fault;
mod flights;
mod kept;
mod lookup;
mod memory;
mod options;
mod tls;
mod wire;

pub use lookup::OciRegistries;
pub use options::{RegistryOptions, SetupError};

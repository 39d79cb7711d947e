//! The agent's tests.

#![expect(clippy::unwrap_used, reason = "a test that panics has done its work, in its helpers too")]

mod core;
mod docker;
mod engine;
mod exec;
mod inventory;
mod streams;

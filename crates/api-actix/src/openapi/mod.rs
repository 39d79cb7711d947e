//! The `OpenAPI` document: paperclip tells which operations there are, their extractors and replies note
//! [facts](facts::Fact) about them, schemars supplies every schema, and [`assemble`](assemble::assemble) puts it
//! together once at start.
//!
//! Invariants: an operation without id, summary, description or a declared tag is a fault at start, so is a path
//! parameter that no extractor reads; every reference resolves.

pub mod assemble;
mod document;
pub mod facts;
mod operation;
mod responses;
mod schemas;

pub use assemble::{Blueprint, Handmade, OperationNote};
pub use document::{Document, DocumentError, Promise};

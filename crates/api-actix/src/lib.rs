//! `StarLink`'s REST API: routes, DTOs, authentication and the `OpenAPI` document.
//!
//! A handler extracts ([`extract`]), calls one use case and converts ([`reply`]); what goes wrong becomes a problem
//! document in one place ([`problem`]). Extractors and replies also say what they mean for the `OpenAPI` document
//! ([`openapi`]), so the document is made from the handlers, and what is not in the document is not served
//! ([`middleware::guard`]).

pub mod auth;
pub mod docs;
pub mod extract;
pub mod middleware;
pub mod mount;
pub mod openapi;
pub mod problem;
pub mod reply;
pub mod rooms;
pub mod spreadsheet;

#[cfg(test)]
mod toy;

pub use mount::Api;
pub use problem::ApiError;

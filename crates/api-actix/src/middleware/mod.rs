//! What cuts across all requests. From the outside in: [`context`] gives the request its id, its span and its log line;
//! (the application puts who is asking in between); [`guard`] refuses what the document does not promise.

mod accept;
pub mod context;
pub mod guard;
mod route;

pub use route::route;

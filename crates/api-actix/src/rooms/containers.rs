//! Containers and images over HTTP.

mod engines;

pub use engines::AskedEngines;

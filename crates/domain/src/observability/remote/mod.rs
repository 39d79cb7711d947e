//! What Prometheus and its kin send: series with labels, of which samples of servers are made.
//!
//! A series is of a server, or of nobody that is known ([`Names`]), and says something of a metric, or nothing that is
//! known ([`meaning`]). What says it as a whole is stored at the time that it has. What is a part of it, such as a counter
//! of one processor, is kept in memory until the whole is there ([`Gatherer`]); what is lost of it with the process leaves
//! a gap, and no value that is not so.

mod gather;
mod mapping;
mod series;
mod service;

pub use gather::{Computed, Gatherer, Part};
pub use mapping::{Family, Key, Meaning, Names, Role, meaning};
pub use series::{Point, Series};
pub use service::{RemoteWriteService, Written};

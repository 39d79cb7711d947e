//! The docker driver on real engines, and on played ones.

mod away;
pub(crate) mod bed;
mod foreign;
mod lifecycle;
mod output;
mod played;
mod podman;
mod refusals;

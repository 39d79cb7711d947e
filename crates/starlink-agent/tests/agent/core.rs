//! The agent against a server that speaks the protocol over a real socket, and a driver whose work is a table.

mod cancel;
mod contract;
mod crashes;
mod deeds;
mod disk_full;
mod driver;
mod enrol;
mod faults;
mod http;
mod meter;
mod operations;
mod orphans;
mod program;
pub(crate) mod rig;
mod server;
mod streams;
mod trust;

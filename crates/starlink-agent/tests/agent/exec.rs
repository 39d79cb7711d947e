//! Processes under a shim: real ones, ended in every way that there is.

mod ends;
mod identity;
mod limits;
mod output;
mod rig;
mod survival;
mod trees;

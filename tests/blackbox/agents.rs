//! Agents as processes of their own: how they join, what they run, and what is true after whatever was killed.

mod contact;
mod disk;
mod ends;
mod foreign;
mod joining;
mod logs;
mod machine;
mod maintenance;
mod measuring;
mod protocol;
pub(crate) mod proxy;
mod storm;
pub(crate) mod support;
mod survival;

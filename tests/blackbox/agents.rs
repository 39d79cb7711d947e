//! Agents as processes of their own: how they join, what they run, and what is true after whatever was killed.

mod contact;
mod disk;
mod ends;
mod joining;
mod logs;
mod machine;
mod protocol;
mod proxy;
mod storm;
mod support;
mod survival;

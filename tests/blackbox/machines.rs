//! A fleet of several machines, each with a container engine and a network of its own: what is placed there runs there,
//! and is told truly whatever breaks.

mod contact;
mod engine;
mod images;
mod placement;
mod support;
mod survival;

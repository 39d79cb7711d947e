//! A fleet of several machines, each with a container engine and a network of its own: what is placed there runs there,
//! and is told truly whatever breaks.

mod contact;
mod containers;
mod engine;
mod images;
mod mixed;
mod placement;
mod stored;
mod streams;
mod support;
mod survival;

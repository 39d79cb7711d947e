//! Streams of what a container engine has, from the engine to the other end of the WebSocket.

mod exec;
mod follow;
mod output;
mod played;
mod speed;
mod stand;
mod usage;

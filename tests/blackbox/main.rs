//! Black-box tests of the composed product: a real process, real sockets, real databases.

#![expect(clippy::unwrap_used, reason = "a test that panics has done its work, in its helpers too")]

mod agents;
mod alerts;
mod api_document;
mod audit;
mod bad_input;
mod commands;
mod containers;
mod durability;
mod events;
mod failures;
mod fleet;
mod idempotency;
mod identity;
mod machines;
mod maintenance;
mod observability;
mod pools;
mod scheduling;
mod secrets;
mod startup;
mod support;
mod tidy;

use tests::{Backend, Server};

/// The program under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_server-under-test");

/// The agent under test.
const AGENT: &str = env!("CARGO_BIN_EXE_agent-under-test");

/// A server on an empty database.
fn server(backend: Backend) -> Server {
    Server::start(PROGRAM, backend)
}

/// Makes a test for each database out of a function that takes a [`Backend`].
macro_rules! on_both {
    ($($name:ident),+ $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test] async fn $name() { super::$name(tests::Backend::Sqlite).await; })+
        }
        mod on_postgres {
            $(#[tokio::test] async fn $name() { super::$name(tests::Backend::Postgres).await; })+
        }
    };
}
pub(crate) use on_both;

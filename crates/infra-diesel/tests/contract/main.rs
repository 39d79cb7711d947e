//! What the ports promise, held by both databases: every test runs on `SQLite` and on `PostgreSQL`, each time on a
//! database of its own.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has done its work")]

mod agents;
mod alert_targets;
mod alerts;
mod audit;
mod concurrency;
mod containers;
mod copies;
mod enrollments;
mod failures;
mod feed;
mod idempotency;
mod leases;
mod maintenance;
mod migrations;
mod observability;
mod operations;
mod pools;
mod servers;
mod sessions;
mod store;
mod tasks;
mod texts;
mod tokens;
mod upgrades;
mod users;
mod writer;

/// Makes a test for each database out of a function that takes a [`store::Store`].
macro_rules! on_both {
    ($($name:ident),+ $(,)?) => {
        mod on_sqlite {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name(crate::store::Store::sqlite()).await;
                }
            )+
        }
        mod on_postgres {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name(crate::store::Store::postgres()).await;
                }
            )+
        }
    };
}
pub(crate) use on_both;

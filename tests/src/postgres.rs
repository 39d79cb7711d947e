//! Real PostgreSQL: a database per test in a cluster that all tests share, or a cluster of one's own to restart.

use diesel::{Connection, PgConnection, connection::SimpleConnection};
use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// The URL of the shared cluster.
///
/// # Panics
/// If the tests were not started with one.
#[must_use]
pub fn shared_postgres() -> String {
    std::env::var("STARLINK_TEST_POSTGRES_URL").unwrap_or_else(|_| {
        panic!("these tests need PostgreSQL: run them with `make test` or `scripts/with-postgres cargo test …`")
    })
}

/// A new, empty database in the cluster at `cluster`; its URL.
///
/// # Panics
/// If it cannot be made.
#[must_use]
pub fn fresh_postgres(cluster: &str) -> String {
    let name = format!("t{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let mut connection = PgConnection::establish(cluster).unwrap_or_else(|error| panic!("{cluster}: {error}"));
    connection.batch_execute(&format!("CREATE DATABASE {name}")).unwrap_or_else(|error| panic!("{name}: {error}"));
    let (server, _) = cluster.rsplit_once('/').unwrap_or((cluster, ""));
    format!("{server}/{name}")
}

/// A cluster of one's own; ends with the value.
pub struct Cluster {
    directory: tempfile::TempDir,
    /// The URL of its `postgres` database.
    pub url: String,
}

impl Cluster {
    /// Starts a cluster, with these settings (`name=value`) besides PostgreSQL's own, durable ones.
    ///
    /// # Panics
    /// If PostgreSQL is not there or does not start.
    #[must_use]
    pub fn start(settings: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap_or_else(|error| panic!("no directory: {error}"));
        let mut arguments = vec!["start".to_owned(), data(&directory)];
        arguments.extend(settings.iter().flat_map(|setting| ["-c".to_owned(), (*setting).to_owned()]));
        let url = run(&arguments);
        Self { directory, url }
    }

    /// Stops it without a good-bye, as a loss of power would.
    pub fn crash(&self) {
        run(&["crash".to_owned(), data(&self.directory)]);
    }

    /// Starts it again, at the same address.
    pub fn restart(&self) {
        run(&["restart".to_owned(), data(&self.directory)]);
    }

    /// Stops it.
    pub fn stop(&self) {
        run(&["stop".to_owned(), data(&self.directory)]);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = command(&["stop".to_owned(), data(&self.directory)]).output();
    }
}

/// The folder itself, not one within it: run by root, the cluster gives it to a user who could not enter root's.
fn data(directory: &tempfile::TempDir) -> String {
    directory.path().display().to_string()
}

fn command(arguments: &[String]) -> Command {
    let script: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/postgres-cluster");
    let mut command = Command::new(script);
    command.args(arguments);
    command
}

fn run(arguments: &[String]) -> String {
    let output = command(arguments).output().unwrap_or_else(|error| panic!("scripts/postgres-cluster: {error}"));
    assert!(
        output.status.success(),
        "scripts/postgres-cluster {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

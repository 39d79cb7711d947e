//! Where a server keeps its truth while it is measured.

use crate::Outcome;
use std::{net::TcpListener, path::PathBuf};
use tests::{Cluster, Server, ServerOptions, fresh_postgres};

/// A kind of database, and where new ones are made.
pub(crate) struct Site {
    /// What the kind is called.
    pub(crate) name: &'static str,
    cluster: Option<String>,
}

impl Site {
    /// A file in the server's data directory.
    pub(crate) fn sqlite() -> Self {
        Self { name: "SQLite", cluster: None }
    }

    /// A database in this cluster.
    pub(crate) fn postgres(cluster: &Cluster) -> Self {
        Self { name: "PostgreSQL", cluster: Some(cluster.url.clone()) }
    }

    /// Starts a server on a new database. It keeps its address when it is started again.
    pub(crate) fn start(&self) -> Outcome<Server> {
        let database_url = self.cluster.as_deref().map(fresh_postgres);
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let arguments = vec!["--listen".to_owned(), address.to_string()];
        Ok(Server::start_with(ServerOptions { program: program()?, database_url, arguments }))
    }
}

/// The server's program lies beside this one.
fn program() -> Outcome<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("server-under-test"))
}

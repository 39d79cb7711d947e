//! A real server process with a data directory of its own.

use crate::{Backend, Client, Finished, Sql, fresh_postgres, run, shared_postgres};
use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How long anything may take before a test gives up on it.
const PATIENCE: Duration = Duration::from_secs(30);

/// How a server is started.
#[derive(Debug, Clone, Default)]
pub struct ServerOptions {
    /// The program.
    pub program: PathBuf,
    /// The database; `None` for SQLite in the data directory.
    pub database_url: Option<String>,
    /// Further arguments of `serve`.
    pub arguments: Vec<String>,
}

/// A server process. It is killed when the value goes, unless it was stopped.
pub struct Server {
    directory: TempDir,
    options: ServerOptions,
    child: Child,
    starts: u32,
    /// `http://127.0.0.1:PORT`, or `https://…`.
    pub base: String,
}

impl Server {
    /// Starts `program` on an empty database of this kind, in a new data directory.
    ///
    /// # Panics
    /// If it does not listen in time.
    #[must_use]
    pub fn start(program: &str, backend: Backend) -> Self {
        let database_url = (backend == Backend::Postgres).then(|| fresh_postgres(&shared_postgres()));
        Self::start_with(ServerOptions { program: program.into(), database_url, arguments: Vec::new() })
    }

    /// Starts a server with these options, in a new data directory.
    ///
    /// # Panics
    /// If it does not listen in time.
    #[must_use]
    pub fn start_with(options: ServerOptions) -> Self {
        let directory = tempfile::tempdir().unwrap_or_else(|error| panic!("no directory: {error}"));
        Self::start_in(directory, options)
    }

    /// Starts a server in this directory, in which its data directory will be `data`.
    ///
    /// # Panics
    /// If it does not listen in time.
    #[must_use]
    pub fn start_in(directory: TempDir, options: ServerOptions) -> Self {
        let child = spawn(&directory, &options, 1);
        let mut server = Self { directory, options, child, starts: 1, base: String::new() };
        server.base = server.wait_until_listening();
        server
    }

    /// Its data directory.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its database URL, where it is not the default.
    #[must_use]
    pub fn database_url(&self) -> Option<&str> {
        self.options.database_url.as_deref()
    }

    /// The file of the default SQLite database.
    #[must_use]
    pub fn sqlite_file(&self) -> PathBuf {
        self.data_dir().join("starlink.db")
    }

    /// The URL of its database, whatever kind it is.
    #[must_use]
    pub fn url(&self) -> String {
        self.database_url().map_or_else(|| format!("sqlite:{}", self.sqlite_file().display()), str::to_owned)
    }

    /// A connection to its database.
    #[must_use]
    pub fn sql(&self) -> Sql {
        Sql::open(&self.url())
    }

    /// Runs another command of the program on its data directory and database.
    pub async fn command(&self, arguments: &[&str]) -> Finished {
        let (data, url) = (self.data_dir(), self.url());
        let settings = ["--data-dir", data.to_str().unwrap_or_default(), "--database-url", &url];
        run(&self.options.program, &[arguments, &settings].concat()).await
    }

    /// What it logged since it was started last.
    ///
    /// # Panics
    /// If the log cannot be read.
    #[must_use]
    pub fn log(&self) -> String {
        let path = log_file(&self.directory, self.starts);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// The secret of the first token.
    ///
    /// # Panics
    /// If it is not there.
    #[must_use]
    pub fn admin_secret(&self) -> String {
        let path = self.data_dir().join("admin.token");
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        text.trim().to_owned()
    }

    /// A client with the first token.
    #[must_use]
    pub fn admin(&self) -> Client {
        Client::new(&self.base, Some(&self.admin_secret()))
    }

    /// Ends it without warning.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to stop, as a service manager would; how long that took, and how it ended.
    ///
    /// # Panics
    /// If it does not end in time.
    pub fn terminate(&mut self) -> (Duration, ExitStatus) {
        let began = Instant::now();
        self.ask_to_stop();
        let status = self.wait_until_ended();
        (began.elapsed(), status)
    }

    /// Asks it to stop and does not wait.
    ///
    /// # Panics
    /// If no signal can be sent.
    pub fn ask_to_stop(&self) {
        let sent = Command::new("kill").args(["-TERM", &self.pid().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "no signal could be sent");
    }

    /// How it ended.
    ///
    /// # Panics
    /// If it does not end in time.
    pub fn wait_until_ended(&mut self) -> ExitStatus {
        wait_for("the server to end", || self.child.try_wait().ok().flatten())
    }

    /// Starts it again after it ended, on the same data.
    ///
    /// # Panics
    /// If it does not listen in time.
    pub fn restart(&mut self) {
        self.starts += 1;
        self.child = spawn(&self.directory, &self.options, self.starts);
        self.base = self.wait_until_listening();
    }

    fn wait_until_listening(&mut self) -> String {
        let (directory, starts, child) = (&self.directory, self.starts, &mut self.child);
        wait_for("the server to listen", || {
            let log = std::fs::read_to_string(log_file(directory, starts)).unwrap_or_default();
            if let Some(status) = child.try_wait().ok().flatten() {
                panic!("the server ended with {status}:\n{log}");
            }
            let line = log.lines().find(|line| line.contains("listening on "))?;
            let address: String =
                line.split("listening on ").nth(1)?.chars().take_while(|c| !c.is_whitespace() && *c != '"').collect();
            let scheme = if log.contains("https://") { "https" } else { "http" };
            Some(format!("{scheme}://{address}"))
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits until `condition` gives something.
///
/// # Panics
/// If it does not within half a minute.
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// [`wait_for`], while the test's other tasks go on.
///
/// # Panics
/// If it does not within half a minute.
pub async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn log_file(directory: &TempDir, start: u32) -> PathBuf {
    directory.path().join(format!("log.{start}"))
}

fn spawn(directory: &TempDir, options: &ServerOptions, start: u32) -> Child {
    let log = File::create(log_file(directory, start)).unwrap_or_else(|error| panic!("no log file: {error}"));
    let errors = log.try_clone().unwrap_or_else(|error| panic!("no log file: {error}"));
    let mut command = Command::new(&options.program);
    command.arg("serve").arg("--data-dir").arg(data_dir(directory.path()));
    if !options.arguments.iter().any(|argument| argument == "--listen") {
        command.args(["--listen", "127.0.0.1:0"]);
    }
    // Tests count servers and say what each one has: the machine that they run on is only one where they ask for it.
    if !options.arguments.iter().any(|argument| argument.starts_with("--no-local-agent")) {
        command.arg("--no-local-agent");
    }
    if let Some(url) = &options.database_url {
        command.args(["--database-url", url]);
    }
    command.args(&options.arguments).stdout(log).stderr(errors);
    command.spawn().unwrap_or_else(|error| panic!("{}: {error}", options.program.display()))
}

fn data_dir(directory: &Path) -> PathBuf {
    directory.join("data")
}

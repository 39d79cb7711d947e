//! A real agent process with a state directory of its own, and what it leaves running.

use crate::wait_for;
use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};
use tempfile::TempDir;

/// How an agent is started.
#[derive(Debug, Clone, Default)]
pub struct AgentOptions {
    /// The program.
    pub program: PathBuf,
    /// The address of the server.
    pub server: String,
    /// What the server is to be called.
    pub name: String,
    /// Where it keeps its state; `None` for a directory of its own.
    pub state_dir: Option<PathBuf>,
    /// Further arguments.
    pub arguments: Vec<String>,
}

/// An agent process. It is killed when the value goes, with everything that it has begun.
pub struct Agent {
    child: Child,
    leftovers: Leftovers,
    /// What comes before the program in its command line.
    prefix: Vec<String>,
    starts: u32,
    options: AgentOptions,
    directory: TempDir,
}

impl Agent {
    /// Starts an agent that joins with this token, and does not wait for that.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn join(options: AgentOptions, token: &str) -> Self {
        Self::join_through(Vec::new(), options, token)
    }

    /// The same through another program, which replaces itself by what the rest of its command line says.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn join_through(prefix: Vec<String>, options: AgentOptions, token: &str) -> Self {
        let directory = passable();
        let state = options.state_dir.clone().unwrap_or_else(|| directory.path().join("state"));
        let mut command = command(&prefix, &options, &state, &log_file(&directory, 1), "join");
        command.args(["--server", &options.server, "--name", &options.name]).env("STARLINK_JOIN_TOKEN", token);
        let child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", options.program.display()));
        Self { child, leftovers: Leftovers::of(&state), prefix, starts: 1, options, directory }
    }

    /// Its state directory.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.leftovers.directory.clone()
    }

    /// Whether the server has ever given it a session: it has kept what it was told then.
    #[must_use]
    pub fn has_had_a_session(&self) -> bool {
        self.installation().is_some()
    }

    /// The installation that it belongs to, once it has had a session: what it begins carries that.
    #[must_use]
    pub fn installation(&self) -> Option<String> {
        let known = fs::read_to_string(self.leftovers.directory.join("server.json")).ok()?;
        let known: serde_json::Value = serde_json::from_str(&known).ok()?;
        known["installation"].as_str().map(str::to_owned)
    }

    /// What it has begun.
    #[must_use]
    pub fn leftovers(&self) -> &Leftovers {
        &self.leftovers
    }

    /// What it was called when it joined.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.options.name
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged, since it was started first.
    #[must_use]
    pub fn log(&self) -> String {
        let logs = (1..=self.starts).map(|start| fs::read_to_string(log_file(&self.directory, start)));
        logs.map(Result::unwrap_or_default).collect()
    }

    /// Ends it without warning.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to stop, as a service manager would, and waits for that; its exit code.
    ///
    /// # Panics
    /// If it does not end in time.
    pub fn terminate(&mut self) -> Option<i32> {
        send("TERM", &[self.pid()]);
        self.exit_code()
    }

    /// Its exit code, once it has ended.
    ///
    /// # Panics
    /// If it does not end in time.
    pub fn exit_code(&mut self) -> Option<i32> {
        wait_for("the agent to end", || self.child.try_wait().ok().flatten()).code()
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_none())
    }

    /// Halts it, as a machine that is suspended would.
    pub fn freeze(&self) {
        send("STOP", &[self.pid()]);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        send("CONT", &[self.pid()]);
    }

    /// Starts it again after it ended, with what it keeps in its state directory.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn restart(&mut self) {
        self.starts += 1;
        let log = log_file(&self.directory, self.starts);
        let mut command = command(&self.prefix, &self.options, &self.leftovers.directory, &log, "run");
        self.child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", self.options.program.display()));
    }

    /// Starts another agent, on another state directory, that thinks that it has joined.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn run_on(options: AgentOptions, state: &Path) -> Self {
        Self::run_through(Vec::new(), options, state)
    }

    /// The same through another program, as [`Agent::join_through`].
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn run_through(prefix: Vec<String>, options: AgentOptions, state: &Path) -> Self {
        let directory = passable();
        let mut command = command(&prefix, &options, state, &log_file(&directory, 1), "run");
        let child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", options.program.display()));
        Self { child, leftovers: Leftovers::of(state), prefix, starts: 1, options, directory }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            // Nobody could look at it otherwise.
            let _ = std::io::Write::write_all(&mut std::io::stderr(), self.log().as_bytes());
        }
    }
}

/// The shims and programs that were begun in a state directory. They are ended when the value goes.
#[derive(Debug)]
pub struct Leftovers {
    directory: PathBuf,
}

impl Leftovers {
    /// Of this state directory, which need not be there yet.
    #[must_use]
    pub fn of(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// Who of them runs: process ids, and what they are.
    #[must_use]
    pub fn running(&self) -> Vec<(u32, String)> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter_map(|pid| Some((pid, self.is_ours(pid)?))).collect()
    }

    /// Ends them.
    pub fn end(&self) {
        for _ in 0..100 {
            let pids: Vec<u32> = self.running().into_iter().map(|(pid, _)| pid).collect();
            if pids.is_empty() {
                return;
            }
            send("KILL", &pids);
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// A shim has its folder in its command line, and a program works in it. The agent itself is neither.
    fn is_ours(&self, pid: u32) -> Option<String> {
        let of = |file: &str| format!("/proc/{pid}/{file}");
        let words = fs::read(of("cmdline")).ok()?;
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        let work = self.directory.join("work");
        let is_shim = words.contains(" shim ") && words.contains(&*work.to_string_lossy());
        let is_program = || fs::read_link(of("cwd")).is_ok_and(|cwd| cwd.starts_with(&work));
        (!words.is_empty() && (is_shim || is_program())).then_some(words)
    }
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        self.end();
    }
}

fn send(signal: &str, pids: &[u32]) {
    let pids = pids.iter().map(ToString::to_string);
    let _ = Command::new("kill").arg(format!("-{signal}")).args(pids).stderr(Stdio::null()).status();
}

/// A directory in which tasks' programs, whoever they run as, reach theirs.
fn passable() -> TempDir {
    let directory = tempfile::tempdir().unwrap_or_else(|error| panic!("no directory: {error}"));
    let passable = fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755));
    passable.unwrap_or_else(|error| panic!("{}: {error}", directory.path().display()));
    directory
}

fn log_file(directory: &TempDir, start: u32) -> PathBuf {
    directory.path().join(format!("log.{start}"))
}

fn command(prefix: &[String], options: &AgentOptions, state: &Path, log: &Path, what: &str) -> Command {
    let log = File::create(log).unwrap_or_else(|error| panic!("{}: {error}", log.display()));
    let errors = log.try_clone().unwrap_or_else(|error| panic!("no log file: {error}"));
    let mut command = match prefix.split_first() {
        None => Command::new(&options.program),
        Some((first, rest)) => {
            let mut command = Command::new(first);
            command.args(rest).arg(&options.program);
            command
        }
    };
    command.arg(what).arg("--state-dir").arg(state).args(&options.arguments);
    // Whatever engine this machine has is none of a test's business, unless it says so.
    if !options.arguments.iter().any(|argument| argument == "--docker-socket") {
        command.args(["--docker-socket", "/nonexistent/docker.sock"]);
    }
    command.stdin(Stdio::null()).stdout(log).stderr(errors);
    command
}

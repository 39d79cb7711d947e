//! A real Docker engine for tests, and one that is played.
//!
//! The real one runs in namespaces of its own (processes, mounts, network), below a shell that is told what to do over a
//! pipe. Once the pipe is closed, however the test ended, the shell ends them all and removes what they left. Its parent
//! there is an init, because an engine takes a part of its own that died for alive until somebody has reaped it.

pub(crate) mod fake;
pub(crate) mod images;

use bollard::{API_DEFAULT_VERSION, Docker};
use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

/// How long an engine may take to begin or to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// `$0` is the folder, `$1` the parent of all control groups; the rest are arguments of the engine.
const SHELL: &str = r#"
dir=$0 group=$1
shift
busybox ip link set lo up
engine=
end() { kill "-$1" "$engine" && wait "$engine"; }
while read -r order; do
    case $order in
    start)
        rm -f "$dir/pid"
        dockerd --data-root "$dir/data" --exec-root "$dir/exec" --pidfile "$dir/pid" --host "unix://$dir/socket" \
            --cgroup-parent "$group" --iptables=false --ip-forward=false --ip-masq=false --shutdown-timeout 2 \
            "$@" >>"$dir/log" 2>&1 &
        engine=$! ;;
    stop) end TERM ;;
    crash) end KILL ;;
    esac
    echo "$order"
done
kill -KILL -1
while grep -q " $dir/" /proc/self/mounts; do
    awk -v dir="$dir/" 'index($2, dir) == 1 { print $2 }' /proc/self/mounts | sort -r | while read -r mount; do
        umount -l "$mount"
    done
done
find /sys/fs/cgroup -depth -type d -path "*$group*" -exec rmdir {} +
rm -rf "$dir"
"#;

/// An engine that listens on a socket of its own.
pub(crate) struct Engine {
    directory: PathBuf,
    shell: Child,
    orders: Option<ChildStdin>,
    done: BufReader<ChildStdout>,
}

impl Engine {
    /// Starts one with these arguments, and with the images of [`images`].
    ///
    /// # Errors
    /// Why there can be none on this machine.
    pub(crate) fn start(arguments: &[&str]) -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        check_machine()?;
        // The shell removes it, because it is used until the very last.
        let directory = tempfile::Builder::new().prefix("starlink-engine-").tempdir().unwrap().keep();
        let group = format!("/starlink-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut shell = Command::new("unshare")
            .args([
                "--fork",
                "--kill-child",
                "--pid",
                "--mount-proc",
                "--net",
                "--",
                "docker-init",
                "--",
                "sh",
                "-c",
                SHELL,
            ])
            .args([directory.to_str().unwrap(), &group])
            .args(arguments)
            .env("PATH", search_path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("unshare: {error}"))?;
        let (orders, done) = (shell.stdin.take(), BufReader::new(shell.stdout.take().unwrap()));
        let mut engine = Self { directory, shell, orders, done };
        engine.begin()?;
        images::load(&engine);
        Ok(engine)
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.join("socket")
    }

    /// A client.
    pub(crate) fn client(&self) -> Docker {
        client(&self.socket())
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn stop(&mut self) {
        self.order("stop");
    }

    /// Ends it without warning.
    pub(crate) fn crash(&mut self) {
        self.order("crash");
    }

    /// Starts it again.
    pub(crate) fn start_again(&mut self) {
        self.begin().unwrap();
    }

    /// Runs a program in its network, where the ports of its containers are.
    pub(crate) fn in_network(&self, program: &[&str]) -> std::process::Output {
        let pid = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.shell.id())).unwrap();
        let network = format!("--net=/proc/{}/ns/net", pid.trim());
        Command::new("nsenter").arg(network).arg("--").args(program).output().unwrap()
    }

    fn order(&mut self, order: &str) {
        writeln!(self.orders.as_mut().unwrap(), "{order}").unwrap();
        let mut line = String::new();
        self.done.read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), order);
    }

    fn begin(&mut self) -> Result<(), String> {
        self.order("start");
        let (socket, until) = (self.socket(), Instant::now() + PATIENCE);
        let ready = apart(async move {
            while Instant::now() < until {
                if let Some(client) = try_client(&socket)
                    && client.ping().await.is_ok()
                {
                    return true;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            false
        });
        let log = || std::fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        if ready { Ok(()) } else { Err(format!("dockerd does not answer: {}", last_lines(&log()))) }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        drop(self.orders.take());
        let _ = self.shell.wait();
    }
}

/// The engine that tests share: whatever they make carries an installation of its own.
///
/// It is removed when the tests have ended, by its shell.
pub(crate) fn shared() -> Option<&'static Engine> {
    static SHARED: OnceLock<Result<Engine, String>> = OnceLock::new();
    or_not_run(SHARED.get_or_init(|| Engine::start(&[])).as_ref().map_err(Clone::clone))
}

/// An engine that a test has for itself.
pub(crate) fn own(arguments: &[&str]) -> Option<Engine> {
    or_not_run(Engine::start(arguments))
}

/// Says by name that a test was not run, or fails it where all must be.
fn or_not_run<T>(engine: Result<T, String>) -> Option<T> {
    let required =
        std::env::var("CI").is_ok_and(|ci| ci == "true") || std::env::var_os("STARLINK_REQUIRE_DOCKER").is_some();
    match engine {
        Ok(engine) => Some(engine),
        Err(why) => {
            assert!(!required, "no container engine could be started: {why}");
            let test = std::thread::current().name().unwrap_or("a test").to_owned();
            // Not by `eprintln!`, which nobody gets to see if the test passes.
            let _ = writeln!(std::io::stderr(), "NOT RUN: {test}: no container engine could be started: {why}");
            None
        }
    }
}

/// What comes of it; for use within asynchronous tests, too.
fn apart<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> T {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    std::thread::spawn(move || runtime().block_on(future)).join().unwrap()
}

fn check_machine() -> Result<(), String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("it takes root".to_owned());
    }
    let path = search_path();
    for program in ["dockerd", "containerd", "runc", "docker-init", "unshare", "nsenter", "tar", "busybox"] {
        let there = path.split(':').any(|folder| Path::new(folder).join(program).exists());
        if !there {
            return Err(format!(
                "there is no {program} (scripts/install-test-tools installs docker.io and busybox-static)"
            ));
        }
    }
    Ok(())
}

/// Daemons lie where only root's own path leads.
fn search_path() -> String {
    std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin"
}

/// A client of the engine with this socket.
pub(crate) fn client(socket: &Path) -> Docker {
    try_client(socket).unwrap()
}

fn try_client(socket: &Path) -> Option<Docker> {
    Docker::connect_with_unix(socket.to_str()?, 60, API_DEFAULT_VERSION).ok()
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}

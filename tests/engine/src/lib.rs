//! A real Docker engine for tests.
//!
//! It runs in namespaces of its own (processes, mounts, network), below a shell that is told what to do over a pipe. Once
//! the pipe is closed, however the test ended, the shell ends them all and removes what they left. Its parent there is an
//! init, because an engine takes a part of its own that died for alive until somebody has reaped it.
#![expect(
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "a test that panics has done its work, in its helpers too"
)]

pub mod emulation;
pub mod images;
pub mod manifests;
pub mod registry;

pub use bollard;

use bollard::{
    API_DEFAULT_VERSION, Docker,
    models::ContainerCreateBody,
    query_parameters::{
        CreateContainerOptions, ListContainersOptions, RemoveContainerOptions, RemoveImageOptions, TagImageOptions,
        WaitContainerOptions,
    },
};
use futures_util::StreamExt;
use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

/// How long an engine may take to begin or to end.
const PATIENCE: Duration = Duration::from_secs(30);

const PROGRAMS: [&str; 8] = ["dockerd", "containerd", "runc", "docker-init", "unshare", "nsenter", "tar", "busybox"];

/// `$0` is the folder, `$1` the parent of all control groups, `$2` the engine; the rest are its arguments.
const SHELL: &str = r#"
dir=$0 group=$1 program=$2
shift 2
busybox ip link set lo up
# Whoever gave the order may have gone; that must not keep what follows from being done. To ignore it would be inherited.
trap : PIPE
engine=
end() { kill "-$1" "$engine" && wait "$engine"; }
groups() { find /sys/fs/cgroup -depth \( -path "*$group" -o -path "*$group/*" \) "$@"; }
while read -r order; do
    case $order in
    start)
        rm -f "$dir/pid"
        "$program" --data-root "$dir/data" --exec-root "$dir/exec" --pidfile "$dir/pid" --host "unix://$dir/socket" \
            --cgroup-parent "$group" --iptables=false --ip-forward=false --ip-masq=false --shutdown-timeout 2 \
            "$@" >>"$dir/log" 2>&1 &
        engine=$! ;;
    stop) end TERM ;;
    crash) end KILL ;;
    esac
    echo "$order"
done
kill -KILL -1
# With control groups of the first version, what is frozen does not die before it is thawed.
groups -name freezer.state -exec sh -c 'echo THAWED >"$0"' {} \;
while grep -q " $dir/" /proc/self/mounts; do
    awk -v dir="$dir/" 'index($2, dir) == 1 { print $2 }' /proc/self/mounts | sort -r | while read -r mount; do
        umount -l "$mount"
    done
done
# Some may still be dying.
for _ in $(seq 100); do
    groups -type d -exec rmdir {} +
    [ "$(groups -type d)" ] || break
    sleep 0.05
done
rm -rf "$dir"
"#;

/// Which engine is started, and where.
#[derive(Debug, Clone, Copy)]
pub struct EngineOptions<'a> {
    /// What makes of a command one that runs where the engine is to.
    pub prefix: &'a [String],
    /// The program. What it has others do, such as containerd and runc, is done by those of this machine.
    pub program: &'a Path,
    /// Its arguments.
    pub arguments: &'a [&'a str],
    /// What it has of the [`images`].
    pub images: &'a [&'a str],
}

/// An engine that listens on a socket of its own.
pub struct Engine {
    directory: PathBuf,
    group: String,
    shell: Child,
    orders: Option<ChildStdin>,
    done: BufReader<ChildStdout>,
}

impl Engine {
    /// Starts one with these arguments, and with these of the [`images`].
    ///
    /// # Errors
    /// Why there can be none on this machine.
    pub fn start(arguments: &[&str], images: &[&str]) -> Result<Self, String> {
        Self::start_with(EngineOptions { prefix: &[], program: Path::new("dockerd"), arguments, images })
    }

    /// Starts one with these options.
    ///
    /// # Errors
    /// Why there can be none on this machine.
    pub fn start_with(options: EngineOptions<'_>) -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !nix::unistd::geteuid().is_root() {
            return Err("it takes root".to_owned());
        }
        check_programs(&PROGRAMS)?;
        // The shell removes it, because it is used until the very last.
        let directory = tempfile::Builder::new().prefix("starlink-engine-").tempdir().unwrap().keep();
        let group = format!("/starlink-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let words = [options.prefix, &["unshare".to_owned()]].concat();
        let mut shell = Command::new(&words[0])
            .args(&words[1..])
            .args(["--fork", "--kill-child", "--pid", "--mount-proc", "--net", "--"])
            .args(["docker-init", "--", "sh", "-c", SHELL])
            .args([directory.to_str().unwrap(), &group])
            .arg(options.program)
            .args(options.arguments)
            .env("PATH", search_path())
            // Who interrupts the tests does not mean those that tidy up after them.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("{}: {error}", words[0]))?;
        let (orders, done) = (shell.stdin.take(), BufReader::new(shell.stdout.take().unwrap()));
        let mut engine = Self { directory, group, shell, orders, done };
        engine.begin()?;
        images::load(&engine, options.images);
        Ok(engine)
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.join("socket")
    }

    /// The control group that those of its containers are in.
    #[must_use]
    pub fn group(&self) -> &str {
        &self.group
    }

    /// A client.
    #[must_use]
    pub fn client(&self) -> Docker {
        client(&self.socket())
    }

    /// Gives an image another name, `repository:latest`.
    pub async fn tag_image(&self, name: &str, repository: &str) {
        let options = TagImageOptions { repo: Some(repository.to_owned()), tag: Some("latest".to_owned()) };
        self.client().tag_image(name, Some(options)).await.unwrap();
    }

    /// Removes an image.
    pub async fn remove_image(&self, name: &str) {
        self.client().remove_image(name, None::<RemoveImageOptions>, None).await.unwrap();
    }

    /// Asks it to end, and waits until it has.
    pub fn stop(&mut self) {
        self.order("stop");
    }

    /// Ends it without warning.
    pub fn crash(&mut self) {
        self.order("crash");
    }

    /// Starts it again.
    pub fn start_again(&mut self) {
        self.begin().unwrap();
    }

    /// The process that its namespaces last as long as.
    #[must_use]
    pub fn init(&self) -> u32 {
        let pid = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.shell.id())).unwrap();
        pid.trim().parse().unwrap()
    }

    /// Runs a program in its network, where the ports of its containers are.
    #[must_use]
    pub fn in_network(&self, program: &[&str]) -> std::process::Output {
        let network = format!("--net=/proc/{}/ns/net", self.init());
        Command::new("nsenter").arg(network).arg("--").args(program).output().unwrap()
    }

    /// The containers that carry this label, whether they run or not: their names.
    pub async fn containers(&self, label: &str) -> Vec<String> {
        self.list(label, true).await
    }

    /// Those of them that run.
    pub async fn running(&self, label: &str) -> Vec<String> {
        self.list(label, false).await
    }

    /// Runs a program in a container of this name, as somebody might by hand, and waits for its end; the engine's id.
    pub async fn run(&self, image: &str, name: &str, command: &[&str]) -> String {
        let body = ContainerCreateBody {
            image: Some(image.to_owned()),
            cmd: Some(command.iter().map(|&word| word.to_owned()).collect()),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptions { name: Some(name.to_owned()), ..CreateContainerOptions::default() };
        let (client, made) = (self.client(), self.client().create_container(Some(options), body).await.unwrap());
        client.start_container(&made.id, None).await.unwrap();
        let mut ends = client.wait_container(&made.id, None::<WaitContainerOptions>);
        let _ = ends.next().await;
        made.id
    }

    /// Puts those of the [`images`] back that were removed.
    pub fn restore_images(&self) {
        images::load(self, &images::ALL);
    }

    /// Ends and removes a container, as somebody might by hand.
    pub async fn remove(&self, container: &str) {
        let options = RemoveContainerOptions { force: true, ..RemoveContainerOptions::default() };
        self.client().remove_container(container, Some(options)).await.unwrap();
    }

    async fn list(&self, label: &str, all: bool) -> Vec<String> {
        let filters = HashMap::from([("label".to_owned(), vec![label.to_owned()])]);
        let options = ListContainersOptions { all, filters: Some(filters), ..ListContainersOptions::default() };
        let found = self.client().list_containers(Some(options)).await.unwrap();
        let names = found.into_iter().filter_map(|container| container.names?.into_iter().next());
        let mut names: Vec<String> = names.map(|name| name.trim_start_matches('/').to_owned()).collect();
        names.sort();
        names
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

/// Says by name that a test was not run, or fails it where all must be.
pub fn or_not_run<T>(made: Result<T, String>) -> Option<T> {
    let required =
        std::env::var("CI").is_ok_and(|ci| ci == "true") || std::env::var_os("STARLINK_REQUIRE_DOCKER").is_some();
    match made {
        Ok(made) => Some(made),
        Err(why) => {
            assert!(!required, "{why}");
            not_run(&why);
            None
        }
    }
}

/// Says by name that a test was not run.
pub fn not_run(why: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    // Not by `eprintln!`, which nobody gets to see if the test passes; and at once, lest others write in between.
    let _ = std::io::stderr().write_all(format!("NOT RUN: {test}: {why}\n").as_bytes());
}

/// Whether these programs are there.
///
/// # Errors
/// Which one is not.
pub fn check_programs(programs: &[&str]) -> Result<(), String> {
    let path = search_path();
    let is_there = |program: &str| path.split(':').any(|folder| Path::new(folder).join(program).exists());
    match programs.iter().find(|program| !is_there(program)) {
        None => Ok(()),
        Some(program) => Err(format!("there is no {program} (scripts/install-test-tools installs what is missing)")),
    }
}

/// Daemons, and what sets networks up, lie where only root's own path leads.
#[must_use]
pub fn search_path() -> String {
    std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin"
}

/// A client of the engine with this socket.
#[must_use]
pub fn client(socket: &Path) -> Docker {
    try_client(socket).unwrap()
}

/// What comes of it; for use within asynchronous tests, too.
fn apart<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> T {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    std::thread::spawn(move || runtime().block_on(future)).join().unwrap()
}

fn try_client(socket: &Path) -> Option<Docker> {
    Docker::connect_with_unix(socket.to_str()?, 60, API_DEFAULT_VERSION).ok()
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}

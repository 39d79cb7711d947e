//! Several machines on this one: each with a container engine and a network of its own, on a cable that can be pulled.
//!
//! A machine is the namespaces of an engine, with one end of a cable in its network. The other end is in a switch: one
//! more network, with a bridge, into which this machine is plugged as well. Engines and switch belong to processes that
//! wait for orders on a pipe from this one. Once that is closed, however the test ended, they end what was begun on the
//! machines, and the kernel takes the cables away together with the networks; nothing else of this machine was changed.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, TcpListener},
    ops::{Deref, DerefMut},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Output, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU16, AtomicU32, Ordering},
    },
    thread::{self, ScopedJoinHandle},
};
use test_engine::{Engine, EngineOptions, check_programs, emulation::Emulation, images, or_not_run, search_path};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// How many machines tests share.
const COUNT: usize = 3;
/// What the engines of machines have that are as this one.
const OWN_IMAGES: [&str; 2] = [images::BUSYBOX, images::LYING];
/// From here on, addresses are for measurements of networks (RFC 2544), and nobody else's.
const FIRST_NETWORK: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
/// As many networks of sixteen addresses as fit into that range.
const NETWORKS: u32 = 8192;
/// The first port that servers listen on: below those that the kernel hands out.
const FIRST_PORT: u16 = 8443;

/// Prints a line once there is a bridge. Every line that it reads names the network of a machine.
const SWITCH: &str = r#"
exec 2>&1
ip link set lo up && ip link add switch type bridge && ip link set switch up || exit
echo ready
networks=" "
while read -r network; do networks="$networks$network "; done
here=$(readlink /proc/self/ns/pid)
for process in /proc/[0-9]*; do
    case $networks in *" $(readlink "$process/ns/net") "*) ;; *) continue ;; esac
    # What belongs to an engine ends with it: most of it is in other namespaces, and what started them tidies up.
    [ "$(readlink "$process/ns/pid")" = "$here" ] && [ "$(cat "$process/comm")" != unshare ] &&
        kill -KILL "${process#/proc/}"
done
"#;

/// What a machine is, besides its network.
#[derive(Debug, Clone, Default)]
pub struct Parts {
    /// What its kernel has QEMU run, in the kernel's words. Programs for anything else are refused.
    pub handlers: Vec<&'static str>,
    /// The program of its container engine, where that is another one than this machine's own. Its containers have no
    /// network then: it takes its own program, which would be QEMU, for what it has to run for that.
    pub engine: Option<PathBuf>,
}

impl Parts {
    fn start(&self) -> Result<(Engine, Option<Emulation>), String> {
        // Their registry is on this machine.
        let plain = format!("--insecure-registry={FIRST_NETWORK}/15");
        let emulation = if self.handlers.is_empty() { None } else { Some(Emulation::apart(&self.handlers)?) };
        let prefix = emulation.as_ref().map(Emulation::prefix).unwrap_or_default();
        let (own, arguments) = (Path::new("dockerd"), [&*plain, "--bridge=none", "--ip6tables=false"]);
        let engine = Engine::start_with(match &self.engine {
            None => EngineOptions { prefix: &prefix, program: own, arguments: &arguments[..1], images: &OWN_IMAGES },
            Some(program) => EngineOptions { prefix: &prefix, program, arguments: &arguments, images: &[] },
        })?;
        Ok((engine, emulation))
    }
}

/// Machines on one network, which this machine is part of.
pub struct Machines {
    address: Ipv4Addr,
    all: Vec<RwLock<Machine>>,
    // Dropped after them.
    _switch: Switch,
}

impl Machines {
    /// Sets them up: one of each of these.
    ///
    /// # Errors
    /// Why there can be none on this machine.
    pub fn start(parts: &[Parts]) -> Result<Self, String> {
        check_programs(&["ip", "nsenter", "unshare"])?;
        let engines = thread::scope(|scope| {
            let starting: Vec<_> = parts.iter().map(|parts| scope.spawn(|| parts.start())).collect();
            let ended = |thread: ScopedJoinHandle<'_, Result<_, String>>| match thread.join() {
                Ok(engine) => engine,
                Err(_panic) => Err("an engine takes no images".to_owned()),
            };
            starting.into_iter().map(ended).collect::<Result<Vec<_>, String>>()
        })?;
        let mut switch = Switch::start()?;
        let (address, addresses) = switch.plug_in_host()?;
        let mut all = Vec::new();
        for ((engine, emulation), (number, address)) in engines.into_iter().zip(addresses.enumerate()) {
            let machine = switch.plug_in(engine, number, address)?;
            all.push(RwLock::new(Machine { emulation, ..machine }));
        }
        let machines = Self { address, all, _switch: switch };
        machines.check()?;
        Ok(machines)
    }

    /// Where machines find this one.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// A port of [`Machines::address`] that nobody listens on, and that no other caller gets.
    ///
    /// # Panics
    /// If there are none left.
    #[must_use]
    pub fn free_port(&self) -> u16 {
        static NEXT: AtomicU16 = AtomicU16::new(FIRST_PORT);
        let ports = std::iter::repeat_with(|| NEXT.fetch_add(1, Ordering::Relaxed)).take(1000);
        let mut free = ports.filter(|port| TcpListener::bind((self.address, *port)).is_ok());
        free.next().unwrap_or_else(|| panic!("no port of {} is free", self.address))
    }

    /// One of them, which other tests use as well.
    ///
    /// Whoever wants several takes them in order, lest two tests wait for each other.
    pub async fn shared(&self, number: usize) -> RwLockReadGuard<'_, Machine> {
        self.all[number].read().await
    }

    /// All of them, which other tests use as well.
    pub async fn all_shared(&self) -> Vec<RwLockReadGuard<'_, Machine>> {
        let mut all = Vec::new();
        for number in 0..self.all.len() {
            all.push(self.shared(number).await);
        }
        all
    }

    /// One of them, which no other test uses meanwhile.
    pub async fn alone(&self, number: usize) -> Alone<'_> {
        Alone(self.all[number].write().await)
    }

    /// Whether this machine can be reached from the others.
    fn check(&self) -> Result<(), String> {
        let listener = TcpListener::bind((self.address, 0)).map_err(|error| error.to_string())?;
        let to = listener.local_addr().map_err(|error| error.to_string())?;
        let (host, port) = (to.ip().to_string(), to.port().to_string());
        for machine in self.all.iter().filter_map(|machine| machine.try_read().ok()) {
            let reached = machine.run(&["busybox", "nc", "-w", "5", &host, &port, "-e", "true"]);
            if !reached.status.success() {
                let said = String::from_utf8_lossy(&reached.stderr).into_owned();
                return Err(format!("{to} cannot be reached from {}: {said}", machine.address));
            }
        }
        Ok(())
    }
}

/// The machines that tests share.
///
/// They are taken down when the tests have ended, by the processes that they belong to.
pub fn machines() -> Option<&'static Machines> {
    static MACHINES: OnceLock<Result<Machines, String>> = OnceLock::new();
    let start =
        || Machines::start(&vec![Parts::default(); COUNT]).map_err(|why| format!("no machines could be set up: {why}"));
    or_not_run(MACHINES.get_or_init(start).as_ref().map_err(Clone::clone))
}

/// A machine that one test has for itself. When the value goes, it is put in order for the next one.
pub struct Alone<'a>(RwLockWriteGuard<'a, Machine>);

impl Deref for Alone<'_> {
    type Target = Machine;

    fn deref(&self) -> &Machine {
        &self.0
    }
}

impl DerefMut for Alone<'_> {
    fn deref_mut(&mut self) -> &mut Machine {
        &mut self.0
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        if !self.0.has_contact {
            self.0.join();
        }
        if !self.0.has_engine {
            self.0.start_engine();
        }
    }
}

/// A machine: a container engine, and its network.
pub struct Machine {
    engine: Engine,
    // Dropped after it.
    emulation: Option<Emulation>,
    network: PathBuf,
    address: Ipv4Addr,
    /// Where its cable ends: the network of the switch, and a port there.
    switch: PathBuf,
    port: String,
    has_contact: bool,
    has_engine: bool,
}

impl Machine {
    /// What other machines call it.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// What makes of a command one that runs on this machine; its processes and files are also this machine's own.
    #[must_use]
    pub fn prefix(&self) -> Vec<String> {
        let network = ["nsenter", &format!("--net={}", self.network.display()), "--"].map(str::to_owned);
        // The network is entered first, by who may enter all that there are.
        [&network[..], &self.emulation.as_ref().map(Emulation::prefix).unwrap_or_default()].concat()
    }

    /// Its container engine. To stop it, there is [`Machine::stop_engine`].
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Pulls its cable.
    ///
    /// # Panics
    /// If it cannot be.
    pub fn cut(&mut self) {
        self.has_contact = false;
        set_link(&self.switch, &self.port, "down");
    }

    /// Plugs it in again.
    ///
    /// # Panics
    /// If it cannot be.
    pub fn join(&mut self) {
        set_link(&self.switch, &self.port, "up");
        self.has_contact = true;
    }

    /// Asks its engine to end, and waits until it has.
    pub fn stop_engine(&mut self) {
        self.has_engine = false;
        self.engine.stop();
    }

    /// Starts its engine again.
    pub fn start_engine(&mut self) {
        self.engine.start_again();
        self.has_engine = true;
    }

    fn run(&self, program: &[&str]) -> Output {
        self.engine.in_network(program)
    }
}

/// A network with a bridge, and the process that it lasts as long as.
struct Switch {
    process: Child,
    networks: Option<ChildStdin>,
}

impl Switch {
    fn start() -> Result<Self, String> {
        let mut command = Command::new("unshare");
        command.args(["--net", "--", "sh", "-c", SWITCH]).env("PATH", search_path());
        // Who interrupts the tests does not mean what tidies up after them.
        command.process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().map_err(|error| format!("unshare: {error}"))?;
        let (networks, said) = (process.stdin.take(), process.stdout.take());
        let switch = Self { process, networks };
        let mut line = String::new();
        said.map(|said| BufReader::new(said).read_line(&mut line));
        if line.trim_end() == "ready" { Ok(switch) } else { Err(format!("no bridge could be made: {line}")) }
    }

    fn network(&self) -> PathBuf {
        network(self.process.id())
    }

    /// Plugs this machine in: its address in the new network, and the others there.
    fn plug_in_host(&self) -> Result<(Ipv4Addr, impl Iterator<Item = Ipv4Addr> + use<>), String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // It must be unique among whatever runs here, and have at most fifteen letters.
        let link = format!("sl{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        ip(None, &format!("link add {link} type veth peer name host netns {}", self.process.id()))?;
        ip(Some(&self.network()), "link set host master switch up")?;
        let index = fs::read_to_string(format!("/sys/class/net/{link}/ifindex")).map_err(|error| error.to_string())?;
        // No other link has this number, so that no other one has this network.
        let index: u32 = index.trim().parse().map_err(|error| format!("the number of {link}: {error}"))?;
        let first = FIRST_NETWORK.to_bits() + index % NETWORKS * 16;
        let mut addresses = (first + 1..first + 15).map(Ipv4Addr::from_bits);
        let address = addresses.next().unwrap_or(FIRST_NETWORK);
        ip(None, &format!("address add {address}/28 dev {link}"))?;
        ip(None, &format!("link set {link} up"))?;
        Ok((address, addresses))
    }

    /// Makes a machine of an engine.
    fn plug_in(&mut self, engine: Engine, number: usize, address: Ipv4Addr) -> Result<Machine, String> {
        let (switch, port, init) = (self.network(), format!("port{number}"), engine.init());
        let network = network(init);
        ip(Some(&switch), &format!("link add {port} type veth peer name cable netns {init}"))?;
        ip(Some(&switch), &format!("link set {port} master switch up"))?;
        ip(Some(&network), &format!("address add {address}/28 dev cable"))?;
        ip(Some(&network), "link set cable up")?;
        let name = fs::read_link(&network).map_err(|error| format!("{}: {error}", network.display()))?;
        if let Some(networks) = &mut self.networks {
            writeln!(networks, "{}", name.display()).map_err(|error| format!("the switch has ended: {error}"))?;
        }
        Ok(Machine { engine, emulation: None, network, address, switch, port, has_contact: true, has_engine: true })
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        drop(self.networks.take());
        let _ = self.process.wait();
    }
}

fn network(process: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{process}/ns/net"))
}

fn set_link(network: &Path, link: &str, state: &str) {
    ip(Some(network), &format!("link set {link} {state}")).unwrap_or_else(|why| panic!("{why}"));
}

/// Runs `ip` with these words, in this network or in this machine's own.
fn ip(network: Option<&Path>, words: &str) -> Result<(), String> {
    let mut command = match network {
        None => Command::new("ip"),
        Some(network) => {
            let mut command = Command::new("nsenter");
            command.arg(format!("--net={}", network.display())).args(["--", "ip"]);
            command
        }
    };
    let output = command.args(words.split(' ')).env("PATH", search_path()).output();
    let output = output.map_err(|error| format!("ip {words}: {error}"))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("ip {words}: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }
}

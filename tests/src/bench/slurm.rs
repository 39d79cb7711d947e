//! Slurm on the same machine, as a measure to hold the tasks against: what `sbatch` hands in, and what is started of it.
//!
//! It is a Slurm of one virtual node, of Debian's programs, authenticated by a munged of its own. A submission costs a
//! new process `sbatch` each time, which is how Slurm is used, and more than it costs slurmctld.
//!
//! `sbatch` returns once slurmctld has the job in memory; the list of jobs goes to disk in the background, seconds
//! later, and whoever kills slurmctld before that loses jobs that were accepted. Our own tasks are on disk by then.
//!
//! Munge is not left out, though Slurm is quicker without: anybody on the machine could then run jobs as the user who
//! runs this program.

use crate::{
    Outcome, process,
    table::{Row, median, ms, pair, percentile},
};
use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    net::TcpListener,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::task::JoinSet;

const ROUNDS: usize = 3;
const CLIENTS: [u32; 3] = [1, 8, 32];
const PROGRAMS: [&str; 7] = ["munged", "slurmctld", "slurmd", "sbatch", "scancel", "sinfo", "squeue"];
/// How long Slurm may take to start, to answer, or to be rid of its jobs.
const PATIENCE: Duration = Duration::from_mins(1);
/// The first version that can be told to leave control groups alone; older ones do so unless told otherwise.
const DISABLES_CGROUPS: u32 = 23;

/// What becomes of a job.
#[derive(Clone, Copy)]
enum Fate {
    /// It is held, so that accepting it is all the work there is.
    Held,
    /// It is placed on the node and runs `true` there.
    Started,
}

impl Fate {
    const ALL: [Self; 2] = [Self::Held, Self::Started];

    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Held => &["--hold", "--wrap=true", "--output=/dev/null"],
            Self::Started => &["--wrap=true", "--output=/dev/null"],
        }
    }

    /// What the scheduler is told. Where jobs are to start it looks as often and as far as it is let, because the
    /// default would start a hundred every two seconds; where none can, that would only cost slurmctld time.
    fn scheduler(self) -> &'static str {
        match self {
            Self::Held => "",
            Self::Started => {
                "SchedulerParameters=batch_sched_delay=0,default_queue_depth=10000,sched_min_interval=10000,\
                 sched_max_job_start=0\n"
            }
        }
    }
}

/// What one load showed.
#[derive(Clone)]
struct Shown {
    /// How long each submission took.
    latencies: Vec<Duration>,
    /// The jobs that met their fate, and the time that they had for it.
    done: u32,
    wall: Duration,
    /// slurmctld's CPU time, and that of all the programs `sbatch`, per submission.
    cpu: Duration,
    client_cpu: Duration,
}

impl Shown {
    fn interval(&self) -> Duration {
        self.wall / self.done.max(1)
    }
}

/// The rows, and one that says why there are not more: what is measured here is somebody else's product, and may be
/// missing or fail.
pub(crate) async fn measure(period: Duration) -> Vec<Row> {
    let mut rows = Vec::new();
    let outcome = match version().await {
        Ok(version) => {
            let mut shown = vec![Vec::new(); Fate::ALL.len() * CLIENTS.len()];
            let outcome = rounds(&version, period, &mut shown).await;
            rows = shown_rows(&version, &shown);
            outcome
        }
        Err(error) => Err(error),
    };
    if let Err(error) = outcome {
        rows.push(row(format!("Slurm's sbatch was not measured (to the end): {error}"), String::new(), ""));
    }
    rows
}

/// Every round measures everything once, so that a slow minute of the machine does not fall on one line alone.
async fn rounds(version: &str, period: Duration, shown: &mut [Vec<Shown>]) -> Outcome<()> {
    for _ in 0..ROUNDS {
        let mut cells = shown.iter_mut();
        for fate in Fate::ALL {
            // A new one each time, because slurmctld remembers jobs for minutes after they ended.
            let slurm = Slurm::start(version, fate).await?;
            for clients in CLIENTS {
                cells.next().ok_or("a cell too few")?.push(slurm.load(fate, clients, period).await?);
            }
        }
    }
    Ok(())
}

fn shown_rows(version: &str, shown: &[Vec<Shown>]) -> Vec<Row> {
    let labels = Fate::ALL.into_iter().flat_map(|fate| CLIENTS.map(|clients| (fate, clients)));
    let middles = labels.zip(shown).filter_map(|(label, cell)| Some((label, median(cell, Shown::interval)?)));
    let mut rows: Vec<Row> =
        middles.map(|((fate, clients), middle)| shown_row(version, fate, clients, &middle)).collect();
    if let Some(one) = shown.first().and_then(|cell| median(cell, |shown| shown.client_cpu)) {
        let measurement = format!("the program sbatch itself, {version}, 1 client");
        rows.push(row(measurement, format!("{} CPU", ms(one.client_cpu)), "a new process each: bounds the above"));
    }
    rows
}

fn shown_row(version: &str, fate: Fate, clients: u32, shown: &Shown) -> Row {
    let (what, remark) = match fate {
        Fate::Held => ("sbatch --hold accepted", "answered seconds before the disk has it"),
        Fate::Started => ("sbatch, job started", "likewise, and the jobs run `true` beside it"),
    };
    let result = format!("{:.0}/s", f64::from(shown.done) / shown.wall.as_secs_f64());
    Row {
        wall: pair(percentile(&shown.latencies, 50), percentile(&shown.latencies, 99)),
        cpu: ms(shown.cpu),
        ..row(format!("{what}, {version}, {clients} client(s)"), result, remark)
    }
}

fn row(measurement: String, result: String, aim: &'static str) -> Row {
    Row { measurement, result, wall: String::new(), cpu: String::new(), aim }
}

/// `Slurm 22.05.8`, if all of it is installed.
async fn version() -> Outcome<String> {
    let missing: Vec<_> = PROGRAMS.into_iter().filter(|name| find(name).is_err()).collect();
    if !missing.is_empty() {
        return Err(format!("{} not installed (Debian's package slurm-wlm)", missing.join(", ")).into());
    }
    // The others want to be told of a running Slurm even for this.
    let text = output(tokio::process::Command::new(find("slurmctld")?).arg("-V")).await?;
    Ok(format!("Slurm {}", text.split_whitespace().last().unwrap_or("?")))
}

/// Where a program is. Daemons lie where only root's search path leads.
fn find(name: &str) -> Outcome<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let found = folders.find_map(|folder| Some(folder.join(name)).filter(|file| file.is_file()));
    found.ok_or_else(|| format!("{name} is not installed").into())
}

/// What a command printed, or why it failed.
async fn output(command: &mut tokio::process::Command) -> Result<String, String> {
    let name = Path::new(command.as_std().get_program()).file_name().unwrap_or_default().display().to_string();
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(PATIENCE, output).await.map_err(|late| format!("{name}: {late}"))?;
    let output = output.map_err(|error| format!("{name}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{name}: {}", last_line(&output.stderr)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn last_line(text: &[u8]) -> String {
    String::from_utf8_lossy(text).lines().last().unwrap_or("it said nothing").to_owned()
}

/// A Slurm with its munged, in a folder of its own; it ends with the value.
struct Slurm {
    directory: TempDir,
    daemons: Vec<(&'static str, Child)>,
}

impl Slurm {
    async fn start(version: &str, fate: Fate) -> Outcome<Self> {
        let mut slurm = Self { directory: tempfile::tempdir()?, daemons: Vec::new() };
        slurm.configure(version, fate)?;
        let file = |option: &str, name: &str| format!("--{option}={}", slurm.file(name).display());
        let munged = [
            "--foreground".to_owned(),
            // The folder is closed to other users, which munged takes for a mistake.
            "--force".to_owned(),
            file("key-file", "munge.key"),
            file("socket", "munge.socket"),
            file("pid-file", "munge.pid"),
            file("seed-file", "munge.seed"),
        ];
        slurm.spawn("munged", &munged)?;
        slurm.wait("munged does not listen", async |slurm| slurm.file("munge.socket").exists()).await?;
        slurm.spawn("slurmctld", &["-D".to_owned(), "-i".to_owned()])?;
        slurm.spawn("slurmd", &["-D".to_owned()])?;
        let idle =
            async |slurm: &Self| slurm.ask("sinfo", &["-h", "-o", "%t"]).await.is_ok_and(|text| text == "idle\n");
        slurm.wait("Slurm's node does not become idle", idle).await?;
        Ok(slurm)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn configure(&self, version: &str, fate: Fate) -> Outcome<()> {
        for folder in ["state", "spool"] {
            fs::create_dir(self.file(folder))?;
        }
        let mut key = [0; 64];
        File::open("/dev/urandom")?.read_exact(&mut key)?;
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.file("munge.key"))?.write_all(&key)?;
        let major = version.trim_start_matches("Slurm ").split('.').next().and_then(|text| text.parse::<u32>().ok());
        if major.is_some_and(|major| major >= DISABLES_CGROUPS) {
            fs::write(self.file("cgroup.conf"), "CgroupPlugin=disabled\n")?;
        }
        // Both are bound at once, so that they differ.
        let listeners = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
        let ports = (listeners.0.local_addr()?.port(), listeners.1.local_addr()?.port());
        let text = configuration(self.directory.path(), ports)? + fate.scheduler();
        fs::write(self.file("slurm.conf"), text)?;
        Ok(())
    }

    /// A command of Slurm that knows where this one is, and has nothing else from the environment: `sbatch` would send
    /// all of it with each job.
    fn command(&self, name: &str) -> Outcome<Command> {
        let mut command = Command::new(find(name)?);
        command.env_clear().env("SLURM_CONF", self.file("slurm.conf")).current_dir(self.directory.path());
        Ok(command)
    }

    async fn ask(&self, name: &str, arguments: &[&str]) -> Outcome<String> {
        let mut command = self.command(name)?;
        command.args(arguments);
        Ok(output(&mut command.into()).await?)
    }

    fn spawn(&mut self, name: &'static str, arguments: &[String]) -> Outcome<()> {
        let log = File::create(self.file(&format!("{name}.log")))?;
        let mut command = self.command(name)?;
        command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.daemons.push((name, command.spawn().map_err(|error| format!("{name}: {error}"))?));
        Ok(())
    }

    async fn wait(&mut self, failure: &str, condition: impl AsyncFn(&Self) -> bool) -> Outcome<()> {
        let began = Instant::now();
        while !condition(self).await {
            for (name, child) in &mut self.daemons {
                if child.try_wait()?.is_some() {
                    let log = fs::read(self.directory.path().join(format!("{name}.log")))?;
                    return Err(format!("{name} ended: {}", last_line(&log)).into());
                }
            }
            if began.elapsed() > PATIENCE {
                return Err(failure.into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    fn controller(&self) -> Outcome<u32> {
        let controller = self.daemons.iter().find(|(name, _)| *name == "slurmctld");
        Ok(controller.ok_or("slurmctld was not started")?.1.id())
    }

    /// Lets so many clients run `sbatch` again and again for so long, after a warm-up of a fifth of it; then removes
    /// what they left.
    async fn load(&self, fate: Fate, clients: u32, period: Duration) -> Outcome<Shown> {
        let controller = self.controller()?;
        let first = Instant::now();
        let begin = first + period / 5;
        let end = begin + period;
        let mut joined = JoinSet::new();
        for _ in 0..clients {
            let mut command = self.command("sbatch")?;
            command.args(fate.arguments());
            joined.spawn(submit(command.into(), begin, end));
        }
        tokio::time::sleep_until(begin.into()).await;
        let before = (process::cpu(controller)?, process::cpu_of_children()?);
        tokio::time::sleep_until(end.into()).await;
        let after = (process::cpu(controller)?, process::cpu_of_children()?);
        let (mut latencies, mut accepted) = (Vec::new(), 0);
        while let Some(client) = joined.join_next().await {
            let client = client??;
            latencies.extend(client.0);
            accepted += client.1;
        }
        latencies.sort_unstable();
        let count = u32::try_from(latencies.len())?;
        let (done, wall) = match fate {
            Fate::Held => (count, period),
            Fate::Started => {
                let pending = self.drain(period).await?;
                (accepted.saturating_sub(pending), first.elapsed())
            }
        };
        self.clear().await?;
        let each = |after: Duration, before| after.saturating_sub(before) / count.max(1);
        let (cpu, client_cpu) = (each(after.0, before.0), each(after.1, before.1));
        Ok(Shown { latencies, done, wall, cpu, client_cpu })
    }

    /// Waits until no job is left to be placed, but not for long; how many are.
    async fn drain(&self, limit: Duration) -> Outcome<u32> {
        let began = Instant::now();
        loop {
            let pending = self.ask("squeue", &["-h", "-t", "PENDING", "-o", "%i"]).await?.lines().count();
            if pending == 0 || began.elapsed() > limit {
                return Ok(u32::try_from(pending)?);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Cancels all jobs and waits until the node is rid of them.
    async fn clear(&self) -> Outcome<()> {
        let began = Instant::now();
        self.ask("scancel", &["--partition=all"]).await?;
        while !self.ask("squeue", &["-h", "-o", "%i"]).await?.is_empty() {
            if began.elapsed() > PATIENCE {
                return Err("Slurm does not get rid of its jobs".into());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// What slurmd started: the programs that look after jobs leave its process group and outlive it.
    fn remnants(&self) -> Vec<String> {
        let mark = format!("SLURM_CONF={}", self.file("slurm.conf").display()).into_bytes();
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let ours = processes.filter(|entry| {
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == mark)
        });
        ours.filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name.parse::<u32>().is_ok())
            .collect()
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        // Nothing that they would save is wanted, so they need not end in order.
        for (_, child) in self.daemons.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
        for _ in 0..20 {
            let remnants = self.remnants();
            if remnants.is_empty() {
                break;
            }
            let _ = Command::new("sh").args(["-c", "kill -KILL \"$@\"", "kill"]).args(remnants).output();
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Runs the command again and again. The latencies of what returned between the two moments, and how many jobs were
/// accepted in all.
async fn submit(
    mut command: tokio::process::Command,
    begin: Instant,
    end: Instant,
) -> Result<(Vec<Duration>, u32), String> {
    let (mut latencies, mut accepted) = (Vec::new(), 0);
    loop {
        let sent = Instant::now();
        output(&mut command).await?;
        let now = Instant::now();
        accepted += 1;
        if now >= end {
            return Ok((latencies, accepted));
        }
        if now >= begin {
            latencies.push(now - sent);
        }
    }
}

/// Slurm's defaults, but for: where it is, whose it is, no accounting, one node that has more cores than the machine,
/// and room and patience enough that no job is refused.
fn configuration(directory: &Path, (controller, node): (u16, u16)) -> Outcome<String> {
    let host = fs::read_to_string("/proc/sys/kernel/hostname")?;
    let host = host.trim().split('.').next().unwrap_or_default();
    // Whoever made the folder is who runs this.
    let user = fs::metadata(directory)?.uid();
    let at = directory.display();
    Ok(format!(
        "\
ClusterName=starlink-bench
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={at}/munge.socket
StateSaveLocation={at}/state
SlurmdSpoolDir={at}/spool
SlurmctldPidFile={at}/slurmctld.pid
SlurmdPidFile={at}/slurmd.pid
SlurmctldDebug=error
SlurmdDebug=error
MailProg=/bin/true
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
MaxJobCount=100000
MessageTimeout=60
NodeName=node NodeHostname={host} NodeAddr=127.0.0.1 CPUs=1000
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE
"
    ))
}

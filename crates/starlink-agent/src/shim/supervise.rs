//! Sees one work through: runs, pauses, requests to end, deadlines, and the outcome.

use super::{
    files::{Claim, Files, Outcome, Plan, STOP},
    now,
    policy::{Pauses, again},
    process::{Mark, descendants, offspring, processes, signal},
    run::{Ended, Run},
};
use crate::logs::Writer;
use chrono::{DateTime, Utc};
use domain::scheduling::reason;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        inotify::{AddWatchFlags, InitFlags, Inotify},
        prctl,
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
        stat::{Mode, umask},
    },
    unistd::{Pid, close, dup2_stdout, setsid},
};
use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io,
    os::fd::AsFd,
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// How long to wait where nothing is due.
const LONG: Duration = Duration::from_hours(1);
/// How often to look for a request where the kernel does not tell of one.
const LOOK: Duration = Duration::from_millis(500);
/// The longest pause between two attempts to end what does not end.
const LONGEST_KILL_PAUSE: Duration = Duration::from_millis(500);
/// The pauses between two attempts to write the outcome down.
const SAVE_PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(10));
/// So often it is looked for what has been started meanwhile, before everything is ended.
const ROUNDS: usize = 10;

/// Sees one work through.
pub(super) struct Supervisor {
    files: Files,
    plan: Plan,
    log: Writer,
    /// Signals to the shim, and of the ends of its children.
    signals: SignalFd,
    /// Tells of requests; `None` if the kernel has no more of these.
    watch: Option<Inotify>,
    deadline: Option<Instant>,
    stop: Option<Stop>,
    block: Vec<u8>,
    /// Open for as long as this process lives, so that the agent is told of its end.
    _life: File,
}

/// Why and until when it is to end by itself.
#[derive(Debug, Clone, Copy)]
struct Stop {
    timed_out: bool,
    by: Instant,
}

impl Supervisor {
    /// Claims the work with this folder; `None` if somebody has.
    pub(super) fn begin(folder: &Path) -> io::Result<Option<Self>> {
        let folder = fs::canonicalize(folder)?;
        close_inherited();
        let mask = SigSet::all();
        mask.thread_block()?;
        let mut wanted = SigSet::empty();
        wanted.extend([Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD]);
        let signals = SignalFd::with_flags(&wanted, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        // Fails if it is a session already.
        let _ = setsid();
        umask(Mode::S_IRWXG | Mode::S_IRWXO);
        std::env::set_current_dir("/")?;
        let adopts = prctl::set_child_subreaper(true);
        let _ = prctl::set_name(c"starlink-shim");
        // The last to go when memory runs out: without it nobody would know how the work ended.
        let _ = fs::write("/proc/self/oom_score_adj", "-998");

        let files = Files::of(&folder);
        let plan = files.plan()?.ok_or_else(|| io::Error::other("there is nothing to be run"))?;
        // What its programs leave behind is found in its group, where it does not become a child of this process.
        if let (Err(error), false) = (adopts, plan.group.is_there()) {
            return Err(io::Error::other(format!("what a program leaves behind would not be found: {error}")));
        }
        let life = OpenOptions::new().read(true).write(true).open(files.life())?;
        if !files.take(&Claim { shim: Some(Mark::own()?) })? {
            return Ok(None);
        }
        let watch = watch(&folder).ok();
        let log = Writer::open(&folder, plan.log_limit_bytes);
        let deadline = plan.timeout_seconds.and_then(|limit| Instant::now().checked_add(Duration::from_secs(limit)));
        let block = Vec::new();
        Ok(Some(Self { files, plan, log, signals, watch, deadline, stop: None, block, _life: life }))
    }

    /// Runs it until it has ended for good.
    pub(super) fn run(mut self) {
        for note in std::mem::take(&mut self.plan.notes) {
            self.log.mark(now(), &note);
        }
        self.look_for_stop();
        let outcome = self.runs();
        // Its driver does that too, if there is no room now.
        let _ = self.log.finish(now());
        self.save(&outcome);
        let _ = self.plan.group.remove();
    }

    fn runs(&mut self) -> Outcome {
        let (mut outcome, mut pauses) = (Outcome::default(), Pauses::default());
        while self.stop.is_none() {
            outcome.runs += 1;
            let ended = self.once();
            self.log.end_lines(now());
            let known = outcome.started_at.or(ended.started_at);
            outcome = told(&ended, known, outcome.runs);
            // What cannot be started at all is for the server to decide about.
            let hopeless = outcome.started_at.is_none();
            if hopeless || self.stop.is_some() || !again(self.plan.restart, ended.well()) {
                break;
            }
            self.pause(pauses.next(ended.lasted));
            if self.stop.is_none() {
                let mark = format!("started again (run {}): {}", outcome.runs + 1, ended.told());
                self.log.mark(now(), &mark);
            }
        }
        if self.stop.is_some_and(|stop| stop.timed_out) {
            let limit = self.plan.timeout_seconds.unwrap_or_default();
            outcome.reason = Some(reason::TIMED_OUT.to_owned());
            outcome.detail = Some(format!("it ran longer than the {limit} seconds that it may"));
        }
        let finished = now();
        outcome.finished_at = Some(outcome.started_at.map_or(finished, |started| started.max(finished)));
        outcome
    }

    /// Runs the program once, until nothing of it is left.
    fn once(&mut self) -> Ended {
        let before = self.plan.group.out_of_memory();
        let mut run = match Run::start() {
            Ok(run) => run,
            Err(error) => return error.into(),
        };
        while let Some(wait) = self.step(&mut run) {
            self.turn(Some(&mut run), wait);
        }
        run.ended(self.plan.group.out_of_memory() > before)
    }

    /// Does what is due, and tells how long until something is; `None` if the run is over.
    fn step(&mut self, run: &mut Run) -> Option<Duration> {
        let now = Instant::now();
        if run.is_over() {
            return run.draining(now);
        }
        let Some(stop) = self.check_deadline(now) else {
            let due = self.deadline.map_or(LONG, |deadline| deadline - now);
            // What it has left behind does not outlive it.
            return Some(if run.has_ended() { self.kill(run, now).min(due) } else { due });
        };
        if !run.asked {
            run.asked = true;
            let tree = descendants(&processes(), [Pid::this()]);
            signal(&tree, Signal::SIGTERM);
            // What was halted could not do as it was asked.
            signal(&tree, Signal::SIGCONT);
        }
        Some(if now >= stop.by { self.kill(run, now) } else { stop.by - now })
    }

    /// The request to end, also because the time is over.
    fn check_deadline(&mut self, now: Instant) -> Option<Stop> {
        if self.stop.is_none() && self.deadline.is_some_and(|deadline| deadline <= now) {
            self.stop = Some(Stop { timed_out: true, by: far(now, self.plan.grace) });
        }
        self.stop
    }

    /// Ends every process of the run, again and again until they are gone. Tells how long to wait for that.
    fn kill(&mut self, run: &mut Run, now: Instant) -> Duration {
        if now >= run.next_kill {
            self.plan.group.kill();
            kill_tree();
            run.kill_pause = (run.kill_pause * 2).min(LONGEST_KILL_PAUSE);
            run.next_kill = now + run.kill_pause;
        }
        run.next_kill - now
    }

    fn pause(&mut self, pause: Duration) {
        let until = Instant::now() + pause;
        loop {
            let now = Instant::now();
            if self.check_deadline(now).is_some() || now >= until {
                return;
            }
            let due = self.deadline.map_or(until, |deadline| deadline.min(until));
            self.turn(None, due - now);
        }
    }

    /// Waits until something happens, at most so long, and takes it in.
    fn turn(&mut self, run: Option<&mut Run>, wait: Duration) {
        let wait = if self.watch.is_some() { wait.min(LONG) } else { wait.min(LOOK) };
        {
            let mut fds = vec![self.signals.as_fd()];
            fds.extend(self.watch.iter().map(AsFd::as_fd));
            fds.extend(run.iter().flat_map(|run| run.fds()));
            let mut fds: Vec<_> = fds.into_iter().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            // Rounded up: it would not be due yet otherwise.
            let wait = PollTimeout::try_from(wait + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
            let _ = poll(&mut fds, wait);
        }
        while let Ok(Some(told)) = self.signals.read_signal() {
            let told = i32::try_from(told.ssi_signo).unwrap_or_default();
            if matches!(Signal::try_from(told), Ok(Signal::SIGTERM | Signal::SIGINT)) {
                self.ask(self.plan.grace);
            }
        }
        if self.watch.as_ref().is_none_or(told_of_stop) {
            self.look_for_stop();
        }
        if let Some(run) = run
            && run.look(&self.plan.group, &mut self.log, &mut self.block)
        {
            tell_started();
        }
    }

    fn look_for_stop(&mut self) {
        match self.files.stop() {
            Ok(Some(stop)) => self.ask(stop.grace),
            // A request all the same.
            Err(_) => self.ask(self.plan.grace),
            Ok(None) => {}
        }
    }

    /// It is to end; a later request may shorten the time for that.
    fn ask(&mut self, grace: Duration) {
        let by = far(Instant::now(), grace);
        let stop = self.stop.get_or_insert(Stop { timed_out: false, by });
        stop.by = stop.by.min(by);
    }

    /// Writes the outcome down, however long there is no room for it.
    fn save(&self, outcome: &Outcome) {
        let (mut pause, longest) = SAVE_PAUSES;
        while self.files.save_outcome(outcome).is_err() && self.files.folder().exists() {
            thread::sleep(pause);
            pause = (pause * 2).min(longest);
        }
    }
}

/// Tells the agent, if it still waits for that, that the program runs. Otherwise the end of the shim tells it.
fn tell_started() {
    if let Ok(null) = OpenOptions::new().write(true).open("/dev/null") {
        let _ = dup2_stdout(null);
    }
}

fn told(ended: &Ended, started_at: Option<DateTime<Utc>>, runs: u32) -> Outcome {
    let (reason, detail) = ended.failure.clone().unzip();
    Outcome { code: ended.code, signal: ended.signal, reason, detail, started_at, runs, ..Outcome::default() }
}

/// Ends everything that this process has started, and what that has. What goes on starting more is halted first.
fn kill_tree() {
    let mut known = BTreeSet::new();
    for _ in 0..ROUNDS {
        let mut new = offspring(Pid::this());
        new.retain(|pid| known.insert(*pid));
        if new.is_empty() {
            new = descendants(&processes(), [Pid::this()]);
            new.retain(|pid| known.insert(*pid));
        }
        if new.is_empty() {
            break;
        }
        signal(&new, Signal::SIGSTOP);
    }
    signal(&known, Signal::SIGKILL);
}

/// Closes what this process was started with besides its standard streams: it would be handed on to the program, and what
/// waits for the end of it would wait for the end of that. Nothing of this process is open yet.
fn close_inherited() {
    let open = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let open: Vec<i32> = open.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for fd in open.into_iter().filter(|fd| *fd > 2) {
        let _ = close(fd);
    }
}

fn watch(folder: &Path) -> nix::Result<Inotify> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    inotify.add_watch(folder, AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_CREATE)?;
    Ok(inotify)
}

/// Whether there was anything about a request.
fn told_of_stop(watch: &Inotify) -> bool {
    let mut told = false;
    while let Ok(events) = watch.read_events() {
        told |= events.iter().any(|event| event.name.as_ref().is_none_or(|name| name == STOP));
    }
    told
}

/// The time after so long; a very long time, if there is none.
fn far(now: Instant, wait: Duration) -> Instant {
    now.checked_add(wait).unwrap_or(now + LONG * 24 * 365)
}

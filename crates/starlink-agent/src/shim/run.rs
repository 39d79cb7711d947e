//! One run of the program: its process, what it says, and how it ended.

use super::{
    enter::{Refusal, STAGE},
    now,
};
use crate::{cgroup::Group, logs::Writer};
use chrono::{DateTime, Utc};
use domain::{fleet::protocol::LogStream, scheduling::reason};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid},
};
use std::{
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{
            net::UnixStream,
            process::{CommandExt, ExitStatusExt},
        },
    },
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// How much is read at once of what the program says.
const BLOCK: usize = 64 * 1024;
/// More than a refusal has.
const LONGEST_REFUSAL: usize = 64 * 1024;
/// How long what the program said is read on once all of it has ended: somebody else may hold its end.
const DRAIN: Duration = Duration::from_secs(2);

/// How a run ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) code: Option<i64>,
    pub(super) signal: Option<i64>,
    /// A code of [`reason`] and a sentence.
    pub(super) failure: Option<(String, String)>,
    /// `None` if the program could not be started.
    pub(super) started_at: Option<DateTime<Utc>>,
    pub(super) lasted: Duration,
}

impl Ended {
    fn refused(Refusal { reason, detail }: Refusal) -> Self {
        Self { failure: Some((reason, detail)), ..Self::default() }
    }

    pub(super) fn well(&self) -> bool {
        self.code == Some(0) && self.failure.is_none()
    }

    /// In words, for the log.
    pub(super) fn told(&self) -> String {
        match (&self.failure, self.code, self.signal) {
            (Some((_, detail)), ..) => detail.clone(),
            (None, Some(code), _) => format!("ended with code {code}"),
            (None, None, signal) => format!("ended by signal {}", signal.unwrap_or_default()),
        }
    }
}

/// A run that goes on.
#[derive(Debug)]
pub(super) struct Run {
    child: Child,
    /// Silent until the program has taken over.
    channel: Option<UnixStream>,
    refusal: Vec<u8>,
    outputs: [Option<File>; 2],
    started: Option<(DateTime<Utc>, Instant)>,
    status: Option<ExitStatus>,
    /// Whether no process of the tree is left.
    over: bool,
    drained_by: Option<Instant>,
    /// Whether its processes were asked to end.
    pub(super) asked: bool,
    /// When they are ended next, and how long until the time after that.
    pub(super) next_kill: Instant,
    pub(super) kill_pause: Duration,
}

impl Run {
    pub(super) fn start() -> io::Result<Self> {
        let (channel, theirs) = UnixStream::pair()?;
        channel.set_nonblocking(true)?;
        let mut arguments = std::env::args_os();
        let mut command = Command::new("/proc/self/exe");
        command.arg0(arguments.next().unwrap_or_default()).args(arguments).env_clear().env(STAGE, "1");
        // A group of its own, so that a signal to its whole group does not end the shim.
        command.stdin(OwnedFd::from(theirs)).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn()?;
        let outputs = [
            child.stdout.take().map(|output| readable(output.into())).transpose()?,
            child.stderr.take().map(|output| readable(output.into())).transpose()?,
        ];
        Ok(Self {
            child,
            channel: Some(channel),
            refusal: Vec::new(),
            outputs,
            started: None,
            status: None,
            over: false,
            drained_by: None,
            asked: false,
            next_kill: Instant::now(),
            kill_pause: Duration::from_millis(2),
        })
    }

    /// What to wait for.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let outputs = self.outputs.iter().flatten().map(AsFd::as_fd);
        self.channel.iter().map(AsFd::as_fd).chain(outputs)
    }

    /// Takes in what the program has said and what has become of it, without waiting for anything. Tells whether it has
    /// just begun.
    pub(super) fn look(&mut self, group: &Group, log: &mut Writer, block: &mut Vec<u8>) -> bool {
        block.resize(BLOCK, 0);
        // First what has ended: what it said before that is there then.
        self.over = self.over || self.reap() && group.processes().is_empty();
        let begun = self.listen(block);
        for (output, stream) in self.outputs.iter_mut().zip([LogStream::Stdout, LogStream::Stderr]) {
            let Some(file) = output else { continue };
            match file.read(block) {
                Ok(0) => *output = None,
                Ok(read) => log.append(stream, now(), &block[..read]),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(_) => *output = None,
            }
        }
        begun
    }

    /// Takes note of every process that has ended. Tells whether none is left: as the shim adopts what its children
    /// leave behind, that is all there is of the tree.
    fn reap(&mut self) -> bool {
        // The program itself by its number, because only so all of what ended it is told.
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
        }
        while self.status.is_none() {
            let peek = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
            let ended = waitid(Id::All, peek).ok().and_then(|ended| ended.pid());
            let Some(pid) = ended.filter(|pid| pid.as_raw().unsigned_abs() != self.child.id()) else { return false };
            let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG));
        }
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => return false,
                Err(Errno::ECHILD) => return true,
                // Whatever ended it.
                _ => {}
            }
        }
    }

    /// Whether the program has taken over just now.
    fn listen(&mut self, block: &mut [u8]) -> bool {
        let Some(channel) = &mut self.channel else { return false };
        match channel.read(block) {
            Ok(0) => {}
            Ok(read) => {
                let room = LONGEST_REFUSAL.saturating_sub(self.refusal.len());
                self.refusal.extend_from_slice(&block[..read.min(room)]);
                return false;
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return false;
            }
            Err(_) => {}
        }
        self.channel = None;
        if self.refusal.is_empty() {
            self.started = Some((now(), Instant::now()));
        }
        self.started.is_some()
    }

    /// Whether the program itself has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.status.is_some()
    }

    /// Whether nothing of it is left that could still run.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// How long to wait for the rest of what it said, once it is over; `None` if there is none.
    pub(super) fn draining(&mut self, now: Instant) -> Option<Duration> {
        let open = self.outputs.iter().any(Option::is_some) || self.channel.is_some();
        let by = *self.drained_by.get_or_insert(now + DRAIN);
        (open && now < by).then(|| by - now)
    }

    /// How it ended, once it is over. `out_of_memory` says whether the kernel ended a part of it for that.
    pub(super) fn ended(self, out_of_memory: bool) -> Ended {
        if let Ok(refusal) = serde_json::from_slice(&self.refusal) {
            return Ended::refused(refusal);
        }
        let code = self.status.and_then(|status| status.code()).map(i64::from);
        let signal = self.status.and_then(|status| status.signal()).map(i64::from);
        let bad = code != Some(0);
        let detail = "the kernel ended a process of it because the memory that it may use had run out";
        let failure = (out_of_memory && bad).then(|| (reason::OUT_OF_MEMORY.to_owned(), detail.to_owned()));
        let lasted = self.started.map_or(Duration::ZERO, |(_, since)| since.elapsed());
        Ended { code, signal, failure, started_at: self.started.map(|(at, _)| at), lasted }
    }
}

/// A run that could not even be tried.
impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        let detail = format!("no process can be started: {error}");
        Self::refused(Refusal { reason: reason::START_FAILED.to_owned(), detail })
    }
}

fn readable(output: OwnedFd) -> io::Result<File> {
    fcntl(&output, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(output.into())
}

//! What there is to know of a work, and what is done about it once its shim is gone. All of it blocks.

use super::{io_failure, life};
use crate::{
    cgroup::Group,
    logs,
    shim::{Claim, Files, Mark, Outcome, descendants, now, processes, signal},
    work::{Exit, Failure, WorkId},
};
use domain::scheduling::reason;
use nix::{sys::signal::Signal, unistd::Pid};
use std::{
    collections::BTreeSet,
    fs, io,
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// How long what a killed shim has left behind gets to be gone.
const LEFTOVERS: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(5);
/// The most that is told of what a shim had to complain about, in bytes.
const LONGEST_COMPLAINT: usize = 500;

/// Whether it was begun, once nobody begins it any more.
pub(super) fn check_begun(files: &Files) -> Result<(), Failure> {
    match files.outcome().map_err(io_failure)? {
        Some(outcome) if outcome.started_at.is_none() && outcome.reason.is_some() && !outcome.lost => {
            Err(told(&outcome).failure.unwrap_or_else(|| Failure::new(reason::START_FAILED, "it did not start")))
        }
        Some(_) => Ok(()),
        None if files.claim().map_err(io_failure)?.is_some() => Ok(()),
        None => Err(Failure::new(reason::START_FAILED, format!("its shim did not start{}", complaint(files)))),
    }
}

/// How it ended, if that is known; its log is finished then.
///
/// # Errors
/// What the disk says, if it cannot be told now.
pub(super) fn known(files: &Files) -> io::Result<Option<Exit>> {
    match files.outcome() {
        Ok(Some(outcome)) => {
            finish(files);
            Ok(Some(told(&outcome)))
        }
        Ok(None) if files.is_begun() => Ok(None),
        Ok(None) => Ok(Some(Exit::lost("nothing on this machine tells of it"))),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(Some(Exit::lost(error))),
        Err(error) => Err(error),
    }
}

/// Finds out how it ended whose shim is gone, and ends what is left of it. `None` if another shim has just begun.
///
/// # Errors
/// What the disk says, if it cannot be told now.
pub(super) fn settle(files: &Files) -> io::Result<Option<Exit>> {
    // No shim begins it from now on; one that has was there before its claim was.
    if files.claim()?.is_none() {
        files.take(&Claim { shim: None })?;
    }
    if life::is_there(&files.life())? {
        return Ok(None);
    }
    if let Some(exit) = known(files)? {
        return Ok(Some(exit));
    }
    let outcome = match files.claim()?.and_then(|claim| claim.shim) {
        None => never_begun(files),
        Some(shim) => {
            let group = files.plan()?.map(|plan| plan.group).unwrap_or_default();
            end_leftovers(&group, &shim);
            lost(files, &shim)
        }
    };
    if let Err(error) = files.save_outcome(&outcome) {
        tracing::warn!(folder = %files.folder().display(), %error, "the outcome of work could not be kept");
    }
    finish(files);
    Ok(Some(told(&outcome)))
}

/// Asks a shim to end it; `false` if there is nothing to be ended.
pub(super) fn ask_to_end(files: &Files, grace: Duration) -> Result<bool, Failure> {
    if !files.is_begun() || files.outcome().map_err(io_failure)?.is_some() {
        return Ok(false);
    }
    if let Err(error) = files.save_stop(grace) {
        // No room for a file: a signal asks for the same, with the task's own grace.
        let shim = files.claim().ok().flatten().and_then(|claim| claim.shim).and_then(|shim| shim.find());
        let shim = shim.ok_or_else(|| io_failure(error))?;
        signal([&shim.pid], Signal::SIGTERM);
    }
    Ok(true)
}

/// Removes everything but the log of what has ended.
pub(super) fn remove(files: &Files) -> Result<(), Failure> {
    if files.is_begun() && !has_ended(files).map_err(io_failure)? {
        return Err(Failure::new(reason::ILLEGAL_TRANSITION, "it has not ended: stop it first"));
    }
    if let Some(plan) = files.plan().map_err(io_failure)? {
        plan.group.remove().map_err(io_failure)?;
    }
    files.remove().map_err(io_failure)
}

/// Whether nothing of it runs, whatever is known of how it ended.
fn has_ended(files: &Files) -> io::Result<bool> {
    Ok(files.outcome()?.is_some() || files.claim()?.is_some() && !life::is_there(&files.life())?)
}

/// What there is of an installation.
pub(super) fn found(root: &Path, installation: &str) -> Result<Vec<WorkId>, Failure> {
    let entries = match fs::read_dir(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(io_failure)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(io_failure)?;
        let id = entry.file_name().to_str().and_then(WorkId::parse);
        found.extend(id.filter(|id| &*id.installation == installation && Files::of(&entry.path()).is_begun()));
    }
    found.sort();
    Ok(found)
}

fn finish(files: &Files) {
    if let Err(error) = logs::finish(files.folder()) {
        tracing::warn!(folder = %files.folder().display(), %error, "the log of work could not be finished");
    }
}

fn told(outcome: &Outcome) -> Exit {
    let known =
        [reason::OUT_OF_MEMORY, reason::TIMED_OUT, reason::EXEC_FORMAT, reason::NOT_ALLOWED, reason::AGENT_LOST];
    let failure = outcome.reason.as_deref().map(|told| {
        let code = known.into_iter().find(|known| *known == told).unwrap_or(reason::START_FAILED);
        Failure::new(code, outcome.detail.as_deref().unwrap_or(told))
    });
    Exit {
        code: outcome.code,
        signal: outcome.signal,
        failure,
        lost: outcome.lost,
        started_at: outcome.started_at,
        finished_at: outcome.finished_at,
    }
}

/// Nobody had begun it, and nobody will.
fn never_begun(files: &Files) -> Outcome {
    let asked = files.stop().is_ok_and(|stop| stop.is_some());
    let outcome = Outcome { finished_at: Some(now()), ..Outcome::default() };
    if asked {
        return outcome;
    }
    let detail = format!("its shim did not start{}", complaint(files));
    Outcome { reason: Some(reason::START_FAILED.to_owned()), detail: Some(detail), ..outcome }
}

fn lost(files: &Files, shim: &Mark) -> Outcome {
    let detail = if shim.is_of_this_boot() {
        format!("its shim was killed, so nobody saw how it ended{}", complaint(files))
    } else {
        "the machine was started again while it ran".to_owned()
    };
    let (reason, finished_at) = (Some(reason::AGENT_LOST.to_owned()), Some(now()));
    Outcome { lost: true, reason, detail: Some(detail), finished_at, ..Outcome::default() }
}

/// What the shim had to complain about.
fn complaint(files: &Files) -> String {
    let text = fs::read(files.complaints()).unwrap_or_default();
    let text = String::from_utf8_lossy(&text[..text.len().min(LONGEST_COMPLAINT)]).trim().to_owned();
    if text.is_empty() { text } else { format!(": {text}") }
}

/// Ends what a killed shim has left behind: what is in the group of the work and in the session of the shim, and what
/// those have started.
fn end_leftovers(group: &Group, shim: &Mark) {
    let deadline = Instant::now() + LEFTOVERS;
    loop {
        let all = processes();
        let mut left: BTreeSet<Pid> = group.processes().into_iter().collect();
        if shim.is_of_this_boot() {
            let leader = Pid::from_raw(shim.pid);
            // A session has the number of its first process for as long as it has any. If somebody else has it by now,
            // nothing was left.
            let reused = all.iter().any(|process| process.pid == leader && process.started != shim.started);
            let member = all.iter().filter(|process| process.session == leader && process.started >= shim.started);
            left.extend(member.filter(|_| !reused).map(|process| process.pid));
        }
        if left.is_empty() {
            return;
        }
        if Instant::now() >= deadline {
            tracing::warn!(processes = ?left, "processes that a killed shim has left behind do not end");
            return;
        }
        left.extend(descendants(&all, left.iter().copied()));
        group.kill();
        signal(&left, Signal::SIGKILL);
        thread::sleep(PAUSE);
    }
}

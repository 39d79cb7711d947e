//! Becomes the program: the last step before it, in a process of its own.
//!
//! The order matters: what needs the shim's rights comes first, and after they are given up nothing is left but the
//! program. What goes wrong is told through standard input, which is a socket to the shim until the program takes over.

use super::files::{Files, Identity, Plan};
use domain::scheduling::reason;
use nix::{
    errno::Errno,
    sys::{
        prctl,
        signal::{SigSet, Signal},
        stat::{Mode, umask},
    },
    unistd::{Gid, Uid, dup2_stdin, execve, geteuid, getppid, getsid, setgid, setgroups, setuid},
};
use serde::{Deserialize, Serialize};
use std::{
    ffi::CString,
    fs::{self, File},
    io::Write,
    os::{fd::AsFd, unix::net::UnixStream},
    path::Path,
    process::ExitCode,
    sync::{Arc, atomic::AtomicBool},
};

/// Tells a shim in its environment that it is to become the program.
pub(super) const STAGE: &str = "STARLINK_SHIM_ENTER";

/// From SIGHUP to SIGSYS.
const STANDARD_SIGNALS: std::ops::RangeInclusive<i32> = 1..=31;

/// Why the program could not be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Refusal {
    /// A code of [`reason`].
    pub(super) reason: String,
    pub(super) detail: String,
}

impl Refusal {
    fn new(detail: impl Into<String>) -> Self {
        Self { reason: reason::START_FAILED.to_owned(), detail: detail.into() }
    }

    fn step(what: &str, error: impl std::fmt::Display) -> Self {
        Self::new(format!("{what}: {error}"))
    }
}

/// Becomes the program of the work with this folder, or tells why not.
pub(super) fn main(folder: &Path) -> ExitCode {
    // A copy that is closed by the kernel the moment the program takes over.
    let Ok(channel) = std::io::stdin().as_fd().try_clone_to_owned() else { return ExitCode::FAILURE };
    let refusal = enter(folder);
    let told = serde_json::to_vec(&refusal).unwrap_or_default();
    let _ = UnixStream::from(channel).write_all(&told);
    ExitCode::FAILURE
}

/// Returns only if the program cannot be started.
fn enter(folder: &Path) -> Refusal {
    let files = Files::of(folder);
    let plan = match files.plan() {
        Ok(Some(plan)) => plan,
        Ok(None) => return Refusal::new("what is to be run is not there any more"),
        Err(error) => return Refusal::new(error.to_string()),
    };
    match prepare(&files, &plan) {
        Ok(()) => become_program(&plan),
        Err(refusal) => refusal,
    }
}

fn prepare(files: &Files, plan: &Plan) -> Result<(), Refusal> {
    File::open("/dev/null")
        .and_then(|null| dup2_stdin(null).map_err(Into::into))
        .map_err(|error| Refusal::step("/dev/null cannot be opened", error))?;
    plan.group.enter().map_err(|error| Refusal::step("its control group cannot be entered", error))?;
    // An agent that is spared when memory runs out does not hand that on.
    if fs::read_to_string("/proc/self/oom_score_adj").is_ok_and(|score| score.starts_with('-')) {
        fs::write("/proc/self/oom_score_adj", "0").map_err(|error| Refusal::step("oom_score_adj", error))?;
    }
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    std::env::set_current_dir(files.directory())
        .map_err(|error| Refusal::step("its working directory cannot be entered", error))?;
    if !plan.allow_root {
        // Otherwise a program with the set-user-ID bit makes root of anybody.
        prctl::set_no_new_privs().map_err(|error| Refusal::step("its rights cannot be bounded", error))?;
    }
    if let Some(user) = &plan.user {
        change_user(user).map_err(|error| Refusal::step(&format!("cannot become the user {:?}", user.name), error))?;
    }
    if !plan.allow_root && geteuid().is_root() {
        return Err(Refusal {
            reason: reason::NOT_ALLOWED.to_owned(),
            detail: "the owner of this server does not let work run as root".to_owned(),
        });
    }
    // If the shim is killed, nobody keeps the program's output, or ends it in time. After the change of the user,
    // because that would undo it.
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(|error| Refusal::step("cannot be tied to its shim", error))?;
    if getsid(None).ok() != Some(getppid()) {
        return Err(Refusal::new("its shim was killed"));
    }
    Ok(())
}

fn change_user(user: &Identity) -> Result<(), Errno> {
    let groups: Vec<Gid> = user.groups.iter().copied().map(Gid::from_raw).collect();
    setgroups(&groups)?;
    setgid(Gid::from_raw(user.gid))?;
    setuid(Uid::from_raw(user.uid))
}

fn become_program(plan: &Plan) -> Refusal {
    let text = |text: &str| CString::new(text).map_err(|_nul| Refusal::new("its command has a NUL character"));
    let arguments = plan.command.iter().map(|argument| text(argument)).collect::<Result<Vec<_>, _>>();
    let env = plan.env.iter().map(|(name, value)| text(&format!("{name}={value}"))).collect::<Result<Vec<_>, _>>();
    let (arguments, env) = match (arguments, env) {
        (Ok(arguments), Ok(env)) => (arguments, env),
        (Err(refusal), _) | (_, Err(refusal)) => return refusal,
    };
    let Some(program) = plan.command.first() else { return Refusal::new("there is no program to run") };
    restore_signals();
    let mut denied = None;
    for path in candidates(program, &plan.env) {
        let Ok(path) = text(&path) else { continue };
        match execve(&path, &arguments, &env).map(drop) {
            Err(Errno::ENOENT | Errno::ENOTDIR) if !Path::new(&*path.to_string_lossy()).exists() => {}
            Err(Errno::EACCES) => denied = denied.or(Some(path)),
            Err(error) => return refused(&path.to_string_lossy(), error),
            Ok(()) => {}
        }
    }
    match denied {
        Some(path) => refused(&path.to_string_lossy(), Errno::EACCES),
        None => Refusal::new(format!("no such program: {program}")),
    }
}

/// Where a program may be: at its path, or in the folders of `PATH`.
fn candidates(program: &str, env: &[(String, String)]) -> Vec<String> {
    if program.contains('/') {
        return vec![program.to_owned()];
    }
    let path = env.iter().find(|(name, _)| name == "PATH").map_or("", |(_, value)| value);
    // An empty one would be the working directory, which others can write to.
    let folders = path.split(':').filter(|folder| folder.starts_with('/'));
    folders.filter(|_| !program.is_empty()).map(|folder| format!("{folder}/{program}")).collect()
}

fn refused(path: &str, error: Errno) -> Refusal {
    let (reason, detail) = match error {
        Errno::ENOEXEC => (
            reason::EXEC_FORMAT,
            format!("{path}: {}: it is compiled for another architecture, or no program", error.desc()),
        ),
        Errno::ENOENT | Errno::ENOTDIR => {
            (reason::START_FAILED, format!("{path}: the interpreter or loader that it names is not there"))
        }
        Errno::EACCES => (
            reason::START_FAILED,
            format!("{path}: {}: the user that work runs as may not run it", error.desc().to_lowercase()),
        ),
        _ => (reason::START_FAILED, format!("{path}: {}", error.desc())),
    };
    Refusal { reason: reason.to_owned(), detail }
}

/// The shim blocks every signal, Rust's programs ignore SIGPIPE, and an agent that was started by `nohup` or in the
/// background of a shell ignores more: the program would inherit all that. What is handled is not inherited, so each
/// gets a handler, which goes with the rest of this process.
fn restore_signals() {
    let noticed = Arc::new(AtomicBool::new(false));
    for signal in STANDARD_SIGNALS.filter(|signal| !signal_hook::consts::FORBIDDEN.contains(signal)) {
        let _ = signal_hook::flag::register(signal, Arc::clone(&noticed));
    }
    let _ = SigSet::empty().thread_set_mask();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(path: &str) -> Vec<(String, String)> {
        vec![("PATH".to_owned(), path.to_owned())]
    }

    #[test]
    fn a_program_is_looked_for_where_nobody_can_plant_one() {
        assert_eq!(candidates("ls", &env("/a::.:relative:/b")), ["/a/ls", "/b/ls"]);
        assert_eq!(candidates("./ls", &env("/a")), ["./ls"]);
        assert_eq!(candidates("ls", &[]), [""; 0]);
        assert_eq!(candidates("", &env("/a")), [""; 0]);
    }

    #[test]
    fn refusals_say_what_is_wrong() {
        let check = |error, reason: &str, words: &str| {
            let refusal = refused("/x", error);
            assert_eq!(refusal.reason, reason);
            assert!(refusal.detail.starts_with("/x: ") && refusal.detail.contains(words), "{}", refusal.detail);
        };
        check(Errno::ENOEXEC, "exec_format", "Exec format error");
        check(Errno::ENOENT, "start_failed", "interpreter");
        check(Errno::EACCES, "start_failed", "permission denied");
        check(Errno::E2BIG, "start_failed", "Argument list too long");
    }
}

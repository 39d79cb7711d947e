//! A program in a container besides its own, with somebody at the other end.
//!
//! Invariant: dropped, it is ended, with all that it has started. First its input ends, and it is told that whoever is at
//! the other end has hung up; what has not ended by itself a little later is killed.

use super::{
    containers::Containers,
    engine::{Engine, Pauses, Trouble},
    processes::Family,
    raw::Raw,
    tail::frames::{Frames, Garbled},
};
use bollard::{
    Docker,
    models::{ExecConfig, ExecInspectResponse},
    query_parameters::ResizeExecOptions,
};
use domain::{
    containers::wire::{ExecQuery, TerminalSize},
    fleet::protocol::LogStream,
};
use nix::sys::signal::Signal;
use reqwest::Upgraded;
use serde_json::json;
use std::{collections::VecDeque, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split},
    time::{Instant, sleep},
};
use tokio_tungstenite::tungstenite::Bytes;

/// How much of the output is read at once.
const READ: usize = 16 << 10;
/// The most input that waits for the program to take it, in bytes.
const MOST_INPUT: usize = 256 << 10;
/// How long the engine may take to start a program, or to tell what it ended with.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a program has to end by itself once nobody is there any more.
const GRACE: Duration = Duration::from_secs(2);
/// How long what is killed is watched.
const KILLED: Duration = Duration::from_secs(5);
/// Keys that nobody presses: an engine lets go of a terminal on them, and of the program with it.
const DETACH_KEYS: &str = "ctrl-^,ctrl-@,ctrl-^,ctrl-@,ctrl-_";

/// How a program began.
pub(crate) enum Begun {
    /// It runs.
    Running(Box<Program>),
    /// It could not be started.
    Failed {
        /// What it would have ended with in a shell.
        code: i64,
        /// What the engine says.
        words: String,
    },
    /// The container does not run.
    NotRunning,
}

/// A program that was started.
pub(crate) struct Program {
    pub(crate) output: Output,
    pub(crate) input: Input,
    pub(crate) control: Control,
}

/// What it writes.
pub(crate) struct Output {
    reader: ReadHalf<Upgraded>,
    /// With a terminal, there are no frames.
    frames: Option<Frames>,
    buffer: Vec<u8>,
}

/// What it is to read.
pub(crate) struct Input {
    /// `None` once it has ended.
    writer: Option<WriteHalf<Upgraded>>,
    queue: VecDeque<Bytes>,
    length: usize,
    ends: bool,
    terminal: bool,
}

/// How it is looked after.
pub(crate) struct Control {
    engine: Engine,
    exec: String,
    charge: Charge,
}

/// What is to be ended when nobody looks after it any more.
enum Charge {
    /// What the engine has just been told to start in this container.
    Starting(String),
    Running(Family),
    /// It has ended, or it cannot be seen from here.
    Nothing,
}

impl Containers {
    /// Starts a program.
    pub(crate) async fn begin(&self, query: &ExecQuery) -> Result<Begun, Trouble> {
        let id = query.engine_id.as_str();
        let look = self.engine.ask(|client: Docker| async move { client.inspect_container(id, None).await }).await?;
        let container = look.id.unwrap_or_default();
        if look.state.and_then(|state| state.running) != Some(true) {
            return Ok(Begun::NotRunning);
        }
        let config = config(query);
        let made = self.engine.ask(|client: Docker| async move { client.create_exec(id, config).await });
        let exec = match made.await {
            Ok(made) => made.id,
            Err(Trouble::Conflict(words)) if words.contains("not running") => return Ok(Begun::NotRunning),
            Err(trouble) => return Err(trouble),
        };
        let raw = Raw::new(&self.engine)?;
        // Engines before API 1.42 pass over the size. There, a program that asks at once sees a terminal without one.
        let size = query.size.filter(|_| query.tty).map(|size| [size.rows, size.columns]);
        let start = json!({ "Detach": false, "Tty": query.tty, "ConsoleSize": size });
        let connection = match raw.upgrade(&format!("/exec/{exec}/start"), &start).await {
            Ok(connection) => connection,
            // Engines differ in whether they say before or after the connection was handed over what is wrong.
            Err(Trouble::Refused(words)) => return Ok(failed(&self.engine, &exec, words).await),
            Err(trouble) => return Err(trouble),
        };
        let control = Control { engine: self.engine.clone(), exec, charge: Charge::Starting(container) };
        let mut program = Program::new(connection, control, query.tty);
        let state = begun(&self.engine, &program.control.exec).await?;
        if state.pid.is_none_or(|pid| pid == 0) {
            return Ok(program.never_began().await);
        }
        // First of all, and for engines that have passed over it: the sooner, the fewer programs have asked before.
        if let Some(size) = query.size {
            program.control.resize(size).await;
        }
        program.control.take_charge(&state).await;
        Ok(Begun::Running(Box::new(program)))
    }
}

impl Program {
    fn new(connection: Upgraded, control: Control, terminal: bool) -> Self {
        let (reader, writer) = split(connection);
        let (queue, frames) = (VecDeque::new(), (!terminal).then(|| Frames::new(false)));
        Self {
            output: Output { reader, frames, buffer: vec![0; READ] },
            input: Input { writer: Some(writer), queue, length: 0, ends: false, terminal },
            control,
        }
    }

    /// What the engine says instead of the program, which it could not start.
    async fn never_began(mut self) -> Begun {
        self.control.let_go();
        let mut words = Vec::new();
        while let Ok(Some((_, bytes))) = self.output.next().await {
            words.extend(bytes);
        }
        failed(&self.control.engine, &self.control.exec, String::from_utf8_lossy(&words).trim_end().to_owned()).await
    }
}

impl Output {
    /// The next output; `None` when it has ended. It may be given up at any time.
    pub(crate) async fn next(&mut self) -> Result<Option<(LogStream, Vec<u8>)>, Trouble> {
        loop {
            if let Some(frames) = &mut self.frames {
                match frames.next() {
                    Ok(Some(part)) => return Ok(Some((part.stream, part.bytes))),
                    Ok(None) => {}
                    Err(Garbled::Said(words)) => return Err(Trouble::Refused(words)),
                    Err(Garbled::NoFrames) => return Err(Trouble::Refused("the output cannot be read".to_owned())),
                }
            }
            let length = match self.reader.read(&mut self.buffer).await {
                Ok(0) | Err(_) => return Ok(None),
                Ok(length) => length,
            };
            let bytes = self.buffer.get(..length).unwrap_or_default();
            match &mut self.frames {
                Some(frames) => frames.feed(bytes),
                None => return Ok(Some((LogStream::Stdout, bytes.to_vec()))),
            }
        }
    }
}

impl Input {
    /// Whether more may be given to it.
    pub(crate) fn has_room(&self) -> bool {
        self.length < MOST_INPUT
    }

    /// Adds something. What comes after the end is left.
    pub(crate) fn push(&mut self, bytes: Bytes) {
        if !self.ends && self.writer.is_some() && !bytes.is_empty() {
            self.length += bytes.len();
            self.queue.push_back(bytes);
        }
    }

    /// There is no more.
    pub(crate) fn end(&mut self) {
        if self.terminal {
            // To a terminal that is a key; the connection is both ways.
            self.push(Bytes::from_static(b"\x04"));
        } else {
            self.ends = true;
        }
    }

    /// Hands the program some of what it is to read; for ever, if there is nothing. It may be given up at any time.
    pub(crate) async fn feed(&mut self) {
        let Some(writer) = &mut self.writer else { return std::future::pending().await };
        let Some(next) = self.queue.front_mut() else {
            if !self.ends {
                return std::future::pending().await;
            }
            writer.shutdown().await.ok();
            self.writer = None;
            return;
        };
        match writer.write(next).await {
            Ok(length) if length > 0 => {
                self.length -= length;
                drop(next.split_to(length));
                if next.is_empty() {
                    self.queue.pop_front();
                    writer.flush().await.ok();
                }
            }
            // The program does not read any more, which is its own affair.
            _ => {
                (self.writer, self.length) = (None, 0);
                self.queue.clear();
            }
        }
    }
}

impl Control {
    /// Gives the terminal another size.
    pub(crate) async fn resize(&self, size: TerminalSize) {
        let options = ResizeExecOptions { h: size.rows.into(), w: size.columns.into() };
        let exec = self.exec.as_str();
        let resized = self.engine.ask(|client: Docker| async move { client.resize_exec(exec, options).await });
        if let Err(trouble) = resized.await {
            tracing::debug!(%trouble, "a terminal was not resized");
        }
    }

    /// What it ended with, once its output has ended.
    pub(crate) async fn code(&self) -> Option<i64> {
        let ended = until(&self.engine, &self.exec, |state| state.running != Some(true)).await;
        ended.ok()?.exit_code
    }

    /// Finds what is to be ended later.
    async fn take_charge(&mut self, state: &ExecInspectResponse) {
        let Charge::Starting(container) = &self.charge else { return };
        let family = find(container.clone(), state).await;
        if family.is_none() && state.running == Some(true) {
            tracing::warn!(container, "a program in a container cannot be seen from here, nor be ended");
        }
        self.charge = family.map_or(Charge::Nothing, Charge::Running);
    }

    /// It has ended, or is not to be ended.
    pub(crate) fn let_go(&mut self) {
        self.charge = Charge::Nothing;
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let runtime = tokio::runtime::Handle::try_current();
        match std::mem::replace(&mut self.charge, Charge::Nothing) {
            Charge::Nothing => {}
            // At once, because an agent that is being stopped does not get to what comes later.
            Charge::Running(mut family) => {
                if family.look() {
                    family.signal(Signal::SIGHUP);
                    runtime.ok().map(|runtime| runtime.spawn(kill(family)));
                }
            }
            Charge::Starting(container) => {
                let (engine, exec) = (self.engine.clone(), self.exec.clone());
                runtime.ok().map(|runtime| runtime.spawn(kill_soon(engine, exec, container)));
            }
        }
    }
}

/// Ends what has not been started yet, as soon as it is.
async fn kill_soon(engine: Engine, exec: String, container: String) {
    let Ok(state) = begun(&engine, &exec).await else { return };
    if let Some(family) = find(container, &state).await {
        family.signal(Signal::SIGHUP);
        kill(family).await;
    }
}

async fn find(container: String, state: &ExecInspectResponse) -> Option<Family> {
    let pid = state.pid?;
    tokio::task::spawn_blocking(move || Family::of(&container, pid)).await.ok()?
}

/// Returns when a program runs, or could not be started. Engines take it for running before it has a process.
async fn begun(engine: &Engine, exec: &str) -> Result<ExecInspectResponse, Trouble> {
    until(engine, exec, |state| state.pid > Some(0) || state.exit_code.is_some()).await
}

async fn until(
    engine: &Engine,
    exec: &str,
    is_so: impl Fn(&ExecInspectResponse) -> bool,
) -> Result<ExecInspectResponse, Trouble> {
    let (until, mut pauses) = (Instant::now() + PATIENCE, Pauses::default());
    loop {
        let state = engine.ask(|client: Docker| async move { client.inspect_exec(exec).await }).await?;
        if is_so(&state) {
            return Ok(state);
        }
        if Instant::now() > until {
            return Err(Trouble::Away("it does not start the program".to_owned()));
        }
        sleep(pauses.next().min(Duration::from_millis(200))).await;
    }
}

/// Kills what does not end by itself.
async fn kill(family: Family) {
    let (family, ended) = watch(family, GRACE, None).await;
    if !ended && !watch(family, KILLED, Some(Signal::SIGKILL)).await.1 {
        tracing::warn!("a program in a container could not be ended");
    }
}

/// Looks until nothing is left, and sends a signal each time. Whether nothing is.
async fn watch(mut family: Family, most: Duration, signal: Option<Signal>) -> (Family, bool) {
    let (until, mut pauses) = (Instant::now() + most, Pauses::default());
    loop {
        let before = family.clone();
        let looking = tokio::task::spawn_blocking(move || {
            let left = family.look();
            if let Some(signal) = signal {
                family.signal(signal);
            }
            (family, left)
        });
        let Ok((looked, left)) = looking.await else { return (before, false) };
        family = looked;
        if !left || Instant::now() > until {
            return (family, !left);
        }
        sleep(pauses.next().min(Duration::from_millis(200))).await;
    }
}

fn config(query: &ExecQuery) -> ExecConfig {
    ExecConfig {
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        tty: Some(query.tty),
        cmd: Some(query.command.clone()),
        user: query.user.clone(),
        working_dir: query.folder.clone(),
        detach_keys: query.tty.then(|| DETACH_KEYS.to_owned()),
        ..ExecConfig::default()
    }
}

/// The code is as shells have it, whatever the engine's age: 127 for what is not there, 126 for what cannot be run.
async fn failed(engine: &Engine, exec: &str, words: String) -> Begun {
    let state = engine.ask(|client: Docker| async move { client.inspect_exec(exec).await }).await;
    let told = state.ok().and_then(|state| state.exit_code).filter(|code| *code != 0);
    let is_missing = words.contains("not found") || words.contains("no such file or directory");
    Begun::Failed { code: if is_missing { 127 } else { told.unwrap_or(126) }, words }
}

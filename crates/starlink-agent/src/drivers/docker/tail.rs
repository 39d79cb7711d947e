//! Reads the output of any container straight from its engine, across restarts of both, each line once.
//!
//! There is no position but the cursor of the last line: after each break the engine is asked again from a little before
//! it, and what was read already is recognised by its place. A mark stands where one run ends and the next begins.

mod assemble;
mod buffer;
pub(super) mod frames;
mod repeats;
mod runs;

pub(crate) use assemble::Piece;
pub(crate) use buffer::{Batch, Buffer};

use super::{
    containers::Containers,
    engine::{Pauses, Trouble},
    output::stamped,
    raw::{Answer, Raw},
};
use assemble::{Assembler, OVERTAKING};
use bollard::Docker;
use buffer::Age;
use domain::{
    clock::Timestamp,
    containers::{LogCursor, wire::ContainerLogQuery},
};
use frames::{Frames, Garbled, Part};
use futures_util::StreamExt;
use repeats::Repeats;
use runs::{Gap, Look, Starts};
use std::{collections::VecDeque, time::Duration};
use tokio::time::{Instant, timeout};

/// How long a line that has not ended is waited for before what there is of it is given.
const QUIET: Duration = Duration::from_millis(100);
/// After this time without a word an engine is asked whether there is more: when it changes its files, it may lose its
/// place in them.
const STALLED: Duration = Duration::from_secs(1);
/// The longest pause between two looks at a container that does not run, or at an engine that is away.
const LONGEST_REST: Duration = Duration::from_secs(1);
/// How long an engine may be away that is asked only for what is there.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often in a row an engine may fail to read its own copy before it is believed.
const TRIES: u32 = 3;
/// How many messages before the last ones are read besides, to count them right.
const BEFORE_TAIL: u64 = 256;
/// The most pieces of the engine's answer that are taken at once.
const CHUNKS: usize = 64;

/// Reads one container's output into a buffer.
pub(crate) struct Tail<'a> {
    containers: &'a Containers,
    query: &'a ContainerLogQuery,
    buffer: &'a Buffer,
    raw: Raw,
    /// The last line that was given.
    position: Option<LogCursor>,
    /// What is older is not wanted.
    floor: u64,
    /// Only so many of the last messages, until they were asked for once.
    last: Option<u64>,
    /// What was written until then was there before it was asked for.
    history: u64,
    /// Gaps between runs that there is no mark for yet, oldest first.
    due: VecDeque<Gap>,
    /// The last gap that there is, or need not be, a mark for.
    marked: u64,
    /// The run in which reading began: whatever begins later is worth a mark, even before the first line.
    first_run: Option<u64>,
    /// The newest message when the present answer was begun, until it has come.
    awaited: Option<u64>,
    /// The earliest time that was given.
    earliest: u64,
    /// What came in the present answer, and whether the present message came before.
    repeats: Repeats,
    repeated: bool,
    /// The newest message when the engine was last asked whether it had stopped telling.
    stalled: u64,
}

/// How much the engine is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// What was written up to this time.
    Until(u64),
    /// All that there is, and what comes.
    Follow,
}

impl<'a> Tail<'a> {
    /// One that goes on after a line.
    pub(crate) fn new(
        containers: &'a Containers,
        query: &'a ContainerLogQuery,
        after: Option<LogCursor>,
        buffer: &'a Buffer,
    ) -> Result<Self, Trouble> {
        Ok(Self {
            containers,
            query,
            buffer,
            raw: Raw::new(&containers.engine)?,
            position: after,
            floor: query.since.map(nanos).unwrap_or_default(),
            last: None,
            history: u64::MAX,
            due: VecDeque::new(),
            marked: after.map(|after| after.mark).unwrap_or_default(),
            first_run: None,
            awaited: None,
            earliest: u64::MAX,
            repeats: Repeats::new(false),
            repeated: false,
            stalled: 0,
        })
    }

    /// Reads until the natural end, or until something is the matter that does not pass.
    pub(crate) async fn run(mut self) -> Result<(), Trouble> {
        let (mut pauses, mut failures, mut away_since) = (Pauses::default(), 0, Instant::now());
        let mut state = Progress::default();
        loop {
            let before = self.position;
            match self.step(&mut state).await {
                Ok(true) => return Ok(()),
                Ok(false) => (failures, away_since) = (0, Instant::now()),
                // It was there, and was removed.
                Err(Trouble::Missing(_)) if state.seen => return Ok(()),
                Err(Trouble::Away(_)) if self.query.follow || away_since.elapsed() < PATIENCE => state.rested = None,
                Err(trouble @ (Trouble::Refused(_) | Trouble::Conflict(_))) if self.position == before => {
                    failures += 1;
                    if failures >= TRIES || !state.seen {
                        return Err(trouble);
                    }
                }
                Err(Trouble::Refused(_) | Trouble::Conflict(_)) => failures = 0,
                Err(trouble) => return Err(trouble),
            }
            if self.position != before {
                pauses.reset();
            }
            let pause = pauses.next().min(LONGEST_REST);
            state.rest(pause).await;
        }
    }

    /// Reads what there is, and what comes in one run. Whether nothing will come any more.
    async fn step(&mut self, state: &mut Progress) -> Result<bool, Trouble> {
        let look = self.look().await?;
        if !state.seen {
            self.begin(&look).await?;
            state.seen = true;
        }
        if self.query.follow && look.runs {
            (state.rested, state.starts) = (None, None);
            self.read(&look, Extent::Follow).await?;
            return Ok(false);
        }
        // What a later run writes comes after its mark, once that is known.
        if state.rested != Some(look.times()) {
            let until = if self.query.follow { nanos(self.containers.clock.now()) } else { u64::MAX };
            let again = self.look().await?;
            if self.query.follow && again.times() != look.times() {
                return Ok(false);
            }
            self.read(&look, Extent::Until(until)).await?;
            state.rested = Some(look.times());
        } else if self.query.follow && state.starts.is_none() {
            state.starts = Some(runs::starts(&self.containers.engine, &look.id)?);
        }
        Ok(!self.query.follow)
    }

    /// Finds out where the last so many messages begin, and what is history.
    async fn begin(&mut self, look: &Look) -> Result<(), Trouble> {
        let newest = self.first_time(look, 1).await?.unwrap_or_default();
        self.first_run = Some(look.began);
        if self.query.follow {
            self.history = newest;
        }
        let floor = match self.query.tail {
            None => 0,
            Some(0) => newest + 1,
            Some(tail) => self.first_time(look, tail).await?.unwrap_or_default(),
        };
        self.floor = self.floor.max(floor);
        self.last = self.query.tail.filter(|_| self.position.is_none());
        Ok(())
    }

    /// Gives the output that comes, with marks in between.
    async fn read(&mut self, look: &Look, extent: Extent) -> Result<(), Trouble> {
        let newest = self.first_time(look, 1).await?;
        // What was given is newer than all that there is: the clock was set back, and times lead nowhere.
        let set_back = self.position.is_some() && newest.is_some_and(|newest| newest < self.from());
        let from = if set_back { 0 } else { self.from() };
        let answer = self.ask(look, extent, from).await?;
        // What begins after this comes in another answer: this one ends with the run.
        let now = if extent == Extent::Follow { self.look().await? } else { look.clone() };
        self.expect(&now).await;
        (self.repeats, self.repeated) = (Repeats::new(answer.is_of_docker), false);
        let terminal = look.terminal && !answer.is_multiplexed;
        let (mut frames, mut assembler) = (Frames::new(terminal), Assembler::new(look.terminal, self.position));
        self.awaited = newest.filter(|newest| *newest >= from);
        if self.awaited.is_none() {
            self.catch_up(&mut assembler).await;
        }
        let ended = self.take_all(look, answer, &mut frames, &mut assembler, extent).await;
        if ended.is_ok() {
            self.last = None;
        }
        if let Some(part) = frames.finish().filter(|_| ended.is_ok()) {
            self.take(&part, &mut assembler, extent).await;
        }
        // Whatever is held when an answer breaks off, or a run ends, is read again.
        if ended.is_ok() && extent != Extent::Follow {
            let mut pieces = Vec::new();
            if look.runs {
                assembler.flush(&mut |piece| pieces.push(piece));
            } else {
                assembler.end_run(&mut |piece| pieces.push(piece));
            }
            self.give(pieces).await;
            self.catch_up(&mut assembler).await;
        }
        self.buffer.tell();
        ended
    }

    async fn take_all(
        &mut self,
        look: &Look,
        answer: Answer,
        frames: &mut Frames,
        assembler: &mut Assembler,
        extent: Extent,
    ) -> Result<(), Trouble> {
        let (mut chunks, mut checked) = (answer.chunks.ready_chunks(CHUNKS), false);
        loop {
            // An engine that has not come to the end yet may be looking for it in a large file.
            let is_live = extent == Extent::Follow && self.awaited.is_none();
            let patience = match (is_live, assembler.holds()) {
                // What was written before has all of its lines, however long an engine that is busy takes in between.
                (false, _) => Duration::MAX,
                (true, true) => QUIET,
                (true, false) if checked => Duration::MAX,
                (true, false) => STALLED,
            };
            let Ok(next) = timeout(patience, chunks.next()).await else {
                if assembler.holds() {
                    let mut pieces = Vec::new();
                    assembler.flush(&mut |piece| pieces.push(piece));
                    self.give(pieces).await;
                    self.buffer.tell();
                } else if self.has_stalled(look, assembler).await? {
                    return Ok(());
                } else {
                    checked = true;
                }
                continue;
            };
            checked = false;
            let Some(chunks) = next else { return Ok(()) };
            for chunk in chunks {
                frames.feed(&chunk?);
                while let Some(part) = frames.next().map_err(trouble)? {
                    if !self.take(&part, assembler, extent).await {
                        return Ok(());
                    }
                }
            }
            self.buffer.tell();
        }
    }

    /// Whether there is more than the engine tells, which it does when it is asked anew. Once for each message: the end of
    /// a terminal's output may not be a whole one yet.
    async fn has_stalled(&mut self, look: &Look, assembler: &Assembler) -> Result<bool, Trouble> {
        let newest = self.first_time(look, 1).await?.unwrap_or_default();
        let has_stalled = newest > assembler.time() && newest != self.stalled;
        self.stalled = newest;
        Ok(has_stalled)
    }

    /// Gives what a part gives rise to. Whether what comes after it is wanted.
    async fn take(&mut self, part: &Part, assembler: &mut Assembler, extent: Extent) -> bool {
        let stamped = if part.first { stamped(&part.bytes) } else { None };
        let (stamp, text) = stamped.map_or((None, part.bytes.as_slice()), |(at, text)| (Some(nanos(at)), text));
        if let Some(stamp) = stamp {
            match extent {
                Extent::Until(until) if stamp > until => return false,
                Extent::Follow if self.awaited.is_none() => {
                    let now = || nanos(self.containers.clock.now());
                    self.repeated = self.repeats.is_repeated(part.stream, stamp, text, now);
                }
                _ => self.repeats.note(part.stream, stamp, text),
            }
        }
        if self.repeated {
            return true;
        }
        while let Some(gap) = self.due.front().copied().filter(|gap| stamp.is_some_and(|stamp| stamp >= gap.boundary)) {
            self.due.pop_front();
            self.mark(gap, assembler, None).await;
        }
        let now = if stamp.is_none() { nanos(self.containers.clock.now()) } else { 0 };
        let mut pieces = Vec::new();
        assembler.take(part, stamp, now, text, &mut |piece| pieces.push(piece));
        self.give(pieces).await;
        if self.awaited.is_some_and(|awaited| assembler.time() >= awaited) {
            self.catch_up(assembler).await;
        }
        true
    }

    /// Nothing is left of earlier runs: their marks need not wait for a line of the present one.
    async fn catch_up(&mut self, assembler: &mut Assembler) {
        self.awaited = None;
        while let Some(gap) = self.due.pop_front() {
            self.mark(gap, assembler, self.position).await;
        }
        self.buffer.tell();
    }

    async fn mark(&mut self, gap: Gap, assembler: &mut Assembler, after: Option<LogCursor>) {
        let mut pieces = Vec::new();
        assembler.end_run(&mut |piece| pieces.push(piece));
        self.give(pieces).await;
        self.marked = self.marked.max(gap.mark);
        let later = self.first_run.is_some_and(|first| gap.mark > first);
        let between = self.position.is_some() && gap.if_before.is_none_or(|time| self.earliest < time);
        if later || between {
            let piece = assembler.mark(after, gap.mark, gap.sentence());
            self.give(vec![piece]).await;
        }
    }

    /// Hands on what was not given before, and is wanted.
    async fn give(&mut self, pieces: Vec<Piece>) {
        for piece in pieces {
            if self.position.is_some_and(|position| piece.cursor <= position) || piece.at < self.floor {
                continue;
            }
            self.position = Some(piece.cursor);
            self.earliest = self.earliest.min(piece.at);
            let age = if piece.at <= self.history { Age::History } else { Age::News };
            self.buffer.push(piece, age).await;
        }
    }

    /// Adds the gaps before the present run that were not seen before.
    async fn expect(&mut self, look: &Look) {
        let ends = runs::ends(&self.containers.engine, &look.id, self.from().max(self.marked), look.began);
        let ends = if look.began > 0 { ends.await.unwrap_or_default() } else { Vec::new() };
        self.due = runs::gaps(look, &ends).into_iter().filter(|gap| gap.ended > self.marked).collect();
    }

    /// Since when the engine is asked.
    fn from(&self) -> u64 {
        let position = self.position.map(|position| position.time.saturating_sub(position.back));
        position.unwrap_or_else(|| self.floor.saturating_sub(OVERTAKING))
    }

    async fn look(&self) -> Result<Look, Trouble> {
        let id = self.query.engine_id.as_str();
        let asking =
            self.containers.engine.ask(|client: Docker| async move { client.inspect_container(id, None).await });
        Ok(Look::read(asking.await?))
    }

    async fn ask(&self, look: &Look, extent: Extent, from: u64) -> Result<Answer, Trouble> {
        let mut query = streams();
        query.push(("follow", (extent == Extent::Follow).to_string()));
        match self.last.filter(|_| self.position.is_none()) {
            Some(last) => query.push(("tail", last.saturating_add(BEFORE_TAIL).to_string())),
            None if from > 0 => query.push(("since", runs::stamp(from))),
            None => {}
        }
        self.raw.get(&format!("/containers/{}/logs", look.id), &query).await
    }

    /// The time of the first of the last so many messages.
    async fn first_time(&self, look: &Look, last: u64) -> Result<Option<u64>, Trouble> {
        let mut query = streams();
        query.push(("tail", last.to_string()));
        let mut answer = self.raw.get(&format!("/containers/{}/logs", look.id), &query).await?;
        let mut frames = Frames::new(look.terminal && !answer.is_multiplexed);
        while let Some(chunk) = answer.chunks.next().await {
            frames.feed(&chunk?);
            if let Some(part) = frames.next().map_err(trouble)? {
                return Ok(stamped(&part.bytes).map(|(at, _)| nanos(at)));
            }
        }
        Ok(frames.finish().and_then(|part| stamped(&part.bytes).map(|(at, _)| nanos(at))))
    }
}

/// What was done already.
#[derive(Default)]
struct Progress {
    /// Whether the container was there.
    seen: bool,
    /// What a container that does not run looked like when all of its output had been read.
    rested: Option<(bool, u64, u64)>,
    /// Tells when it is started, or is removed.
    starts: Option<Starts>,
}

impl Progress {
    async fn rest(&mut self, most: Duration) {
        let Some(starts) = &mut self.starts else { return tokio::time::sleep(most).await };
        // Whatever it says, it is time for a look.
        if timeout(most, starts.next()).await.is_ok() {
            self.starts = None;
        }
    }
}

fn streams() -> Vec<(&'static str, String)> {
    ["stdout", "stderr", "timestamps"].map(|name| (name, "true".to_owned())).into()
}

fn nanos(time: Timestamp) -> u64 {
    time.timestamp_nanos_opt().and_then(|nanos| u64::try_from(nanos).ok()).unwrap_or_default()
}

fn trouble(garbled: Garbled) -> Trouble {
    match garbled {
        Garbled::NoFrames => Trouble::Refused("the engine's answer is no output of a container".to_owned()),
        Garbled::Said(words) => Trouble::Refused(words),
    }
}

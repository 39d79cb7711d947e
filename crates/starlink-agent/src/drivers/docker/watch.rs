//! Sees a container through to its end.
//!
//! The stream of its output is what tells that it has ended: the engine closes it with each run. All else is looked up
//! then; a look now and then guards against a stream that hangs.

use super::{
    DockerDriver, Identity, end,
    engine::{Pauses, Trouble},
    output::{Copier, Extent},
    seen::{Phase, Seen, never_began},
    times::Times,
};
use crate::work::{Exit, Failure, Work};
use bollard::{Docker, container::LogOutput, errors::Error};
use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use domain::scheduling::{RestartPolicy, reason};
use futures_util::{Stream, StreamExt};
use std::{pin::Pin, sync::Arc, time::Duration};
use tokio::{task::JoinHandle, time::Instant};

/// How often a look is taken although nothing happened.
const LOOK: Duration = Duration::from_secs(30);
/// The longest pause between two looks at a container that does not run.
const LONGEST_REST: Duration = Duration::from_secs(1);
/// How long a container that was ended by hand, or with the engine, may take to be started again.
const SECOND_CHANCE: Duration = Duration::from_secs(3);
/// How long the engine may be silent in the middle of what it has already.
const SILENCE: Duration = Duration::from_mins(1);
/// How often the engine is asked for the rest of the output.
const TRIES: u32 = 8;
/// How many pieces of output are written at once, if so many come within a moment. A piece has up to 16 KiB.
const BATCH: usize = 64;
const MOMENT: Duration = Duration::from_millis(5);

type Frames = Pin<Box<dyn Stream<Item = Vec<Result<LogOutput, Error>>> + Send>>;

/// One container that is waited for.
pub(super) struct Watch<'a> {
    driver: &'a DockerDriver,
    work: &'a Work,
    identity: Identity,
    /// The container, once it was seen.
    id: Option<String>,
    /// When it was last looked at, when it was last seen running, and until when the engine was away since.
    looked_at: DateTime<Utc>,
    running_at: Option<DateTime<Utc>>,
    away_until: Option<DateTime<Utc>>,
    times: Times,
    /// `None` while it is being opened or written, which blocks.
    copier: Option<Copier>,
    follow: Option<Frames>,
    /// When the run began whose output has ended.
    over: Option<DateTime<Utc>>,
    pauses: Pauses,
    /// Ends it for its time limit.
    limiter: Option<JoinHandle<Result<(), Trouble>>>,
    /// Until when the end at this time is not yet believed to be for good.
    doubt: Option<(Option<DateTime<Utc>>, Instant)>,
}

impl<'a> Watch<'a> {
    pub(super) fn new(driver: &'a DockerDriver, work: &'a Work) -> Self {
        Self {
            driver,
            work,
            identity: Identity::of(&work.id),
            id: None,
            looked_at: DateTime::UNIX_EPOCH,
            running_at: None,
            away_until: None,
            times: Times::load(&work.folder),
            copier: None,
            follow: None,
            over: None,
            pauses: Pauses::default(),
            limiter: None,
            doubt: None,
        }
    }

    pub(super) async fn run(mut self) -> Exit {
        let exit = match self.see_through().await {
            Ok(exit) | Err(exit) => exit,
        };
        self.follow = None;
        let finished = self.with_copier(Copier::finish).await;
        if let Some(Err(error)) = finished {
            tracing::warn!(work = %self.work.id, %error, "the end of a log could not be written");
        }
        // What is stored and shown has microseconds.
        let rounded = |time: Option<DateTime<Utc>>| time.map(|time| time.trunc_subsecs(6));
        Exit { started_at: rounded(exit.started_at), finished_at: rounded(exit.finished_at), ..exit }
    }

    /// How it ended; as an error, if that cannot be told from a look at it.
    async fn see_through(&mut self) -> Result<Exit, Exit> {
        loop {
            let seen = self.look().await?;
            self.keep_times(&seen);
            match seen.phase {
                Phase::Created => {
                    let detail = "its container was made, and the agent ended before it was started";
                    return Err(Exit::failed(Failure::new(reason::START_FAILED, detail)));
                }
                Phase::Running => {
                    // A stream that ends at once, again and again, must not keep the agent busy.
                    if self.follow.is_none() && self.over == seen.started_at {
                        self.rest().await;
                    }
                    self.enforce_limit(&seen);
                    if self.catch_up(&seen, Extent::SoFar).await {
                        self.follow(&seen).await;
                    } else {
                        self.rest().await;
                    }
                }
                Phase::Ended if !self.doubts(&seen).await => {
                    self.copy_the_rest(&seen).await?;
                    return Ok(self.exit(&seen).await);
                }
                Phase::Between | Phase::Ended => {
                    self.follow = None;
                    self.enforce_limit(&seen);
                    // It may have been started again since.
                    self.catch_up(&seen, Extent::Until(self.looked_at)).await;
                    self.rest().await;
                }
                Phase::Removing => self.rest().await,
            }
        }
    }

    /// Looks at the container, however long that takes.
    async fn look(&mut self) -> Result<Seen, Exit> {
        let name = &self.id.clone().unwrap_or_else(|| self.work.id.to_string());
        let until = Instant::now() + self.driver.options.engine_patience;
        let (mut pauses, mut away) = (Pauses::default(), false);
        loop {
            self.looked_at = self.driver.clock.now();
            let look = |client: Docker| async move { client.inspect_container(name, None).await };
            match self.driver.engine.ask(look).await {
                Ok(container) => {
                    let seen = Seen::read(container, &self.identity).ok_or_else(|| self.gone())?;
                    if away {
                        self.away_until = Some(self.driver.clock.now());
                    } else if seen.phase == Phase::Running {
                        (self.running_at, self.away_until) = (Some(self.looked_at), None);
                    }
                    self.id = Some(seen.id.clone());
                    return Ok(seen);
                }
                Err(Trouble::Missing(_)) => return Err(self.gone()),
                Err(trouble) if Instant::now() >= until => {
                    // It may well run on, so nobody may take it for failed and run it elsewhere for that.
                    let failure = trouble.into_failure(reason::ENGINE_GONE);
                    return Err(Exit { failure: Some(Failure { reason: reason::ENGINE_GONE, ..failure }), ..lost() });
                }
                Err(_) => {
                    (away, self.follow) = (true, None);
                    tokio::time::sleep(pauses.next()).await;
                }
            }
        }
    }

    /// It is not there, or no more.
    fn gone(&self) -> Exit {
        let detail = format!("container {} was removed, not by this agent", self.work.id);
        let failure = Failure::new(reason::CONTAINER_GONE, detail);
        if self.id.is_some() {
            return Exit { started_at: self.times.first, ..Exit::failed(failure) };
        }
        match self.times.first {
            // It may have ended long before.
            Some(first) => Exit { started_at: Some(first), failure: Some(failure), ..lost() },
            None => Exit::lost(format!("there is no container {}", self.work.id)),
        }
    }

    fn keep_times(&mut self, seen: &Seen) {
        if self.times.first.is_some() || seen.started_at.is_none() {
            return;
        }
        // Of the runs before the last one nothing is known, but that they began after it was made.
        let only = self.work.spec.restart == RestartPolicy::Never || seen.is_first_run();
        self.times.first = if only { seen.started_at } else { seen.created_at.or(seen.started_at) };
        if seen.is_first_run() {
            self.times.run = seen.started_at;
        }
        self.save_times();
    }

    fn save_times(&self) {
        if let Err(error) = self.times.save(&self.work.folder) {
            tracing::warn!(work = %self.work.id, %error, "it could not be noted when a container was started");
        }
    }

    /// When the work has had its time.
    fn limit(&self) -> Option<DateTime<Utc>> {
        let seconds = i64::try_from(self.work.spec.timeout_seconds?).ok()?;
        self.times.first?.checked_add_signed(TimeDelta::try_seconds(seconds)?)
    }

    /// Begins to end it, if it has had its time.
    fn enforce_limit(&mut self, seen: &Seen) {
        let over = self.limit().is_some_and(|limit| self.driver.clock.now() >= limit);
        if over && self.limiter.as_ref().is_none_or(JoinHandle::is_finished) {
            let (engine, id) = (self.driver.engine.clone(), seen.id.clone());
            let (patience, grace) = (self.driver.options.engine_patience, self.driver.grace(&self.work.spec));
            self.limiter = Some(tokio::spawn(async move { end::end(&engine, patience, &id, grace).await }));
        }
    }

    /// Copies what is left once it has ended. An engine that cannot read its own copy any more must not keep its end from
    /// being told.
    async fn copy_the_rest(&mut self, seen: &Seen) -> Result<(), Exit> {
        for _ in 0..TRIES {
            if self.catch_up(seen, Extent::SoFar).await {
                return Ok(());
            }
            self.rest().await;
            self.look().await?;
        }
        tracing::warn!(work = %self.work.id, "the container engine does not hand out the rest of a container's output");
        Ok(())
    }

    /// Copies what there is of the output of runs that were not seen before, with marks between them. Whether all of it
    /// was copied.
    async fn catch_up(&mut self, seen: &Seen, extent: Extent) -> bool {
        let Some(began) = seen.started_at else { return true };
        let known = self.times.run == Some(began);
        if seen.phase == Phase::Running && known {
            return true;
        }
        self.follow = None;
        if !known {
            self.pauses.reset();
            let Some(marked) = self.with_copier(|copier| copier.marked()).await else { return false };
            let Ok(ends) = self.ends_of_runs(seen, began, marked).await else { return false };
            self.with_copier(move |copier| copier.expect(began, ends)).await;
        }
        let Some(mut frames) = self.output(extent).await else { return false };
        loop {
            match tokio::time::timeout(SILENCE, frames.next()).await {
                Ok(Some(batch)) => {
                    if !self.write(batch, &mut frames).await {
                        return false;
                    }
                }
                Ok(None) => break,
                Err(_silent) => return false,
            }
        }
        self.with_copier(Copier::mark_all).await;
        if !known {
            self.times.run = Some(began);
            self.save_times();
        }
        true
    }

    /// When the runs before the one that began then have ended, as far as the log has no mark for it. The engine tells
    /// of the end of a run only when it has all of its output, and before it begins the next one; but it forgets events.
    async fn ends_of_runs(
        &mut self,
        seen: &Seen,
        began: DateTime<Utc>,
        marked: DateTime<Utc>,
    ) -> Result<Vec<DateTime<Utc>>, Trouble> {
        let events = self.driver.events(&seen.id, "die", marked, began).await?;
        let mut ends: Vec<_> = events.into_iter().filter(|end| *end < began && micros(*end) > micros(marked)).collect();
        ends.sort();
        let unmarked = match seen.finished_at.filter(|_| seen.ran_before()) {
            Some(end) if end < began && micros(marked) < micros(end) => Some(end + (began - end) / 2),
            _ => None,
        };
        // When they ended is not known here, but that they did.
        let another = self.times.run.map_or(seen.restarts > 0, |run| run < began);
        let unmarked = unmarked.or(another.then(|| began - TimeDelta::milliseconds(50)));
        if ends.is_empty() {
            ends.extend(unmarked);
        }
        Ok(ends)
    }

    /// Copies the output of a run until the run is over, or it is time for a look.
    async fn follow(&mut self, seen: &Seen) {
        let began = Instant::now();
        let mut frames = match self.follow.take() {
            Some(frames) => frames,
            None => match self.output(Extent::Follow).await {
                Some(frames) => frames,
                None => return self.rest().await,
            },
        };
        let look = tokio::time::sleep(self.until_limit(LOOK));
        tokio::pin!(look);
        loop {
            let batch = tokio::select! {
                batch = frames.next() => batch,
                () = &mut look => {
                    self.follow = Some(frames);
                    return;
                }
            };
            let Some(batch) = batch else { break };
            if !self.write(batch, &mut frames).await {
                break;
            }
        }
        self.over = seen.started_at;
        if began.elapsed() > LONGEST_REST {
            self.pauses.reset();
        }
    }

    /// The engine's output since what was copied, in batches.
    async fn output(&mut self, extent: Extent) -> Option<Frames> {
        let options = self.with_copier(move |copier| copier.ask(extent)).await?;
        let client = self.driver.engine.client(SILENCE).ok()?;
        let frames = client.logs(self.id.as_deref()?, Some(options));
        Some(Box::pin(frames.ready_chunks(BATCH)))
    }

    /// Writes a batch with what comes within a moment; whether the stream may have more.
    async fn write(&mut self, mut batch: Vec<Result<LogOutput, Error>>, frames: &mut Frames) -> bool {
        // To hand them to another thread one by one would take longer than all else.
        let moment = Instant::now() + MOMENT;
        while batch.len() < BATCH
            && let Ok(Some(more)) = tokio::time::timeout_at(moment, frames.next()).await
        {
            batch.extend(more);
        }
        let count = batch.len();
        let frames: Vec<LogOutput> = batch.into_iter().map_while(Result::ok).collect();
        let whole = frames.len() == count;
        self.with_copier(move |copier| copier.take(&frames)).await.is_some() && whole
    }

    /// Does something with the log where it may block.
    async fn with_copier<T: Send + 'static>(
        &mut self,
        act: impl FnOnce(&mut Copier) -> T + Send + 'static,
    ) -> Option<T> {
        let open = self.copier.take();
        let (work, clock) = (self.work.clone(), Arc::clone(&self.driver.clock));
        let acting = tokio::task::spawn_blocking(move || {
            let mut copier = open.unwrap_or_else(|| Copier::open(&work, clock));
            let outcome = act(&mut copier);
            (copier, outcome)
        });
        let (copier, outcome) = acting.await.ok()?;
        self.copier = Some(copier);
        Some(outcome)
    }

    async fn rest(&mut self) {
        let pause = self.pauses.next().min(LONGEST_REST);
        tokio::time::sleep(self.until_limit(pause)).await;
    }

    /// At most so long, and not beyond the work's time.
    fn until_limit(&self, most: Duration) -> Duration {
        // What is being ended already needs no look for that.
        let limit = self.limit().filter(|_| self.limiter.is_none());
        let left = limit.map(|limit| (limit - self.driver.clock.now()).to_std().unwrap_or_default());
        left.map_or(most, |left| left.min(most))
    }

    /// Whether a container that has ended may still be started again. That happens by hand (`docker restart`), and while
    /// an engine starts. Who ends by himself is not doubted.
    async fn doubts(&mut self, seen: &Seen) -> bool {
        if self.driver.ends_on_purpose(&self.work.id) || self.limiter.is_some() {
            return false;
        }
        if self.doubt.is_none_or(|(end, _)| end != seen.finished_at) {
            let restarts = match self.work.spec.restart {
                RestartPolicy::Never => false,
                RestartPolicy::OnFailure => !seen.is_well(),
                RestartPolicy::Always => true,
            };
            let with_engine = restarts && self.away_until.is_some();
            let chance =
                if with_engine || self.driver.was_ended_by_hand(seen).await { SECOND_CHANCE } else { Duration::ZERO };
            self.doubt = Some((seen.finished_at, Instant::now() + chance));
            self.pauses.reset();
        }
        self.doubt.is_some_and(|(_, until)| Instant::now() < until)
    }

    async fn exit(&mut self, seen: &Seen) -> Exit {
        let mut exit = seen.exit(self.work.spec.demand.memory_mib);
        exit.started_at = self.times.first.or(exit.started_at);
        if let Some(seconds) = self.work.spec.timeout_seconds.filter(|_| self.had_its_time(seen)) {
            let detail = format!("it ran longer than the {seconds} seconds that it may");
            exit.failure = Some(Failure::new(reason::TIMED_OUT, detail));
        } else if exit.failure.is_none() && seen.signal().is_none() && !seen.is_well() {
            exit.failure = never_began(&self.driver.last_words(&seen.id).await);
        } else if exit.failure.is_none() && self.ended_with_engine(seen) {
            let signal = seen.signal().unwrap_or_default();
            let detail = format!("it was ended by signal {signal} while the container engine was away");
            exit.failure = Some(Failure::new(reason::ENGINE_GONE, detail));
        }
        exit
    }

    /// Whether it ended because its time was over.
    fn had_its_time(&self, seen: &Seen) -> bool {
        // What was ended between two runs ended before.
        let between = self.work.spec.restart != RestartPolicy::Never && seen.restarts_never;
        let end = if between { Some(self.driver.clock.now()) } else { seen.finished_at };
        self.limit().zip(end).is_some_and(|(limit, end)| end >= limit)
    }

    /// An engine that is ended takes its containers with it, by asking or by killing.
    fn ended_with_engine(&self, seen: &Seen) -> bool {
        let away = self.running_at.zip(self.away_until).zip(seen.finished_at);
        let during = away.is_some_and(|((from, until), end)| from <= end && end <= until);
        during && matches!(seen.signal(), Some(9 | 15))
    }
}

fn lost() -> Exit {
    Exit::lost("")
}

fn micros(time: DateTime<Utc>) -> i64 {
    time.timestamp_micros()
}

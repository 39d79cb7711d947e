//! Hands a container's output to all who follow it, out of one stream of its agent's.
//!
//! Invariants: there is one stream for each container that is followed, however many follow it. What is kept for them is
//! bounded by the ring. The stream is read at the pace of the fastest: nothing that nobody has read yet is let go of, so
//! that only those who are slower than another miss anything. A hub ends with its last reader.

use super::{
    block::{Block, Format, PerFormat, Torn, View, Wanted, pieces},
    feed::{Fed, Feed, Opener},
    ring::{Found, Place, Ring, show, skip},
};
use crate::rooms::fleet::Cause;
use domain::{
    Error, Result,
    containers::{
        EngineId, LogCursor, NoCursor,
        wire::{ContainerLogQuery, LogBatch},
    },
    ids::ContainerId,
};
use std::{
    collections::{BTreeMap, HashMap},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::{Notify, watch};

/// How much of a container's output is kept for those who follow it, in bytes.
const ROOM: usize = 4 * 1024 * 1024;
/// How many containers may be followed at once.
const MOST: usize = 64;
/// How long a stream may be broken before those who follow it are told.
pub(super) const STAMINA: Duration = Duration::from_mins(1);
/// When it is worth asking again, if there are too many.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The containers that are followed.
pub(super) struct Hubs {
    by_container: Mutex<HashMap<ContainerId, Arc<Hub>>>,
    room: usize,
    most: usize,
}

impl Default for Hubs {
    fn default() -> Self {
        Self { by_container: Mutex::default(), room: ROOM, most: MOST }
    }
}

/// One of them.
struct Hub {
    state: Mutex<State>,
    /// Tells readers that there is something new.
    news: watch::Sender<()>,
    /// Tells the one who fills it that somebody has read, come or gone.
    moved: Notify,
}

struct State {
    ring: Ring,
    phase: Phase,
    readers: BTreeMap<u64, Reader>,
    next: u64,
}

struct Reader {
    format: Format,
    /// How far they are, once they read from here.
    block: Option<u64>,
}

/// How far a hub is.
#[derive(Debug, Clone)]
enum Phase {
    /// It finds out where the output ends.
    Opening,
    /// Everything behind that place comes through it.
    Live,
    /// Nothing comes any more.
    Ended(Ended),
}

/// Why nothing comes any more.
#[derive(Debug, Clone)]
pub(super) enum Ended {
    /// The container was removed.
    Removed,
    /// The agent does not serve it.
    Failed(Cause),
}

impl Ended {
    /// In words.
    pub(super) fn reason(&self) -> &str {
        match self {
            Self::Removed => "the container was removed",
            Self::Failed(cause) => &cause.reason,
        }
    }
}

/// Somebody's place at a hub.
pub(super) struct Seat {
    hubs: Arc<Hubs>,
    container: ContainerId,
    hub: Arc<Hub>,
    number: u64,
    place: Place,
    news: watch::Receiver<()>,
}

/// What a reader gets of a hub.
#[derive(Debug)]
pub(super) enum Heard {
    /// Text, which may be empty.
    Text(Vec<u8>),
    /// Nothing yet.
    Nothing,
    /// What was not read is gone, and some of it may have been shown already.
    Overrun,
    /// Nothing comes any more.
    Ended(Ended),
}

impl Hubs {
    /// With so much room for each, in bytes.
    #[cfg(test)]
    pub(super) fn with_room(room: usize) -> Self {
        Self { room, ..Self::default() }
    }

    /// A seat at the container's hub, which is begun if nobody has one.
    ///
    /// # Errors
    /// [`Error::Exhausted`] if there are too many.
    pub(super) fn join(
        self: &Arc<Self>,
        container: ContainerId,
        engine_id: &EngineId,
        open: &Opener,
        format: Format,
    ) -> Result<Seat> {
        let mut hubs = self.hubs();
        if let Some(hub) = hubs.get(&container).filter(|hub| !hub.state().has_ended()) {
            return Ok(self.sit(container, hub.clone(), format));
        }
        hubs.remove(&container);
        if hubs.len() >= self.most {
            let reason = format!(
                "the output of {} containers is followed at the moment, which is as many as there can be; wait until \
                 one of them is left, or ask without follow",
                self.most
            );
            return Err(Error::Exhausted { reason, retry_after: RETRY_AFTER });
        }
        let hub = Arc::new(Hub::new(self.room));
        hubs.insert(container, hub.clone());
        let seat = self.sit(container, hub.clone(), format);
        drop(hubs);
        tokio::spawn(fill(hub, open.clone(), engine_id.clone()));
        Ok(seat)
    }

    fn sit(self: &Arc<Self>, container: ContainerId, hub: Arc<Hub>, format: Format) -> Seat {
        let mut state = hub.state();
        let number = state.next;
        state.next += 1;
        state.readers.insert(number, Reader { format, block: None });
        let place = state.ring.end();
        drop(state);
        let news = hub.news.subscribe();
        Seat { hubs: self.clone(), container, hub, number, place, news }
    }

    fn hubs(&self) -> MutexGuard<'_, HashMap<ContainerId, Arc<Hub>>> {
        self.by_container.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended(_))
    }

    fn wanted(&self) -> Wanted {
        let mut wanted = PerFormat::default();
        for reader in self.readers.values() {
            *wanted.of_mut(reader.format) = true;
        }
        wanted
    }

    /// What there is for a reader, who reads from here from now on.
    fn find(&mut self, number: u64, place: &Place) -> Found {
        self.move_to(number, place);
        self.ring.find(place)
    }

    fn move_to(&mut self, number: u64, place: &Place) {
        if let Some(reader) = self.readers.get_mut(&number) {
            reader.block = Some(place.block());
        }
    }

    /// Whether a block of this size can be added without anything being let go of that nobody has read. Those who read
    /// what was before, or have not begun, do not count; they come back for what they miss. So whoever sits down changes
    /// nothing here before they hear for the first time.
    fn has_room(&self, bytes: usize) -> bool {
        let fastest = self.readers.values().filter_map(|reader| reader.block).max();
        fastest.is_none_or(|fastest| self.ring.first_to_stay(bytes) <= fastest)
    }
}

impl Hub {
    fn new(room: usize) -> Self {
        let state = State { ring: Ring::new(room), phase: Phase::Opening, readers: BTreeMap::new(), next: 0 };
        Self { state: Mutex::new(state), news: watch::Sender::new(()), moved: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn(&self, phase: Phase) {
        self.state().phase = phase;
        self.news.send_replace(());
    }

    /// Resolves when nobody reads any more.
    async fn abandoned(&self) {
        loop {
            let mut moved = pin!(self.moved.notified());
            moved.as_mut().enable();
            if self.state().readers.is_empty() {
                return;
            }
            moved.await;
        }
    }

    /// Adds lines, once there is room for them.
    async fn add(&self, batch: &LogBatch, torn: &mut Torn) -> Result<(), NoCursor> {
        for (dropped, lines) in pieces(batch) {
            let before = *torn;
            let mut wanted = self.state().wanted();
            let mut block = Block::write(dropped, lines, wanted, torn)?;
            loop {
                let mut moved = pin!(self.moved.notified());
                moved.as_mut().enable();
                match self.try_add(block, wanted) {
                    Ok(()) => break,
                    Err(Refused::Full(back)) => {
                        block = back;
                        moved.await;
                    }
                    Err(Refused::Lacking(more)) => {
                        (wanted, *torn) = (more, before);
                        block = Block::write(dropped, lines, wanted, torn)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn try_add(&self, block: Block, written: Wanted) -> Result<(), Refused> {
        let mut state = self.state();
        let wanted = state.wanted();
        if !written.covers(wanted) {
            return Err(Refused::Lacking(wanted));
        }
        if !state.has_room(block.bytes()) {
            return Err(Refused::Full(block));
        }
        state.ring.push(block);
        drop(state);
        self.news.send_replace(());
        Ok(())
    }
}

/// Why a block was not added.
enum Refused {
    /// Nobody has read yet what would have to go.
    Full(Block),
    /// Somebody has come who wants these formats.
    Lacking(Wanted),
}

/// Fills a hub until nothing comes any more, or nobody reads.
async fn fill(hub: Arc<Hub>, open: Opener, engine_id: EngineId) {
    let ended = tokio::select! {
        () = hub.abandoned() => return,
        ended = filled(&hub, open, engine_id) => ended,
    };
    hub.turn(Phase::Ended(ended));
}

async fn filled(hub: &Hub, open: Opener, engine_id: EngineId) -> Ended {
    // What comes later is ordered after the last line that there is now, rather than from now on: so it is certain that
    // whoever asks for what was before, from this moment on, gets everything up to what comes through here.
    let query = ContainerLogQuery { engine_id, follow: false, after: None, since: None, tail: Some(1) };
    let last = match find_last(Feed::new(open.clone(), query.clone())).await {
        Ok(last) => last,
        Err(cause) => return Ended::Failed(cause),
    };
    hub.turn(Phase::Live);
    let query = ContainerLogQuery { follow: true, tail: None, after: last.map(|last| last.to_string()), ..query };
    let mut feed = Feed::new(open, query);
    feed.patient(STAMINA);
    let mut torn = Torn::default();
    loop {
        match feed.next().await {
            Fed::Batch(batch) => {
                if let Err(error) = hub.add(&batch, &mut torn).await {
                    return Ended::Failed(Cause { code: 0, reason: error.to_string() });
                }
            }
            Fed::End => return Ended::Removed,
            Fed::Failed(cause) if cause.code == crate::rooms::output::UNKNOWN_WORK => return Ended::Removed,
            Fed::Failed(cause) => return Ended::Failed(cause),
        }
    }
}

async fn find_last(mut feed: Feed) -> Result<Option<LogCursor>, Cause> {
    loop {
        match feed.next().await {
            Fed::Batch(_) => {}
            Fed::End => return Ok(feed.last()),
            Fed::Failed(cause) => return Err(cause),
        }
    }
}

impl Seat {
    /// Waits until it is certain that everything from now on comes through the hub.
    ///
    /// # Errors
    /// Why nothing comes.
    pub(super) async fn opened(&mut self) -> Result<(), Cause> {
        loop {
            self.news.borrow_and_update();
            let phase = self.hub.state().phase.clone();
            match phase {
                Phase::Live | Phase::Ended(Ended::Removed) => return Ok(()),
                Phase::Ended(Ended::Failed(cause)) => return Err(cause),
                // The hub outlives the seat, and so does who tells.
                Phase::Opening => _ = self.news.changed().await,
            }
        }
    }

    /// Whether what comes after the place of this reader is still there.
    pub(super) fn is_whole(&self) -> bool {
        !matches!(self.hub.state().ring.find(&self.place), Found::Overrun(_))
    }

    /// Goes to the end of what there is; whoever does so has to read what was before elsewhere.
    pub(super) fn restart(&mut self) {
        let mut state = self.hub.state();
        self.place = state.ring.end();
        if let Some(reader) = state.readers.get_mut(&self.number) {
            reader.block = None;
        }
        drop(state);
        self.hub.moved.notify_waiters();
    }

    /// What there is.
    pub(super) fn hear(&mut self, view: &mut View) -> Heard {
        self.news.borrow_and_update();
        let (found, phase) = {
            let mut state = self.hub.state();
            (state.find(self.number, &self.place), state.phase.clone())
        };
        let heard = match (found, phase) {
            (Found::Blocks(blocks), _) => Heard::Text(show(&mut self.place, view, &blocks)),
            (Found::Overrun(_), _) if view.after.is_some() => Heard::Overrun,
            (Found::Overrun(left), _) => Heard::Text(skip(&mut self.place, view, left)),
            (Found::Nothing, Phase::Ended(ended)) => Heard::Ended(ended),
            (Found::Nothing, _) => Heard::Nothing,
        };
        self.hub.state().move_to(self.number, &self.place);
        // Even if there was nothing: who has just come to the end is ahead of those for whom there is no room.
        self.hub.moved.notify_waiters();
        heard
    }

    /// Waits until there may be something.
    pub(super) async fn wait(&mut self) {
        // The hub outlives the seat, and so does who tells.
        let _ = self.news.changed().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // Under this lock, so that nobody sits down at a hub that is about to end.
        let mut hubs = self.hubs.hubs();
        let mut state = self.hub.state();
        state.readers.remove(&self.number);
        let is_ours = hubs.get(&self.container).is_some_and(|hub| Arc::ptr_eq(hub, &self.hub));
        if is_ours && state.readers.is_empty() {
            hubs.remove(&self.container);
        }
        drop(state);
        drop(hubs);
        self.hub.moved.notify_waiters();
    }
}

#[cfg(test)]
#[path = "hub_tests.rs"]
mod tests;

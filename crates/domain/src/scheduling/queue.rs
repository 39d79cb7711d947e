//! The tasks that wait, by priority (high first), deadline (early first, none last) and age.
//!
//! Tasks that need the same are in one class: what does not fit for one of them does not fit for the others. A class
//! is ready if it may fit somewhere, else it sleeps until something becomes better; a hundred thousand tasks that
//! sleep cost nothing. What is first of all ready classes is next, so nothing that sleeps blocks what is behind it.

use super::{
    amounts::{self, Amounts},
    model::Task,
    ranking::{History, Rankings},
    rules::Gist,
    sets::ArchitectureSet,
    spec::{Priority, TaskSpec},
};
use crate::{
    clock::Timestamp,
    ids::{PoolId, ServerId, TaskId},
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

/// The place of a task in the queue: the lowest is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    priority: Reverse<Priority>,
    deadline: Timestamp,
    /// Tasks are numbered in the order in which they were posted.
    pub(super) task: TaskId,
}

impl Turn {
    fn of(task: TaskId, spec: &TaskSpec) -> Self {
        let deadline = spec.deadline.unwrap_or(Timestamp::MAX_UTC);
        Self { priority: Reverse(spec.priority), deadline, task }
    }
}

/// A server or pool that is kept free for a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    Server(ServerId),
    Pool(PoolId),
}

/// A task that waits.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub(super) spec: Arc<TaskSpec>,
    barred: ArchitectureSet,
    pub(super) revision: i64,
    /// The number of its newest attempt.
    pub(super) attempt: u32,
    /// Since when it has waited.
    pub(super) since: Timestamp,
    /// From when on something may be kept free for it.
    pub(super) ask_at: Timestamp,
    /// What was kept free for it in vain.
    pub(super) tried: Vec<Target>,
    /// Absent once its deadline has passed.
    class: Option<usize>,
}

impl Waiting {
    /// A task that has waited since it became pending, which was its latest change.
    pub(super) fn of(task: &Task, patience: chrono::TimeDelta) -> Self {
        Self {
            spec: Arc::clone(&task.spec),
            barred: task.barred,
            revision: task.revision,
            attempt: task.attempt,
            since: task.updated_at,
            ask_at: later(task.updated_at, patience),
            tried: Vec::new(),
            class: None,
        }
    }
}

/// Stands for what a class asks for that does not sleep: nothing is enough.
const AWAKE: Amounts = [i64::MAX; 4];

/// A moment and a while, or the last moment there is.
pub(super) fn later(at: Timestamp, by: chrono::TimeDelta) -> Timestamp {
    at.checked_add_signed(by).unwrap_or(Timestamp::MAX_UTC)
}

/// What makes tasks need the same. One that holds something is alone in its class: it may go where others may not.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct ClassKey {
    gist: Gist,
    labels: BTreeMap<String, String>,
    servers: Vec<ServerId>,
    server: Option<ServerId>,
    holder: Option<TaskId>,
}

/// Tasks that need the same.
#[derive(Debug)]
pub(super) struct Class {
    pub(super) gist: Gist,
    /// The spec of one of them.
    pub(super) spec: Arc<TaskSpec>,
    /// The latest change that it was judged after; 0 if it was never judged, or has to be judged anew.
    pub(super) seen: u64,
    /// Pools whose quota, state or hold alone kept it from a server when it was judged.
    pub(super) waits_on: Vec<usize>,
    /// Until when it is not worth looking for something to keep free for one of them.
    pub(super) hopeless_until: Timestamp,
    /// How it was looked at so far.
    pub(super) history: History,
    turns: BTreeSet<Turn>,
    ready_as: Option<Turn>,
    key: ClassKey,
}

/// The tasks that wait.
#[derive(Debug, Default)]
pub(super) struct Queue {
    tasks: BTreeMap<TaskId, Waiting>,
    classes: Vec<Option<Class>>,
    /// What each class that sleeps asks for, in an array of its own because all are compared with each improvement.
    asleep: Vec<Amounts>,
    vacant: Vec<usize>,
    keys: HashMap<ClassKey, usize>,
    ready: BTreeSet<(Turn, usize)>,
    /// The tasks that may ask for something to be kept free, by when.
    asks: BTreeSet<(Timestamp, TaskId)>,
    /// The tasks that would hold what others hold, and ask again when a hold ends.
    parked: BTreeSet<TaskId>,
    deadlines: BTreeSet<(Timestamp, TaskId)>,
    overdue: BTreeSet<TaskId>,
    /// Of classes, each as long as its class.
    pub(super) rankings: Rankings,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.tasks.len()
    }

    pub(super) fn get(&self, id: TaskId) -> Option<&Waiting> {
        self.tasks.get(&id)
    }

    /// Adds a task, which is not in it.
    pub(super) fn enter(&mut self, id: TaskId, mut waiting: Waiting) {
        if let Some(deadline) = waiting.spec.deadline {
            self.deadlines.insert((deadline, id));
        }
        self.asks.insert((waiting.ask_at, id));
        waiting.class = Some(self.join(id, &waiting, None));
        self.tasks.insert(id, waiting);
    }

    /// Removes a task.
    pub(super) fn leave(&mut self, id: TaskId) -> Option<Waiting> {
        self.stop_asking(id);
        self.overdue.remove(&id);
        let mut waiting = self.tasks.remove(&id)?;
        if let Some(class) = waiting.class.take() {
            if let Some(deadline) = waiting.spec.deadline {
                self.deadlines.remove(&(deadline, id));
            }
            self.drop_turn(class, Turn::of(id, &waiting.spec));
        }
        Some(waiting)
    }

    /// Takes the tasks whose deadline has passed out of their classes: they are not placed any more.
    pub(super) fn pass_deadlines(&mut self, now: Timestamp) -> Vec<TaskId> {
        let mut passed = Vec::new();
        while let Some((_, id)) = self.deadlines.first().copied().filter(|(deadline, _)| *deadline <= now) {
            if let Some(mut waiting) = self.leave(id) {
                waiting.class = None;
                self.tasks.insert(id, waiting);
                self.overdue.insert(id);
                passed.push(id);
            }
        }
        passed
    }

    pub(super) fn overdue(&self) -> impl Iterator<Item = TaskId> {
        self.overdue.iter().copied()
    }

    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// The task that has waited longest of those that ask for something to be kept free, and since when it asks.
    pub(super) fn next_ask(&self) -> Option<(Timestamp, TaskId)> {
        self.asks.first().copied()
    }

    /// Lets a task ask again later; `tried` is not looked at next time.
    pub(super) fn ask_later(&mut self, id: TaskId, at: Timestamp, tried: Option<Target>) {
        self.stop_asking(id);
        let Some(waiting) = self.tasks.get_mut(&id).filter(|waiting| waiting.class.is_some()) else { return };
        waiting.ask_at = at;
        waiting.tried.extend(tried);
        self.asks.insert((at, id));
    }

    /// Lets a task ask again when a hold ends.
    pub(super) fn park(&mut self, id: TaskId) {
        self.stop_asking(id);
        self.parked.insert(id);
    }

    pub(super) fn parked_count(&self) -> usize {
        self.parked.len()
    }

    /// A hold has ended: what was parked asks again, in its old place.
    pub(super) fn unpark(&mut self) {
        for id in std::mem::take(&mut self.parked) {
            self.asks.extend(self.tasks.get(&id).map(|waiting| (waiting.ask_at, id)));
        }
    }

    /// Lets a task try again what it has tried.
    pub(super) fn forget_tried(&mut self, id: TaskId) {
        if let Some(waiting) = self.tasks.get_mut(&id) {
            waiting.tried.clear();
        }
    }

    /// Puts a task into a class of its own, because something is kept free for it; it does not ask meanwhile.
    pub(super) fn set_apart(&mut self, id: TaskId) {
        self.change_class(id, Some(id));
        self.stop_asking(id);
    }

    /// Puts a task back among those that need the same.
    pub(super) fn put_back(&mut self, id: TaskId) {
        self.change_class(id, None);
        if let Some(waiting) = self.tasks.get(&id).filter(|waiting| waiting.class.is_some()) {
            self.asks.insert((waiting.ask_at, id));
        }
    }

    /// Says which place a task has among those that hold something.
    pub(super) fn set_seniority(&mut self, id: TaskId, seniority: u8) {
        let class = self.class_of(id).and_then(|class| self.classes.get_mut(class)?.as_mut());
        if let Some(class) = class.filter(|class| class.key.holder == Some(id)) {
            class.gist.seniority = seniority;
        }
    }

    /// The class of a task.
    pub(super) fn class_of(&self, id: TaskId) -> Option<usize> {
        self.tasks.get(&id)?.class
    }

    pub(super) fn class(&self, class: usize) -> Option<&Class> {
        self.classes.get(class)?.as_ref()
    }

    pub(super) fn class_mut(&mut self, class: usize) -> Option<&mut Class> {
        self.classes.get_mut(class)?.as_mut()
    }

    /// A class, and what is kept for all of them to find servers with.
    pub(super) fn class_to_look(&mut self, class: usize) -> Option<(&mut Class, &mut Rankings)> {
        Some((self.classes.get_mut(class)?.as_mut()?, &mut self.rankings))
    }

    /// The classes that sleep and do not ask for more than this.
    pub(super) fn asleep_within(&self, room: &Amounts) -> impl Iterator<Item = usize> {
        self.asleep.iter().enumerate().filter(|(_, demand)| amounts::fits(demand, room)).map(|(at, _)| at)
    }

    /// The ready class whose first task is next, and that task.
    pub(super) fn next_ready(&self) -> Option<(usize, TaskId)> {
        self.ready.first().map(|(turn, class)| (*class, turn.task))
    }

    /// Makes a class ready, to be judged against what became better after `seen`.
    pub(super) fn wake(&mut self, at: usize, seen: u64) {
        let Some(class) = self.classes.get_mut(at).and_then(Option::as_mut) else { return };
        class.seen = seen;
        if class.ready_as.is_none() {
            class.ready_as = class.turns.first().copied();
            self.asleep[at] = AWAKE;
            self.ready.extend(class.ready_as.map(|turn| (turn, at)));
        }
    }

    /// Lets a class sleep that was judged after the change at `seen`.
    pub(super) fn sleep(&mut self, at: usize, seen: u64) {
        let Some(class) = self.classes.get_mut(at).and_then(Option::as_mut) else { return };
        class.seen = seen;
        self.asleep[at] = class.gist.demand;
        if let Some(turn) = class.ready_as.take() {
            self.ready.remove(&(turn, at));
        }
    }

    fn stop_asking(&mut self, id: TaskId) {
        self.parked.remove(&id);
        if let Some(waiting) = self.tasks.get(&id) {
            self.asks.remove(&(waiting.ask_at, id));
        }
    }

    fn change_class(&mut self, id: TaskId, holder: Option<TaskId>) {
        let Some(mut waiting) = self.tasks.remove(&id) else { return };
        if let Some(class) = waiting.class {
            self.drop_turn(class, Turn::of(id, &waiting.spec));
            waiting.class = Some(self.join(id, &waiting, holder));
        }
        self.tasks.insert(id, waiting);
    }

    /// Puts a task into the class of those that need the same, which is ready if it is new.
    fn join(&mut self, id: TaskId, waiting: &Waiting, holder: Option<TaskId>) -> usize {
        let spec = &waiting.spec;
        let gist = Gist::of(spec).barring(waiting.barred);
        let (servers, server) = (spec.image_servers().to_vec(), spec.required_server_id);
        let key = ClassKey { gist, labels: spec.labels.as_map().clone(), servers, server, holder };
        let turn = Turn::of(id, spec);
        if let Some(at) = self.keys.get(&key).copied() {
            if let Some(class) = self.classes.get_mut(at).and_then(Option::as_mut) {
                class.turns.insert(turn);
            }
            self.settle(at);
            return at;
        }
        let at = self.vacant.pop().unwrap_or(self.classes.len());
        let class = Class {
            gist,
            spec: Arc::clone(spec),
            seen: 0,
            waits_on: Vec::new(),
            hopeless_until: Timestamp::MIN_UTC,
            history: History::default(),
            turns: [turn].into(),
            ready_as: Some(turn),
            key: key.clone(),
        };
        self.ready.insert((turn, at));
        self.keys.insert(key, at);
        if let Some(vacant) = self.classes.get_mut(at) {
            *vacant = Some(class);
        } else {
            self.classes.push(Some(class));
            self.asleep.push(AWAKE);
        }
        at
    }

    fn drop_turn(&mut self, at: usize, turn: Turn) {
        let Some(class) = self.classes.get_mut(at).and_then(Option::as_mut) else { return };
        class.turns.remove(&turn);
        let empty = class.turns.is_empty();
        self.settle(at);
        if empty && let Some(class) = self.classes.get_mut(at).and_then(Option::take) {
            self.keys.remove(&class.key);
            self.rankings.forget(at);
            self.asleep[at] = AWAKE;
            self.vacant.push(at);
        }
    }

    /// Puts a ready class where its first task belongs.
    fn settle(&mut self, at: usize) {
        let Some(class) = self.classes.get_mut(at).and_then(Option::as_mut) else { return };
        let first = class.turns.first().copied();
        if let Some(turn) = class.ready_as
            && first != Some(turn)
        {
            self.ready.remove(&(turn, at));
            class.ready_as = first;
            self.ready.extend(first.map(|turn| (turn, at)));
        }
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;

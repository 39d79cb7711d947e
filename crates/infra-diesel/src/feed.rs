//! Tells followers what commits, and everything anew where somebody else has written.
//!
//! Whether somebody else has is seen by the head of the audit log, which every change moves: it is not where this
//! process left it. So a server process needs no word from others, and a restored backup is noticed as well.

use crate::{connection::AnyConnection, failure::Failure, fleet, pools, scheduling};
use domain::{
    audit::{AuditEntry, Head},
    feed::{Fact, Follower, State},
};
use std::sync::{
    Arc, PoisonError, RwLock,
    atomic::{AtomicBool, Ordering},
};

/// What a unit of work leaves behind besides its answer.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    /// What is to be recorded, in order.
    pub(crate) entries: Vec<AuditEntry>,
    /// What followers are told once it is committed.
    pub(crate) facts: Vec<Fact>,
}

impl Trace {
    /// The same with one more fact.
    pub(crate) fn telling(mut self, fact: Fact) -> Self {
        self.facts.push(fact);
        self
    }

    /// Puts another's after this one.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.entries.append(&mut other.entries);
        self.facts.append(&mut other.facts);
    }
}

impl From<AuditEntry> for Trace {
    fn from(entry: AuditEntry) -> Self {
        Self { entries: vec![entry], facts: Vec::new() }
    }
}

impl From<Option<AuditEntry>> for Trace {
    fn from(entry: Option<AuditEntry>) -> Self {
        Self { entries: entry.into_iter().collect(), facts: Vec::new() }
    }
}

/// Those who follow, and how far they are. Only the writer's thread tells them anything.
#[derive(Default)]
pub(crate) struct Feed {
    followers: RwLock<Vec<Arc<dyn Follower>>>,
    /// Nothing is read for followers whom nobody has asked yet.
    wanted: AtomicBool,
    /// Somebody doubts what followers know.
    doubted: AtomicBool,
    /// The head that followers have caught up with; `None` if they know nothing, or not for sure.
    at: RwLock<Option<Head>>,
}

impl Feed {
    /// Adds somebody who is told everything from the next time that the feed is wanted.
    pub(crate) fn join(&self, follower: Arc<dyn Follower>) {
        self.followers.write().unwrap_or_else(PoisonError::into_inner).push(follower);
        self.doubt();
    }

    /// Has everything told anew at the writer's next turn, whoever says so.
    pub(crate) fn doubt(&self) {
        self.doubted.store(true, Ordering::Release);
    }

    /// Whether followers can be told what a transaction changed that began at this head: they know all before it.
    pub(crate) fn follows_from(&self, head: &Head) -> bool {
        !self.doubted.swap(false, Ordering::AcqRel) && self.is_at(head)
    }

    /// Says that followers are going to be asked.
    pub(crate) fn want(&self) {
        self.wanted.store(true, Ordering::Release);
    }

    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire)
    }

    /// Whether followers know everything up to this head.
    pub(crate) fn is_at(&self, head: &Head) -> bool {
        !self.doubted.load(Ordering::Acquire)
            && self.at.read().unwrap_or_else(PoisonError::into_inner).as_ref() == Some(head)
    }

    /// Whether followers know anything.
    pub(crate) fn is_current(&self) -> bool {
        self.at.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Says that nobody knows any more what is so. Only the writer's thread may, or it would overwrite it.
    pub(crate) fn lose(&self) {
        *self.at.write().unwrap_or_else(PoisonError::into_inner) = None;
        self.each(|follower| follower.lose());
    }

    /// Tells what a transaction changed that began at the head where followers are, and ended at `head`.
    pub(crate) fn tell(&self, facts: &[Fact], head: Head) {
        if !facts.is_empty() {
            self.each(|follower| follower.follow(facts));
        }
        self.arrive(head);
    }

    /// Tells everything anew.
    pub(crate) fn retell(&self, state: &State, head: Head) {
        self.each(|follower| follower.reset(state));
        self.arrive(head);
    }

    fn each(&self, tell: impl Fn(&dyn Follower)) {
        for follower in &*self.followers.read().unwrap_or_else(PoisonError::into_inner) {
            tell(&**follower);
        }
    }

    fn arrive(&self, head: Head) {
        *self.at.write().unwrap_or_else(PoisonError::into_inner) = Some(head);
    }
}

/// Everything that facts are about.
pub(crate) fn load(connection: &mut AnyConnection) -> Result<State, Failure> {
    Ok(State {
        servers: fleet::load_all(connection)?,
        pools: pools::load_all(connection)?,
        pending: scheduling::load_pending(connection)?,
        operations: fleet::operations::load_open(connection)?,
    })
}

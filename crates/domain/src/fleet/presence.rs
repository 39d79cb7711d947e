//! Which agents are there: one session for each server, and when it was last heard of.
//!
//! Times are of a clock that does not jump ([`crate::clock::Clock::uptime`]): setting the time of day must not make a
//! fleet disappear.

use super::model::Server;
use crate::{
    Error, Result,
    clock::Timestamp,
    feed::{Fact, Follower, State},
    ids::ServerId,
};
use chrono::TimeDelta;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Who speaks for which server.
pub struct Presence {
    grace: Duration,
    /// Since when anybody could be heard: nobody is missed before `grace` has passed.
    since: Duration,
    seats: Mutex<BTreeMap<ServerId, Seat>>,
}

#[derive(Debug, Clone)]
struct Seat {
    session: String,
    place: String,
    heard: Duration,
    at: Timestamp,
}

/// Whether a session speaks for its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seated {
    /// It does.
    Yes,
    /// Another one does, or none: it has to be opened anew.
    No,
}

impl Presence {
    /// Nobody is there yet. After `grace` without a word an agent is out of reach.
    #[must_use]
    pub fn new(grace: Duration, now: Duration) -> Self {
        Self { grace, since: now, seats: Mutex::default() }
    }

    /// How long an agent may be silent.
    #[must_use]
    pub fn grace(&self) -> Duration {
        self.grace
    }

    /// Gives a server's seat to a new session. `false` if an agent in another place has it and is alive: one of the two
    /// runs on a copy of the other's state.
    #[must_use]
    pub fn open(&self, server: ServerId, session: &str, place: &str, now: Duration, at: Timestamp) -> bool {
        let mut seats = self.seats();
        let taken = seats.get(&server).is_some_and(|seat| seat.place != place && now < seat.heard + self.grace);
        if !taken {
            let seat = Seat { session: session.to_owned(), place: place.to_owned(), heard: now, at };
            seats.insert(server, seat);
        }
        !taken
    }

    /// Notes that a session was heard of.
    #[must_use]
    pub fn hear(&self, server: ServerId, session: &str, now: Duration, at: Timestamp) -> Seated {
        match self.seats().get_mut(&server) {
            // Who was missed has to begin anew: its server was put out of use, or is about to be.
            Some(seat) if seat.session == session && now < seat.heard + self.grace => {
                seat.heard = now;
                seat.at = at;
                Seated::Yes
            }
            _ => Seated::No,
        }
    }

    /// Whether a server's seat is this session's, without counting as a word of it.
    #[must_use]
    pub fn is_seated(&self, server: ServerId, session: &str, now: Duration) -> bool {
        self.seats().get(&server).is_some_and(|seat| seat.session == session && now < seat.heard + self.grace)
    }

    /// Whether a server's agent was heard of within the grace period.
    #[must_use]
    pub fn is_there(&self, server: ServerId, now: Duration) -> bool {
        self.seats().get(&server).is_some_and(|seat| now < seat.heard + self.grace)
    }

    /// Makes sure that the agent of a server can be asked for something now.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if it cannot.
    pub fn check_there(&self, server: ServerId, now: Duration) -> Result<()> {
        if self.is_there(server, now) {
            return Ok(());
        }
        let reason = format!("the agent of server {server} cannot be reached at the moment; try again when it is back");
        Err(Error::Unavailable { reason, source: None })
    }

    /// The servers whose agents were heard of within the grace period.
    #[must_use]
    pub fn there(&self, now: Duration) -> Vec<ServerId> {
        self.seats().iter().filter(|(_, seat)| now < seat.heard + self.grace).map(|(server, _)| *server).collect()
    }

    /// Whether a server's agent is missed: it was not heard of for the grace period, and could have been.
    #[must_use]
    pub fn is_missed(&self, server: ServerId, now: Duration) -> bool {
        now >= self.since + self.grace && !self.is_there(server, now)
    }

    /// Whether another process of this database has heard of a server's agent lately, and has written that down.
    #[must_use]
    pub fn is_there_elsewhere(&self, server: &Server, now: Timestamp) -> bool {
        let grace = TimeDelta::from_std(self.grace).unwrap_or(TimeDelta::MAX);
        server.inventory.last_seen_at.is_some_and(|at| at <= now && now - at < grace)
    }

    /// When agents were last heard of, by the time of day.
    #[must_use]
    pub fn last_heard(&self) -> Vec<(ServerId, Timestamp)> {
        self.seats().iter().map(|(server, seat)| (*server, seat.at)).collect()
    }

    fn seats(&self) -> MutexGuard<'_, BTreeMap<ServerId, Seat>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nobody speaks for a server that is gone.
impl Follower for Presence {
    fn reset(&self, state: &State) {
        let there: BTreeSet<ServerId> = state.servers.iter().map(|server| server.id).collect();
        self.seats().retain(|server, _| there.contains(server));
    }

    fn follow(&self, facts: &[Fact]) {
        for fact in facts {
            if let Fact::ServerGone(id) = fact {
                self.seats().remove(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::START;

    const GRACE: Duration = Duration::from_secs(30);
    const A: ServerId = ServerId(1);

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_copy_is_refused_while_the_other_lives() {
        let presence = Presence::new(GRACE, s(0));
        assert!(presence.open(A, "one", "here", s(0), START));
        assert!(!presence.open(A, "two", "there", s(29), START));
        assert_eq!(presence.hear(A, "one", s(29), START), Seated::Yes);
        assert!(!presence.open(A, "two", "there", s(58), START));
        assert!(presence.open(A, "two", "there", s(59), START));
        assert!(!presence.open(A, "one-again", "here", s(60), START));
        assert_eq!(presence.hear(A, "one", s(60), START), Seated::No);
    }

    #[test]
    fn nobody_speaks_for_a_server_that_is_gone() {
        let presence = Presence::new(GRACE, s(0));
        let opened = || assert!(presence.open(A, "one", "here", s(0), START));
        opened();
        presence.follow(&[Fact::ServerGone(ServerId(2))]);
        assert!(presence.is_seated(A, "one", s(1)));
        presence.follow(&[Fact::ServerGone(A)]);
        assert!(!presence.is_seated(A, "one", s(1)));
        opened();
        presence.reset(&State::default());
        assert_eq!(presence.there(s(1)), []);
    }

    #[test]
    fn who_was_missed_begins_anew() {
        let presence = Presence::new(GRACE, s(0));
        assert!(presence.open(A, "one", "here", s(0), START));
        assert_eq!(presence.hear(A, "one", s(29), START), Seated::Yes);
        assert_eq!(presence.hear(A, "one", s(59), START), Seated::No);
        assert!(presence.open(A, "two", "here", s(60), START));
        assert_eq!(presence.hear(A, "two", s(61), START), Seated::Yes);
    }

    #[test]
    fn a_restart_in_the_same_place_takes_over_at_once() {
        let presence = Presence::new(GRACE, s(0));
        assert!(presence.open(A, "one", "here", s(0), START));
        assert!(presence.open(A, "two", "here", s(1), START));
        assert_eq!(presence.hear(A, "one", s(1), START), Seated::No);
        assert_eq!(presence.hear(A, "two", s(1), START), Seated::Yes);
    }

    #[test]
    fn nobody_is_missed_before_they_could_have_been_heard() {
        let presence = Presence::new(GRACE, s(100));
        assert!(!presence.is_missed(A, s(129)));
        assert!(presence.is_missed(A, s(130)));
        assert!(presence.open(A, "one", "here", s(130), START));
        assert!(!presence.is_missed(A, s(159)));
        assert!(presence.is_missed(A, s(160)));
    }
}

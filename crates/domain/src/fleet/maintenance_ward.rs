//! What maintenance windows do to their server. Nothing else decides when a window begins or ends, or what its server is
//! then; whoever writes asks here, on rows that nobody else changes meanwhile.

use super::{
    maintenance::{Window, WindowStatus},
    model::{Server, ServerStatus},
};
use crate::{audit::AuditEntry, clock::Timestamp};

/// Whether the agent of a server is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// It has none: its operators say what it is.
    NoAgent,
    /// It was heard of within the grace period.
    Heard,
    /// It was not.
    Silent,
}

/// A server, and those of its windows that are open, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ward {
    /// The server.
    pub server: Server,
    /// Whether its agent is there.
    pub reach: Reach,
    /// Every window of it that is still to come or in progress.
    pub open: Vec<Window>,
}

/// What is to be written, all of it or nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Round {
    /// The windows that are different, each as it is from now on.
    pub windows: Vec<Window>,
    /// The server, if that is different.
    pub server: Option<Server>,
    /// What is recorded, in order.
    pub entries: Vec<AuditEntry>,
}

impl Ward {
    /// What the time of day makes of it, at the time of `by`, which says who acts. Nothing, if nothing is due.
    #[must_use]
    pub fn turned(&self, by: &AuditEntry) -> Round {
        let mut round = Round::default();
        let mut standing = Vec::with_capacity(self.open.len());
        for before in &self.open {
            match self.due(before, by.created_at) {
                Some(after) => {
                    round.entries.push(told(by, before, &after));
                    round.windows.push(after.clone());
                    standing.push(after);
                }
                None => standing.push(before.clone()),
            }
        }
        self.settled(round, &standing, by)
    }

    /// What it does that a window became `after`, as `by` records; that one begins at once if its time has come. It may
    /// be a new window, which is not among those that are open yet.
    #[must_use]
    pub fn changed(&self, after: Window, by: &AuditEntry) -> Round {
        let mut round = Round { entries: vec![by.clone()], ..Round::default() };
        let after = match self.due(&after, by.created_at) {
            Some(begun) if begun.is_in_progress() => {
                round.entries.push(told(by, &after, &begun));
                begun
            }
            // Whatever else time does to it, it does not do in the name of whoever changes a title.
            _ => after,
        };
        let others = self.open.iter().filter(|window| window.id != after.id);
        let standing: Vec<Window> = others.cloned().chain([after.clone()]).collect();
        round.windows.push(after);
        self.settled(round, &standing, by)
    }

    /// A window as time has it at this moment, if that is different.
    fn due(&self, window: &Window, now: Timestamp) -> Option<Window> {
        match window.status {
            _ if window.due_at().is_none_or(|due| now < due) => None,
            WindowStatus::Scheduled if now < window.ends_at() => Some(window.begun(self.before(), now)),
            _ => Some(window.ended(now)),
        }
    }

    /// What the server was before it was taken out of use, which it may be already for another window.
    fn before(&self) -> ServerStatus {
        self.open.iter().find_map(|window| window.back_to).unwrap_or(self.server.status)
    }

    /// Makes the server what it has to be with these windows.
    fn settled(&self, mut round: Round, standing: &[Window], by: &AuditEntry) -> Round {
        let (was_held, is_held) = (held(&self.open), held(standing));
        let (status, action, why) = match (was_held, is_held) {
            (_, true) => (ServerStatus::Maintenance, "server.enter_maintenance", "a maintenance window has begun"),
            (true, false) => (
                self.after(self.before()),
                "server.leave_maintenance",
                "no maintenance window of it is in progress any more",
            ),
            (false, false) => return round,
        };
        if let Some(after) = self.server.with_status(status, by.created_at) {
            round.entries.push(by.beside(action).changed(&self.server, &after).because(why));
            round.server = Some(after);
        }
        round
    }

    /// What a server is once it is let go of. What its operators had taken out of use stays so; otherwise, who has an
    /// agent is what that makes it.
    fn after(&self, before: ServerStatus) -> ServerStatus {
        match (before, self.reach) {
            (ServerStatus::Maintenance, _) | (_, Reach::NoAgent) => before,
            (_, Reach::Heard) => ServerStatus::Online,
            (_, Reach::Silent) => ServerStatus::Offline,
        }
    }
}

fn held(windows: &[Window]) -> bool {
    windows.iter().any(Window::is_in_progress)
}

/// How it is recorded that time went on.
fn told(by: &AuditEntry, before: &Window, after: &Window) -> AuditEntry {
    let entry = by.beside(after.deed_since(before)).changed(before, after);
    match after.note() {
        Some(note) => entry.because(note),
        None => entry,
    }
}

#[cfg(test)]
#[path = "maintenance_ward_tests.rs"]
mod tests;

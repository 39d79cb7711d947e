//! Changes as they are told to whoever watches: what changed, not what it became.

use super::model::{AuditRow, Outcome};
use crate::{
    clock::Timestamp,
    identity::{Actor, Room},
};

/// Something changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The number of the audit row that recorded it; numbers grow, and a reader goes on after the last that it saw.
    pub id: i64,
    /// `noun.created`, `noun.updated` or `noun.deleted`.
    pub kind: String,
    /// What changed, such as `server:7`.
    pub target: Option<String>,
    /// When.
    pub at: Timestamp,
}

/// The event that a row is for this watcher; `None` if it changed nothing, or is in a room that they do not see.
#[must_use]
pub fn event_of(row: &AuditRow, watcher: &Actor) -> Option<Event> {
    let (noun, verb) = row.entry.action.split_once('.')?;
    if row.entry.outcome != Outcome::Success || !watcher.scopes.contains(room_of(noun)?) {
        return None;
    }
    let verb = match verb {
        "create" => "created",
        "delete" => "deleted",
        _ => "updated",
    };
    let target = row.entry.target.clone();
    Some(Event { id: row.seq, kind: format!("{noun}.{verb}"), target, at: row.entry.created_at })
}

fn room_of(noun: &str) -> Option<Room> {
    match noun {
        "server" => Some(Room::Fleet),
        "pool" => Some(Room::Pools),
        "user" | "token" | "session" => Some(Room::Identity),
        "audit" => Some(Room::Audit),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{audit::AuditEntry, identity::Scopes};

    fn row(action: &str) -> AuditRow {
        let entry = AuditEntry::new(&Actor::system("test"), action, Timestamp::UNIX_EPOCH);
        AuditRow { seq: 7, entry, hash: String::new() }
    }

    #[test]
    fn a_watcher_sees_changes_of_their_rooms_only() {
        let all = Actor::system("test");
        let kind = |action: &str, watcher: &Actor| event_of(&row(action), watcher).map(|event| event.kind);
        assert_eq!(kind("server.create", &all).as_deref(), Some("server.created"));
        assert_eq!(kind("server.cordon", &all).as_deref(), Some("server.updated"));
        assert_eq!(kind("pool.delete", &all).as_deref(), Some("pool.deleted"));
        assert_eq!(kind("ticket.create", &all), None);
        let fleet = Actor { scopes: Scopes::only([Room::Fleet]), ..Actor::system("test") };
        assert_eq!(kind("pool.delete", &fleet), None);
        let mut refused = row("server.delete");
        refused.entry.outcome = Outcome::Refused;
        assert_eq!(event_of(&refused, &all), None);
    }
}

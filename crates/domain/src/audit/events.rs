//! Changes as they are told to whoever watches: what changed, not what it became.

use super::model::{AuditRow, Head, Outcome};
use crate::{
    clock::Timestamp,
    identity::{Actor, Room},
};

/// The action of the row that a restore leaves in the log that it brings.
pub const RESTORE: &str = "database.restore";

/// Something changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The number of the audit row that recorded it; a reader goes on after the last that it saw. Numbers grow, but for
    /// a restore, which puts an older log in the place of the one that was read.
    pub id: i64,
    /// `noun.created`, `noun.updated` or `noun.deleted`; `alert.firing`, `alert.resolved` or `alert.acknowledged`;
    /// `database.restored` where everything may be different.
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
    // What a restore changes is in every room.
    let seen = row.entry.action == RESTORE || watcher.scopes.contains(room_of(noun)?);
    if row.entry.outcome != Outcome::Success || !seen {
        return None;
    }
    let verb = match verb {
        "create" => "created",
        "delete" => "deleted",
        "restore" => "restored",
        "fire" => "firing",
        "resolve" => "resolved",
        "acknowledge" => "acknowledged",
        _ => "updated",
    };
    let target = row.entry.target.clone();
    Some(Event { id: row.seq, kind: format!("{noun}.{verb}"), target, at: row.entry.created_at })
}

/// Whether `rows`, read from the log from `place` on, go on with what a reader at that place has read. They do not if a
/// restore put another log there: it ends before the place, or has another row at it. A place without a hash was only
/// named; one whose row was let go of meanwhile goes on with the rows that stayed.
pub(super) fn goes_on(place: &Head, rows: &[AuditRow]) -> bool {
    match rows.first() {
        _ if place.seq == 0 => true,
        None => false,
        Some(first) => first.seq > place.seq || place.hash.is_empty() || first.hash == place.hash,
    }
}

fn room_of(noun: &str) -> Option<Room> {
    match noun {
        "server" | "maintenance" | "enrollment" | "agent" | "operation" => Some(Room::Fleet),
        "pool" => Some(Room::Pools),
        "task" | "ledger" => Some(Room::Scheduling),
        "container" | "image" => Some(Room::Containers),
        "alert" | "alert_rule" | "alert_target" => Some(Room::Observability),
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
    fn a_restore_is_told_to_every_watcher() {
        let fleet = Actor { scopes: Scopes::only([Room::Fleet]), ..Actor::system("test") };
        assert_eq!(event_of(&row(RESTORE), &fleet).map(|event| event.kind).as_deref(), Some("database.restored"));
        assert_eq!(event_of(&row("database.migrate"), &fleet), None);
    }

    #[test]
    fn another_log_is_known_by_its_end_and_by_its_hashes() {
        let head = |seq, hash: &str| Head { seq, hash: hash.to_owned() };
        let read = |seq, hash: &str| vec![AuditRow { seq, hash: hash.to_owned(), ..row("server.create") }];
        assert!(goes_on(&head(7, "a"), &read(7, "a")));
        assert!(!goes_on(&head(7, "a"), &read(7, "b")), "another row is there");
        assert!(!goes_on(&head(7, "a"), &[]), "the log ends before it");
        assert!(!goes_on(&head(7, ""), &[]), "the log ends before it");
        assert!(goes_on(&head(7, ""), &read(7, "b")), "nothing is known of the row that was read");
        assert!(goes_on(&head(7, "a"), &read(9, "c")), "old rows are let go of");
        assert!(goes_on(&Head::default(), &[]) && goes_on(&Head::default(), &read(1, "a")), "nothing was read yet");
    }

    #[test]
    fn a_watcher_sees_changes_of_their_rooms_only() {
        let all = Actor::system("test");
        let kind = |action: &str, watcher: &Actor| event_of(&row(action), watcher).map(|event| event.kind);
        assert_eq!(kind("server.create", &all).as_deref(), Some("server.created"));
        assert_eq!(kind("server.cordon", &all).as_deref(), Some("server.updated"));
        assert_eq!(kind("maintenance.create", &all).as_deref(), Some("maintenance.created"));
        assert_eq!(kind("maintenance.start", &all).as_deref(), Some("maintenance.updated"));
        assert_eq!(kind("pool.delete", &all).as_deref(), Some("pool.deleted"));
        assert_eq!(kind("task.dispatch", &all).as_deref(), Some("task.updated"));
        assert_eq!(kind("alert_rule.create", &all).as_deref(), Some("alert_rule.created"));
        assert_eq!(kind("alert.fire", &all).as_deref(), Some("alert.firing"));
        assert_eq!(kind("alert.resolve", &all).as_deref(), Some("alert.resolved"));
        assert_eq!(kind("alert.acknowledge", &all).as_deref(), Some("alert.acknowledged"));
        assert_eq!(kind("ticket.create", &all), None);
        let fleet = Actor { scopes: Scopes::only([Room::Fleet]), ..Actor::system("test") };
        assert_eq!(kind("pool.delete", &fleet), None);
        let mut refused = row("server.delete");
        refused.entry.outcome = Outcome::Refused;
        assert_eq!(event_of(&refused, &all), None);
    }
}

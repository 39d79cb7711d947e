use super::*;
use crate::{
    fleet::{Architecture, NewServer, NewWindow, WindowPatch},
    identity::Actor,
    ids::{ServerId, WindowId},
    testing::{START, name},
    text::Tags,
    units::Resources,
};
use chrono::TimeDelta;
use proptest::prelude::*;
use serde_json::Value;

fn at(minutes: i64) -> Timestamp {
    START + TimeDelta::minutes(minutes)
}

fn by(minute: i64) -> AuditEntry {
    AuditEntry::new(&Actor::system("fleet"), "maintenance.update", at(minute))
}

fn server(status: ServerStatus) -> Server {
    let new = NewServer {
        name: name("edge-1"),
        architecture: Architecture::Arm64,
        status,
        capacity: Resources::default(),
        gpu_model: None,
        location: None,
        cluster: None,
        zone: None,
        pool_id: None,
        tags: Tags::default(),
    };
    new.into_server(ServerId(1), START)
}

fn window(id: i64, from: i64, duration_minutes: u32) -> Window {
    let new = NewWindow { title: name("disks"), description: None, scheduled_for: at(from), duration_minutes };
    new.into_window(WindowId(id), ServerId(1), "user:alice".to_owned(), START)
}

fn ward(status: ServerStatus, reach: Reach, open: Vec<Window>) -> Ward {
    Ward { server: server(status), reach, open }
}

/// This ward after what was decided.
fn after(ward: Ward, round: &Round) -> Ward {
    let changed = |window: &Window| !round.windows.iter().any(|other| other.id == window.id);
    let mut open: Vec<Window> = ward.open.into_iter().filter(changed).collect();
    open.extend(round.windows.iter().filter(|window| window.is_open()).cloned());
    open.sort_by_key(|window| window.id);
    Ward { server: round.server.clone().unwrap_or(ward.server), reach: ward.reach, open }
}

fn actions(round: &Round) -> Vec<&str> {
    round.entries.iter().map(|entry| entry.action.as_str()).collect()
}

#[test]
fn nothing_happens_before_its_time() {
    let ward = ward(ServerStatus::Online, Reach::NoAgent, vec![window(1, 100, 30)]);
    assert_eq!(ward.turned(&by(99)), Round::default());
    let begun = after(ward.clone(), &ward.turned(&by(100)));
    assert_eq!(begun.turned(&by(129)), Round::default());
}

#[test]
fn a_window_begins_and_ends_with_its_server() {
    let ward = ward(ServerStatus::Provisioning, Reach::NoAgent, vec![window(1, 100, 30)]);
    let round = ward.turned(&by(101));
    assert_eq!(actions(&round), ["maintenance.start", "server.enter_maintenance"]);
    let targets: Vec<_> = round.entries.iter().map(|entry| entry.target.as_deref()).collect();
    assert_eq!(targets, [Some("maintenance:1"), Some("server:1")]);
    assert!(round.entries.iter().all(|entry| entry.actor == "system:fleet" && entry.created_at == at(101)));
    let status = |value: &Option<Value>| value.as_ref().unwrap()["status"].clone();
    let (before, now) = (&round.entries[1].before, &round.entries[1].after);
    assert_eq!((status(before), status(now)), (Value::from("provisioning"), Value::from("maintenance")));
    let begun = after(ward, &round);
    assert_eq!((begun.server.status, begun.server.revision), (ServerStatus::Maintenance, 2));
    assert_eq!((begun.open[0].started_at, begun.open[0].revision), (Some(at(101)), 2));

    let round = begun.turned(&by(130));
    assert_eq!(actions(&round), ["maintenance.complete", "server.leave_maintenance"]);
    assert_eq!((round.windows[0].ended_at, round.windows[0].back_to), (Some(at(130)), None));
    assert_eq!(round.server.unwrap().status, ServerStatus::Provisioning);
}

#[test]
fn a_server_becomes_what_it_truly_is() {
    use ServerStatus::{Maintenance, Offline, Online, Provisioning};
    let check = |before, reach, expected| {
        let planned = ward(before, Reach::NoAgent, vec![window(1, 0, 10)]);
        let begun = after(planned.clone(), &planned.turned(&by(0)));
        assert_eq!(begun.server.status, Maintenance);
        let held = Ward { reach, ..begun };
        let ended = after(held.clone(), &held.turned(&by(10)));
        assert_eq!((ended.server.status, ended.open), (expected, Vec::new()), "{before:?} {reach:?}");
    };
    for before in ServerStatus::ALL {
        check(before, Reach::NoAgent, before);
    }
    for before in [Online, Offline, Provisioning] {
        check(before, Reach::Heard, Online);
        check(before, Reach::Silent, Offline);
    }
    for reach in [Reach::Heard, Reach::Silent] {
        check(Maintenance, reach, Maintenance);
    }
}

#[test]
fn what_operators_took_out_of_use_is_not_recorded_as_taken_out() {
    let planned = ward(ServerStatus::Maintenance, Reach::NoAgent, vec![window(1, 0, 10)]);
    let round = planned.turned(&by(0));
    assert_eq!((actions(&round), &round.server), (vec!["maintenance.start"], &None));
    let round = after(planned, &round).turned(&by(10));
    assert_eq!((actions(&round), &round.server), (vec!["maintenance.complete"], &None));
}

#[test]
fn a_missed_window_touches_no_server() {
    let ward = ward(ServerStatus::Online, Reach::NoAgent, vec![window(1, 100, 30)]);
    let round = ward.turned(&by(130));
    assert_eq!((actions(&round), &round.server), (vec!["maintenance.complete"], &None));
    assert!(round.windows[0].was_missed());
    assert_eq!(round.entries[0].message.as_deref(), round.windows[0].note());
}

#[test]
fn of_windows_that_follow_each_other_the_server_notices_nothing() {
    let planned = ward(ServerStatus::Online, Reach::NoAgent, vec![window(1, 0, 10), window(2, 10, 10)]);
    let first = after(planned.clone(), &planned.turned(&by(0)));
    let round = first.turned(&by(10));
    assert_eq!((actions(&round), &round.server), (vec!["maintenance.complete", "maintenance.start"], &None));
    let second = after(first, &round);
    assert_eq!(second.turned(&by(20)).server.unwrap().status, ServerStatus::Online);
}

#[test]
fn whoever_plans_from_now_on_has_it_begin() {
    let empty = ward(ServerStatus::Online, Reach::NoAgent, Vec::new());
    let entry = AuditEntry { actor: "user:alice".to_owned(), request_id: Some("r-1".to_owned()), ..by(5) };
    let round = empty.changed(window(1, 0, 10), &entry);
    assert_eq!(actions(&round), ["maintenance.update", "maintenance.start", "server.enter_maintenance"]);
    assert!(round.entries.iter().all(|entry| entry.actor == "user:alice" && entry.request_id.is_some()));
    assert!(round.windows[0].is_in_progress());
    assert_eq!(round.server.unwrap().status, ServerStatus::Maintenance);
}

#[test]
fn a_change_does_nothing_that_time_does_in_its_own_name() {
    let (over, other) = (window(1, 0, 10), window(2, 0, 10));
    let planned = ward(ServerStatus::Online, Reach::NoAgent, vec![over.clone(), other]);
    let round = planned.changed(over.clone(), &by(50));
    assert_eq!((actions(&round), &round.windows, &round.server), (vec!["maintenance.update"], &vec![over], &None));
}

/// What may happen to a server and its windows.
#[derive(Debug, Clone, Copy)]
enum Happening {
    Plan { minutes_ahead: i64, duration: u32 },
    Change { which: usize, status: Option<WindowStatus>, duration: Option<u32> },
    Pass { minutes: i64 },
    Hear { heard: bool },
    Declare(ServerStatus),
}

fn happening() -> impl Strategy<Value = Happening> {
    let status = || prop::sample::select(WindowStatus::ALL);
    prop_oneof![
        (-20..40_i64, 1..30_u32).prop_map(|(minutes_ahead, duration)| Happening::Plan { minutes_ahead, duration }),
        (0..8_usize, prop::option::of(status()), prop::option::of(1..40_u32))
            .prop_map(|(which, status, duration)| Happening::Change { which, status, duration }),
        (0..25_i64).prop_map(|minutes| Happening::Pass { minutes }),
        any::<bool>().prop_map(|heard| Happening::Hear { heard }),
        prop::sample::select(&ServerStatus::ALL[..]).prop_map(Happening::Declare),
    ]
}

/// A server with all windows that it ever had, and what it would be without them.
struct World {
    ward: Ward,
    all: Vec<Window>,
    now: i64,
    without: ServerStatus,
}

impl World {
    fn apply(&mut self, round: &Round) {
        for window in &round.windows {
            self.all.retain(|other| other.id != window.id);
            self.all.push(window.clone());
        }
        let recorded = |kind: &str| {
            round.entries.iter().filter(|entry| entry.target.as_ref().is_some_and(|t| t.starts_with(kind))).count()
        };
        assert_eq!(recorded("server:"), usize::from(round.server.is_some()));
        assert!(recorded("maintenance:") >= round.windows.len());
        self.ward = after(self.ward.clone(), round);
    }

    fn change(&mut self, which: usize, patch: WindowPatch) {
        let Some(before) = self.all.get(which).cloned() else { return };
        let Ok(changed) = before.patched(patch, at(self.now)) else { return };
        let entry = by(self.now).changed(&before, &changed);
        self.apply(&self.ward.changed(changed, &entry));
    }

    fn plan(&mut self, ahead: i64, duration: u32) {
        let id = i64::try_from(self.all.len()).unwrap() + 1;
        let new = window(id, self.now + ahead, duration);
        if new.ends_at() > at(self.now) {
            let entry = by(self.now).created(&new);
            self.apply(&self.ward.changed(new, &entry));
        }
    }

    /// What an agent does by being heard of or not, to a server that is not in maintenance.
    fn hear(&mut self, heard: bool) {
        if self.ward.reach == Reach::NoAgent {
            return;
        }
        self.ward.reach = if heard { Reach::Heard } else { Reach::Silent };
        if self.without != ServerStatus::Maintenance {
            self.without = if heard { ServerStatus::Online } else { ServerStatus::Offline };
        }
        if self.ward.server.status != ServerStatus::Maintenance {
            self.ward.server.status = self.without;
        }
    }

    /// An operator gives a status, which is refused in a window; with an agent, all but maintenance is what that says.
    fn declare(&mut self, status: ServerStatus) {
        if held(&self.ward.open) {
            return;
        }
        self.without = match (status, self.ward.reach) {
            (ServerStatus::Maintenance, _) | (_, Reach::NoAgent) => status,
            (_, Reach::Heard) => ServerStatus::Online,
            (_, Reach::Silent) => ServerStatus::Offline,
        };
        self.ward.server.status = self.without;
    }

    fn happens(&mut self, happening: Happening) {
        match happening {
            Happening::Plan { minutes_ahead, duration } => self.plan(minutes_ahead, duration),
            Happening::Change { which, status, duration } => {
                self.change(which, WindowPatch { status, duration_minutes: duration, ..WindowPatch::default() });
            }
            Happening::Pass { minutes } => {
                self.now += minutes;
                self.apply(&self.ward.turned(&by(self.now)));
                assert_eq!(self.ward.turned(&by(self.now)), Round::default(), "twice is once");
                assert!(self.ward.open.iter().all(|window| window.due_at().is_some_and(|due| at(self.now) < due)));
            }
            Happening::Hear { heard } => self.hear(heard),
            Happening::Declare(status) => self.declare(status),
        }
    }

    fn check(&self) {
        let in_progress: Vec<&Window> = self.all.iter().filter(|window| window.is_in_progress()).collect();
        let expected = if in_progress.is_empty() { self.without } else { ServerStatus::Maintenance };
        assert_eq!(self.ward.server.status, expected, "{in_progress:?}");
        let remembered: Vec<_> = in_progress.iter().map(|window| window.back_to).collect();
        assert!(remembered.windows(2).all(|pair| pair[0] == pair[1]), "{remembered:?}");
        for window in &self.all {
            assert_eq!(window.back_to.is_some(), window.is_in_progress());
            assert_eq!(window.due_at().is_some(), window.is_open());
            let span = window.span();
            assert!(span.is_none_or(|span| span.from <= span.until && window.scheduled_for <= span.from));
            assert!(span.is_none_or(|span| span.until <= window.ends_at().max(span.from)));
        }
    }
}

proptest! {
    #[test]
    fn a_server_is_in_maintenance_exactly_while_a_window_is_in_progress(
        agent: bool,
        happenings in prop::collection::vec(happening(), 1..40),
    ) {
        let reach = if agent { Reach::Heard } else { Reach::NoAgent };
        let ward = ward(ServerStatus::Online, reach, Vec::new());
        let mut world = World { ward, all: Vec::new(), now: 0, without: ServerStatus::Online };
        for happening in happenings {
            world.happens(happening);
            world.check();
        }
    }
}

use super::*;
use crate::{
    fleet::{Architecture, NewServer, Server},
    ids::AlertId,
    observability::{
        alerts::fixtures::{at, cpu, rule},
        metric::Metric,
        sample::Readings,
    },
    pools::{Capacity, NewPool, Pool, PoolStrategy, PoolType, Quotas, Watermark, Watermarks},
    testing::{START, name},
    text::Tags,
    units::Resources,
};
use proptest::prelude::*;

const ONE: ServerId = ServerId(1);

fn server(id: i64, status: ServerStatus) -> Server {
    let new = NewServer {
        name: name(&format!("edge-{id}")),
        architecture: Architecture::X86_64,
        status,
        capacity: Resources::default(),
        gpu_model: None,
        location: None,
        cluster: None,
        zone: None,
        pool_id: None,
        tags: Tags::default(),
    };
    new.into_server(ServerId(id), START)
}

fn sample(minute: i64, cpu: f64) -> Sample {
    Sample { at: at(minute), readings: Readings::default().with(Metric::CpuUsage, cpu) }
}

fn scene(minute: i64, rules: Vec<Rule>) -> Scene {
    Scene {
        now: at(minute),
        actor: "system:alerts".to_owned(),
        rules: rules.into_iter().map(|rule| (rule.id, rule)).collect(),
        open: BTreeMap::new(),
        servers: [(ONE, entry(server(1, ServerStatus::Online)))].into(),
        pools: BTreeMap::new(),
        newest: BTreeMap::new(),
    }
}

fn entry(server: Server) -> Arc<RosterEntry> {
    Arc::new(RosterEntry::new(Arc::new(server)))
}

fn looks(scene: &Scene) -> Vec<(Timestamp, bool)> {
    scene.looks(&JudgedUntil::new()).into_iter().map(|look| (look.from, look.alone)).collect()
}

#[test]
fn only_where_the_newest_sample_is_loud_or_an_alert_is_open_is_more_looked_at() {
    let mut scene = scene(10, vec![rule(cpu(), 3)]);
    assert_eq!(looks(&scene), []);
    scene.newest.insert(ONE, sample(10, 80.0));
    assert_eq!(looks(&scene), []);
    for loud in [81.0, 91.0] {
        scene.newest.insert(ONE, sample(10, loud));
        assert_eq!(looks(&scene), [(at(-50), false)]);
    }
    let judged = [((RuleId(1), 1, ONE), at(9))].into();
    assert_eq!(scene.looks(&judged)[0].from, at(9));
    assert_eq!(scene.looks(&[((RuleId(1), 1, ONE), at(10))].into()), []);
    assert_eq!(scene.judged_until(&judged), [((RuleId(1), 1, ONE), at(10))].into());
}

#[test]
fn old_samples_tell_nothing_of_now() {
    let mut scene = scene(16, vec![rule(cpu(), 0)]);
    for loud in [91.0, 10.0] {
        scene.newest.insert(ONE, sample(10, loud));
        assert_eq!(looks(&scene), [], "neither fires nor ends");
    }
    scene.now = at(15);
    scene.newest.insert(ONE, sample(10, 91.0));
    assert_eq!(looks(&scene).len(), 1);
}

#[test]
fn a_server_in_maintenance_is_silent() {
    let mut scene = scene(10, vec![rule(cpu(), 0)]);
    scene.newest.insert(ONE, sample(10, 99.0));
    scene.servers.insert(ONE, entry(server(1, ServerStatus::Maintenance)));
    assert_eq!(looks(&scene), []);
    // It has ended, and what was measured in it does not count.
    scene.servers.insert(ONE, entry(server(1, ServerStatus::Online)));
    let look = scene.looks(&JudgedUntil::new()).remove(0);
    let over = |until| scene.judge(&look, &[], &[Span { from: at(1), until: at(until) }]).len();
    assert_eq!((over(11), over(10)), (0, 1));
}

#[test]
fn a_server_that_was_heard_of_is_missed() {
    use AlertState::{Firing, Pending};
    let mut scene = scene(10, vec![rule(Condition::ServerStatus, 2)]);
    let mut check = |status, revision, seen: Option<i64>, updated: i64, states: &[AlertState]| {
        let mut server = Server { revision, updated_at: at(updated), ..server(1, status) };
        server.inventory.last_seen_at = seen.map(at);
        scene.servers.insert(ONE, entry(server));
        let judged = scene.states();
        let found: Vec<_> = judged.iter().flat_map(|verdict| &verdict.changes).map(|change| change.to).collect();
        assert_eq!(found, states, "{status:?} {revision} {seen:?} {updated}");
    };
    check(ServerStatus::Online, 3, Some(1), 1, &[]);
    check(ServerStatus::Offline, 1, None, 0, &[]);
    check(ServerStatus::Offline, 2, None, 9, &[Pending]);
    check(ServerStatus::Offline, 2, Some(3), 8, &[Pending, Firing]);
    check(ServerStatus::Offline, 2, Some(9), 8, &[Pending]);
    check(ServerStatus::Maintenance, 2, Some(1), 1, &[]);
}

fn pool(held: i64, mark: Option<Watermark>) -> PoolSummary {
    let new = NewPool {
        name: name("edge"),
        kind: PoolType::Compute,
        quotas: Quotas::default(),
        watermarks: Watermarks { cpu: mark, ..Watermarks::default() },
        strategy: PoolStrategy::Spread,
        labels: Tags::default(),
        description: None,
    };
    let cpu = |cpu_millis| Resources { cpu_millis, ..Resources::default() };
    let capacity = Capacity { server_count: 1, total: cpu(1000), reserved: cpu(held) };
    let pool: Pool = new.into_pool(PoolId(1), START);
    PoolSummary { pool, capacity }
}

#[test]
fn a_pool_is_loud_above_its_high_watermark_until_it_is_at_the_low_one() {
    let mark = Some(Watermark { high: 80.0, low: 60.0 });
    let check = |pool: &PoolSummary, level, value| {
        let reading = saturation(pool, START);
        assert_eq!((reading.level, reading.value), (level, value));
    };
    check(&pool(801, mark), Level::Loud, 80.1);
    check(&pool(800, mark), Level::Between, 80.0);
    check(&pool(600, mark), Level::Quiet, 60.0);
    check(&pool(1000, None), Level::Quiet, 0.0);
    let mut saturated = pool(700, mark);
    saturated.pool.state = PoolState::Saturated;
    check(&saturated, Level::Loud, 70.0);
}

#[test]
fn alerts_end_with_their_reason_to_be() {
    let hot = rule(cpu(), 0);
    let mut scene = scene(1, vec![hot.clone()]);
    scene.newest.insert(ONE, sample(1, 99.0));
    let look = scene.looks(&JudgedUntil::new()).remove(0);
    let alert = Alert { id: AlertId(1), ..scene.judge(&look, &[], &[]).remove(0).alert };
    scene.open.insert((RuleId(1), Subject::Server(ONE)), alert.clone());
    let why = |scene: &Scene| scene.forsaken().first().and_then(|verdict| verdict.alert.reason);
    assert_eq!(why(&scene), None);
    let mut disabled = hot.clone();
    disabled.enabled = false;
    scene.rules.insert(RuleId(1), disabled);
    assert_eq!(why(&scene), Some(AlertReason::RuleDisabled));
    let mut elsewhere = hot.clone();
    elsewhere.spec.selector.zone = Some("b".to_owned());
    scene.rules.insert(RuleId(1), elsewhere);
    assert_eq!(why(&scene), Some(AlertReason::NotSelected));
    scene.rules.insert(RuleId(1), hot);
    scene.servers.insert(ONE, entry(server(1, ServerStatus::Maintenance)));
    assert_eq!(why(&scene), None, "what fired before stays");
    let pending = Alert { state: AlertState::Pending, ..alert };
    scene.open.insert((RuleId(1), Subject::Server(ONE)), pending);
    assert_eq!(why(&scene), Some(AlertReason::Maintenance));
    scene.servers.clear();
    assert_eq!(why(&scene), Some(AlertReason::SubjectDeleted));
    scene.rules.clear();
    assert_eq!(why(&scene), Some(AlertReason::RuleDeleted));
}

/// Everything that is measured, and all alerts that there ever were.
struct World {
    scene: Scene,
    samples: Vec<(Timestamp, f64)>,
    judged: JudgedUntil,
    alerts: Vec<Alert>,
    spans: Vec<Span>,
}

impl World {
    /// What the background job does.
    fn turn(&mut self) {
        let newest = self.samples.last().map(|(at, value)| (ONE, Sample { at: *at, ..sample(0, *value) }));
        self.scene.newest = newest.into_iter().collect();
        let looks = self.scene.looks(&self.judged);
        let mut verdicts = self.scene.forsaken();
        for look in &looks {
            let samples: Vec<_> =
                self.samples.iter().copied().filter(|(at, _)| *at > look.from && !look.alone).collect();
            verdicts.extend(self.scene.judge(look, &samples, &self.spans));
        }
        self.judged = self.scene.judged_until(&self.judged);
        for verdict in verdicts {
            self.settle(verdict);
        }
    }

    fn settle(&mut self, verdict: Verdict) {
        let mut alert = verdict.alert;
        match verdict.before {
            None => {
                alert.id = AlertId(i64::try_from(self.alerts.len()).unwrap() + 1);
                self.alerts.push(alert);
            }
            Some(before) => {
                let row = self.alerts.iter_mut().find(|row| row.id == alert.id).unwrap();
                assert_eq!((row.revision, alert.revision), (before, before + 1));
                *row = alert;
            }
        }
        let open: Vec<_> = self.alerts.iter().filter(|alert| alert.is_open()).cloned().collect();
        assert!(open.len() <= 1, "two open alerts of one rule and server: {open:?}");
        self.scene.open = open.into_iter().map(|alert| ((alert.rule_id, alert.subject), alert)).collect();
    }

    fn maintain(&mut self, begins: bool) {
        let now = self.scene.now;
        let status = if begins { ServerStatus::Maintenance } else { ServerStatus::Online };
        match self.spans.last_mut() {
            Some(span) if !begins => span.until = span.until.min(now),
            Some(span) if now < span.until => {}
            _ if begins => self.spans.push(Span { from: now, until: Timestamp::MAX_UTC }),
            _ => {}
        }
        self.scene.servers.insert(ONE, entry(server(1, status)));
    }
}

#[derive(Debug, Clone, Copy)]
enum Happening {
    Measure(f64),
    Pass(i64),
    Turn,
    Restart,
    Maintain(bool),
    Acknowledge,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        6 => prop::sample::select(vec![70.0, 80.0, 85.0, 91.0, 95.0]).prop_map(Happening::Measure),
        2 => (1..8_i64).prop_map(Happening::Pass),
        4 => Just(Happening::Turn),
        1 => Just(Happening::Restart),
        1 => any::<bool>().prop_map(Happening::Maintain),
        1 => Just(Happening::Acknowledge),
    ]
}

fn world(hold: u32) -> World {
    let scene = scene(0, vec![rule(cpu(), hold)]);
    World { scene, samples: Vec::new(), judged: JudgedUntil::new(), alerts: Vec::new(), spans: Vec::new() }
}

fn happens(world: &mut World, happening: Happening) {
    match happening {
        Happening::Measure(value) => {
            world.scene.now += TimeDelta::minutes(1);
            world.samples.push((world.scene.now, value));
        }
        Happening::Pass(minutes) => world.scene.now += TimeDelta::minutes(minutes),
        Happening::Turn => world.turn(),
        Happening::Restart => world.judged.clear(),
        Happening::Maintain(begins) => world.maintain(begins),
        Happening::Acknowledge => {
            let open = world.scene.open.values().next().cloned();
            if let Some(Ok(verdict)) = open.map(|alert| alert.acknowledged("user:alice", None, world.scene.now)) {
                world.settle(verdict);
            }
        }
    }
}

proptest! {
    #[test]
    fn there_is_at_most_one_open_alert_whatever_happens(
        hold in 0..6_u32,
        happenings in prop::collection::vec(happening(), 1..80),
    ) {
        let mut world = world(hold);
        for happening in happenings {
            happens(&mut world, happening);
            for alert in &world.alerts {
                let held = alert.fired_at.map(|fired| fired - alert.since);
                prop_assert!(held.is_none_or(|held| held >= TimeDelta::minutes(hold.into())));
                prop_assert_eq!(alert.ended_at.is_some(), !alert.is_open());
            }
        }
    }

    #[test]
    fn whenever_somebody_looks_and_restarts_it_fires_and_ends_at_the_same_samples(
        hold in 0..4_u32,
        values in prop::collection::vec((prop::sample::select(vec![70.0, 85.0, 95.0]), 0..4_u8), 1..55),
    ) {
        // One looks at every sample, the other one where it comes to, and forgets what it has judged.
        let (mut each, mut some) = (world(hold), world(hold));
        for (value, chance) in values {
            for world in [&mut each, &mut some] {
                happens(world, Happening::Measure(value));
            }
            each.turn();
            if chance == 0 {
                some.judged.clear();
                some.turn();
            }
        }
        each.turn();
        some.turn();
        let state = |world: &World| {
            let open = world.alerts.iter().find(|alert| alert.is_open());
            open.map(|alert| (alert.state, alert.since, alert.fired_at))
        };
        prop_assert_eq!(state(&each), state(&some));
        let ends = |world: &World| world.alerts.iter().filter_map(|alert| alert.ended_at).collect::<Vec<_>>();
        let all = ends(&each);
        prop_assert!(ends(&some).iter().all(|end| all.contains(end)));
    }

    #[test]
    fn between_the_thresholds_nothing_flaps(
        hold in 0..3_u32,
        values in prop::collection::vec(80.1..90.0_f64, 1..60),
        fired: bool,
    ) {
        let mut world = world(hold);
        if fired {
            for _ in 0..=hold {
                happens(&mut world, Happening::Measure(95.0));
                world.turn();
            }
        }
        let before = world.alerts.clone();
        for value in values {
            happens(&mut world, Happening::Measure(value));
            world.turn();
        }
        prop_assert_eq!(world.alerts, before);
    }
}

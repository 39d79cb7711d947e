use super::*;
use crate::{
    fleet::Server,
    identity::Actor,
    ids::PoolId,
    scheduling::{
        AttemptStatus, Success, TaskSpec,
        fixtures::{cores, cpu_quota, pool, server, spec, task},
    },
    testing::START,
};
use chrono::TimeDelta;
use proptest::prelude::*;
use std::sync::atomic::{AtomicUsize, Ordering};

const FIRST: ServerId = ServerId(1);
const SECOND: ServerId = ServerId(2);

/// A desk that was told of these servers and pending tasks, none of which is in a pool.
fn desk(servers: &[Server], tasks: &[Task]) -> Desk {
    let desk = Desk::new(Engine::default(), Box::new(|| {}));
    desk.reset(&state(servers, tasks));
    desk
}

fn state(servers: &[Server], tasks: &[Task]) -> State {
    State {
        operations: Vec::new(),
        servers: servers.iter().cloned().map(Arc::new).collect(),
        pools: Vec::new(),
        pending: tasks.iter().cloned().map(Arc::new).collect(),
    }
}

/// Two servers of four cores each in a pool with this quota.
fn pooled(quota: i64, tasks: &[Task]) -> Desk {
    let servers = [1, 2].map(|id| Server { pool_id: Some(PoolId(9)), ..server(id, cores(4)) });
    let desk = Desk::new(Engine::default(), Box::new(|| {}));
    let pools = vec![(Arc::new(pool(9, cpu_quota(quota))), Resources::default())];
    desk.reset(&State { pools, ..state(&servers, tasks) });
    desk
}

fn entry(_: &Task, _: &Task) -> AuditEntry {
    AuditEntry::new(&Actor::system("test"), "task.dispatch", START)
}

fn decide(desk: &Desk) -> Vec<Placement> {
    desk.next(START, 100, entry)
}

fn free(desk: &Desk, server: ServerId) -> i64 {
    desk.with(|engine| engine.fleet().free(server)).unwrap().cpu_millis
}

fn left(desk: &Desk) -> i64 {
    desk.with(|engine| engine.fleet().left(PoolId(9))).unwrap().cpu_millis.unwrap()
}

/// How many tasks wait, and how many are decided about.
fn counts(desk: &Desk) -> (usize, usize) {
    desk.with(|engine| (engine.waiting_count(), engine.claim_count()))
}

fn told(task: &Task) -> Fact {
    Fact::Task(Arc::new(task.clone()))
}

fn one(placements: Vec<Placement>) -> Placement {
    let [placement] = placements.try_into().unwrap();
    placement
}

#[test]
fn what_is_decided_is_made_ready_to_be_written() {
    let tasks = [task(7, spec(cores(1))), task(8, spec(cores(9)))];
    let placement = one(decide(&desk(&[server(1, cores(4))], &tasks)));
    assert_eq!(placement.task, tasks[0].placed(FIRST, START).unwrap());
    assert_eq!(placement.attempt, crate::scheduling::Attempt::opened(&placement.task, START).unwrap());
    assert_eq!(placement.attempt.status, AttemptStatus::Scheduled);
    assert_eq!(placement.entry, entry(&tasks[0], &placement.task));
}

#[test]
fn a_placed_task_is_counted_once_in_whatever_order_it_is_told() {
    let pending = task(7, spec(cores(1)));
    let placed = told(&pending.placed(FIRST, START).unwrap());
    let (on_server, in_pool) = (Fact::ServerReserved(FIRST, cores(1)), Fact::PoolReserved(PoolId(9), cores(1)));
    let orders = [
        vec![placed.clone(), on_server.clone(), in_pool.clone()],
        vec![in_pool.clone(), on_server.clone(), placed.clone()],
        vec![on_server, placed, in_pool],
    ];
    for facts in orders {
        let desk = pooled(6000, std::slice::from_ref(&pending));
        assert_eq!((free(&desk, FIRST), left(&desk)), (4000, 6000));
        assert_eq!(one(decide(&desk)).attempt.server_id, FIRST);
        assert_eq!((free(&desk, FIRST), left(&desk), counts(&desk)), (3000, 5000, (0, 1)));
        for _ in 0..2 {
            desk.follow(&facts);
            assert_eq!((free(&desk, FIRST), left(&desk), counts(&desk)), (3000, 5000, (0, 0)), "{facts:?}");
        }
        assert_eq!(free(&desk, SECOND), 4000);
    }
}

#[test]
fn facts_of_several_servers_in_one_transaction_are_counted_on_each() {
    let tasks: Vec<Task> = (1..=5).map(|id| task(id, spec(cores(1)))).collect();
    let desk = pooled(6000, &tasks);
    let placements = decide(&desk);
    let on = |server| placements.iter().filter(|placement| placement.attempt.server_id == server).count();
    assert_eq!((on(FIRST), on(SECOND)), (3, 2), "one after the other, evenly");
    assert_eq!((free(&desk, FIRST), free(&desk, SECOND), left(&desk)), (1000, 2000, 1000));
    // The last of them has moved: it is not told of, and stays claimed until it is given up.
    let mut facts: Vec<Fact> = placements[..4].iter().map(|placement| told(&placement.task)).collect();
    facts.extend([Fact::ServerReserved(FIRST, cores(2)), Fact::ServerReserved(SECOND, cores(2))]);
    facts.push(Fact::PoolReserved(PoolId(9), cores(4)));
    desk.follow(&facts);
    assert_eq!((free(&desk, FIRST), free(&desk, SECOND), left(&desk)), (1000, 2000, 1000));
    assert_eq!(counts(&desk), (0, 1));
    desk.with(|engine| engine.unclaim(placements[4].task.id));
    assert_eq!((free(&desk, FIRST), free(&desk, SECOND), left(&desk)), (2000, 2000, 2000));
    assert_eq!(counts(&desk), (1, 0));
}

#[test]
fn a_commit_of_what_was_claimed_wakes_nobody() {
    let mut tasks: Vec<Task> = (1..=2).map(|id| task(id, spec(cores(2)))).collect();
    tasks.push(task(3, spec(cores(9))));
    let desk = desk(&[server(1, cores(4))], &tasks);
    let mut facts: Vec<Fact> = decide(&desk).iter().map(|placement| told(&placement.task)).collect();
    assert_eq!(facts.len(), 2);
    let before = desk.with(|engine| (engine.has_work(), engine.judgements()));
    facts.push(Fact::ServerReserved(FIRST, cores(4)));
    desk.follow(&facts);
    assert!(decide(&desk).is_empty());
    let after = desk.with(|engine| (engine.has_work(), engine.judgements()));
    assert_eq!(after, before, "the server became no better, so nothing is looked at again");
}

#[test]
fn a_task_that_is_placed_and_ended_in_one_transaction_leaves_nothing_taken() {
    let pending = task(7, spec(cores(1)));
    let desk = pooled(6000, std::slice::from_ref(&pending));
    let placed = one(decide(&desk)).task;
    let ended = placed.started(START).unwrap().completed(Success::Yes, START).unwrap();
    desk.follow(&[
        told(&placed),
        Fact::ServerReserved(FIRST, cores(1)),
        Fact::PoolReserved(PoolId(9), cores(1)),
        told(&ended),
        Fact::ServerReserved(FIRST, cores(0)),
        Fact::PoolReserved(PoolId(9), cores(0)),
    ]);
    assert_eq!((free(&desk, FIRST), left(&desk), counts(&desk)), (4000, 6000, (0, 0)));
}

#[test]
fn a_task_that_somebody_else_placed_waits_no_more() {
    let pending = task(7, spec(cores(1)));
    let desk = desk(&[server(1, cores(4))], std::slice::from_ref(&pending));
    desk.follow(&[told(&pending.placed(FIRST, START).unwrap()), Fact::ServerReserved(FIRST, cores(1))]);
    assert_eq!((free(&desk, FIRST), counts(&desk)), (3000, (0, 0)));
    assert!(decide(&desk).is_empty());
    assert!(desk.expired(START, 100).is_empty());
}

#[test]
fn a_task_that_was_placed_elsewhere_than_decided_gives_its_claim_back() {
    let pending = task(7, spec(cores(1)));
    let desk = pooled(6000, std::slice::from_ref(&pending));
    assert_eq!(one(decide(&desk)).attempt.server_id, FIRST);
    desk.follow(&[
        told(&pending.placed(SECOND, START).unwrap()),
        Fact::ServerReserved(SECOND, cores(1)),
        Fact::PoolReserved(PoolId(9), cores(1)),
    ]);
    assert_eq!(counts(&desk), (0, 0));
    assert_eq!((free(&desk, FIRST), free(&desk, SECOND), left(&desk)), (4000, 3000, 5000));
}

#[test]
fn a_task_that_changed_is_decided_about_as_it_is_now() {
    let pending = task(7, TaskSpec { max_attempts: 2, ..spec(cores(1)) });
    let desk = desk(&[server(1, cores(4))], std::slice::from_ref(&pending));
    let failed = one(decide(&desk)).task.started(START).unwrap().completed(Success::No, START).unwrap();
    desk.follow(&[told(&failed)]);
    assert_eq!((free(&desk, FIRST), counts(&desk)), (4000, (1, 0)), "the claim was for what it was before");
    let placement = one(decide(&desk));
    assert_eq!((placement.task.revision, placement.attempt.number), (failed.revision + 1, 2));
    desk.follow(&[Fact::TaskGone(pending.id)]);
    assert_eq!((free(&desk, FIRST), counts(&desk)), (4000, (0, 0)));
}

#[test]
fn room_that_is_given_back_is_given_out() {
    let tasks = [task(7, spec(cores(3))), task(8, spec(cores(2)))];
    let desk = desk(&[server(1, cores(4))], &tasks);
    let placed = one(decide(&desk)).task;
    desk.follow(&[told(&placed), Fact::ServerReserved(FIRST, cores(3))]);
    assert!(decide(&desk).is_empty());
    desk.follow(&[told(&placed.cancelled(START).unwrap()), Fact::ServerReserved(FIRST, cores(0))]);
    assert_eq!(one(decide(&desk)).task.id, TaskId(8));
}

#[test]
fn a_reset_keeps_what_is_pending_and_what_was_decided_about_it() {
    let tasks = [task(1, spec(cores(1))), task(2, spec(cores(2))), task(3, spec(cores(9)))];
    let desk = desk(&[server(1, cores(4))], &tasks);
    let placements = decide(&desk);
    assert_eq!((placements.len(), free(&desk, FIRST), counts(&desk)), (2, 1000, (1, 2)));
    // The second was placed meanwhile, and a fourth was posted.
    let reserved = Server { reserved: cores(2), ..server(1, cores(4)) };
    let fourth = task(4, spec(cores(1)));
    desk.reset(&state(&[reserved], &[tasks[0].clone(), tasks[2].clone(), fourth]));
    assert_eq!((free(&desk, FIRST), counts(&desk)), (1000, (2, 1)));
    assert_eq!(one(decide(&desk)).task.id, TaskId(4));
    // The commit of the first is told as if nothing had happened.
    desk.follow(&[told(&placements[0].task), Fact::ServerReserved(FIRST, cores(3))]);
    assert_eq!((free(&desk, FIRST), counts(&desk)), (0, (1, 1)));
    let gone = state(&[server(1, cores(4))], &[]);
    desk.reset(&gone);
    assert_eq!((free(&desk, FIRST), counts(&desk)), (4000, (0, 0)));
}

#[test]
fn a_reset_does_not_give_out_twice_what_is_claimed_for_a_task_that_is_being_posted() {
    let desk = desk(&[server(1, cores(4))], &[]);
    let claimed = desk.with(|engine| engine.claim_for(&spec(cores(3)))).unwrap().0;
    assert_eq!((claimed, free(&desk, FIRST)), (FIRST, 1000));
    desk.reset(&state(&[server(1, cores(4))], &[]));
    assert!(free(&desk, FIRST) <= 4000);
    desk.with(|engine| engine.unclaim_room(claimed, cores(3)));
    assert_eq!(free(&desk, FIRST), 4000, "there is no more than the server has");
}

#[test]
fn a_pool_keeps_what_is_reserved_in_it_when_its_quota_changes() {
    let desk = pooled(6000, &[]);
    desk.follow(&[Fact::PoolReserved(PoolId(9), cores(2))]);
    assert_eq!(left(&desk), 4000);
    desk.follow(&[Fact::Pool(Arc::new(pool(9, cpu_quota(3000))))]);
    assert_eq!(left(&desk), 1000);
    desk.follow(&[Fact::TaskGone(TaskId(1)), told(&task(5, spec(cores(2))))]);
    assert!(decide(&desk).is_empty());
    desk.follow(&[Fact::Pool(Arc::new(pool(9, cpu_quota(4000))))]);
    assert_eq!(decide(&desk).len(), 1);
    let both = [Fact::PoolReserved(PoolId(9), cores(0)), Fact::Pool(Arc::new(pool(9, cpu_quota(9000))))];
    desk.follow(&both);
    assert_eq!(left(&desk), 7000, "two cores are claimed");
}

#[test]
fn a_pool_and_a_server_that_are_gone_take_no_work() {
    let desk = pooled(6000, &[]);
    desk.follow(&[Fact::ServerGone(SECOND), told(&task(5, spec(cores(1))))]);
    assert_eq!(desk.with(|engine| engine.fleet().free(SECOND)), None);
    assert_eq!(one(decide(&desk)).attempt.server_id, FIRST);
    desk.follow(&[Fact::ServerGone(FIRST), Fact::PoolGone(PoolId(9)), told(&task(6, spec(cores(1))))]);
    assert!(decide(&desk).is_empty());
    desk.follow(&[Fact::Server(Arc::new(server(3, cores(1))))]);
    assert_eq!(one(decide(&desk)).attempt.server_id, ServerId(3));
}

#[test]
fn pending_tasks_past_their_deadline_are_told_until_they_are_dealt_with() {
    let due = |minutes| TaskSpec { deadline: Some(START + TimeDelta::minutes(minutes)), ..spec(cores(9)) };
    let tasks = [task(1, due(1)), task(2, due(2)), task(3, due(3)), task(4, spec(cores(9)))];
    let desk = desk(&[server(1, cores(4))], &tasks);
    let expired = |minutes, limit| {
        let expired = desk.expired(START + TimeDelta::minutes(minutes), limit);
        expired.iter().map(|task| (task.id.0, task.revision)).collect::<Vec<_>>()
    };
    assert_eq!(expired(0, 100), []);
    assert_eq!(expired(2, 100), [(1, 1), (2, 1)]);
    assert_eq!(expired(2, 1), [(1, 1)]);
    desk.follow(&[told(&tasks[0].expired(START + TimeDelta::minutes(2)).unwrap()), Fact::TaskGone(TaskId(2))]);
    assert_eq!(expired(9, 100), [(3, 1)]);
    assert_eq!(counts(&desk).0, 2);
}

#[test]
fn the_bell_rings_after_everything_that_is_told_or_given_back() {
    let rings = Arc::new(AtomicUsize::new(0));
    let ringing = rings.clone();
    let desk = Desk::new(Engine::default(), Box::new(move || _ = ringing.fetch_add(1, Ordering::Relaxed)));
    let check = |expected| assert_eq!(rings.load(Ordering::Relaxed), expected);
    desk.reset(&state(&[server(1, cores(4))], &[task(1, spec(cores(1)))]));
    check(1);
    desk.follow(&[told(&task(2, spec(cores(1))))]);
    check(2);
    assert_eq!(decide(&desk).len(), 2);
    desk.with(|engine| engine.unclaim(TaskId(1)));
    check(2);
    drop(desk.claimed(TaskId(2)));
    check(3);
    assert_eq!(counts(&desk), (2, 0));
}

#[test]
fn what_is_watched_over_is_given_back_unless_it_was_committed() {
    let desk = desk(&[server(1, cores(4))], &[task(1, spec(cores(1)))]);
    let placement = one(decide(&desk));
    {
        let _claimed = desk.claimed(TaskId(1));
        assert_eq!((free(&desk, FIRST), counts(&desk)), (3000, (0, 1)));
        desk.follow(&[told(&placement.task), Fact::ServerReserved(FIRST, cores(1))]);
    }
    assert_eq!((free(&desk, FIRST), counts(&desk)), (3000, (0, 0)));
    let (room, _) = desk.with(|engine| engine.claim_for(&spec(cores(2)))).unwrap();
    {
        let _claimed = desk.claimed_room(room, cores(2));
        assert_eq!(free(&desk, FIRST), 1000);
    }
    assert_eq!(free(&desk, FIRST), 3000);
}

/// What a database with a desk goes through. What is committed is told later, with what else was committed by then.
#[derive(Debug, Clone)]
enum Event {
    Post(i64),
    Decide(usize),
    Commit(usize),
    GiveUp(usize),
    /// Whoever asked has gone: the claim is given back, and what is on its way arrives all the same.
    HangUp(usize),
    End(usize),
    Tell,
    Reset,
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (1..4_i64).prop_map(Event::Post),
        3 => (1..4_usize).prop_map(Event::Decide),
        4 => any::<usize>().prop_map(Event::Commit),
        1 => any::<usize>().prop_map(Event::GiveUp),
        1 => any::<usize>().prop_map(Event::HangUp),
        2 => any::<usize>().prop_map(Event::End),
        3 => Just(Event::Tell),
        1 => Just(Event::Reset),
    ]
}

/// Two servers of five cores in a pool with a quota of eight, and what is stored of tasks.
struct Database {
    desk: Desk,
    reserved: BTreeMap<ServerId, Resources>,
    tasks: BTreeMap<TaskId, Task>,
    /// What was decided and is on its way to the database, and whether anybody waits for it.
    open: Vec<(Placement, bool)>,
    committed: Vec<Fact>,
}

impl Database {
    fn new() -> Self {
        let reserved = [(FIRST, cores(0)), (SECOND, cores(0))].into();
        let desk = Desk::new(Engine::default(), Box::new(|| {}));
        let new = Self { desk, reserved, tasks: BTreeMap::new(), open: Vec::new(), committed: Vec::new() };
        new.desk.reset(&new.state());
        new
    }

    fn state(&self) -> State {
        let of = |(id, reserved): (&ServerId, &Resources)| Server {
            pool_id: Some(PoolId(9)),
            reserved: *reserved,
            ..server(id.0, cores(5))
        };
        let servers: Vec<Server> = self.reserved.iter().map(of).collect();
        let pending: Vec<Task> =
            self.tasks.values().filter(|task| task.status == TaskStatus::Pending).cloned().collect();
        State { pools: vec![(Arc::new(pool(9, cpu_quota(8000))), self.in_pool())], ..state(&servers, &pending) }
    }

    fn in_pool(&self) -> Resources {
        self.reserved.values().fold(Resources::default(), |sum, reserved| sum.plus(*reserved))
    }

    fn store(&mut self, task: Task) {
        self.committed.push(told(&task));
        self.tasks.insert(task.id, task);
    }

    fn reserve(&mut self, server: ServerId, more: Resources) {
        let reserved = self.reserved[&server].plus(more);
        assert!(reserved.fits_in(cores(5)), "more is given out than there is");
        self.reserved.insert(server, reserved);
        assert!(self.in_pool().fits_in(cores(8)), "more is given out than the quota allows");
        self.committed.extend([Fact::ServerReserved(server, reserved), Fact::PoolReserved(PoolId(9), self.in_pool())]);
    }

    fn is_so(&self, placement: &Placement) -> bool {
        let task = &self.tasks[&placement.task.id];
        task.status == TaskStatus::Pending && task.revision + 1 == placement.task.revision
    }

    /// The last check: what is on its way after somebody hung up was decided without regard to what came later.
    fn fits(&self, placement: &Placement) -> bool {
        let demand = placement.attempt.demand;
        let on_server = self.reserved[&placement.attempt.server_id].plus(demand).fits_in(cores(5));
        self.is_so(placement) && on_server && self.in_pool().plus(demand).fits_in(cores(8))
    }

    fn happen(&mut self, event: &Event) {
        let take = |open: &mut Vec<_>, n: usize| (!open.is_empty()).then(|| open.remove(n % open.len()));
        match event {
            Event::Post(demand) => {
                let id = i64::try_from(self.tasks.len()).unwrap() + 1;
                self.store(task(id, spec(cores(*demand))));
            }
            Event::Decide(limit) => {
                self.open.extend(self.desk.next(START, *limit, entry).into_iter().map(|placement| (placement, true)));
            }
            Event::Commit(n) => match take(&mut self.open, *n) {
                Some((placement, _)) if self.fits(&placement) => {
                    self.reserve(placement.attempt.server_id, placement.attempt.demand);
                    self.store(placement.task);
                }
                Some((placement, true)) => self.give_up(&placement),
                Some((_, false)) | None => {}
            },
            Event::GiveUp(n) => match take(&mut self.open, *n) {
                Some((placement, true)) => self.give_up(&placement),
                Some(hung_up) => self.open.push(hung_up),
                None => {}
            },
            Event::HangUp(n) => {
                if let Some((placement, true)) = take(&mut self.open, *n) {
                    self.desk.with(|engine| engine.unclaim(placement.task.id));
                    self.open.push((placement, false));
                }
            }
            Event::End(n) => {
                let live = self.tasks.values().filter(|task| task.status.is_live());
                let Some(task) = live.clone().nth(n % live.count().max(1)).cloned() else { return };
                if let Some(server) = task.server_id {
                    self.reserve(server, Resources::default().minus(task.spec.demand));
                }
                self.store(task.cancelled(START).unwrap());
            }
            Event::Tell => self.desk.follow(&std::mem::take(&mut self.committed)),
            Event::Reset => {
                self.committed.clear();
                self.desk.reset(&self.state());
            }
        }
    }

    /// Whoever asked hears that it moved after it was told what had been committed by then.
    fn give_up(&mut self, placement: &Placement) {
        self.happen(&Event::Tell);
        self.desk.with(|engine| engine.unclaim(placement.task.id));
    }

    /// Fails unless what is free is what there is less what is reserved and what is on its way.
    fn check(&mut self) {
        self.happen(&Event::Tell);
        let watched = self.open.iter().filter(|(placement, watched)| *watched && self.is_so(placement));
        let open: Vec<&Placement> = watched.map(|(placement, _)| placement).collect();
        let claimed = |server: ServerId| {
            let there = open.iter().filter(|placement| placement.attempt.server_id == server);
            there.map(|placement| placement.attempt.demand.cpu_millis).sum::<i64>()
        };
        for (server, reserved) in &self.reserved {
            assert_eq!(free(&self.desk, *server), 5000 - reserved.cpu_millis - claimed(*server));
        }
        assert_eq!(left(&self.desk), 8000 - self.in_pool().cpu_millis - claimed(FIRST) - claimed(SECOND));
        let pending = self.tasks.values().filter(|task| task.status == TaskStatus::Pending).count();
        assert_eq!(counts(&self.desk), (pending - open.len(), open.len()));
    }
}

proptest! {
    #[test]
    fn whatever_commits_in_whatever_order_nothing_is_counted_twice_or_forgotten(
        events in prop::collection::vec(any_event(), 1..80),
    ) {
        let mut database = Database::new();
        for event in &events {
            database.happen(event);
            if matches!(event, Event::Tell | Event::Reset) {
                database.check();
            }
        }
        database.check();
    }
}

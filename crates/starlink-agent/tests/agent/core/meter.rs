//! What was measured reaches the server, once and in order, whatever happens on the way.

use super::{
    http::Response,
    rig::Rig,
    server::{Act, State, When},
};
use domain::{clock::Timestamp, observability::Metric};
use starlink_agent::{agent::Agent, meter::MeterPeriods};
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

const PERIOD: Duration = Duration::from_millis(20);
pub(super) const QUICK: MeterPeriods =
    MeterPeriods { reading: Duration::from_millis(4), sample: PERIOD, spread: Duration::from_millis(1) };

async fn rig() -> Rig {
    let mut rig = Rig::joined().await;
    rig.periods.meter = QUICK;
    rig
}

fn times(state: &State) -> Vec<Timestamp> {
    state.samples.stored.keys().copied().collect()
}

/// How many lines wait in the agent's state directory.
pub(super) fn waiting(rig: &Rig) -> usize {
    std::fs::read_to_string(rig.path.join("samples")).unwrap_or_default().lines().count()
}

pub(super) async fn until_waiting(rig: &Rig, count: usize) {
    while waiting(rig) < count {
        tokio::task::yield_now().await;
    }
}

pub(super) async fn until_stored(rig: &Rig, count: usize) {
    rig.server.until("samples are stored", |state| state.samples.stored.len() >= count).await;
}

/// Refuses a call in this way, for as long as the hook is there.
fn answer(rig: &Rig, path: &'static str, response: Response) {
    rig.server.hook(move |request, when| {
        if request.path == path && when == When::BeforeHandling { Act::Answer(response.clone()) } else { Act::Go }
    });
}

/// Stops the agent, and makes sure that the oldest always went first.
async fn settle(rig: &Rig, agent: Agent) {
    agent.stop().await;
    let state = rig.server.state();
    let mut known = BTreeSet::new();
    // What the server could not answer for is told again, and is no news.
    let news: Vec<Timestamp> = state.samples.reports.iter().flatten().copied().filter(|at| known.insert(*at)).collect();
    assert!(news.is_sorted(), "{news:?}");
    assert!(state.samples.reports.iter().all(|report| report.is_sorted()));
}

#[tokio::test]
async fn a_sample_is_of_a_whole_period_and_the_mean_of_its_readings() {
    let rig = rig().await;
    let agent = rig.agent().await;
    until_stored(&rig, 3).await;
    settle(&rig, agent).await;
    let state = rig.server.state();
    for sample in state.samples.stored.values() {
        assert_eq!(sample.at.timestamp_micros() % i64::try_from(PERIOD.as_micros()).unwrap(), 0);
        let found: Vec<_> = sample.readings.iter().collect();
        assert_eq!(found, [(Metric::CpuUsage, 12.5), (Metric::CpuUsagePeak, 12.5)]);
    }
    assert!(state.samples.reports.iter().all(|report| report.len() < 100));
}

#[tokio::test]
async fn while_the_server_is_away_it_is_measured_and_told_in_order_and_once_when_it_is_back() {
    let mut rig = rig().await;
    let agent = rig.agent().await;
    until_stored(&rig, 1).await;
    rig.server.down().await;
    let before = times(&rig.server.state());
    until_waiting(&rig, 5).await;
    rig.server.up().await;
    until_stored(&rig, before.len() + 6).await;
    settle(&rig, agent).await;
    let state = rig.server.state();
    let told: usize = state.samples.reports.iter().map(Vec::len).sum();
    assert_eq!(told, state.samples.stored.len(), "each once: {:?}", state.samples.reports);
    let longest = state.samples.reports.iter().map(Vec::len).max();
    assert!(longest >= Some(5), "what waited goes together: {:?}", state.samples.reports);
}

#[tokio::test]
async fn what_waits_outlives_the_agent() {
    let mut rig = rig().await;
    let agent = rig.agent().await;
    rig.server.connected().await;
    rig.server.down().await;
    until_waiting(&rig, 3).await;
    // As by `kill -9`.
    drop(agent);
    let kept = waiting(&rig);
    let before = rig.server.state().samples.stored.len();
    rig.server.up().await;
    rig.readings.lock().unwrap().set(Metric::CpuUsage, Some(99.0));
    let agent = rig.agent().await;
    rig.server.until("what waited", |state| state.samples.stored.len() >= before + kept).await;
    settle(&rig, agent).await;
    let state = rig.server.state();
    let old = state.samples.stored.values().filter(|sample| sample.readings.get(Metric::CpuUsage) == Some(12.5));
    assert!(old.count() >= before + kept);
}

#[tokio::test]
async fn an_agent_that_has_not_joined_measures_already() {
    let mut rig = Rig::new().await;
    rig.periods.meter = QUICK;
    answer(&rig, "/agent/enroll", Response::problem(503, "unavailable"));
    let agent = rig.joining(Rig::good_token()).await.unwrap();
    until_waiting(&rig, 2).await;
    rig.server.unhook();
    until_stored(&rig, 3).await;
    settle(&rig, agent).await;
}

#[tokio::test]
async fn a_day_is_kept_and_told_in_reports_that_are_not_too_long() {
    let mut rig = rig().await;
    rig.periods.meter = MeterPeriods { reading: Duration::from_micros(500), sample: Duration::from_millis(1), ..QUICK };
    rig.server.down().await;
    let agent = rig.agent().await;
    until_waiting(&rig, 1_500).await;
    rig.server.up().await;
    until_stored(&rig, 1_440).await;
    settle(&rig, agent).await;
    // The fake server checks how long each is.
    assert!(rig.server.state().samples.reports.iter().filter(|report| report.len() == 500).count() >= 2);
}

#[tokio::test]
async fn fc_18_a_sample_that_is_refused_is_dropped_and_keeps_no_other() {
    let mut rig = rig().await;
    rig.server.down().await;
    let agent = rig.agent().await;
    until_waiting(&rig, 4).await;
    drop(agent);
    let text = std::fs::read_to_string(rig.path.join("samples")).unwrap();
    let refused: Vec<Timestamp> = text
        .lines()
        .skip(1)
        .step_by(2)
        .map(|line| serde_json::from_str::<domain::observability::Sample>(line.split_once(' ').unwrap().1).unwrap().at)
        .collect();
    rig.server.change(|state| state.samples.refused.extend(&refused));
    rig.server.up().await;
    let agent = rig.agent().await;
    until_stored(&rig, 4).await;
    settle(&rig, agent).await;
    let state = rig.server.state();
    for at in refused {
        let told = state.samples.reports.iter().flatten().filter(|told| **told == at).count();
        assert_eq!((told, state.samples.stored.contains_key(&at)), (1, false));
    }
}

#[tokio::test]
async fn a_report_that_is_refused_as_a_whole_costs_the_one_sample_that_is_wrong() {
    for status in [400, 413, 422] {
        let mut rig = rig().await;
        rig.server.down().await;
        let agent = rig.agent().await;
        until_waiting(&rig, 9).await;
        drop(agent);
        let kept = waiting(&rig);
        rig.server.up().await;
        // The longest report that is taken has two samples.
        rig.server.hook(move |request, when| {
            let count = request.body["samples"].as_array().map_or(0, Vec::len);
            let is_long = count > 2 && when == When::BeforeHandling;
            if is_long { Act::Answer(Response::problem(status, "invalid")) } else { Act::Go }
        });
        let agent = rig.agent().await;
        until_stored(&rig, kept).await;
        settle(&rig, agent).await;
    }
    // One that is refused alone is dropped.
    let rig = rig().await;
    let calls = Arc::new(AtomicUsize::new(0));
    let refusals = calls.clone();
    rig.server.hook(move |request, when| {
        let is_it = request.path == "/agent/metrics" && when == When::BeforeHandling;
        let refuse = is_it && refusals.fetch_add(1, Ordering::Relaxed) < 3;
        if refuse { Act::Answer(Response::problem(400, "invalid")) } else { Act::Go }
    });
    let agent = rig.agent().await;
    until_stored(&rig, 2).await;
    settle(&rig, agent).await;
}

#[tokio::test]
async fn answers_that_are_lost_make_duplicates_and_no_gap() {
    let rig = rig().await;
    let calls = AtomicUsize::new(0);
    rig.server.hook(move |request, when| {
        let is_it = request.path == "/agent/metrics";
        match calls.fetch_add(usize::from(is_it), Ordering::Relaxed) % 5 {
            1 if is_it && when == When::AfterHandling => Act::Drop,
            2 if is_it && when == When::AfterHandling => {
                Act::Answer(Response { status: 200, body: "<html>".to_owned() })
            }
            4 if is_it && when == When::BeforeHandling => Act::Answer(Response::problem(503, "unavailable")),
            _ => Act::Go,
        }
    });
    let agent = rig.agent().await;
    until_stored(&rig, 12).await;
    settle(&rig, agent).await;
}

#[tokio::test]
async fn a_session_that_is_lost_in_the_middle_loses_no_sample() {
    let rig = rig().await;
    let agent = rig.agent().await;
    for count in 1..5 {
        until_stored(&rig, 2 * count).await;
        rig.server.change(|state| state.session = None);
        rig.server.until("a new session", |state| state.sessions.len() > count).await;
    }
    until_stored(&rig, 10).await;
    settle(&rig, agent).await;
}

#[tokio::test]
async fn a_server_that_is_too_old_is_asked_once_in_each_session_and_told_all_when_it_is_upgraded() {
    for status in [404, 405] {
        let rig = rig().await;
        answer(&rig, "/agent/metrics", Response::problem(status, "not_found"));
        let asked = |state: &State| state.calls.iter().filter(|call| call.ends_with("/agent/metrics")).count();
        let agent = rig.agent().await;
        rig.server.until("it is asked", |state| asked(state) == 1).await;
        until_waiting(&rig, 4).await;
        assert_eq!(asked(&rig.server.state()), 1);
        rig.server.change(|state| state.session = None);
        rig.server.until("it is asked again", |state| asked(state) == 2).await;
        let kept = waiting(&rig);
        rig.server.unhook();
        rig.server.change(|state| state.session = None);
        until_stored(&rig, kept).await;
        settle(&rig, agent).await;
    }
}

#[tokio::test]
async fn a_clock_that_is_set_makes_a_gap_or_a_repetition_and_no_fault() {
    let rig = rig().await;
    let agent = rig.agent().await;
    until_stored(&rig, 2).await;
    rig.clock.jump(3600);
    let ahead = *times(&rig.server.state()).last().unwrap() + chrono::TimeDelta::minutes(59);
    rig.server.until("samples of later", |state| state.samples.stored.range(ahead..).count() >= 2).await;
    rig.clock.jump(-3600);
    let count = rig.server.state().samples.stored.range(..ahead).count();
    let goes_on = |state: &State| state.samples.stored.range(..ahead).count() >= count + 2;
    rig.server.until("samples of now", goes_on).await;
    agent.stop().await;
}

#[tokio::test]
async fn a_machine_that_cannot_be_measured_has_a_gap() {
    let rig = rig().await;
    let cpu = rig.readings.lock().unwrap().get(Metric::CpuUsage);
    let agent = rig.agent().await;
    until_stored(&rig, 2).await;
    rig.readings.lock().unwrap().set(Metric::CpuUsage, None);
    let before = rig.clock_now();
    while rig.clock_now() < before + 5 * PERIOD {
        tokio::task::yield_now().await;
    }
    let after = rig.clock_now();
    rig.readings.lock().unwrap().set(Metric::CpuUsage, cpu);
    rig.server.until("it goes on", |state| state.samples.stored.range(after..).count() >= 2).await;
    settle(&rig, agent).await;
    let gap = before + PERIOD..after;
    assert_eq!(rig.server.state().samples.stored.range(gap).count(), 0);
}

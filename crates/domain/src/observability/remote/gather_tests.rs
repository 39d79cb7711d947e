use super::*;
use crate::testing::START;
use proptest::{collection::vec, prelude::*};

const SERVER: ServerId = ServerId(7);
const SECOND: i64 = 1000;

fn key(role: Role, hash: u64) -> Key {
    Key { role, hash }
}

fn part(family: Family, key: Key, at_ms: i64, value: f64) -> Part {
    Part { server: SERVER, family, key, at_ms, value: Some(value) }
}

/// Two processors that have done nothing but wait, but for `used` seconds of the first one.
fn cpu(at: i64, used: f64, free: f64) -> Vec<Part> {
    let at_ms = at * SECOND;
    let cpu = |role, hash, value| part(Family::Cpu, key(role, hash), at_ms, value);
    vec![cpu(Role::Used, 0, used), cpu(Role::Free, 0, free), cpu(Role::Used, 1, 0.0), cpu(Role::Free, 1, free + used)]
}

fn take(gatherer: &mut Gatherer, parts: Vec<Part>) -> Vec<(i64, f64)> {
    let computed = gatherer.take(parts, START);
    computed.into_iter().map(|computed| (computed.at_ms / SECOND, computed.value)).collect()
}

#[test]
fn two_scrapes_make_a_rate() {
    let mut gatherer = Gatherer::default();
    assert_eq!(take(&mut gatherer, cpu(0, 0.0, 100.0)), []);
    assert_eq!(take(&mut gatherer, cpu(15, 6.0, 109.0)), [(15, 20.0)]);
    // Told again, they say nothing new.
    assert_eq!(take(&mut gatherer, cpu(15, 6.0, 109.0)), []);
    assert_eq!(take(&mut gatherer, cpu(0, 0.0, 100.0)), []);
    assert_eq!(take(&mut gatherer, cpu(30, 6.0, 124.0)), [(30, 0.0)]);
}

#[test]
fn a_request_may_have_many_scrapes_series_by_series() {
    let mut gatherer = Gatherer::default();
    let mut parts: Vec<Part> =
        (0..5_i32).flat_map(|n| cpu(i64::from(n) * 10, f64::from(n), 9.0 * f64::from(n))).collect();
    parts.sort_by_key(|part| part.key);
    let values = take(&mut gatherer, parts);
    assert_eq!(values.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [10, 20, 30, 40]);
    assert!(values.iter().all(|(_, value)| (value - 5.0).abs() < 1e-9), "{values:?}");
}

#[test]
fn a_scrape_that_comes_in_pieces_is_computed_when_it_is_whole() {
    let mut gatherer = Gatherer::default();
    take(&mut gatherer, cpu(0, 0.0, 0.0));
    take(&mut gatherer, cpu(10, 1.0, 9.0));
    for piece in cpu(20, 6.0, 14.0) {
        let is_last = piece.key == key(Role::Free, 1);
        assert_eq!(take(&mut gatherer, vec![piece]), if is_last { vec![(20, 25.0)] } else { vec![] });
    }
}

#[test]
fn nothing_is_computed_of_a_scrape_whose_beginning_was_missed() {
    let mut gatherer = Gatherer::default();
    let rest = cpu(0, 5.0, 5.0).into_iter().filter(|part| part.key.role == Role::Free).collect();
    take(&mut gatherer, rest);
    // Whole by itself, which nobody knows before the next one begins; the one before it was not.
    assert_eq!(take(&mut gatherer, cpu(10, 10.0, 10.0)), []);
    assert_eq!(take(&mut gatherer, cpu(20, 15.0, 15.0)), [(20, 25.0)]);
}

#[test]
fn what_is_not_measured_any_more_holds_nobody_up_for_long() {
    let mut gatherer = Gatherer::default();
    take(&mut gatherer, cpu(0, 0.0, 0.0));
    take(&mut gatherer, cpu(10, 1.0, 9.0));
    let one_less = |at, used: f64, free: f64| cpu(at, used, free).into_iter().take(2).collect::<Vec<_>>();
    assert_eq!(take(&mut gatherer, one_less(20, 6.0, 14.0)), []);
    assert_eq!(take(&mut gatherer, one_less(30, 7.0, 23.0)), []);
    // Of the processor that is left.
    assert_eq!(take(&mut gatherer, one_less(40, 8.0, 32.0)), [(20, 50.0), (30, 10.0), (40, 10.0)]);
    // One that says so holds nobody up at all.
    let mut gatherer = Gatherer::default();
    take(&mut gatherer, cpu(0, 0.0, 0.0));
    take(&mut gatherer, cpu(10, 1.0, 9.0));
    let mut parts = one_less(20, 6.0, 14.0);
    parts.extend(cpu(20, 0.0, 0.0).into_iter().skip(2).map(|part| Part { value: None, ..part }));
    assert_eq!(take(&mut gatherer, parts), [(20, 50.0)]);
}

#[test]
fn after_all_have_ended_everything_begins_anew() {
    let mut gatherer = Gatherer::default();
    take(&mut gatherer, cpu(0, 0.0, 0.0));
    take(&mut gatherer, cpu(10, 1.0, 9.0));
    take(&mut gatherer, cpu(20, 0.0, 0.0).into_iter().map(|part| Part { value: None, ..part }).collect());
    for piece in cpu(60, 2.0, 50.0) {
        assert_eq!(take(&mut gatherer, vec![piece]), []);
    }
    assert_eq!(take(&mut gatherer, cpu(70, 7.0, 55.0)), [(70, 25.0)]);
}

#[test]
fn a_counter_that_went_back_says_nothing_of_that_time() {
    let network = |at: i64, eth0: f64, eth1: f64| {
        let of = |hash, bytes| part(Family::NetworkIn, key(Role::Used, hash), at * SECOND, bytes);
        vec![of(0, eth0), of(1, eth1)]
    };
    let mut gatherer = Gatherer::default();
    take(&mut gatherer, network(0, 0.0, 5e6));
    assert_eq!(take(&mut gatherer, network(10, 10e6, 5e6)), [(10, 8.0)]);
    assert_eq!(take(&mut gatherer, network(20, 20e6, 0.0)), [(20, 8.0)], "one was started anew");
    assert_eq!(take(&mut gatherer, network(30, 1e6, 5e6)), [(30, 4.0)]);
    assert_eq!(take(&mut gatherer, network(40, 0.0, 0.0)), [], "the machine was");
    assert_eq!(take(&mut gatherer, network(50, 5e6, 5e6)), [(50, 8.0)]);
    // What is long ago is no rate of now.
    assert_eq!(take(&mut gatherer, network(50 + 301, 9e9, 9e9)), []);
}

#[test]
fn shares_need_both_of_one_time_and_no_time_before() {
    let memory = |role, at: i64, value| part(Family::Memory, key(role, 0), at * SECOND, value);
    let mut gatherer = Gatherer::default();
    assert_eq!(take(&mut gatherer, vec![memory(Role::Free, 0, 25.0)]), []);
    assert_eq!(take(&mut gatherer, vec![memory(Role::Total, 0, 100.0)]), [(0, 75.0)]);
    // Halves of different times are never put together.
    assert_eq!(take(&mut gatherer, vec![memory(Role::Free, 10, 25.0), memory(Role::Total, 20, 100.0)]), []);
    assert_eq!(take(&mut gatherer, vec![memory(Role::Free, 30, 25.0)]), []);
    assert_eq!(take(&mut gatherer, vec![memory(Role::Total, 30, 0.0)]), [], "nothing is no whole");
    assert_eq!(take(&mut gatherer, vec![memory(Role::Free, 40, 10.0), memory(Role::Total, 40, 100.0)]), [(40, 90.0)]);
}

#[test]
fn the_hottest_sensor_is_told() {
    let heat = |at: i64, hash, value| part(Family::Temperature, key(Role::Used, hash), at * SECOND, value);
    let mut gatherer = Gatherer::default();
    take(&mut gatherer, vec![heat(0, 0, 40.0), heat(0, 1, 60.0)]);
    assert_eq!(take(&mut gatherer, vec![heat(10, 0, 70.0), heat(10, 1, -5.0)]), [(10, 70.0)]);
}

#[test]
fn what_could_not_be_stored_is_told_again() {
    let mut gatherer = Gatherer::default();
    take(&mut gatherer, cpu(0, 0.0, 100.0));
    let computed = gatherer.take(cpu(10, 5.0, 105.0), START);
    gatherer.owe(computed.clone());
    assert_eq!(gatherer.take([], START), computed);
    assert_eq!(gatherer.take([], START), []);
}

#[test]
fn memory_is_bounded_and_let_go_of() {
    let mut gatherer = Gatherer::default();
    let all = (0..10_000).map(|hash| part(Family::Cpu, key(Role::Used, hash), 0, 1.0));
    gatherer.take(all, START);
    assert_eq!(gatherer.kept(), MOST_PARTS);
    gatherer.take(cpu(0, 0.0, 0.0).into_iter().map(|part| Part { server: ServerId(8), ..part }), START + PATIENCE);
    assert_eq!((gatherer.kept(), gatherer.servers.len()), (4, 1));
}

proptest! {
    /// Scrapes come in their order, cut into requests anywhere; of the first one some may be missed.
    #[test]
    fn however_scrapes_are_cut_values_are_the_same(
        grown in vec((0.0..10.0_f64, 0.1..10.0_f64), 2..9),
        mut cuts in vec(0..36_usize, 0..12),
        missed in 0..4_usize,
    ) {
        let (mut used, mut free) = (0.0, 0.0);
        let mut parts = Vec::new();
        for (at, (more_used, more_free)) in (0..).zip(&grown) {
            used += more_used;
            free += more_free;
            parts.extend(cpu(at * 15, used, free));
        }
        let whole = take(&mut Gatherer::default(), parts.clone());
        prop_assert_eq!(whole.len(), grown.len() - 1);
        cuts.push(parts.len());
        cuts.sort_unstable();
        let in_pieces = |skipped: usize| {
            let (mut gatherer, mut values, mut begin) = (Gatherer::default(), Vec::new(), skipped);
            for cut in cuts.iter().filter(|cut| **cut <= parts.len()) {
                if begin < *cut {
                    values.extend(take(&mut gatherer, parts[begin..*cut].to_vec()));
                    begin = *cut;
                }
            }
            values
        };
        prop_assert_eq!(in_pieces(0), whole.clone());
        let after_a_loss = in_pieces(missed);
        prop_assert!(after_a_loss.iter().all(|value| whole.contains(value)), "{after_a_loss:?} {whole:?}");
        prop_assert!(after_a_loss.len() + 2 >= whole.len());
    }
}

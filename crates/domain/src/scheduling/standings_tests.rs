use super::{super::rank::Score, *};
use proptest::prelude::*;
use std::collections::BTreeSet;

fn standing((score, slot): (u64, u32)) -> Standing {
    Standing::of(Score(score), slot)
}

/// Takes all out, best first.
fn drain(mut standings: Standings) -> Vec<Standing> {
    std::iter::from_fn(|| standings.best().inspect(|_| standings.drop_best())).collect()
}

#[test]
fn the_best_has_the_lowest_score_and_of_several_the_lowest_slot() {
    let mut standings = Standings::from([(5, 2), (3, 9), (5, 1)].map(standing).to_vec());
    for late in [(4, 0), (3, 8), (6, 7)] {
        standings.add(standing(late));
    }
    let order = [(3, 8), (3, 9), (4, 0), (5, 1), (5, 2), (6, 7)].map(standing);
    assert_eq!(drain(standings), order);
}

#[test]
fn of_a_server_that_is_put_in_again_and_again_few_entries_are_kept() {
    let mut standings = Standings::default();
    for score in (0..10_000).rev() {
        standings.add(standing((score, 3)));
        assert!(standings.len() <= most(1));
    }
    assert_eq!(standings.best(), Some(standing((0, 3))));
}

#[derive(Debug, Clone)]
enum Step {
    Add(u64, u32),
    Drop,
    /// Take the best out, and put it in with this score.
    Sink(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..50_u64, 0..40_u32).prop_map(|(score, slot)| Step::Add(score, slot)),
        1 => Just(Step::Drop),
        3 => (9..60_u64).prop_map(Step::Sink),
    ]
}

/// What must be there, and what may be.
#[derive(Default)]
struct Model {
    /// The best that was put in of each slot since any of it was taken out.
    must: BTreeSet<Standing>,
    may: BTreeSet<Standing>,
}

impl Model {
    fn add(&mut self, standing: Standing) {
        self.may.insert(standing);
        let same = self.must.iter().find(|other| other.slot() == standing.slot()).copied();
        if same.is_none_or(|same| standing < same) {
            same.inspect(|same| _ = self.must.remove(same));
            self.must.insert(standing);
        }
    }
}

proptest! {
    #[test]
    fn the_best_place_of_each_server_comes_in_its_turn(
        first in prop::collection::vec((0..50_u64, 0..40_u32), 0..60),
        steps in prop::collection::vec(any_step(), 1..600),
    ) {
        let first: Vec<Standing> = first.into_iter().map(standing).collect();
        let mut model = Model::default();
        for standing in &first {
            model.add(*standing);
        }
        let mut standings = Standings::from(first);
        for step in steps {
            let best = standings.best();
            prop_assert!(best.is_none_or(|best| model.may.contains(&best)));
            prop_assert!(model.must.first().is_none_or(|must| best.is_some_and(|best| best <= *must)));
            let added = match step {
                Step::Add(score, slot) => Some(standing((score, slot))),
                Step::Drop => None,
                Step::Sink(score) => best.map(|best| standing((score, u32::try_from(best.slot()).unwrap()))),
            };
            if !matches!(step, Step::Add(..)) {
                standings.drop_best();
                best.inspect(|best| model.must.retain(|must| must.slot() != best.slot()));
            }
            if let Some(added) = added {
                standings.add(added);
                model.add(added);
            }
            prop_assert!(standings.len() <= most(40) + 60);
        }
    }
}

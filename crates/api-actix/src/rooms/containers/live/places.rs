//! Places for what is open at the moment, of which nobody may have them all.

use domain::{Error, Result, identity::Actor};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// When it is worth asking again, if there is no place.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Places of one kind.
pub(super) struct Places {
    what: &'static str,
    most: usize,
    each: usize,
    /// How many everybody has who has any.
    taken: Arc<Mutex<HashMap<String, usize>>>,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct TakenPlace {
    whose: String,
    taken: Arc<Mutex<HashMap<String, usize>>>,
}

impl Places {
    /// So many places for these things, and so many of them for each.
    pub(super) fn new(what: &'static str, most: usize, each: usize) -> Self {
        Self { what, most, each, taken: Arc::default() }
    }

    /// A place for whoever asks.
    ///
    /// # Errors
    /// [`Error::Exhausted`] if they have as many as anybody may, or there is none left.
    pub(super) fn take(&self, actor: &Actor) -> Result<TakenPlace> {
        let Self { what, most, each, taken } = self;
        let whose = actor.label();
        let mut places = locked(taken);
        let refusal = if places.get(&whose).is_some_and(|count| count >= each) {
            Some(format!("{whose} has {each} {what} of containers open, as many as anybody may; close one of them"))
        } else if places.values().sum::<usize>() >= *most {
            Some(format!("{most} {what} of containers are open, as many as there can be; wait until one is closed"))
        } else {
            None
        };
        if let Some(reason) = refusal {
            return Err(Error::Exhausted { reason, retry_after: RETRY_AFTER });
        }
        *places.entry(whose.clone()).or_default() += 1;
        drop(places);
        Ok(TakenPlace { whose, taken: taken.clone() })
    }
}

impl Drop for TakenPlace {
    fn drop(&mut self) {
        let mut places = locked(&self.taken);
        let left = places.get(&self.whose).map_or(0, |count| count.saturating_sub(1));
        if left == 0 {
            places.remove(&self.whose);
        } else {
            places.insert(self.whose.clone(), left);
        }
    }
}

fn locked(taken: &Mutex<HashMap<String, usize>>) -> MutexGuard<'_, HashMap<String, usize>> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_has_more_than_their_share_and_all_have_no_more_than_there_are() {
        let places = Places::new("readings", 5, 3);
        let [one, other] = ["one", "other"].map(Actor::system);
        let mut of_one: Vec<_> = (0..3).map(|_| places.take(&one).unwrap()).collect();
        let refused = |actor: &Actor| match places.take(actor) {
            Err(Error::Exhausted { reason, .. }) => reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            refused(&one),
            "system:one has 3 readings of containers open, as many as anybody may; close one of them"
        );
        let _of_other = [places.take(&other).unwrap(), places.take(&other).unwrap()];
        assert_eq!(
            refused(&other),
            "5 readings of containers are open, as many as there can be; wait until one is closed"
        );
        of_one.pop();
        let _third = places.take(&other).unwrap();
        drop(of_one);
        assert_eq!(locked(&places.taken).len(), 1);
    }
}

//! What several wait for at once is done once. Whoever waits carries it on, so that it goes on when the one who began
//! it stops waiting, and ends when nobody waits any more.

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Something that is under way.
pub(crate) type Flight<T> = Shared<BoxFuture<'static, T>>;

/// What is under way, by name.
pub(crate) struct Flights<T: Clone>(Arc<Mutex<Air<T>>>);

struct Air<T: Clone> {
    last: u64,
    flights: HashMap<String, (u64, WeakShared<BoxFuture<'static, T>>)>,
}

impl<T: Clone + Send + Sync + 'static> Flights<T> {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Air { last: 0, flights: HashMap::new() })))
    }

    /// What is under way by that name, or else what `begin` makes.
    pub(crate) fn join(&self, name: &str, begin: impl FnOnce() -> BoxFuture<'static, T>) -> Flight<T> {
        let mut air = lock(&self.0);
        if let Some(flight) = air.flights.get(name).and_then(|(_, flight)| flight.upgrade()) {
            return flight;
        }
        air.last += 1;
        let number = air.last;
        let landing = Landing { name: name.to_owned(), number, air: Arc::clone(&self.0) };
        let work = begin();
        let flight = async move {
            let _landing = landing;
            work.await
        };
        let flight = flight.boxed().shared();
        if let Some(weak) = flight.downgrade() {
            air.flights.insert(name.to_owned(), (number, weak));
        }
        flight
    }
}

/// Removes a flight when it has ended, or was given up.
struct Landing<T: Clone> {
    name: String,
    number: u64,
    air: Arc<Mutex<Air<T>>>,
}

impl<T: Clone> Drop for Landing<T> {
    fn drop(&mut self) {
        let mut air = lock(&self.air);
        // The next one by that name may be under way already.
        if air.flights.get(&self.name).is_some_and(|(number, _)| *number == self.number) {
            air.flights.remove(&self.name);
        }
    }
}

fn lock<T: Clone>(air: &Mutex<Air<T>>) -> MutexGuard<'_, Air<T>> {
    air.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::sync::Notify;

    /// Counts how often it is begun, and ends when told.
    #[derive(Default)]
    struct Work {
        begun: AtomicU32,
        end: Notify,
    }

    impl Work {
        fn begin(self: &Arc<Self>) -> BoxFuture<'static, u32> {
            let work = Arc::clone(self);
            let number = work.begun.fetch_add(1, Ordering::Relaxed) + 1;
            async move {
                work.end.notified().await;
                number
            }
            .boxed()
        }
    }

    #[tokio::test]
    async fn whoever_waits_carries_it_on() {
        let (flights, work) = (Flights::new(), Arc::new(Work::default()));
        let mut first = flights.join("a", || work.begin());
        let second = flights.join("a", || work.begin());
        assert!((&mut first).now_or_never().is_none());
        drop(first);
        work.end.notify_one();
        assert_eq!(second.await, 1);
        assert!(lock(&flights.0).flights.is_empty());
        work.end.notify_one();
        assert_eq!(flights.join("a", || work.begin()).await, 2, "what has ended is begun anew");
    }

    #[tokio::test]
    async fn what_nobody_waits_for_ends() {
        let (flights, work) = (Flights::new(), Arc::new(Work::default()));
        let mut polled = flights.join("a", || work.begin());
        assert!((&mut polled).now_or_never().is_none());
        drop(polled);
        drop(flights.join("b", || work.begin()));
        assert!(lock(&flights.0).flights.is_empty());
        assert_eq!(Arc::strong_count(&work), 1, "nothing of it is left");
    }
}

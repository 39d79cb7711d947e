use std::{collections::HashMap, time::Duration, time::Instant};

/// What is remembered for a while, under a name. It holds a bounded number: what would have ended first makes room.
#[derive(Debug)]
pub(crate) struct Kept<T> {
    capacity: usize,
    entries: HashMap<String, (T, Instant)>,
}

impl<T: Clone> Kept<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, entries: HashMap::new() }
    }

    /// What is remembered under that name.
    pub(crate) fn get(&self, name: &str, now: Instant) -> Option<T> {
        self.entries.get(name).filter(|(_, until)| now < *until).map(|(value, _)| value.clone())
    }

    /// Remembers it for so long from now on.
    pub(crate) fn keep(&mut self, name: String, value: T, now: Instant, how_long: Duration) {
        if !self.entries.contains_key(&name) && self.entries.len() >= self.capacity {
            self.make_room(now);
        }
        self.entries.insert(name, (value, now + how_long));
    }

    fn make_room(&mut self, now: Instant) {
        self.entries.retain(|_, (_, until)| now < *until);
        if self.entries.len() < self.capacity {
            return;
        }
        // All are looked at, which takes microseconds, and somebody has just waited for a registry.
        let first = self.entries.iter().min_by_key(|(_, (_, until))| *until).map(|(name, _)| name.clone());
        if let Some(name) = first {
            self.entries.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_is_remembered_ends() {
        let (mut kept, now) = (Kept::new(2), Instant::now());
        kept.keep("a".to_owned(), 1, now, SECOND);
        assert_eq!((kept.get("a", now), kept.get("b", now)), (Some(1), None));
        assert_eq!(kept.get("a", now + SECOND), None);
        kept.keep("a".to_owned(), 2, now, 2 * SECOND);
        assert_eq!(kept.get("a", now + SECOND), Some(2));
    }

    #[test]
    fn it_never_holds_more_than_it_may() {
        let (mut kept, now) = (Kept::new(3), Instant::now());
        for (name, seconds) in [("ended", 1), ("long", 9), ("short", 5)] {
            kept.keep(name.to_owned(), (), now, seconds * SECOND);
        }
        let later = now + 2 * SECOND;
        kept.keep("first".to_owned(), (), later, 9 * SECOND);
        assert_eq!(kept.entries.len(), 3);
        kept.keep("second".to_owned(), (), later, 9 * SECOND);
        let there = |name: &str| kept.get(name, later).is_some();
        assert_eq!(kept.entries.len(), 3);
        assert_eq!(["ended", "short", "long", "first", "second"].map(there), [false, false, true, true, true]);
        kept.keep("second".to_owned(), (), later, SECOND);
        assert_eq!(kept.entries.len(), 3, "what is there already takes no room of others");
    }
}

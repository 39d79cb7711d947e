use crate::ids::ServerId;
use std::collections::BTreeMap;

/// Which servers became better, and in which order: what did not fit before needs only be judged against those that
/// became better since. Each server is in it once, at its latest place.
#[derive(Debug, Clone, Default)]
pub(super) struct Changes {
    order: BTreeMap<u64, ServerId>,
    places: BTreeMap<ServerId, u64>,
    now: u64,
}

impl Changes {
    /// The place of the latest change; 0 before the first.
    pub(super) fn now(&self) -> u64 {
        self.now
    }

    pub(super) fn mark(&mut self, server: ServerId) {
        self.now += 1;
        self.order.insert(self.now, server);
        if let Some(place) = self.places.insert(server, self.now) {
            self.order.remove(&place);
        }
    }

    pub(super) fn forget(&mut self, server: ServerId) {
        if let Some(place) = self.places.remove(&server) {
            self.order.remove(&place);
        }
    }

    /// The servers that became better after `place`.
    pub(super) fn since(&self, place: u64) -> impl Iterator<Item = ServerId> {
        self.order.range(place.saturating_add(1)..).map(|(_, server)| *server)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_in_it_once_at_its_latest_place() {
        let mut changes = Changes::default();
        for id in [1, 2, 1] {
            changes.mark(ServerId(id));
        }
        assert_eq!(changes.since(0).collect::<Vec<_>>(), [ServerId(2), ServerId(1)]);
        assert_eq!(changes.since(2).collect::<Vec<_>>(), [ServerId(1)]);
        changes.forget(ServerId(1));
        assert_eq!(changes.since(0).collect::<Vec<_>>(), [ServerId(2)]);
        assert_eq!(changes.since(changes.now()).count(), 0);
    }
}

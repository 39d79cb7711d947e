use super::alerts::Subject;
use crate::{
    Error, Result,
    fleet::{RosterEntry, ServerFilter, ServerSort, Servers, SortKey},
    ids::{PoolId, ServerId},
    page::{MAX_LIMIT, PageRequest},
};
use std::sync::Arc;

/// Which servers something is asked of; all of them if nothing is said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// These, each of which must be there.
    pub servers: Vec<ServerId>,
    /// Those of this pool.
    pub pool_id: Option<PoolId>,
    /// Those of this cluster.
    pub cluster: Option<String>,
    /// Those of this zone.
    pub zone: Option<String>,
    /// Those with every one of these tags.
    pub tags: Vec<(String, String)>,
}

impl Scope {
    /// The servers that are in it, in the order in which they are named, or of their ids.
    ///
    /// # Errors
    /// [`Error::NotFound`] for one that is named and is not there; for one that is named and is not in the pool, cluster,
    /// zone or tag that is named as well, [`Error::Invalid`].
    pub async fn find(&self, servers: &dyn Servers) -> Result<Vec<Arc<RosterEntry>>> {
        let all = self.matching(servers).await?;
        if self.servers.is_empty() {
            return Ok(all);
        }
        let mut found = Vec::with_capacity(self.servers.len());
        for id in &self.servers {
            let place = all.binary_search_by_key(id, |server| server.id);
            if let Some(server) = place.ok().and_then(|place| all.get(place)) {
                found.push(server.clone());
            } else {
                let there = servers.get(*id).await?;
                let reason = format!("has {id} ({}), which is not in the pool, cluster, zone or tag named", there.name);
                return Err(Error::invalid("host_ids", reason));
            }
        }
        Ok(found)
    }

    /// Whether an alert is about what is in it: about one of the servers that were found, or about its pool; if nothing
    /// narrows it, about any pool.
    #[must_use]
    pub fn has(&self, subject: Subject, found: &[Arc<RosterEntry>]) -> bool {
        match subject {
            Subject::Server(id) => found.binary_search_by_key(&id, |server| server.id).is_ok(),
            Subject::Pool(id) => *self == Self::default() || *self == Self { pool_id: Some(id), ..Self::default() },
        }
    }

    async fn matching(&self, servers: &dyn Servers) -> Result<Vec<Arc<RosterEntry>>> {
        let filter = ServerFilter {
            pool_id: self.pool_id,
            cluster: self.cluster.clone(),
            zone: self.zone.clone(),
            tags: self.tags.clone(),
            ..ServerFilter::default()
        };
        let mut page = PageRequest { limit: MAX_LIMIT, after: None };
        let mut found = Vec::new();
        loop {
            let some = servers.list(filter.clone(), ServerSort { key: SortKey::Id, descending: false }, page).await?;
            found.extend(some.items);
            match some.next {
                Some(next) => page = PageRequest { limit: MAX_LIMIT, after: Some(next) },
                None => return Ok(found),
            }
        }
    }
}

//! Which servers something is asked of.

use crate::rooms::{dto, fleet::pair};
use domain::{
    error::Checks,
    ids::{PoolId, ServerId},
    observability::Scope,
};

/// The most servers that can be named.
pub(super) const MOST_HOSTS: usize = 1000;

/// The parameters, as they come.
pub(super) struct ScopeQuery {
    pub(super) host_ids: Vec<i64>,
    pub(super) pool_id: Option<i64>,
    pub(super) cluster: Option<String>,
    pub(super) zone: Option<String>,
    pub(super) tag: Vec<String>,
}

impl ScopeQuery {
    pub(super) fn parse(self, checks: &mut Checks) -> Scope {
        if self.host_ids.len() > MOST_HOSTS {
            checks.note("host_ids", format!("must not be repeated more than {MOST_HOSTS} times"));
        }
        let mut servers: Vec<ServerId> = Vec::with_capacity(self.host_ids.len());
        for id in self.host_ids {
            let server = dto::reference(checks, "host_ids", Some(id)).map(ServerId);
            servers.extend(server.filter(|server| !servers.contains(server)));
        }
        Scope {
            servers,
            pool_id: dto::reference(checks, "pool_id", self.pool_id).map(PoolId),
            cluster: dto::optional_line(checks, "cluster", self.cluster),
            zone: dto::optional_line(checks, "zone", self.zone),
            tags: self.tag.into_iter().filter_map(|tag| checks.take("tag", pair(&tag))).collect(),
        }
    }
}

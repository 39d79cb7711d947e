//! Every server in memory, for lists: filters, sorting, pages, and texts that are made once per state of a server.

use super::model::{Server, ServerFilter, ServerSort, SortKey};
use crate::{
    Error, Result,
    feed::{Fact, Follower, State},
    ids::ServerId,
    page::{Cursor, Page, PageRequest},
};
use std::{
    cmp::Ordering,
    collections::BTreeMap,
    ops::Deref,
    sync::{Arc, OnceLock, PoisonError, RwLock},
};

/// A server at one of its states, with the texts that were made of it.
#[derive(Debug)]
pub struct RosterEntry {
    server: Arc<Server>,
    search_text: OnceLock<Box<str>>,
    shown: OnceLock<Box<str>>,
}

impl RosterEntry {
    /// A server of which no text was made yet.
    #[must_use]
    pub fn new(server: Arc<Server>) -> Self {
        Self { server, search_text: OnceLock::new(), shown: OnceLock::new() }
    }

    /// The text that `show` makes of the server; made by whoever asks first, kept for all others.
    pub fn shown(&self, show: impl FnOnce(&Server) -> String) -> &str {
        self.shown.get_or_init(|| show(&self.server).into())
    }

    fn search_text(&self) -> &str {
        self.search_text.get_or_init(|| self.server.search_text().into())
    }
}

impl Deref for RosterEntry {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

/// Every server there is. Follows what commits.
#[derive(Debug, Default)]
pub struct Roster {
    servers: RwLock<BTreeMap<ServerId, Arc<RosterEntry>>>,
}

impl Roster {
    /// Whether there is one of this id.
    #[must_use]
    pub fn has(&self, id: ServerId) -> bool {
        self.servers.read().unwrap_or_else(PoisonError::into_inner).contains_key(&id)
    }

    /// Servers that match, a page at a time. A page goes on after the row that its cursor names, so it neither repeats
    /// nor skips rows when others come or go.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a cursor that no list gave out.
    pub fn list(&self, filter: &ServerFilter, sort: ServerSort, page: &PageRequest) -> Result<Page<Arc<RosterEntry>>> {
        let after = page.after.as_ref().map(|cursor| Position::read(cursor, sort)).transpose()?;
        let servers = self.servers.read().unwrap_or_else(PoisonError::into_inner);
        let wanted = Wanted::new(filter);
        let room = usize::from(page.limit) + 1;
        let (items, total) = match sort.key {
            SortKey::Id => by_id(&servers, &wanted, sort, after.as_ref(), room),
            _ => sorted(&servers, &wanted, sort, after.as_ref(), room),
        };
        let total = i64::try_from(total).map_err(Error::internal)?;
        Ok(Page::cut(items, page.limit, total, |server| Cursor {
            sort: sort.as_str().to_owned(),
            key: sort.key_of(server),
            id: server.id.0,
        }))
    }
}

impl Follower for Roster {
    fn reset(&self, state: &State) {
        let servers = state.servers.iter().map(|server| (server.id, Arc::new(RosterEntry::new(server.clone()))));
        *self.servers.write().unwrap_or_else(PoisonError::into_inner) = servers.collect();
    }

    fn follow(&self, facts: &[Fact]) {
        let mut servers = self.servers.write().unwrap_or_else(PoisonError::into_inner);
        for fact in facts {
            match fact {
                Fact::Server(server) => {
                    servers.insert(server.id, Arc::new(RosterEntry::new(server.clone())));
                }
                Fact::ServerGone(id) => {
                    servers.remove(id);
                }
                Fact::ServerReserved(id, reserved) => {
                    change(&mut servers, *id, |server| server.reserved = *reserved);
                }
                Fact::ServerSeen(id, at) => {
                    change(&mut servers, *id, |server| server.inventory.last_seen_at = Some(*at));
                }
                Fact::Pool(_)
                | Fact::PoolGone(_)
                | Fact::PoolReserved(..)
                | Fact::Task(_)
                | Fact::TaskGone(_)
                | Fact::Operation(_) => {}
            }
        }
    }
}

type Servers = BTreeMap<ServerId, Arc<RosterEntry>>;

fn change(servers: &mut Servers, id: ServerId, change: impl FnOnce(&mut Server)) {
    if let Some(entry) = servers.get_mut(&id) {
        let mut server = Server::clone(entry);
        change(&mut server);
        *entry = Arc::new(RosterEntry::new(Arc::new(server)));
    }
}

/// In the order of ids nothing needs to be sorted, and without a filter nothing but the page looked at.
fn by_id(
    servers: &Servers,
    wanted: &Wanted<'_>,
    sort: ServerSort,
    after: Option<&Position>,
    room: usize,
) -> (Vec<Arc<RosterEntry>>, usize) {
    let total = if wanted.is_everything() {
        servers.len()
    } else {
        servers.values().filter(|server| wanted.matches(server)).count()
    };
    let after = after.map(|position| ServerId(position.id));
    let take = |rows: &mut dyn Iterator<Item = &Arc<RosterEntry>>| -> Vec<Arc<RosterEntry>> {
        rows.filter(|server| wanted.matches(server)).take(room).cloned().collect()
    };
    let items = match (sort.descending, after) {
        (true, None) => take(&mut servers.values().rev()),
        (true, Some(id)) => take(&mut servers.range(..id).rev().map(|(_, server)| server)),
        (false, None) => take(&mut servers.values()),
        (false, Some(id)) => {
            use std::ops::Bound::{Excluded, Unbounded};
            take(&mut servers.range((Excluded(id), Unbounded)).map(|(_, server)| server))
        }
    };
    (items, total)
}

/// Orders only as many rows as the page has.
fn sorted(
    servers: &Servers,
    wanted: &Wanted<'_>,
    sort: ServerSort,
    after: Option<&Position>,
    room: usize,
) -> (Vec<Arc<RosterEntry>>, usize) {
    let matching: Vec<&Arc<RosterEntry>> = servers.values().filter(|server| wanted.matches(server)).collect();
    let total = matching.len();
    let later = |server: &&Arc<RosterEntry>| after.is_none_or(|position| position.before(server, sort));
    let mut rows: Vec<&Arc<RosterEntry>> = matching.into_iter().filter(later).collect();
    let order = |a: &&Arc<RosterEntry>, b: &&Arc<RosterEntry>| directed(compare(a, b, sort.key), sort);
    if rows.len() > room {
        rows.select_nth_unstable_by(room, order);
        rows.truncate(room);
    }
    rows.sort_unstable_by(order);
    (rows.into_iter().cloned().collect(), total)
}

fn compare(a: &Server, b: &Server, key: SortKey) -> Ordering {
    let keys = match key {
        SortKey::Id => Ordering::Equal,
        SortKey::Name => a.name.cmp(&b.name),
        SortKey::TotalCpu => a.capacity.cpu_millis.cmp(&b.capacity.cpu_millis),
        SortKey::TotalMemory => a.capacity.memory_mib.cmp(&b.capacity.memory_mib),
    };
    keys.then(a.id.cmp(&b.id))
}

fn directed(order: Ordering, sort: ServerSort) -> Ordering {
    if sort.descending { order.reverse() } else { order }
}

/// The last row of the page before.
struct Position {
    key: Key,
    id: i64,
}

enum Key {
    None,
    Text(String),
    Number(i64),
}

impl Position {
    fn read(cursor: &Cursor, sort: ServerSort) -> Result<Self> {
        let wrong = |_| {
            Error::invalid("cursor", "is not a cursor of this list; take it from the Link header of the page before")
        };
        let key = match sort.key {
            SortKey::Id => Key::None,
            SortKey::Name => Key::Text(cursor.key.clone()),
            SortKey::TotalCpu | SortKey::TotalMemory => {
                Key::Number(cursor.key.parse().map_err(|error: std::num::ParseIntError| wrong(error))?)
            }
        };
        Ok(Self { key, id: cursor.id })
    }

    /// Whether `server` comes after this position.
    fn before(&self, server: &Server, sort: ServerSort) -> bool {
        let keys = match (&self.key, sort.key) {
            (Key::Text(text), _) => text.as_str().cmp(server.name.as_str()),
            (Key::Number(number), SortKey::TotalMemory) => number.cmp(&server.capacity.memory_mib),
            (Key::Number(number), _) => number.cmp(&server.capacity.cpu_millis),
            (Key::None, _) => Ordering::Equal,
        };
        directed(keys.then(self.id.cmp(&server.id.0)), sort) == Ordering::Less
    }
}

/// A filter made ready: its keyword is in lower case, as search texts are.
struct Wanted<'a> {
    filter: &'a ServerFilter,
    keyword: Option<String>,
}

impl<'a> Wanted<'a> {
    fn new(filter: &'a ServerFilter) -> Self {
        Self { filter, keyword: filter.keyword.as_ref().map(|keyword| keyword.to_lowercase()) }
    }

    fn is_everything(&self) -> bool {
        *self.filter == ServerFilter::default()
    }

    fn matches(&self, server: &RosterEntry) -> bool {
        let filter = self.filter;
        filter.architecture.is_none_or(|architecture| server.architecture == architecture)
            && filter.status.is_none_or(|status| server.status == status)
            && filter.pool_id.is_none_or(|pool| server.pool_id == Some(pool))
            && filter.cluster.as_ref().is_none_or(|cluster| server.cluster.as_ref() == Some(cluster))
            && filter.zone.as_ref().is_none_or(|zone| server.zone.as_ref() == Some(zone))
            && filter.tags.iter().all(|(key, value)| server.tags.as_map().get(key) == Some(value))
            && self.keyword.as_ref().is_none_or(|keyword| server.search_text().contains(keyword.as_str()))
    }
}

#[cfg(test)]
#[path = "roster_tests.rs"]
mod tests;

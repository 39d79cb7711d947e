//! Lists of servers: filters, sorting, and pages that go on after the last row that was seen.

use super::rows::Row;
use crate::{
    connection::AnyConnection,
    failure::Failure,
    schema::{server_tags, servers},
    values::{contains_pattern, sought},
};
use diesel::prelude::*;
use domain::{
    Error, Result,
    fleet::{Server, ServerFilter, ServerSort, SortKey},
    page::{Cursor, Page, PageRequest},
};

macro_rules! matching {
    ($filter:expr) => {{
        let filter: &ServerFilter = $filter;
        let mut query = servers::table.into_boxed();
        if let Some(architecture) = filter.architecture {
            query = query.filter(servers::architecture.eq(architecture.as_str()));
        }
        if let Some(status) = filter.status {
            query = query.filter(servers::status.eq(status.as_str()));
        }
        if let Some(keyword) = &filter.keyword {
            query = query.filter(servers::search_text.like(contains_pattern(keyword)).escape('\\'));
        }
        if let Some(pool) = filter.pool_id {
            query = query.filter(servers::pool_id.eq(pool.0));
        }
        if let Some(cluster) = &filter.cluster {
            query = query.filter(servers::cluster.eq(sought(cluster)));
        }
        if let Some(zone) = &filter.zone {
            query = query.filter(servers::zone.eq(sought(zone)));
        }
        for (key, value) in &filter.tags {
            let tagged = server_tags::table
                .filter(server_tags::key.eq(sought(key)).and(server_tags::value.eq(sought(value))))
                .select(server_tags::server_id);
            query = query.filter(servers::id.eq_any(tagged));
        }
        query
    }};
}

/// Sorts by a column and goes on after the cursor's row; ids break ties in the same direction.
macro_rules! sorted {
    ($query:expr, $column:expr, $sort:expr, $after:expr) => {{
        let after = $after;
        let query = if $sort.descending {
            let query = match after {
                None => $query,
                Some((key, id)) => $query.filter($column.lt(key.clone()).or($column.eq(key).and(servers::id.lt(id)))),
            };
            query.order(($column.desc(), servers::id.desc()))
        } else {
            let query = match after {
                None => $query,
                Some((key, id)) => $query.filter($column.gt(key.clone()).or($column.eq(key).and(servers::id.gt(id)))),
            };
            query.order(($column.asc(), servers::id.asc()))
        };
        query
    }};
}

pub(super) fn list(
    connection: &mut AnyConnection,
    filter: &ServerFilter,
    sort: ServerSort,
    page: &PageRequest,
) -> Result<Page<Server>, Failure> {
    let total: i64 = matching!(filter).count().get_result(connection)?;
    let rows = page_rows(connection, filter, sort, page)?;
    let servers = rows.into_iter().map(Server::try_from).collect::<Result<Vec<_>, _>>()?;
    Ok(Page::cut(servers, page.limit, total, |server| Cursor {
        sort: sort.as_str().to_owned(),
        key: sort.key_of(server),
        id: server.id.0,
    }))
}

fn page_rows(
    connection: &mut AnyConnection,
    filter: &ServerFilter,
    sort: ServerSort,
    page: &PageRequest,
) -> Result<Vec<Row>, Failure> {
    let query = matching!(filter).limit(i64::from(page.limit) + 1);
    let after = page.after.as_ref();
    let text = after.map(|cursor| (sought(&cursor.key), cursor.id));
    let query = match sort.key {
        SortKey::Id => {
            let number = after.map(|cursor| (cursor.id, cursor.id));
            sorted!(query, servers::id, sort, number)
        }
        SortKey::Name => sorted!(query, servers::name, sort, text),
        SortKey::TotalCpu => sorted!(query, servers::cpu_millis, sort, number_key(after)?),
        SortKey::TotalMemory => sorted!(query, servers::memory_mib, sort, number_key(after)?),
    };
    Ok(query.load(connection)?)
}

fn number_key(after: Option<&Cursor>) -> Result<Option<(i64, i64)>, Failure> {
    let read = |cursor: &Cursor| cursor.key.parse().map(|key| (key, cursor.id));
    let wrong =
        |_| Error::invalid("cursor", "is not a cursor of this list; take it from the Link header of the page before");
    after.map(read).transpose().map_err(|error: std::num::ParseIntError| wrong(error).into())
}

//! Pages of tables, newest first.

use domain::page::{Cursor, Page, PageRequest};

/// The rows of a page and one more, and how many there are in all: what `$matching`, a boxed query, finds by descending
/// `$key`. The query is made twice, because a boxed query cannot be copied.
macro_rules! newest_first {
    ($connection:expr, $page:expr, $key:expr, $matching:expr) => {{
        let total: i64 = $matching.count().get_result($connection)?;
        let mut query = $matching;
        if let Some(after) = &$page.after {
            query = query.filter($key.lt(after.id));
        }
        (query.order($key.desc()).limit(i64::from($page.limit) + 1).load($connection)?, total)
    }};
}
pub(crate) use newest_first;

/// Makes a page of such rows. `sort` names the key in cursors, and `key` tells an item's.
pub(crate) fn page<T>(
    items: Vec<T>,
    request: &PageRequest,
    total: i64,
    sort: &str,
    key: impl Fn(&T) -> i64,
) -> Page<T> {
    Page::cut(items, request.limit, total, |item| Cursor { sort: sort.to_owned(), key: String::new(), id: key(item) })
}

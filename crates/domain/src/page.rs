//! Pages of a list that neither repeat nor skip rows when others are inserted meanwhile.
//!
//! A cursor names the last row that was seen (its sort key and its id), not how many rows were seen, so rows
//! that come or go elsewhere do not shift the next page ("keyset pagination").

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

/// Rows on a page if the caller does not say.
pub const DEFAULT_LIMIT: u16 = 100;
/// The most rows on a page.
pub const MAX_LIMIT: u16 = 1000;

/// The last row of the page before: where the next one goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The sort that the page had (the text of its query parameter); another one makes the cursor meaningless.
    #[serde(rename = "s")]
    pub sort: String,
    /// The value of the sort key in that row; empty where rows are sorted by id alone.
    #[serde(rename = "k")]
    pub key: String,
    /// The id of that row.
    #[serde(rename = "i")]
    pub id: i64,
}

impl Cursor {
    /// The opaque text that clients hand back.
    #[must_use]
    pub fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    /// Reads what [`Cursor::encode`] wrote.
    ///
    /// # Errors
    /// A sentence, if the text is not one of ours.
    pub fn decode(text: &str) -> Result<Self, String> {
        URL_SAFE_NO_PAD
            .decode(text)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .ok_or_else(|| "is not a cursor of this list; take it from the Link header of the page before".to_owned())
    }
}

/// Which part of a list is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRequest {
    /// The most rows, 1 to [`MAX_LIMIT`].
    pub limit: u16,
    /// Where to go on; the first page if absent.
    pub after: Option<Cursor>,
}

impl Default for PageRequest {
    fn default() -> Self {
        Self { limit: DEFAULT_LIMIT, after: None }
    }
}

impl PageRequest {
    /// Reads `limit` and `cursor` as they come from a query string, for a list sorted by `sort`.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] naming `limit` or `cursor`.
    pub fn parse(limit: Option<i64>, cursor: Option<&str>, sort: &str) -> crate::Result<Self> {
        let limit = match limit {
            None => DEFAULT_LIMIT,
            Some(n) => u16::try_from(n)
                .ok()
                .filter(|n| (1..=MAX_LIMIT).contains(n))
                .ok_or_else(|| crate::Error::invalid("limit", format!("must be from 1 to {MAX_LIMIT}")))?,
        };
        let after = cursor.map(Cursor::decode).transpose().map_err(|reason| crate::Error::invalid("cursor", reason))?;
        if after.as_ref().is_some_and(|cursor| cursor.sort != sort) {
            return Err(crate::Error::invalid(
                "cursor",
                "belongs to a list that was sorted differently; start again without it",
            ));
        }
        Ok(Self { limit, after })
    }
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The rows, in order.
    pub items: Vec<T>,
    /// Where the next page goes on; absent on the last page.
    pub next: Option<Cursor>,
    /// How many rows the whole list has.
    pub total: i64,
}

impl<T> Page<T> {
    /// Makes a page of up to `limit` items out of one more than that, which tells whether there is a next page.
    pub fn cut(mut items: Vec<T>, limit: u16, total: i64, cursor: impl Fn(&T) -> Cursor) -> Self {
        let more = items.len() > usize::from(limit);
        items.truncate(usize::from(limit));
        let next = if more { items.last().map(cursor) } else { None };
        Self { items, next, total }
    }

    /// The same page with each item converted.
    pub fn map<U>(self, convert: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(convert).collect(), next: self.next, total: self.total }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Error, error::FieldError};
    use proptest::prelude::*;

    fn cursor(id: i64) -> Cursor {
        Cursor { sort: "-name".to_owned(), key: format!("edge-{id}"), id }
    }

    #[track_caller]
    fn check_refused(result: crate::Result<PageRequest>, field: &str, reason: &str) {
        let Err(Error::Invalid { errors }) = result else { panic!("{result:?} is no refusal") };
        let [FieldError { field: found, reason: told }] = errors.as_slice() else { panic!("{errors:?}") };
        assert_eq!(found, field);
        assert!(told.contains(reason), "{told}");
    }

    #[test]
    fn limits_from_one_to_the_most_are_taken() {
        for (limit, expected) in [(None, DEFAULT_LIMIT), (Some(1), 1), (Some(1000), MAX_LIMIT)] {
            let request = PageRequest::parse(limit, None, "id").unwrap();
            assert_eq!(request, PageRequest { limit: expected, after: None });
        }
        assert_eq!(PageRequest::parse(None, None, "id").unwrap(), PageRequest::default());
        for limit in [0, -1, 1001, 65_536, 65_537, i64::MAX, i64::MIN] {
            check_refused(PageRequest::parse(Some(limit), None, "id"), "limit", "must be from 1 to 1000");
        }
    }

    #[test]
    fn a_cursor_goes_on_in_the_list_that_it_came_from() {
        let text = cursor(7).encode();
        assert_eq!(PageRequest::parse(None, Some(&text), "-name").unwrap().after, Some(cursor(7)));
        for sort in ["name", "-id", ""] {
            check_refused(PageRequest::parse(None, Some(&text), sort), "cursor", "sorted differently");
        }
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        let json = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let padded = format!("{}=", cursor(7).encode());
        let garbage = [
            String::new(),
            "7".to_owned(),
            "%%%".to_owned(),
            "服务器".to_owned(),
            padded,
            json(""),
            json("null"),
            json("[\"-name\",\"edge\"]"),
            json("{\"s\":\"-name\",\"k\":\"edge\"}"),
            json("{\"s\":\"-name\",\"k\":\"edge\",\"i\":\"7\"}"),
            json("{\"s\":\"-name\",\"k\":\"edge\",\"i\":9223372036854775808}"),
        ];
        for text in garbage {
            check_refused(PageRequest::parse(None, Some(&text), "-name"), "cursor", "is not a cursor of this list");
        }
    }

    #[test]
    fn a_page_has_a_next_one_only_if_there_are_more_rows() {
        let check = |rows: i64, limit: u16, items: &[i64], next: Option<i64>| {
            let page = Page::cut((1..=rows).collect(), limit, 99, |id| cursor(*id));
            assert_eq!(page, Page { items: items.to_vec(), next: next.map(cursor), total: 99 });
        };
        check(0, 2, &[], None);
        check(1, 2, &[1], None);
        check(2, 2, &[1, 2], None);
        check(3, 2, &[1, 2], Some(2));
        check(2, 1, &[1], Some(1));
    }

    #[test]
    fn a_converted_page_goes_on_where_it_did() {
        let page = Page::cut(vec![1, 2, 3], 2, 3, |id| cursor(*id)).map(|id| id.to_string());
        assert_eq!(page, Page { items: vec!["1".to_owned(), "2".to_owned()], next: Some(cursor(2)), total: 3 });
    }

    proptest! {
        #[test]
        fn every_cursor_comes_back_from_a_url(sort: String, key: String, id: i64) {
            let cursor = Cursor { sort, key, id };
            let text = cursor.encode();
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'));
            prop_assert_eq!(Cursor::decode(&text), Ok(cursor));
        }

        #[test]
        fn no_text_makes_it_panic(text: String) {
            let _ = PageRequest::parse(None, Some(&text), "id");
        }
    }
}

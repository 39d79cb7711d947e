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
            return Err(crate::Error::invalid("cursor", "belongs to a list that was sorted differently; start again without it"));
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

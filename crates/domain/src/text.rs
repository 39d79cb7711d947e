//! Texts that users give, checked once at the edge: names, labels and short descriptions.
//!
//! No control characters anywhere: they break terminals, logs and exports, and `PostgreSQL` cannot store NUL.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The longest [`Name`], in characters.
pub const MAX_NAME: usize = 128;
/// The longest value of a tag, in characters.
pub const MAX_TAG_VALUE: usize = 255;
/// The most tags or labels on one thing.
pub const MAX_TAGS: usize = 64;

/// The name of a thing, unique among its kind: 1 to 128 characters, no control characters, no space at either end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Name(String);

impl Name {
    /// # Errors
    /// A sentence that says what a name looks like.
    pub fn parse(text: impl Into<String>) -> Result<Self, String> {
        let text = text.into();
        let edge = |c: Option<char>| c.is_some_and(|c| c != ' ' && c != '\u{a0}');
        if !edge(text.chars().next()) || !edge(text.chars().next_back()) {
            return Err("must not be empty, and must not start or end with a space".to_owned());
        }
        line(text, MAX_NAME).map(Self)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Takes a text that was checked before it was stored.
    #[must_use]
    pub fn trusted(text: String) -> Self {
        Self(text)
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Checks a single line of at most `most` characters without control characters.
///
/// # Errors
/// A sentence that says which of these it is not.
pub fn line(text: String, most: usize) -> Result<String, String> {
    if text.chars().count() > most {
        return Err(format!("must be at most {most} characters long"));
    }
    if text.chars().any(char::is_control) {
        return Err("must not contain control characters such as line feeds or tabs".to_owned());
    }
    Ok(text)
}

/// Checks a text of at most `most` characters that may have line feeds and tabs, but no other control characters.
///
/// # Errors
/// A sentence that says which of these it is not.
pub fn paragraph(text: String, most: usize) -> Result<String, String> {
    if text.chars().count() > most {
        return Err(format!("must be at most {most} characters long"));
    }
    if text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
        return Err("must not contain control characters other than line feeds and tabs".to_owned());
    }
    Ok(text)
}

/// Key-value pairs on a server or pool; keys are sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tags(BTreeMap<String, String>);

impl Tags {
    /// Checks pairs. A key has 1 to 63 letters, digits, `.`, `_`, `-` or `/` and starts with a letter or digit.
    ///
    /// # Errors
    /// A sentence that names the first pair that is wrong.
    pub fn parse(pairs: BTreeMap<String, String>) -> Result<Self, String> {
        if pairs.len() > MAX_TAGS {
            return Err(format!("must have at most {MAX_TAGS} entries"));
        }
        for (key, value) in &pairs {
            tag_key(key)?;
            line(value.clone(), MAX_TAG_VALUE).map_err(|reason| format!("value of {key:?} {reason}"))?;
        }
        Ok(Self(pairs))
    }

    /// These tags with a merge patch (RFC 7396) applied: a value sets, `None` removes.
    ///
    /// # Errors
    /// As [`Tags::parse`].
    pub fn patched(&self, patch: BTreeMap<String, Option<String>>) -> Result<Self, String> {
        let mut pairs = self.0.clone();
        for (key, value) in patch {
            match value {
                Some(value) => pairs.insert(key, value),
                None => pairs.remove(&key),
            };
        }
        Self::parse(pairs)
    }

    /// The pairs, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// The pairs as a map of one's own.
    #[must_use]
    pub fn into_map(self) -> BTreeMap<String, String> {
        self.0
    }

    /// The pairs as a map.
    #[must_use]
    pub fn as_map(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

fn tag_key(key: &str) -> Result<(), String> {
    let head = key.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    let tail = key.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c));
    if head && tail && key.len() <= 63 {
        return Ok(());
    }
    Err(format!(
        "has the key {key:?}: a key has 1 to 63 letters, digits, '.', '_', '-' or '/' and starts with a letter or digit"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_visible_line() {
        for good in ["edge-1", "Rack 3 / Node 7", "服务器", "x"] {
            assert!(Name::parse(good).is_ok(), "{good:?}");
        }
        for bad in ["", " edge", "edge ", "a\nb", "a\0b", "\u{7f}", &"x".repeat(129)] {
            assert!(Name::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_tag_patch_sets_and_removes() {
        let tags = Tags::parse([("a", "1"), ("b", "2")].map(|(k, v)| (k.to_owned(), v.to_owned())).into()).unwrap();
        let patch = [("a".to_owned(), None), ("c".to_owned(), Some("3".to_owned()))].into();
        let patched = tags.patched(patch).unwrap();
        assert_eq!(patched.iter().collect::<Vec<_>>(), [("b", "2"), ("c", "3")]);
        assert!(tags.patched([(":".to_owned(), Some(String::new()))].into()).is_err());
    }
}

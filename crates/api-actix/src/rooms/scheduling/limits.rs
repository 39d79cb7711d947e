//! How large the parts of a task may be. Within a body's limit almost anything would fit; what is kept with every task,
//! shown in every list and sent to agents has limits of its own.

use domain::containers::ImageName;
use serde_json::Value;
use std::collections::BTreeMap;

/// The longest image reference, in characters.
pub(super) const MAX_IMAGE: usize = 512;
/// What image references look like, as a regular expression; what is refused besides is for [`ImageName`] to say.
pub(super) const IMAGE: &str = r"^[A-Za-z0-9][A-Za-z0-9._-]*(:[0-9]+)?(/[A-Za-z0-9][A-Za-z0-9._-]*)*(:[A-Za-z0-9_][A-Za-z0-9._-]*)?(@[a-z0-9]+:[0-9a-f]+)?$";
/// The most words of a command.
pub(super) const MAX_WORDS: usize = 256;
/// The longest word of a command, and the longest path of a mount, in characters.
pub(super) const MAX_WORD: usize = 4096;
/// The most ports, and the most mounts.
pub(super) const MAX_MAPPINGS: usize = 64;
/// The most bytes of metadata, as JSON without needless spaces.
const MAX_METADATA: usize = 16 * 1024;
/// How deep metadata may be nested.
const MAX_DEPTH: usize = 8;
/// The longest time of an attempt, in seconds: a year.
pub(super) const MAX_TIMEOUT: u64 = 31_536_000;
/// The longest time to end, in seconds: a day.
pub(super) const MAX_GRACE: u64 = 86_400;
/// The longest plan token, in characters.
pub(super) const MAX_TOKEN: usize = 256;

/// Checks the reference of an image.
pub(super) fn image(reference: String) -> Result<String, String> {
    if reference.len() > MAX_IMAGE {
        return Err(format!("must be at most {MAX_IMAGE} characters long"));
    }
    ImageName::parse(&reference).map(|_| reference)
}

/// Checks a word of a command: unlike a line it may have line feeds, since scripts are given this way.
pub(super) fn word(word: String) -> Result<String, String> {
    if word.chars().count() > MAX_WORD {
        return Err(format!("must be at most {MAX_WORD} characters long"));
    }
    if word.contains('\0') { Err("must not contain NUL".to_owned()) } else { Ok(word) }
}

/// Checks how many entries there are.
pub(super) fn count<T>(entries: Vec<T>, most: usize) -> Result<Vec<T>, String> {
    if entries.len() > most { Err(format!("must have at most {most} entries")) } else { Ok(entries) }
}

/// Checks a number of seconds.
pub(super) fn seconds(seconds: i64, least: u64, most: u64) -> Result<u64, String> {
    let inside = u64::try_from(seconds).ok().filter(|seconds| (least..=most).contains(seconds));
    inside.ok_or_else(|| format!("must be from {least} to {most}"))
}

/// Checks the port of a mapping.
pub(super) fn port(port: i64) -> Result<u16, String> {
    u16::try_from(port).ok().filter(|port| *port > 0).ok_or_else(|| "must be from 1 to 65535".to_owned())
}

/// Checks what a user keeps with a task.
pub(super) fn metadata(metadata: BTreeMap<String, Value>) -> Result<BTreeMap<String, Value>, String> {
    let depth = 1 + metadata.values().map(depth).max().unwrap_or_default();
    if depth > MAX_DEPTH {
        return Err(format!("is nested {depth} deep, at most {MAX_DEPTH} is allowed"));
    }
    let bytes = serde_json::to_vec(&metadata).map_err(|error| error.to_string())?.len();
    if bytes > MAX_METADATA {
        return Err(format!("has {bytes} bytes, at most {MAX_METADATA} are allowed"));
    }
    Ok(metadata)
}

/// How many objects and arrays are around the innermost value. The parser bounds it.
fn depth(value: &Value) -> usize {
    match value {
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or_default(),
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or_default(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_IMAGE, MAX_METADATA, MAX_WORD, image, metadata, port, seconds, word};
    use serde_json::{Value, json};

    fn members(value: Value) -> std::collections::BTreeMap<String, Value> {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn metadata_has_a_depth_and_a_size() {
        let nested = |depth: usize| (1..depth).fold(json!({ "x": 1 }), |inner, _| json!({ "x": inner }));
        assert!(metadata(members(nested(8))).is_ok());
        let refusal = metadata(members(nested(9))).unwrap_err();
        assert_eq!(refusal, "is nested 9 deep, at most 8 is allowed");
        assert!(metadata(members(json!({ "x": [[[[[[[1]]]]]]] }))).is_ok());
        assert!(metadata(members(json!({ "x": [[[[[[[[1]]]]]]]] }))).is_err());
        let sized = |bytes: usize| members(json!({ "x": "y".repeat(bytes - r#"{"x":""}"#.len()) }));
        assert!(metadata(sized(MAX_METADATA)).is_ok());
        let refusal = metadata(sized(MAX_METADATA + 1)).unwrap_err();
        assert_eq!(refusal, "has 16385 bytes, at most 16384 are allowed");
    }

    #[test]
    fn words_may_be_scripts_and_images_may_not() {
        assert!(word("set -e\necho \"$1\"\t".to_owned()).is_ok());
        assert!(word("é".repeat(MAX_WORD)).is_ok());
        assert!(word("é".repeat(MAX_WORD + 1)).is_err());
        assert!(word("a\0b".to_owned()).is_err());
        assert!(image("ghcr.io/a/b@sha256:00".to_owned()).is_ok());
        for wrong in ["", " ", "a b", "a\n", "a\u{a0}b", "é", &"x".repeat(MAX_IMAGE + 1)] {
            assert!(image(wrong.to_owned()).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn numbers_stay_in_their_range() {
        assert_eq!((port(0).is_err(), port(1), port(65_535), port(65_536).is_err()), (true, Ok(1), Ok(65_535), true));
        assert_eq!((seconds(-1, 0, 5).is_err(), seconds(0, 0, 5), seconds(0, 1, 5).is_err()), (true, Ok(0), true));
        assert_eq!(
            (seconds(5, 1, 5), seconds(6, 1, 5).is_err(), seconds(i64::MAX, 1, 5).is_err()),
            (Ok(5), true, true)
        );
    }
}

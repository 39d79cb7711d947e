//! Whether an `Accept` header takes what there is.

use std::collections::BTreeSet;

/// Whether `accept` takes at least one of `offered`. A header that cannot be read takes everything: the client did not
/// rule anything out.
pub(super) fn accepts(accept: &str, offered: &BTreeSet<String>) -> bool {
    let ranges: Vec<Range<'_>> = accept.split(',').filter_map(Range::parse).collect();
    ranges.is_empty() || offered.iter().any(|kind| quality(&ranges, kind) > 0.0)
}

struct Range<'a> {
    kind: &'a str,
    quality: f32,
}

impl<'a> Range<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let kind = parts.next().filter(|kind| kind.contains('/'))?;
        let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        Some(Self { kind, quality: quality.and_then(|q| q.parse().ok()).unwrap_or(1.0) })
    }

    /// How closely the range names `kind`: exactly, its family, or anything.
    fn closeness(&self, kind: &str) -> Option<u8> {
        if self.kind.eq_ignore_ascii_case(kind) {
            return Some(2);
        }
        let family = |text: &str| text.split('/').next().unwrap_or_default().to_ascii_lowercase();
        match self.kind.strip_suffix("/*") {
            Some("*") => Some(0),
            Some(own) if own.eq_ignore_ascii_case(&family(kind)) => Some(1),
            _ => None,
        }
    }
}

/// The closest range decides.
fn quality(ranges: &[Range<'_>], kind: &str) -> f32 {
    let matching = ranges.iter().filter_map(|range| Some((range.closeness(kind)?, range.quality)));
    matching.max_by_key(|(closeness, _)| *closeness).map_or(0.0, |(_, quality)| quality)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::accepts;

    #[test]
    fn the_closest_range_decides() {
        let check = |accept: &str, expected: bool| {
            assert_eq!(accepts(accept, &BTreeSet::from(["application/json".to_owned()])), expected, "{accept}");
        };
        check("*/*", true);
        check("", true);
        check("application/json", true);
        check("Application/JSON; charset=utf-8", true);
        check("text/html, application/*;q=0.1", true);
        check("text/html", false);
        check("application/json;q=0", false);
        check("*/*, application/json;q=0", false);
        check("application/*;q=0, application/json", true);
        check("application/problem+json", false);
    }
}

//! Which images a server can do without.

use super::wire::ListedImage;
use crate::clock::Timestamp;
use chrono::TimeDelta;

/// Which images are not wanted any more, of those that no container was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PruneScope {
    /// Those that have no name.
    Dangling,
    /// All of them.
    Unused,
}

/// Images to be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrunePlan {
    /// These, the biggest first.
    pub remove: Vec<ListedImage>,
    /// How many stay.
    pub kept: usize,
    /// The most that the disk gains, in bytes: what an image shares with one that stays is counted, and stays.
    pub frees_at_most_bytes: u64,
}

/// What has to go. An image that does not say when it was built counts as old.
#[must_use]
pub(super) fn plan(
    images: Vec<ListedImage>,
    scope: PruneScope,
    older_than: Option<TimeDelta>,
    now: Timestamp,
) -> PrunePlan {
    let all = images.len();
    let is_unwanted = |image: &ListedImage| {
        let is_old =
            older_than.is_none_or(|age| image.created_at.is_none_or(|at| now.signed_duration_since(at) >= age));
        image.used_by.is_empty() && is_old && (scope == PruneScope::Unused || image.names.is_empty())
    };
    let mut remove: Vec<ListedImage> = images.into_iter().filter(is_unwanted).collect();
    remove.sort_unstable_by(|one, other| other.size_bytes.cmp(&one.size_bytes).then(one.id.cmp(&other.id)));
    let frees_at_most_bytes = remove.iter().fold(0_u64, |sum, image| sum.saturating_add(image.size_bytes));
    PrunePlan { kept: all - remove.len(), remove, frees_at_most_bytes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{containers::EngineId, testing::START};

    fn image(id: &str, name: Option<&str>, size_bytes: u64, used: bool) -> ListedImage {
        ListedImage {
            id: id.to_owned(),
            names: name.map(str::to_owned).into_iter().collect(),
            digests: Vec::new(),
            platform: None,
            size_bytes,
            created_at: Some(START),
            used_by: if used { vec![EngineId::parse("c1").unwrap()] } else { Vec::new() },
        }
    }

    fn check(scope: PruneScope, older_than: Option<i64>, expected: &[&str]) {
        let images = vec![
            image("used", Some("web:1"), 5, true),
            image("used-nameless", None, 5, true),
            image("named", Some("web:0"), 7, false),
            image("nameless", None, 3, false),
            ListedImage { created_at: None, ..image("ageless", None, 4, false) },
        ];
        let now = START + TimeDelta::hours(2);
        let found = plan(images, scope, older_than.map(TimeDelta::hours), now);
        let ids: Vec<&str> = found.remove.iter().map(|image| image.id.as_str()).collect();
        assert_eq!(ids, expected, "{scope:?} {older_than:?}");
        assert_eq!(found.kept, 5 - expected.len());
        assert_eq!(found.frees_at_most_bytes, found.remove.iter().map(|image| image.size_bytes).sum::<u64>());
    }

    #[test]
    fn nothing_that_is_used_goes() {
        check(PruneScope::Dangling, None, &["ageless", "nameless"]);
        check(PruneScope::Unused, None, &["named", "ageless", "nameless"]);
    }

    #[test]
    fn what_is_young_stays() {
        check(PruneScope::Unused, Some(2), &["named", "ageless", "nameless"]);
        check(PruneScope::Unused, Some(3), &["ageless"]);
    }
}

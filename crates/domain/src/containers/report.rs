//! What is taken of what agents say: an engine's texts come from whoever made its containers, and may be anything.

use super::{
    observed::{Observed, ObservedMount, ObservedNetwork, ObservedPort},
    wire::{ContainerReport, ListedImage, MOST_IN_REPORT, MOST_ON_SERVER},
};
use crate::{Result, error::Checks};
use std::collections::BTreeMap;

/// The longest text of a container that is kept, in characters; what is longer is cut.
const LONGEST: usize = 1_000;
/// The most labels, ports, mounts, networks and arguments of one that are kept.
const MOST_PARTS: usize = 100;

/// Makes sure that a report is not more than agents may say at once.
///
/// # Errors
/// [`crate::Error::Invalid`]
pub(super) fn check(report: &ContainerReport) -> Result<()> {
    let mut checks = Checks::default();
    let mut most = |field: &str, count: usize, most: usize| {
        if count > most {
            checks.note(field, format!("must be at most {most}"));
        }
    };
    most("containers", report.containers.len(), MOST_IN_REPORT);
    most("gone", report.gone.len(), MOST_ON_SERVER);
    most("present", report.present.as_ref().map_or(0, Vec::len), MOST_ON_SERVER);
    most("usage", report.usage.as_ref().map_or(0, Vec::len), MOST_ON_SERVER);
    checks.finish()
}

impl ContainerReport {
    /// The same without what no terminal, export or database should meet.
    #[must_use]
    pub(super) fn sane(self) -> Self {
        Self { containers: self.containers.into_iter().map(Observed::sane).collect(), ..self }
    }
}

impl Observed {
    /// The same without what no terminal, export or database should meet: long texts are cut, control characters
    /// replaced, and of long lists only the beginning is kept.
    #[must_use]
    pub fn sane(self) -> Self {
        Self {
            name: text(self.name),
            image: text(self.image),
            image_id: self.image_id.map(text),
            image_digest: self.image_digest.map(text),
            command: self.command.into_iter().take(MOST_PARTS).map(text).collect(),
            error: self.error.map(text),
            restart_policy: self.restart_policy.map(text),
            ports: self.ports.into_iter().take(MOST_PARTS).map(port).collect(),
            mounts: self.mounts.into_iter().take(MOST_PARTS).map(mount).collect(),
            networks: self.networks.into_iter().take(MOST_PARTS).map(network).collect(),
            labels: labels(self.labels),
            ..self
        }
    }
}

impl ListedImage {
    /// The same with names that are not longer than anybody reads, and without control characters; nothing, if its id is
    /// none that an engine gives.
    #[must_use]
    pub fn sane(self) -> Option<Self> {
        let digest = self.id.strip_prefix("sha256:")?;
        if digest.is_empty() || digest.len() > LONGEST || !digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let names = |names: Vec<String>| names.into_iter().take(MOST_PARTS).map(text).collect();
        let used_by = self.used_by.into_iter().take(MOST_ON_SERVER).collect();
        Some(Self { names: names(self.names), digests: names(self.digests), used_by, ..self })
    }
}

fn labels(labels: BTreeMap<String, String>) -> BTreeMap<String, String> {
    labels.into_iter().take(MOST_PARTS).map(|(name, value)| (text(name), text(value))).collect()
}

fn port(port: ObservedPort) -> ObservedPort {
    ObservedPort { protocol: text(port.protocol), host_ip: port.host_ip.map(text), ..port }
}

fn mount(mount: ObservedMount) -> ObservedMount {
    let ObservedMount { kind, source, target, read_only } = mount;
    ObservedMount { kind: text(kind), source: text(source), target: text(target), read_only }
}

fn network(network: ObservedNetwork) -> ObservedNetwork {
    ObservedNetwork { name: text(network.name), address: network.address.map(text) }
}

/// One line, not longer than anybody reads; control characters are shown as the mark of what cannot be.
fn text(text: String) -> String {
    if text.len() <= LONGEST && !text.chars().any(char::is_control) {
        return text;
    }
    text.chars().take(LONGEST).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(id: &str, name: &str) -> ListedImage {
        ListedImage {
            id: id.to_owned(),
            names: vec![name.to_owned(); 200],
            digests: vec![name.to_owned()],
            platform: None,
            size_bytes: 1,
            created_at: None,
            used_by: Vec::new(),
        }
    }

    #[test]
    fn an_image_is_listed_with_names_that_no_terminal_obeys() {
        let image = listed("sha256:0aF", &format!("\u{1b}[2J{}", "x".repeat(2000))).sane().unwrap();
        let expected = format!("\u{fffd}[2J{}", "x".repeat(996));
        assert_eq!((image.names, image.digests), (vec![expected.clone(); 100], vec![expected]));
    }

    #[test]
    fn what_is_no_image_is_not_listed() {
        for id in ["", "sha256:", "sha256:xyz", "md5:00", "sha256:00\n", "00", &format!("sha256:{}", "0".repeat(1001))]
        {
            assert_eq!(listed(id, "name").sane(), None, "{id}");
        }
    }
}

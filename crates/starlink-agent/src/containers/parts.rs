//! Reports that are not too long for the server.

use domain::containers::{
    Observed,
    wire::{ContainerReport, MOST_IN_REPORT},
};

/// The most bytes of containers in one report; the server takes twice as much.
const MOST_BYTES: usize = 512 * 1024;
/// Of how many containers it is told at once what they use.
pub(super) const MOST_COUNTED: usize = 1_000;

/// Containers that are to be told.
#[derive(Default)]
pub(super) struct Parts {
    containers: Vec<Observed>,
    bytes: usize,
}

impl Parts {
    /// Adds one. Gives what is to be told before.
    pub(super) fn add(&mut self, observed: Observed) -> Option<ContainerReport> {
        let bytes = serde_json::to_vec(&observed).map_or(0, |json| json.len());
        let is_full = self.containers.len() >= MOST_IN_REPORT || self.bytes + bytes > MOST_BYTES;
        let full = (is_full && !self.containers.is_empty()).then(|| std::mem::take(self).rest());
        self.containers.push(observed);
        self.bytes += bytes;
        full
    }

    /// What is left to be told.
    pub(super) fn rest(self) -> ContainerReport {
        ContainerReport { containers: self.containers, ..empty() }
    }
}

/// A report of nothing.
pub(super) fn empty() -> ContainerReport {
    ContainerReport { session: String::new(), containers: Vec::new(), gone: Vec::new(), present: None, usage: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn container(id: usize, label: usize) -> Observed {
        serde_json::from_value(json!({
            "engine_id": format!("c{id}"), "name": "web", "image": "web:1", "state": "running",
            "labels": { "l": "x".repeat(label) },
        }))
        .unwrap()
    }

    #[test]
    fn reports_are_short_and_nothing_is_left_out() {
        let mut parts = Parts::default();
        let sizes = (0..250).map(|id| if id % 3 == 0 { 100_000 } else { 10 });
        let mut reports: Vec<ContainerReport> =
            sizes.enumerate().filter_map(|(id, size)| parts.add(container(id, size))).collect();
        reports.push(parts.rest());
        let told: Vec<String> =
            reports.iter().flat_map(|report| &report.containers).map(|told| told.engine_id.to_string()).collect();
        assert_eq!(told, (0..250).map(|id| format!("c{id}")).collect::<Vec<_>>());
        for report in &reports {
            let length = serde_json::to_vec(report).unwrap().len();
            assert!(report.containers.len() <= MOST_IN_REPORT && length <= 2 * MOST_BYTES, "{length}");
        }
    }

    #[test]
    fn one_that_is_too_long_goes_alone() {
        let mut parts = Parts::default();
        assert!(parts.add(container(1, 600_000)).is_none());
        assert_eq!(parts.add(container(2, 1)).unwrap().containers.len(), 1);
        assert_eq!(parts.rest().containers.len(), 1);
    }
}

//! Which GPUs a container gets. The engine itself would give the first ones to every container that asks for a number.

use super::{DockerDriver, INSTALLATION, engine::Trouble};
use crate::work::Failure;
use bollard::{
    Docker,
    models::{ContainerSummary, ContainerSummaryStateEnum},
    query_parameters::ListContainersOptions,
};
use domain::scheduling::reason;
use std::collections::{BTreeSet, HashMap};

/// The numbers of the GPUs that a container holds.
const LABEL: &str = "org.starlink.gpus";

pub(super) fn label(gpus: &[String]) -> Option<(String, String)> {
    (!gpus.is_empty()).then(|| (LABEL.to_owned(), gpus.join(",")))
}

impl DockerDriver {
    /// So many GPUs that no other container of any installation holds. Until the container is made, nobody else may ask.
    pub(super) async fn free_gpus(&self, wanted: i64) -> Result<Vec<String>, Failure> {
        let filters = HashMap::from([("label".to_owned(), vec![INSTALLATION.to_owned()])]);
        let options = ListContainersOptions { all: true, filters: Some(filters), ..ListContainersOptions::default() };
        let list = |client: Docker| {
            let options = options.clone();
            async move { client.list_containers(Some(options)).await }
        };
        let containers = self.patiently(list).await;
        let containers = containers.map_err(|trouble: Trouble| trouble.into_failure(reason::START_FAILED))?;
        choose(wanted, crate::inventory::gpus(&self.options.root), &held(&containers))
    }
}

/// What is held: a container that has ended, and will not begin again, holds none.
fn held(containers: &[ContainerSummary]) -> BTreeSet<i64> {
    let over = [ContainerSummaryStateEnum::EXITED, ContainerSummaryStateEnum::DEAD];
    let live = containers.iter().filter(|one| one.state.is_none_or(|state| !over.contains(&state)));
    let labels = live.filter_map(|one| one.labels.as_ref()?.get(LABEL));
    labels.flat_map(|label| label.split(',')).filter_map(|number| number.parse().ok()).collect()
}

fn choose(wanted: i64, there: i64, held: &BTreeSet<i64>) -> Result<Vec<String>, Failure> {
    let free: Vec<i64> = (0..there).filter(|number| !held.contains(number)).collect();
    let count = usize::try_from(wanted).unwrap_or(0);
    let chosen = free.get(..count).ok_or_else(|| {
        let detail = format!("it needs {wanted} GPUs, and {} of the {there} of this server are free", free.len());
        Failure::new(reason::START_FAILED, detail)
    })?;
    Ok(chosen.iter().map(i64::to_string).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(state: ContainerSummaryStateEnum, gpus: Option<&str>) -> ContainerSummary {
        let labels = gpus.map(|gpus| HashMap::from([(LABEL.to_owned(), gpus.to_owned())]));
        ContainerSummary { state: Some(state), labels, ..ContainerSummary::default() }
    }

    #[test]
    fn two_containers_never_share_a_gpu() {
        let containers = [
            container(ContainerSummaryStateEnum::RUNNING, Some("0")),
            container(ContainerSummaryStateEnum::CREATED, Some("2,3")),
            container(ContainerSummaryStateEnum::EXITED, Some("1")),
            container(ContainerSummaryStateEnum::RUNNING, None),
        ];
        let held = held(&containers);
        assert_eq!(held, BTreeSet::from([0, 2, 3]));
        assert_eq!(choose(2, 5, &held).unwrap(), ["1", "4"]);
        let failure = choose(3, 5, &held).unwrap_err();
        assert_eq!(failure.detail, "it needs 3 GPUs, and 2 of the 5 of this server are free");
        assert_eq!(choose(0, 0, &held).unwrap(), Vec::<String>::new());
    }
}

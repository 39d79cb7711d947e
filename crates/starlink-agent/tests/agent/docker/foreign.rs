//! What belongs to somebody else is not touched.

use super::bed::{Bed, inspect, reason, shell};
use crate::engine::{images::BUSYBOX, shared};
use bollard::{
    Docker,
    models::ContainerCreateBody,
    query_parameters::{CreateContainerOptions, RemoveContainerOptions},
};
use starlink_agent::{
    drivers::Driver,
    work::{Work, WorkId},
};
use std::{collections::HashMap, time::Duration};

/// Somebody makes a container and has it running.
async fn make(client: &Docker, name: &str, labels: HashMap<String, String>) -> String {
    let options = CreateContainerOptions { name: Some(name.to_owned()), ..Default::default() };
    let body = ContainerCreateBody {
        image: Some(BUSYBOX.to_owned()),
        cmd: Some(vec!["sleep".to_owned(), "600".to_owned()]),
        labels: Some(labels),
        ..Default::default()
    };
    let id = client.create_container(Some(options), body).await.unwrap().id;
    client.start_container(&id, None).await.unwrap();
    id
}

async fn remove(client: &Docker, id: &str) {
    client.remove_container(id, Some(RemoveContainerOptions { force: true, ..Default::default() })).await.unwrap();
}

fn labels(installation: &str, task: &str) -> HashMap<String, String> {
    let labels = [("installation", installation), ("task", task), ("attempt", "1")];
    labels.map(|(name, value)| (format!("org.starlink.{name}"), value.to_owned())).into()
}

#[tokio::test]
async fn a_container_of_that_name_that_we_did_not_make_is_left_alone() {
    let Some(engine) = shared() else { return };
    let (bed, client) = (Bed::on(engine), engine.client());
    for labels in [HashMap::new(), labels("other", "1"), labels(&bed.installation, "2")] {
        let work = bed.work(1, shell("true"));
        let id = make(&client, &work.id.to_string(), labels).await;
        let failure = bed.driver.start(&work, &|_| {}).await.unwrap_err();
        assert_eq!(failure.reason, "start_failed");
        assert!(failure.detail.contains(&work.id.to_string()), "{failure}");
        let exit = bed.end(&work).await;
        assert_eq!((reason(&exit), exit.lost), (Some("agent_lost"), true));
        bed.driver.stop(&work, Duration::ZERO).await.unwrap();
        bed.driver.remove(&work).await.unwrap();
        assert_eq!(bed.driver.found(&bed.installation).await.unwrap(), []);
        let container = inspect(&client, &work).await;
        assert_eq!((container.id.as_deref(), container.state.unwrap().running), (Some(id.as_str()), Some(true)));
        remove(&client, &id).await;
    }
}

#[tokio::test]
async fn each_installation_finds_its_own() {
    let Some(engine) = shared() else { return };
    let (one, other) = (Bed::on(engine), Bed::on(engine));
    let (first, second) = (one.start(1, shell("sleep 60")).await, one.start(2, shell("true")).await);
    let third = other.start(1, shell("sleep 60")).await;
    // One with all the right labels under a wrong name: its image may have been made of a container of ours.
    let copy = make(&engine.client(), &format!("copy-of-{}", first.id), labels(&one.installation, "1")).await;
    one.end(&second).await;
    let mut found = one.driver.found(&one.installation).await.unwrap();
    found.sort();
    assert_eq!(found, [first.id.clone(), second.id.clone()]);
    assert_eq!(other.driver.found(&other.installation).await.unwrap(), std::slice::from_ref(&third.id));
    // The same task and attempt of another installation is another name.
    let theirs = Work { id: WorkId { installation: one.installation.clone(), ..third.id.clone() }, ..third.clone() };
    assert_ne!(theirs.id, third.id);
    for work in [&first, &second] {
        one.driver.remove(work).await.unwrap();
    }
    assert_eq!(one.driver.found(&one.installation).await.unwrap(), []);
    assert_eq!(inspect(&engine.client(), &third).await.state.unwrap().running, Some(true));
    other.driver.remove(&third).await.unwrap();
    remove(&engine.client(), &copy).await;
}

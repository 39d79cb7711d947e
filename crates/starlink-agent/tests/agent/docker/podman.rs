//! Where Podman differs from Docker, behind the same questions; played, with the words of its version 4.3.

use super::bed::{Bed, container, in_time};
use crate::engine::fake::{Fake, Request, Response};
use serde_json::{Value, json};
use starlink_agent::drivers::Driver;
use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

const NO_INIT: &str = "container create: container-init binary not found on the host: stat \
                       /usr/libexec/podman/catatonit: no such file or directory";

fn has_init(request: &Request) -> bool {
    serde_json::from_str::<Value>(&request.body).unwrap()["HostConfig"]["Init"] == true
}

#[tokio::test]
async fn without_an_init_containers_are_made_nevertheless() {
    let fake = Fake::start(|request| {
        if request.line.starts_with("GET /version") {
            Response::json(200, &json!({ "Arch": "amd64" }))
        } else if request.line.starts_with("GET /images/") {
            Response::json(200, &json!({ "Architecture": "amd64" }))
        } else if request.line.starts_with("POST /containers/create") {
            let (status, said) = if has_init(request) {
                (500, json!({ "message": NO_INIT }))
            } else {
                (201, json!({ "Id": "0a1b", "Warnings": [] }))
            };
            Response::json(status, &said)
        } else if request.line.contains("/start") {
            Response { pieces: Vec::new(), ..Response::json(204, &Value::Null) }
        } else {
            Response::missing()
        }
    });
    Bed::at(&fake.socket(), |_| {}).start(1, container("x", &[])).await;
    let made = fake.requests().into_iter().filter(|request| request.line.starts_with("POST /containers/create"));
    assert_eq!(made.map(|request| has_init(&request)).collect::<Vec<_>>(), [true, false]);
}

#[tokio::test]
async fn a_container_that_cannot_be_changed_is_stopped_all_the_same() {
    let installation = Arc::new(OnceLock::<String>::new());
    let (name, stopped) = (Arc::clone(&installation), AtomicBool::new(false));
    let fake = Fake::start(move |request| {
        if request.line.contains("/update") {
            // The page for what is at no path of its API.
            Response::missing()
        } else if request.line.contains("/stop") {
            stopped.store(true, Ordering::Relaxed);
            Response { pieces: Vec::new(), ..Response::json(204, &Value::Null) }
        } else {
            let running = !stopped.load(Ordering::Relaxed);
            super::played::inspected(name.get().unwrap(), if running { "running" } else { "exited" })
        }
    });
    let bed = Bed::at(&fake.socket(), |_| {});
    installation.set(bed.installation.to_string()).unwrap();
    let work = bed.work(1, container("x", &[]));
    in_time("the stop", bed.driver.stop(&work, Duration::from_secs(1))).await.unwrap();
    assert!(fake.requests().iter().any(|request| request.line.contains("/stop")), "{:?}", fake.requests());
}

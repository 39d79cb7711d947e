//! A machine loses its network for longer than it may, and gets it back.

use super::support::{Site, check_end, container_ends, process_ends, unasked};
use crate::agents::support::{available, becomes, check_books, server_becomes, shell, shown, trail};
use serde_json::json;
use tests::{Backend, machines};

#[tokio::test]
async fn what_ran_on_a_machine_that_was_cut_off_is_unknown_until_it_is_back() {
    let Some(machines) = machines() else { return };
    let mut machine = machines.alone(1).await;
    let site = Site::start(machines, Backend::Sqlite, &["--agent-grace-seconds", "2"]);
    let admin = site.admin();
    let agent = site.agent(&machine, "b").await;
    let free = available(&admin, 1).await;
    let short = [
        (site.container(&site.waiting("container", "exit 4"), json!({})).await, "container", 4),
        (shell(&admin, &site.waiting("process", "exit 5"), json!({})).await, "process", 5),
    ];
    let long = [
        (site.container(&site.waiting("long-container", "exit 6"), json!({})).await, "long-container", 6),
        (shell(&admin, &site.waiting("long-process", "exit 0"), json!({})).await, "long-process", 0),
    ];
    for (task, name, _) in short.iter().chain(&long) {
        site.runs(*task, name).await;
    }
    machine.cut();
    server_becomes(&admin, 1, "offline").await;
    for (task, ..) in short.iter().chain(&long) {
        let lost = becomes(&admin, *task, "unknown").await;
        assert_eq!(lost.at("/reason"), "contact_lost", "{}", lost.text);
    }
    assert!((available(&admin, 1).await - (free - 0.4)).abs() < 1e-9, "their room is kept");
    check_books(&admin).await;
    let later = site.container(&site.waiting("later", "exit 0"), unasked()).await;
    for (_, name, _) in &short {
        site.open(name);
    }
    container_ends(&machine, &agent, short[0].0).await;
    process_ends(&agent, short[1].0).await;
    for (task, ..) in short {
        assert_eq!(shown(&admin, task).await.at("/status"), "unknown", "nobody can know that it has ended");
    }
    assert_eq!(shown(&admin, later).await.at("/status"), "pending");

    machine.join();
    server_becomes(&admin, 1, "online").await;
    for (task, name, code) in short {
        check_end(&site, task, name, code).await;
    }
    for (task, name, _) in long {
        becomes(&admin, task, "running").await;
        site.open(name);
    }
    site.open("later");
    for (task, name, code) in long {
        check_end(&site, task, name, code).await;
        assert!(trail(&admin, &format!("task:{task}")).await.contains(&"task.lost".to_owned()));
    }
    check_end(&site, later, "later", 0).await;
    site.check_at_rest(&[(&machine, &agent)]).await;
}

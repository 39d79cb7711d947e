//! A fleet of `x86_64`, arm64 and riscv64, and containers of all three: what an image was not built for never starts there.
//!
//! The machines for arm64 and riscv64 are as real as one machine allows: agent, container engine and containers are
//! programs for that architecture, which QEMU runs. What is printed says which (`cargo test … -- --nocapture`).

mod fleet;
mod table;
mod tasks;

use super::support::Site;
use crate::{
    agents::support::{attempt, becomes, ended, shown},
    support::{total, walk},
};
use fleet::{Bench, Fleet};
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::time::Duration;
use table::{Outcome, Row};
use tasks::{ARM64, Demand, IMAGES, RISCV64};
use tests::{Client, eventually};

/// So many tasks are posted while nothing is placed, and begin to end once all that fit are placed.
const WAVES: usize = 8;
const WAVE: usize = 25;
/// Between two looks at a wave.
const PAUSE: Duration = Duration::from_millis(50);

#[tokio::test]
async fn two_hundred_tasks_start_only_where_their_image_can_run() {
    let Some(bench) = Bench::start().await else { return };
    let machines = bench.machines.all_shared().await;
    let fleet = Fleet::join(&bench, machines).await;
    tell(&fleet.told());
    let demands = Demand::all(WAVES * WAVE);
    let mut rows = Vec::new();
    for (number, wave) in demands.chunks(WAVE).enumerate() {
        rows.extend(run(&bench, &fleet, number, wave).await);
    }
    tell(&table::told(&rows));
    for row in &rows {
        row.check();
    }
    check_variety(&fleet, &rows);
    fleet.check_at_rest(&bench.site).await;
    check_refused(&bench).await;
    check_pending(&bench, &fleet).await;
    fleet.check_at_rest(&bench.site).await;
}

#[expect(clippy::print_stderr, reason = "shown with --nocapture, and where the test fails")]
fn tell(text: &str) {
    eprintln!("{text}");
}

/// Posts a wave to a fleet that does nothing, and follows it to its end.
async fn run<'a>(bench: &Bench, fleet: &'a Fleet<'_>, number: usize, wave: &[Demand]) -> Vec<Row<'a>> {
    let admin = bench.site.admin();
    let gate = format!("wave-{number}");
    let mut tasks = Vec::new();
    for demand in wave {
        let body = demand.body(&bench.registry, fleet.unit, &bench.site.tally.file(&gate));
        tasks.push((admin.post("/tasks", body).await.expect(201).id(), *demand));
    }
    let placed = eventually("all that fits to be placed", async || settled(&admin, fleet, &tasks).await).await;
    // No room can have become free until now.
    std::fs::write(bench.site.tally.file(&gate), "").unwrap();
    wait_for_end(&admin).await;
    let rows = tasks.into_iter().zip(placed);
    join_all(rows.map(|((task, demand), at_once)| row(&admin, fleet, task, demand, at_once))).await
}

/// Waits until all tasks have ended. None goes back to what it was before.
async fn wait_for_end(admin: &Client) {
    for status in ["pending", "scheduled", "running"] {
        eventually(&format!("no task to be {status}"), async || {
            // To ask without a pause would take what the machines need.
            tokio::time::sleep(PAUSE).await;
            (total(admin, &format!("/tasks?status={status}&limit=1")).await == 0).then_some(())
        })
        .await;
    }
}

/// Where each task was placed, once there is no other that a server has room for; tasks come in the order of their age.
async fn settled(admin: &Client, fleet: &Fleet<'_>, tasks: &[(i64, Demand)]) -> Option<Vec<Option<i64>>> {
    let mut free = fleet.room();
    let mut placed = Vec::new();
    for (task, demand) in tasks {
        let best = fleet.best(*demand, &free);
        let now = shown(admin, *task).await;
        let Some(server) = now.at("/server_id").as_i64() else {
            let reasons = now.at("/pending_reasons");
            let is_full = |reason: &Value| reason["code"] == "insufficient_cpu";
            if !best.is_empty() || !reasons.as_array()?.iter().any(is_full) {
                return None;
            }
            placed.push(None);
            continue;
        };
        let names: Vec<&str> = best.iter().map(|server| server.name).collect();
        let chosen = fleet.server(server).name;
        assert!(names.contains(&chosen), "{demand:?} went to {chosen}, while there was room on {names:?}");
        *free.get_mut(&server).unwrap() -= demand.units;
        placed.push(Some(server));
    }
    Some(placed)
}

/// What became of a task.
async fn row<'a>(admin: &Client, fleet: &'a Fleet<'_>, task: i64, demand: Demand, at_once: Option<i64>) -> Row<'a> {
    let attempts = walk(admin, &format!("/tasks/{task}/attempts")).await;
    let [attempt] = &attempts[..] else { panic!("task {task} was tried several times: {attempts:?}") };
    let server = attempt["server_id"].as_i64().unwrap();
    assert!(at_once.is_none_or(|there| there == server), "task {task} was placed on {at_once:?}, and ran on {server}");
    assert_eq!(attempt["exit_code"], 0, "task {task}: {attempt}");
    let said = admin.get(&format!("/tasks/{task}/logs?stream=stdout")).await.expect(200).text;
    let outcome = if at_once.is_some() { Outcome::AtOnce } else { Outcome::AfterWaiting };
    Row { task, demand, server: fleet.server(server), outcome, said: said.trim_end().to_owned() }
}

/// The tasks were such that everything has happened that may.
fn check_variety(fleet: &Fleet<'_>, rows: &[Row<'_>]) {
    assert_eq!(rows.len(), WAVES * WAVE);
    for server in &fleet.servers {
        let ran = |row: &&Row<'_>| row.server.name == server.name;
        assert!(rows.iter().filter(ran).count() >= WAVES, "{} had nearly nothing to do", server.name);
        for kind in server.emulates {
            let emulated = |row: &Row<'_>| row.server.name == server.name && row.said == kind.machine;
            assert!(rows.iter().any(emulated), "{} has emulated no {}", server.name, kind.machine);
        }
    }
    for outcome in [Outcome::AtOnce, Outcome::AfterWaiting] {
        assert!(rows.iter().any(|row| row.outcome == outcome), "{outcome:?}");
    }
    let spared = |row: &Row<'_>| row.demand.allow_emulation && !row.is_emulated();
    assert!(rows.iter().any(spared), "what may be emulated runs natively where there is room");
}

/// What the image does not have is refused at the door.
async fn check_refused(bench: &Bench) {
    let admin = bench.site.admin();
    let tasks = total(&admin, "/tasks").await;
    for demand in Demand::impossible() {
        let body = demand.body(&bench.registry, 0.1, &bench.site.tally.file("none"));
        let refused = admin.post("/tasks", body).await.expect(400);
        assert_eq!(refused.at("/errors/0/field"), "required_architecture", "{}", refused.text);
        let told = refused.at("/errors/0/reason");
        assert!(told.as_str().unwrap().contains(&demand.image.told()), "{}", refused.text);
    }
    assert_eq!(total(&admin, "/tasks").await, tasks);
}

/// In a pool that has nothing for its image, a task waits, and says what the one has and the other.
async fn check_pending(bench: &Bench, fleet: &Fleet<'_>) {
    let admin = bench.site.admin();
    let image = IMAGES.into_iter().find(|image| image.kinds() == [ARM64, RISCV64]).unwrap();
    let post = async |allow_emulation: bool| {
        let demand = Demand { image, stated: None, allow_emulation, units: 1 };
        let mut body = demand.body(&bench.registry, fleet.unit, &bench.site.tally.file("wave-0"));
        body["pool_id"] = json!(fleet.pool);
        admin.post("/tasks", body).await.expect(201).id()
    };
    let waiting = post(false).await;
    // The scheduler has been at it, since it has placed a younger one.
    let emulated = post(true).await;
    assert_eq!(ended(&admin, emulated).await.at("/status"), "completed");
    let ran = attempt(&admin, emulated).await["server_id"].as_i64().unwrap();
    assert_eq!(fleet.server(ran).name, "x86-emulating");

    let now = shown(&admin, waiting).await;
    assert_eq!((now.at("/status"), now.at("/attempt")), (json!("pending"), json!(0)), "{}", now.text);
    let reasons = now.at("/pending_reasons");
    tell(&format!("task {waiting}, image {}, in a pool of x86_64 alone:\n{reasons:#}", image.told()));
    let told: Vec<_> = reasons.as_array().unwrap().iter().map(|reason| (&reason["code"], &reason["detail"])).collect();
    let has = format!("is x86_64, the task's image has {}", image.told());
    assert!(told.contains(&(&json!("architecture_mismatch"), &json!(has))), "{reasons}");
    let could = "is x86_64 and could only emulate arm64 or riscv64, which the task does not allow";
    assert!(told.contains(&(&json!("emulation_not_allowed"), &json!(could))), "{reasons}");
    admin.post_empty(&format!("/tasks/{waiting}/cancel")).await.expect(200);
    becomes(&admin, waiting, "cancelled").await;
}

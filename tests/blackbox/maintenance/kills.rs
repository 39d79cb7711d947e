//! The server is killed while windows begin, are in progress, or should be: what they do to servers is whole, and
//! goes on after the restart.

use super::{begin, end, plan, registered, status_of, trail, window, window_becomes};
use crate::{on_both, server};
use serde_json::{Value, json};
use tests::{Backend, Sql, eventually};

on_both!(
    a_window_outlives_a_kill_and_ends_at_its_time,
    a_window_that_should_have_ended_meanwhile_ends_after_the_restart,
    a_kill_at_its_start_leaves_no_window_half_begun,
    a_window_that_was_missed_says_so,
);

async fn a_window_outlives_a_kill_and_ends_at_its_time(backend: Backend) {
    let mut server = server(backend);
    let admin = server.admin();
    let [timed, held] = [registered(&admin, "a", "online").await, registered(&admin, "b", "provisioning").await];
    let short = plan(&admin, timed, window(-52.0, 1)).await.id();
    let long = begin(&admin, held).await;
    server.kill();
    server.restart();
    let admin = server.admin();
    assert_eq!(admin.get(&format!("/maintenance/{long}")).await.expect(200).at("/status"), "in_progress");
    assert_eq!(status_of(&admin, held).await, "maintenance");
    let ended = window_becomes(&admin, short, "completed").await;
    assert!(ended.at("/started_at").is_string() && ended.at("/ended_at").is_string(), "{}", ended.text);
    assert_eq!(status_of(&admin, timed).await, "online");
    server.kill();
    server.restart();
    let admin = server.admin();
    end(&admin, long).await;
    assert_eq!(status_of(&admin, held).await, "provisioning", "what it was before is not forgotten");
    assert_eq!(admin.get("/audit/verify").await.at("/valid"), true);
}

async fn a_window_that_should_have_ended_meanwhile_ends_after_the_restart(backend: Backend) {
    let mut server = server(backend);
    let admin = server.admin();
    let edge = registered(&admin, "edge-1", "offline").await;
    let id = begin(&admin, edge).await;
    server.kill();
    shift(&mut server.sql(), id, "started_at_us");
    server.restart();
    let admin = server.admin();
    let ended = window_becomes(&admin, id, "completed").await;
    assert!(ended.at("/started_at").is_string() && ended.at("/ended_at").is_string(), "{}", ended.text);
    assert_eq!(ended.at("/note"), Value::Null);
    assert_eq!(status_of(&admin, edge).await, "offline");
}

/// Lets a day pass for a window while nobody is at work.
fn shift(sql: &mut Sql, id: i64, also: &str) {
    let day = 86_400_000_000_i64;
    sql.run(&format!(
        "UPDATE maintenance_windows SET scheduled_for_us = scheduled_for_us - {day}, due_at_us = due_at_us - {day}, \
         {also} = {also} - {day} WHERE id = {id}"
    ));
}

const SERVERS: usize = 12;
const ROUNDS: usize = 4;

async fn a_kill_at_its_start_leaves_no_window_half_begun(backend: Backend) {
    let mut server = server(backend);
    let admin = server.admin();
    let mut servers = Vec::new();
    for n in 0..SERVERS {
        servers.push(registered(&admin, &format!("s{n}"), "online").await);
    }
    for round in 0..ROUNDS {
        let admin = server.admin();
        let body = window(1.0, 60);
        let mut windows = Vec::new();
        for on in &servers {
            windows.push(plan(&admin, *on, body.clone()).await.id());
        }
        // From the first to the last of those that begin: each time at another moment.
        let enough = 1 + round * SERVERS / ROUNDS;
        eventually("windows to begin", async || {
            let begun = admin.get("/maintenance?status=in_progress").await.expect(200);
            (begun.json.as_array().unwrap().len() >= enough).then_some(())
        })
        .await;
        server.kill();
        check_whole(&mut server.sql());
        server.restart();
        let admin = server.admin();
        for (id, on) in windows.iter().zip(&servers) {
            window_becomes(&admin, *id, "in_progress").await;
            assert_eq!(status_of(&admin, *on).await, "maintenance");
            end(&admin, *id).await;
            assert_eq!(status_of(&admin, *on).await, "online");
        }
    }
    let admin = server.admin();
    let turns = ["server.enter_maintenance", "server.leave_maintenance"].repeat(ROUNDS);
    for on in servers {
        let actions = trail(&admin, &format!("server:{on}")).await;
        assert_eq!(actions[1..], turns.iter().map(|turn| json!(turn)).collect::<Vec<_>>());
    }
    assert_eq!(admin.get("/audit/verify").await.at("/valid"), true);
}

/// What is in the database while nobody is at work: a window is in progress just where a server is in maintenance.
fn check_whole(sql: &mut Sql) {
    let windows = "FROM maintenance_windows WHERE status = 'in_progress'";
    let alone = format!("servers WHERE status = 'maintenance' AND id NOT IN (SELECT server_id {windows})");
    assert_eq!(sql.count(&alone), 0, "in maintenance without a window");
    let in_use = format!("servers WHERE status <> 'maintenance' AND id IN (SELECT server_id {windows})");
    assert_eq!(sql.count(&in_use), 0, "in use while a window is in progress");
    let starts = "(SELECT count(*) FROM audit_logs WHERE action = 'maintenance.start' \
                  AND target = 'maintenance:' || CAST(maintenance_windows.id AS TEXT))";
    let unrecorded = format!("maintenance_windows WHERE (started_at_us IS NOT NULL) <> ({starts} = 1)");
    assert_eq!(sql.count(&unrecorded), 0, "begun without a row, or a row without a beginning");
}

async fn a_window_that_was_missed_says_so(backend: Backend) {
    let mut server = server(backend);
    let admin = server.admin();
    let edge = registered(&admin, "edge-1", "online").await;
    let id = plan(&admin, edge, window(600.0, 5)).await.id();
    server.kill();
    shift(&mut server.sql(), id, "created_at_us");
    server.restart();
    let admin = server.admin();
    let missed = window_becomes(&admin, id, "completed").await;
    assert_eq!((missed.at("/started_at"), missed.at("/ended_at")), (Value::Null, Value::Null));
    assert!(missed.at("/note").as_str().unwrap().contains("was not taken out of use"), "{}", missed.text);
    let row = admin.get(&format!("/audit/logs?target=maintenance:{id}&limit=1")).await.expect(200);
    assert_eq!((row.at("/0/action"), row.at("/0/message")), (json!("maintenance.complete"), missed.at("/note")));
    let untouched = admin.get(&format!("/servers/{edge}")).await.expect(200);
    assert_eq!((untouched.at("/status"), untouched.at("/revision")), (json!("online"), json!(1)));
}

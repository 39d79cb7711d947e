//! The server is killed while it places tasks: what was acknowledged is there, and nothing is reserved twice.

use super::support::{TaskDraft, becomes, check_books, online, task};
use crate::{
    on_both, server,
    support::{total, walk},
};
use reqwest::Method;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};
use tests::{Backend, Client, Server, Sql, eventually};

on_both!(acknowledged_dispatches_survive_ten_kills);

const KILLS: usize = 10;
const CLIENTS: usize = 32;
/// Dispatches in each round, and how many of them are of tasks that the scheduler finds at the same time.
const DISPATCHES: usize = 200;
const WAITING: usize = 60;

/// What one round asks for, and what was acknowledged of it: the server of each task.
struct Load {
    waiting: Vec<i64>,
    next: AtomicUsize,
    acknowledged: Mutex<BTreeMap<i64, i64>>,
}

impl Load {
    fn count(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    /// Dispatches tasks, those that wait first and then new ones, until all are done or nobody answers.
    async fn run(self: Arc<Self>, admin: Client, round: usize) {
        loop {
            let n = self.next.fetch_add(1, Ordering::Relaxed);
            if n >= DISPATCHES {
                return;
            }
            let id = if let Some(id) = self.waiting.get(n) {
                *id
            } else {
                let request = admin.request(Method::POST, "/tasks").json(&small(&format!("r{round}-{n}")).0);
                let Ok(made) = Client::try_send(request).await else { return };
                made.expect(201).id()
            };
            let Ok(answer) = Client::try_send(dispatch(&admin, id)).await else { return };
            let answer = answer.expect(200);
            assert_eq!(answer.at("/status"), "scheduled");
            self.acknowledged.lock().unwrap().insert(id, answer.at("/server_id").as_i64().unwrap());
        }
    }
}

fn small(name: &str) -> TaskDraft {
    task(name).cpu(0.1)
}

fn dispatch(admin: &Client, id: i64) -> reqwest::RequestBuilder {
    admin.request(Method::POST, &format!("/tasks/{id}/dispatch")).header("idempotency-key", format!("d{id}"))
}

/// Tasks that wait for two servers, which are opened with the last word.
async fn wait_for_room(admin: &Client, servers: &[i64], round: usize) -> Vec<i64> {
    for server in servers {
        admin.post_empty(&format!("/servers/{server}/cordon")).await.expect(200);
    }
    let mut waiting = Vec::new();
    for n in 0..WAITING {
        waiting.push(small(&format!("r{round}-w{n}")).post(admin).await);
    }
    for server in servers {
        admin.post_empty(&format!("/servers/{server}/uncordon")).await.expect(200);
    }
    waiting
}

async fn acknowledged_dispatches_survive_ten_kills(backend: Backend) {
    let mut server = server(backend);
    let admin = server.admin();
    let servers = [online(&admin, "a", 500.0).await, online(&admin, "b", 500.0).await];
    let mut everything = BTreeMap::new();
    for round in 0..KILLS {
        let admin = server.admin();
        let waiting = wait_for_room(&admin, &servers, round).await;
        let load = Arc::new(Load { waiting, next: AtomicUsize::new(0), acknowledged: Mutex::default() });
        let clients: Vec<_> = (0..CLIENTS).map(|_| tokio::spawn(load.clone().run(admin.clone(), round))).collect();
        // From the first acknowledged dispatches to the last: each time at another moment.
        let enough = 1 + round * (DISPATCHES - CLIENTS) / KILLS;
        eventually("dispatches to be acknowledged", async || (load.count() >= enough).then_some(())).await;
        server.kill();
        for client in clients {
            client.await.unwrap();
        }
        everything.extend(load.acknowledged.lock().unwrap().clone());
        check_stored(&mut server.sql(), &everything);
        server.restart();
        check_kept(&server, &everything).await;
    }
    assert!(everything.len() > KILLS * CLIENTS, "{} dispatches are too few to show anything", everything.len());
}

/// What is in the database while nobody is at work.
fn check_stored(sql: &mut Sql, acknowledged: &BTreeMap<i64, i64>) {
    let held =
        sql.texts("SELECT CAST(task_id AS TEXT) || ' ' || CAST(server_id AS TEXT) AS value FROM attempts WHERE held");
    let pair = |text: &String| {
        text.split_once(' ').map(|(id, server)| (id.parse().unwrap(), server.parse().unwrap())).unwrap()
    };
    let holders: BTreeMap<i64, i64> = held.iter().map(pair).collect();
    assert_eq!(held.len(), holders.len(), "a task holds room twice");
    let lost: Vec<_> = acknowledged.iter().filter(|(id, server)| holders.get(*id) != Some(*server)).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    let sums = "COALESCE((SELECT SUM(cpu_millis) FROM attempts WHERE held AND server_id = servers.id), 0)";
    assert_eq!(sql.count(&format!("servers WHERE reserved_cpu_millis <> {sums}")), 0, "reserved is not what is held");
    let rows = "(SELECT count(*) FROM audit_logs WHERE action = 'task.dispatch' AND outcome = 'success' \
                AND target = 'task:' || CAST(tasks.id AS TEXT))";
    assert_eq!(sql.count(&format!("tasks WHERE attempt <> {rows}")), 0, "a placement and its audit row go together");
}

/// After the restart: the same, and what was left waiting is placed.
async fn check_kept(server: &Server, acknowledged: &BTreeMap<i64, i64>) {
    let admin = server.admin();
    check_books(&admin).await;
    for (id, on) in acknowledged.iter().rev().take(3) {
        let again = Client::send(dispatch(&admin, *id)).await.expect(200);
        assert_eq!((again.id(), again.at("/server_id"), again.at("/attempt")), (*id, Value::from(*on), Value::from(1)));
    }
    eventually("the rest to be placed", async || (total(&admin, "/tasks?status=pending").await == 0).then_some(()))
        .await;
    let tasks = walk(&admin, "/tasks?limit=1000").await;
    assert!(tasks.iter().all(|row| row["status"] == "scheduled" && row["attempt"] == 1));
    let servers = walk(&admin, "/servers").await;
    let [reserved, held] = [(&servers, "reserved_cpu"), (&tasks, "required_cpu")]
        .map(|(rows, member)| rows.iter().map(|row| row[member].as_f64().unwrap()).sum::<f64>());
    assert!((reserved - held).abs() < 1e-6, "{reserved} cores reserved for {held}");
    check_books(&admin).await;
    becomes(&admin, *acknowledged.keys().next().unwrap(), "scheduled").await;
}

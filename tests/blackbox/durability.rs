//! What was acknowledged is there after the process was killed, with its audit row and nothing else.

use crate::{PROGRAM, on_both, server};
use reqwest::Method;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};
use tests::{Answer, Backend, Client, Server, ServerOptions, Sql, eventually, fresh_postgres, shared_postgres};

on_both!(acknowledged_writes_survive_ten_kills);

/// How often the server is killed, and what it is doing meanwhile.
const KILLS: usize = 10;
const CLIENTS: usize = 32;
const WRITES: usize = 500;

/// Writes of many clients at once: what was asked for, and what was acknowledged.
#[derive(Default)]
struct Load {
    next: AtomicUsize,
    sent: Mutex<Vec<String>>,
    acknowledged: Mutex<BTreeMap<String, i64>>,
}

impl Load {
    fn acknowledged(&self) -> BTreeMap<String, i64> {
        self.acknowledged.lock().unwrap().clone()
    }

    /// Creates servers named `{prefix}-{n}`, each under its name as idempotency key, until all are made or nobody answers.
    async fn run(self: Arc<Self>, admin: Client, prefix: String) {
        loop {
            let n = self.next.fetch_add(1, Ordering::Relaxed);
            if n >= WRITES {
                return;
            }
            let name = format!("{prefix}-{n}");
            self.sent.lock().unwrap().push(name.clone());
            let Ok(answer) = Client::try_send(create(&admin, &name)).await else { return };
            let id = answer.expect(201).id();
            self.acknowledged.lock().unwrap().insert(name, id);
        }
    }
}

fn body(name: &str) -> Value {
    json!({ "name": name, "architecture": "x86_64", "total_cpu": 4, "total_memory": 8, "total_storage": 100 })
}

fn create(admin: &Client, name: &str) -> reqwest::RequestBuilder {
    admin.request(Method::POST, "/servers").header("Idempotency-Key", name).json(&body(name))
}

async fn repeated(admin: &Client, name: &str) -> Answer {
    Client::send(create(admin, name)).await.expect(201)
}

/// The ids of the servers by their names.
fn stored(sql: &mut Sql) -> BTreeMap<String, i64> {
    let pairs = sql.texts("SELECT CAST(id AS TEXT) || ' ' || name AS value FROM servers");
    let pair = |text: &String| text.split_once(' ').map(|(id, name)| (name.to_owned(), id.parse().unwrap())).unwrap();
    pairs.iter().map(pair).collect()
}

/// Every server has exactly one row that tells of its creation, and every such row its server.
fn check_pairs(sql: &mut Sql) {
    let created = "action = 'server.create' AND outcome = 'success'";
    let target = "target = 'server:' || CAST(servers.id AS TEXT)";
    let rows = sql.count(&format!("audit_logs WHERE {created}"));
    assert_eq!(rows, sql.count("servers"));
    let of_each = format!("servers WHERE (SELECT count(*) FROM audit_logs WHERE {created} AND {target}) = 1");
    assert_eq!(rows, sql.count(&of_each));
}

async fn check_log(admin: &Client) {
    let found = admin.get("/audit/verify").await.expect(200);
    assert_eq!(found.at("/valid"), true, "{}", found.text);
}

async fn acknowledged_writes_survive_ten_kills(backend: Backend) {
    let mut server = server(backend);
    let mut everything = BTreeMap::new();
    for kill in 0..KILLS {
        let load = Arc::new(Load::default());
        let admin = server.admin();
        let clients: Vec<_> =
            (0..CLIENTS).map(|_| tokio::spawn(load.clone().run(admin.clone(), format!("k{kill}")))).collect();
        // From the first acknowledged writes to the last: each time at another moment.
        let enough = 1 + kill * (WRITES - CLIENTS) / KILLS;
        eventually("writes to be acknowledged", async || (load.acknowledged().len() >= enough).then_some(())).await;
        server.kill();
        for client in clients {
            client.await.unwrap();
        }
        everything.extend(load.acknowledged());
        server.restart();
        check_kept(&server, &load, &everything).await;
    }
    assert!(everything.len() > KILLS * CLIENTS, "{} writes are too few to show anything", everything.len());
}

async fn check_kept(server: &Server, load: &Load, everything: &BTreeMap<String, i64>) {
    let (admin, mut sql) = (server.admin(), server.sql());
    let found = stored(&mut sql);
    let lost: Vec<_> = everything.iter().filter(|(name, id)| found.get(*name) != Some(*id)).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    check_pairs(&mut sql);
    check_log(&admin).await;
    // Whether it was acknowledged or not: under the same key there is one server, not a twin and not a conflict.
    let acknowledged = load.acknowledged();
    for (name, id) in acknowledged.iter().take(5) {
        let again = repeated(&admin, name).await;
        assert_eq!((again.id(), again.header("idempotency-replayed")), (*id, Some("true")), "{name}");
    }
    let sent = load.sent.lock().unwrap().clone();
    for name in sent.iter().filter(|name| !acknowledged.contains_key(*name)) {
        let id = repeated(&admin, name).await.id();
        assert!(found.get(name).is_none_or(|stored| *stored == id), "{name}");
        assert_eq!(repeated(&admin, name).await.id(), id, "{name}");
    }
    assert_eq!(stored(&mut sql).len(), found.len() + sent.iter().filter(|name| !found.contains_key(*name)).count());
    check_pairs(&mut sql);
}

#[tokio::test]
async fn two_servers_on_one_database_write_one_chain_even_if_one_is_killed() {
    let database_url = Some(fresh_postgres(&shared_postgres()));
    let first = Server::start_with(ServerOptions {
        program: PROGRAM.into(),
        database_url: database_url.clone(),
        arguments: Vec::new(),
    });
    let admin = first.admin();
    let made = admin.post("/auth/tokens", json!({ "name": "both", "role": "admin" })).await.expect(201);
    let token = made.at("/secret").as_str().unwrap().to_owned();
    let key = first.data_dir().join("audit.key").display().to_string();
    let arguments = vec!["--audit-key-file".to_owned(), key];
    let mut second = Server::start_with(ServerOptions { program: PROGRAM.into(), database_url, arguments });
    let loads = [Arc::new(Load::default()), Arc::new(Load::default())];
    let clients: Vec<_> = [&first.base, &second.base]
        .into_iter()
        .zip(&loads)
        .enumerate()
        .flat_map(|(n, (base, load))| {
            let admin = Client::new(base, Some(&token));
            (0..8).map(move |_| tokio::spawn(load.clone().run(admin.clone(), format!("s{n}")))).collect::<Vec<_>>()
        })
        .collect();
    eventually("both to write", async || loads.iter().all(|load| load.acknowledged().len() > 50).then_some(())).await;
    second.kill();
    for client in clients {
        client.await.unwrap();
    }
    let (mut sql, admin) = (first.sql(), admin.with_token(&token));
    let found = stored(&mut sql);
    for (name, id) in loads.iter().flat_map(|load| load.acknowledged()) {
        assert_eq!(found.get(&name), Some(&id), "{name}");
    }
    assert_eq!(loads[0].acknowledged().len(), WRITES, "the survivor goes on");
    check_pairs(&mut sql);
    check_log(&admin).await;
    second.restart();
    check_log(&Client::new(&second.base, Some(&token))).await;
}

//! A page of a long list, the request that consoles and agents repeat most.

use crate::{
    Outcome,
    http::{Connection, Target},
    load::{self, Requests},
    site::Site,
    table::Row,
};
use std::{cell::Cell, rc::Rc, time::Duration};
use tests::Server;

const PAGE: &str = "/servers?limit=100";
/// Servers in the database.
const SERVERS: u32 = 10_000;
/// Connections over which they are registered.
const FILLERS: usize = 64;

/// The body that registers a server as they are in real fleets: somewhere, with a few tags.
pub(crate) fn registration(name: &str, number: u32) -> String {
    let (rack, zone) = (number % 40, number % 3);
    format!(
        r#"{{"name":"{name}","architecture":"x86_64","total_cpu":16,"total_memory":64,"total_storage":500,"status":"online","location":"hall 2, rack {rack}","cluster":"edge","zone":"zone-{zone}","tags":{{"team":"media","tier":"gold"}}}}"#
    )
}

/// Asks for a page some times.
pub(crate) async fn ask(server: &Server, times: u32) -> Outcome<()> {
    let target = Target::of(server)?;
    let mut connection = Connection::open(&target).await?;
    for _ in 0..times {
        connection.expect(&target.get(PAGE), 200).await?;
    }
    Ok(())
}

/// Registers the servers.
pub(crate) async fn fill(server: &Server) -> Outcome<()> {
    let target = Target::of(server)?;
    let next = Rc::new(Cell::new(0));
    let tasks = tokio::task::LocalSet::new();
    let fillers: Vec<_> = (0..FILLERS)
        .map(|_| {
            let (target, next) = (target.clone(), next.clone());
            tasks.spawn_local(async move { register(&target, &next).await.map_err(|error| error.to_string()) })
        })
        .collect();
    tasks.await;
    for filler in fillers {
        filler.await??;
    }
    Ok(())
}

async fn register(target: &Target, next: &Cell<u32>) -> Outcome<()> {
    let mut connection = Connection::open(target).await?;
    loop {
        let number = next.replace(next.get() + 1);
        if number >= SERVERS {
            return Ok(());
        }
        let body = registration(&format!("server-{number:05}"), number);
        connection.expect(&target.post("/servers", &body), 201).await?;
    }
}

/// The same request for ever.
struct Same(Vec<u8>);

impl Requests for Same {
    fn next(&mut self) -> (&[u8], u16) {
        (&self.0, 200)
    }
}

/// One client, then four.
pub(crate) async fn measure(site: &Site, server: &Server, period: Duration) -> Outcome<Vec<Row>> {
    let target = Target::of(server)?;
    let mut connection = Connection::open(&target).await?;
    connection.expect(&target.get(PAGE), 200).await?;
    let kib = connection.answered() / 1024;
    let mut rows = Vec::new();
    for (clients, aim) in [(1, "> 6300/s, < 0.3 ms CPU"), (4, "")] {
        let all = (0..clients).map(|_| Same(target.get(PAGE))).collect();
        let shown = load::run(&target, server.pid(), period, all).await?;
        rows.push(Row {
            measurement: format!("GET {PAGE} ({kib} KiB), {}, {clients} client(s)", site.name),
            result: format!("{:.0}/s", shown.rate()),
            wall: shown.wall(),
            cpu: shown.cpu(),
            aim,
        });
    }
    Ok(rows)
}

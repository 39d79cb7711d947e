//! Audited writes: each is committed durably, with its row of the audit log, before it is answered.

use crate::{
    Outcome, disk,
    http::Target,
    list::registration,
    load::{self, Requests, Shown},
    site::Site,
    table::{Row, median, ms},
};
use std::time::Duration;
use tests::Server;

const ROUNDS: u32 = 3;
const CLIENTS: [(u32, &str); 3] = [(1, "> 115/s"), (8, ""), (32, "> 3000/s")];

/// Registers servers under names of its own.
struct Registrar {
    target: Target,
    prefix: String,
    count: u32,
    request: Vec<u8>,
}

impl Requests for Registrar {
    fn next(&mut self) -> (&[u8], u16) {
        self.count += 1;
        let body = registration(&format!("{}-{}", self.prefix, self.count), self.count);
        self.request = self.target.post("/servers", &body);
        (&self.request, 201)
    }
}

/// Every round measures everything once, so that a slow minute of the machine does not fall on one line alone.
pub(crate) async fn measure(sites: &[Site], period: Duration) -> Outcome<Vec<Row>> {
    let servers = sites.iter().map(Site::start).collect::<Outcome<Vec<Server>>>()?;
    let mut shown: Vec<Vec<Shown>> = vec![Vec::new(); sites.len() * CLIENTS.len()];
    let mut syncs = Vec::new();
    for round in 0..ROUNDS {
        let mut cells = shown.iter_mut();
        for server in &servers {
            syncs.push(disk::sync_time(&server.data_dir())?);
            for (clients, _) in CLIENTS {
                let result = once(server, round, clients, period).await?;
                cells.next().ok_or("a cell too few")?.push(result);
            }
        }
    }
    let mut rows = vec![sync_row(&syncs)];
    let mut cells = shown.iter();
    for site in sites {
        for (clients, aim) in CLIENTS {
            let middle = cells.next().and_then(|cell| median(cell, Shown::interval)).ok_or("a cell too few")?;
            rows.push(row(site, clients, aim, &middle));
        }
    }
    Ok(rows)
}

async fn once(server: &Server, round: u32, clients: u32, period: Duration) -> Outcome<Shown> {
    let target = Target::of(server)?;
    let registrar = |client| Registrar {
        target: target.clone(),
        prefix: format!("s-{round}-{clients}-{client}"),
        count: 0,
        request: Vec::new(),
    };
    load::run(&target, server.pid(), period, (0..clients).map(registrar).collect()).await
}

fn row(site: &Site, clients: u32, aim: &'static str, shown: &Shown) -> Row {
    Row {
        measurement: format!("POST /servers, audited, {}, {clients} client(s)", site.name),
        result: format!("{:.0}/s", shown.rate()),
        wall: shown.wall(),
        cpu: shown.cpu(),
        aim,
    }
}

fn sync_row(syncs: &[Duration]) -> Row {
    let time = median(syncs, |time| *time).unwrap_or_default();
    Row {
        measurement: "the disk: append 8 KiB and fdatasync".to_owned(),
        result: format!("{:.0}/s", 1.0 / time.as_secs_f64()),
        wall: ms(time),
        cpu: String::new(),
        aim: "bounds the writes",
    }
}

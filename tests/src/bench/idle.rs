//! Agents that have nothing to do: what a thousand of them cost the server. They speak the real protocol over real
//! sockets, but have no machine behind them.

use crate::{
    Outcome,
    http::{Connection, Target},
    process,
    site::Site,
    table::Row,
};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::{task::JoinSet, time::sleep};

const AGENTS: u32 = 1_000;
/// How long they are watched: more than once around for each.
const PERIOD: Duration = Duration::from_mins(1);
/// How long a question may stay open, in seconds; agents differ by up to a fifth, as the real ones do. The server answers
/// sooner.
const WAIT: u32 = 45;

/// The CPU that the server uses while all of them wait.
pub(crate) async fn measure(site: &Site) -> Outcome<Row> {
    let server = site.start()?;
    let target = Target::of(&server)?;
    let mut connection = Connection::open(&target).await?;
    let body = json!({ "name": "bench", "max_uses": AGENTS }).to_string();
    connection.expect(&target.post("/enrollments", &body), 201).await?;
    let join_token = text(&connection.json()?, "/token")?;
    let mut agents = JoinSet::new();
    for number in 0..AGENTS {
        let target = target.with_token(join(&target, &join_token, number).await?);
        agents.spawn(async move {
            // The first question of each at another moment, as of agents that were started one after the other.
            sleep(Duration::from_secs(WAIT.into()) * number / AGENTS).await;
            wait_for_ever(&target, number).await.map_err(|error| error.to_string())
        });
    }
    // Until the last of them waits, too.
    sleep(Duration::from_secs(WAIT.into())).await;
    let before = process::cpu(server.pid())?;
    tokio::select! {
        () = sleep(PERIOD) => {}
        ended = agents.join_next() => return Err(format!("an agent has gone: {ended:?}").into()),
    }
    let used = process::cpu(server.pid())?.saturating_sub(before);
    let memory = process::resident(server.pid())?;
    Ok(Row {
        measurement: format!("{AGENTS} agents that wait, {}", site.name),
        result: format!("{:.2} % of a core", used.as_secs_f64() / PERIOD.as_secs_f64() * 100.0),
        wall: format!("{memory:.1} MiB"),
        cpu: String::new(),
        aim: "< 2 % of a core",
    })
}

/// Joins, and opens the session `s-<number>`; the agent's token.
pub(crate) async fn join(target: &Target, join_token: &str, number: u32) -> Outcome<String> {
    let mut connection = Connection::open(target).await?;
    let inventory = json!({
        "architecture": "x86_64", "agent_version": "bench", "drivers": ["exec"],
        "capacity": { "cpu_millis": 4000, "memory_mib": 8192, "storage_mib": 100_000, "gpus": 0 },
    });
    let place = format!("place-{number}");
    let body = json!({
        "join_token": join_token, "name": format!("agent-{number}"), "place": place, "protocols": [1],
        "inventory": inventory,
    });
    connection.expect(&target.post("/agent/enroll", &body.to_string()), 201).await?;
    let token = text(&connection.json()?, "/token")?;
    let body = json!({ "session": format!("s-{number}"), "place": place, "protocols": [1], "inventory": inventory });
    let agent = target.with_token(token.clone());
    connection.expect(&agent.post("/agent/session", &body.to_string()), 200).await?;
    Ok(token)
}

async fn wait_for_ever(target: &Target, number: u32) -> Outcome<()> {
    // Not the connection that it joined by: the server has closed that meanwhile, as it does with idle ones.
    let mut connection = Connection::open(target).await?;
    // From 36 to 54 seconds, spread evenly.
    let wait = WAIT * 4 / 5 + number % (WAIT * 2 / 5);
    let question = target.get(&format!("/agent/operations?session=s-{number}&wait={wait}"));
    loop {
        connection.expect(&question, 200).await?;
    }
}

pub(crate) fn text(document: &Value, pointer: &str) -> Outcome<String> {
    let found = document.pointer(pointer).and_then(Value::as_str);
    found.map(str::to_owned).ok_or_else(|| format!("no {pointer} in the answer").into())
}

//! Agents and their server are killed again and again while tasks come and go.

use super::support::{Site, Tally, attempt, check_at_rest, ended, shell};
use crate::support::walk;
use serde_json::json;
use std::collections::BTreeMap;
use tests::{Agent, Backend, eventually};

const TASKS: usize = 60;
/// How many tasks are posted between two kills.
const BETWEEN: usize = 6;

/// Numerical Recipes' generator: the same storm in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223) % (1 << 32);
        usize::try_from(self.0 >> 8).unwrap() % sides
    }
}

/// One more task: some are short, some fail, some are tried again, some are killed by themselves.
async fn post(site: &Site, tally: &Tally, dice: &mut Dice, n: usize) -> i64 {
    let ends = ["exit 0", "exit 0", "exit 1", "sleep 0.2", "sleep 1; exit 2", "kill -9 $$"];
    let script = tally.script(&format!("t{n}"), ends[dice.roll(ends.len())]);
    let more = json!({ "name": format!("t{n}"), "max_attempts": 1 + dice.roll(2), "required_cpu": 0.05 });
    shell(&site.admin(), &script, more).await
}

/// Kills somebody, and starts them again: at once, or after some more has happened.
fn strike(site: &mut Site, agents: &mut [Agent], dice: &mut Dice, down: &mut Vec<usize>) {
    for n in std::mem::take(down) {
        agents[n].restart();
    }
    match dice.roll(5) {
        0 => {
            site.server.kill();
            site.restart();
        }
        1 => {
            let n = dice.roll(agents.len());
            agents[n].kill();
            site.server.kill();
            agents[n].restart();
            site.restart();
        }
        2 => site.line.hang_up(),
        roll => {
            let n = dice.roll(agents.len());
            agents[n].kill();
            if roll == 3 { agents[n].restart() } else { down.push(n) }
        }
    }
}

async fn storm(backend: Backend, seed: u64) {
    let mut site = Site::with(backend, &["--agent-grace-seconds", "3"]);
    let mut dice = Dice(seed);
    let tally = Tally::new();
    let mut agents = Vec::new();
    for name in ["a", "b", "c"] {
        agents.push(site.agent(name).await);
    }
    let (mut ids, mut down) = (BTreeMap::new(), Vec::new());
    for n in 0..TASKS {
        ids.insert(n, post(&site, &tally, &mut dice, n).await);
        if n % BETWEEN == BETWEEN - 1 {
            strike(&mut site, &mut agents, &mut dice, &mut down);
        }
    }
    for n in down {
        agents[n].restart();
    }
    let admin = site.admin();
    for (n, id) in ids {
        let end = ended(&admin, id).await;
        let attempts = end.at("/attempt").as_u64().unwrap();
        let runs = u64::try_from(tally.runs(&format!("t{n}"))).unwrap();
        assert!(runs <= attempts, "seed {seed}: t{n} was run {runs} times in {attempts} attempts: {}", end.text);
        let last = attempt(&admin, id).await;
        assert!(end.at("/status") != "completed" || last["exit_code"] == 0, "seed {seed}: {last}");
        // Who ended by itself was run in that attempt.
        let by_itself = ["exit_code", "signal"].iter().any(|reason| last["reason"] == *reason);
        assert!(!(by_itself || last["status"] == "completed") || runs >= 1, "seed {seed}: t{n}: {last}");
    }
    eventually("no operation to be open", async || {
        let open = walk(&admin, "/operations").await;
        let open =
            open.iter().filter(|row| ["queued", "delivered", "running"].iter().any(|state| row["state"] == *state));
        (open.count() == 0).then_some(())
    })
    .await;
    let left: Vec<_> = agents.iter().map(Agent::leftovers).collect();
    check_at_rest(&admin, &left).await;
    assert!(!site.server.log().contains("panicked"), "{}", site.server.log());
    assert!(agents.iter().all(|agent| !agent.log().contains("panicked")));
}

#[tokio::test]
async fn everything_comes_to_its_end_in_a_storm() {
    storm(Backend::Sqlite, 42).await;
}

#[tokio::test]
async fn everything_comes_to_its_end_in_a_storm_on_postgresql() {
    storm(Backend::Postgres, 7).await;
}

//! What agents measure arrives.

use super::support::Site;
use chrono::{DateTime, Utc};
use std::time::Duration;
use tests::{Answer, Backend, Client};
use tokio::time::{sleep, timeout};

/// A sample comes at the end of a minute, and a little later. The first may be of one reading, with nothing to compare with.
const TWO_MINUTES_AND_MORE: Duration = Duration::from_secs(160);

/// The newest sample of a server, once there is one with all that takes two readings.
async fn first_sample(admin: &Client, server: i64) -> Answer {
    let path = format!("/servers/{server}/metrics/latest");
    let wait = async {
        loop {
            let answer = admin.get(&path).await;
            if answer.status == 200 && answer.json["cpu_usage"].is_number() {
                return answer;
            }
            sleep(Duration::from_millis(200)).await;
        }
    };
    timeout(TWO_MINUTES_AND_MORE, wait).await.unwrap()
}

#[tokio::test]
async fn an_agent_tells_each_minute_what_its_machine_is_at() {
    let site = Site::start(Backend::Sqlite);
    let agent = site.agent("edge-1").await;
    let (admin, id) = (site.admin(), site.connected(&agent).await);
    let sample = first_sample(&admin, id).await;
    let at: DateTime<Utc> = sample.at("/recorded_at").as_str().unwrap().parse().unwrap();
    assert_eq!(at.timestamp() % 60, 0, "{at}");
    let number = |name: &str| sample.json[name].as_f64().unwrap_or_else(|| panic!("no {name}: {}", sample.text));
    for percent in ["cpu_usage", "memory_usage", "storage_usage", "cpu_usage_peak", "memory_usage_peak"] {
        assert!((0.0..=100.0).contains(&number(percent)), "{percent}: {}", sample.text);
    }
    assert!(number("memory_usage") > 0.0 && number("storage_usage") > 0.0, "{}", sample.text);
    assert!(number("cpu_usage_peak") >= number("cpu_usage"), "{}", sample.text);
    for name in ["node_load1", "node_load5", "node_load15", "network_in_mbps", "disk_write_mbps"] {
        assert!(number(name) >= 0.0, "{name}: {}", sample.text);
    }
    let seen = admin.get("/overview").await.expect(200);
    assert_eq!(seen.at("/servers/0/metrics/recorded_at"), sample.at("/recorded_at"));
    assert_ne!(seen.at("/servers/0/health/state"), "unknown", "{}", seen.text);
}

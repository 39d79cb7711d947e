//! What containers use, and the images that there are.

use super::stand::{Made, Stand};
use crate::{
    engine::{
        fake::{Fake, Response},
        images::{self, BUSYBOX, FOREIGN},
        shared,
    },
    streams::stand::Stream,
};
use domain::{
    containers::{
        EngineId, Usage,
        wire::{ContainerQuery, ListedImage},
    },
    fleet::protocol::StreamSource,
};
use serde_json::{Value, json};
use std::{path::Path, time::Duration};
use tokio_tungstenite::tungstenite::Message;

fn stats(id: &EngineId) -> StreamSource {
    StreamSource::ContainerStats(ContainerQuery { engine_id: id.clone() })
}

async fn usage(stream: &mut Stream) -> Usage {
    match stream.message().await {
        Message::Text(text) => serde_json::from_str(&text).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_a_container_uses_is_told_until_it_ends() {
    let Some(engine) = shared() else { return };
    let mut stand = Stand::at(&engine.socket()).await;
    let made = Made::shell(engine.client(), "while :; do :; done").await;
    made.start().await;
    let mut stream = stand.open(stats(&made.id)).await;
    usage(&mut stream).await;
    let second = usage(&mut stream).await;
    let (core, machine) = (second.cpu_percent.unwrap(), second.machine_cpu_percent.unwrap());
    assert!(core > 5.0 && core < 130.0 && machine <= core, "{second:?}");
    assert!(second.memory_bytes > 0 && second.memory_limit_bytes > Some(second.memory_bytes), "{second:?}");
    assert!(second.pids >= Some(1));
    let third = usage(&mut stream).await;
    let apart = (third.at - second.at).to_std().unwrap();
    assert!(apart > Duration::from_millis(500) && apart < Duration::from_secs(10), "{apart:?}");
    made.client.kill_container(made.id.as_str(), None).await.unwrap();
    loop {
        if let Message::Close(frame) = stream.message().await {
            assert_eq!(u16::from(frame.unwrap().code), 1000);
            break;
        }
    }
    assert_eq!(stand.open(stats(&made.id)).await.end().await, (4409, "not_running".to_owned()));
    made.remove().await;
    assert_eq!(stand.open(stats(&made.id)).await.end().await, (4404, "unknown_container".to_owned()));
}

/// A container that has counted these, the first one with nothing before it.
async fn check_played(memory: Value) {
    let cpu = |container: u64, system: u64| json!({ "cpu_usage": { "total_usage": container }, "system_cpu_usage": system, "online_cpus": 8 });
    let earlier = cpu(18_702_324_497_183, 67_684_067_000_000_000);
    let later = cpu(18_702_340_106_497, 67_684_074_960_000_000);
    let nothing = json!({ "cpu_usage": { "total_usage": 0 } });
    let counted = [
        json!({ "cpu_stats": earlier, "precpu_stats": nothing, "memory_stats": memory }),
        json!({ "cpu_stats": later, "precpu_stats": earlier, "memory_stats": memory }),
    ];
    let fake = Fake::start(move |request| {
        if request.line.contains("/stats?") {
            let pieces = counted.iter().map(|counted| format!("{counted}\n").into_bytes()).collect();
            Response { status: 200, pieces, pause: Duration::ZERO, stays_open: false }
        } else {
            Response::json(200, &json!({ "Id": "0a1b", "State": { "Status": "running", "Running": true } }))
        }
    });
    let mut stand = Stand::at(&fake.socket()).await;
    let mut stream = stand.open(stats(&EngineId::parse("0a1b").unwrap())).await;
    let first = usage(&mut stream).await;
    assert_eq!((first.cpu_percent, first.memory_bytes, first.memory_percent), (None, 200_000_000, Some(50.0)));
    let second = usage(&mut stream).await;
    let percents = format!("{:.2} {:.3}", second.cpu_percent.unwrap(), second.machine_cpu_percent.unwrap());
    assert_eq!(
        (percents.as_str(), second.memory_bytes, second.memory_percent),
        ("1.57 0.196", 200_000_000, Some(50.0))
    );
    assert_eq!(stream.end().await.0, 1000);
}

#[tokio::test]
async fn fc_09_numbers_are_those_of_docker_stats_with_either_version_of_control_groups() {
    let memory = |details: Value| json!({ "usage": 256_000_000, "limit": 400_000_000, "stats": details });
    check_played(memory(json!({ "inactive_file": 56_000_000 }))).await;
    check_played(memory(json!({ "cache": 100_000_000, "total_inactive_file": 56_000_000 }))).await;
}

async fn listed(stand: &mut Stand) -> Vec<ListedImage> {
    let mut stream = stand.open(StreamSource::Images).await;
    let Message::Text(text) = stream.message().await else { panic!("no images") };
    assert_eq!(stream.end().await, (1000, "end".to_owned()));
    serde_json::from_str(&text).unwrap()
}

#[tokio::test]
async fn images_are_told_with_what_was_made_from_them() {
    let Some(engine) = shared() else { return };
    let mut stand = Stand::at(&engine.socket()).await;
    let made = Made::shell(engine.client(), "true").await;
    engine.tag_image(BUSYBOX, "streams-images").await;
    for _ in 0..2 {
        let images = listed(&mut stand).await;
        let named = |name: &str| images.iter().find(|image| image.names.iter().any(|other| other == name));
        let busybox = named(BUSYBOX).unwrap();
        assert!(busybox.names.contains(&"docker.io/library/streams-images:latest".to_owned()), "{busybox:?}");
        assert!(busybox.id.starts_with("sha256:") && busybox.size_bytes > 100_000, "{busybox:?}");
        assert!(busybox.used_by.contains(&made.id), "{busybox:?}");
        let (native, foreign, _) = images::architectures();
        assert_eq!(busybox.platform.as_ref().map(ToString::to_string), Some(format!("linux/{native}")));
        assert_eq!(
            named(FOREIGN).unwrap().platform.as_ref().map(ToString::to_string),
            Some(format!("linux/{foreign}"))
        );
    }
    engine.remove_image("streams-images:latest").await;
    made.remove().await;
}

#[tokio::test]
async fn an_engine_that_is_away_is_said_to_be() {
    let mut stand = Stand::at(Path::new("/nonexistent/engine.sock")).await;
    for source in [StreamSource::Images, stats(&EngineId::parse("0a1b").unwrap())] {
        let (code, reason) = stand.open(source).await.end().await;
        assert!(code == 4504 && reason.starts_with("engine_away: there is no socket"), "{code} {reason}");
    }
}

//! How the agent speaks HTTP.

use super::rig::{Rig, run};
use domain::error::with_causes;
use starlink_agent::{
    client::{PlainHttp, ServerAddress, Wire},
    state::StateDir,
};

#[tokio::test]
async fn every_call_is_one_of_the_protocol() {
    let mut rig = Rig::new().await;
    rig.periods.meter = super::meter::QUICK;
    rig.server.order(1, run(11, "long"));
    let agent = rig.joining(Rig::good_token()).await.unwrap();
    rig.server.running(1).await;
    rig.server.until("a sample", |state| !state.samples.stored.is_empty()).await;
    rig.server.cancel(1);
    rig.server.ended(1).await;
    agent.stop().await;
    let mut calls = rig.server.state().calls.clone();
    calls.sort();
    calls.dedup();
    let known = [
        "GET /agent/operations",
        "POST /agent/enroll",
        "POST /agent/metrics",
        "POST /agent/operations/1/progress",
        "POST /agent/operations/1/result",
        "POST /agent/operations/1/started",
        "POST /agent/session",
    ];
    assert!(calls.iter().all(|call| known.contains(&call.as_str())), "{calls:?}");
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_named() {
    let mut rig = Rig::joined().await;
    rig.server.down().await;
    let address = ServerAddress::parse(&rig.server.url(), PlainHttp::Loopback).unwrap();
    let client = Wire::new(address, None).unwrap().with_token(domain::identity::Secret::from("sla_x".to_owned()));
    let error = client.poll("s", std::time::Duration::from_secs(1)).await.unwrap_err();
    let text = with_causes(&error);
    assert!(text.contains(&rig.server.url()) && text.contains("refused"), "{text}");
    let error = client.stream("an-id").await.unwrap_err();
    assert!(with_causes(&error).contains("refused"));
}

#[tokio::test]
async fn an_authority_that_cannot_be_read_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    let address = ServerAddress::parse("https://a.example", PlainHttp::Loopback).unwrap();
    let error = |ca: &std::path::Path| with_causes(&Wire::new(address.clone(), Some(ca)).err().unwrap());
    assert!(error(&ca).contains("--ca") && error(&ca).contains("No such file"), "{}", error(&ca));
    std::fs::write(&ca, "nothing").unwrap();
    assert!(error(&ca).contains("no certificate"), "{}", error(&ca));
    drop(StateDir::open(directory.path()).unwrap());
}

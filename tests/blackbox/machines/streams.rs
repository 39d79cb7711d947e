//! What containers of real engines write and use, and programs that are run in them by hand, while it happens.

use super::support::Site;
use crate::{
    containers::live::{
        agent::{Events, Socket},
        exec::{closed, json_of, next, ticket},
    },
    support::check_problem,
};
use futures_util::SinkExt;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde_json::{Value, json};
use std::sync::Arc;
use test_engine::{
    Engine,
    bollard::{
        models::{ContainerCreateBody, HostConfig, HostConfigLogConfig, RestartPolicy, RestartPolicyNameEnum},
        query_parameters::CreateContainerOptions,
    },
    images,
};
use tests::{Backend, Client, eventually, machines};
use tokio_tungstenite::{Connector, connect_async_tls_with_config, tungstenite::Message};

/// Makes a container that runs this script; the engine's id.
async fn made(engine: &Engine, name: &str, script: &str, host_config: HostConfig) -> String {
    let body = ContainerCreateBody {
        image: Some(images::BUSYBOX.to_owned()),
        cmd: Some(["sh", "-c", script].map(str::to_owned).to_vec()),
        host_config: Some(host_config),
        ..ContainerCreateBody::default()
    };
    let options = CreateContainerOptions { name: Some(name.to_owned()), ..CreateContainerOptions::default() };
    engine.client().create_container(Some(options), body).await.unwrap().id
}

/// Opens a WebSocket of the site's server.
async fn open(site: &Site, path: &str) -> Socket {
    let certificate = CertificateDer::from_pem_file(site.certificate()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let url = format!("{}{path}", site.admin().base().replacen("https", "wss", 1));
    let connector = Some(Connector::Rustls(Arc::new(config)));
    connect_async_tls_with_config(url, None, false, connector).await.unwrap().0
}

/// Our path of the container of this name, once it is known.
async fn path_of(admin: &Client, name: &str, state: &str) -> String {
    let id = eventually(&format!("{name} to be {state}"), async || {
        let found = admin.get(&format!("/api/containers?keyword={name}")).await.expect(200);
        found.json.as_array().unwrap().iter().find(|row| row["state"] == state).map(|row| row["id"].clone())
    })
    .await;
    format!("/api/containers/{id}")
}

#[tokio::test]
async fn fc_13_output_is_followed_from_before_the_first_start_over_restarts_each_line_once() {
    let Some(machines) = machines() else { return };
    let machine = machines.shared(1).await;
    let site = Site::start(machines, Backend::Sqlite, &[]);
    let _agent = site.agent(&machine, "b").await;
    let admin = site.admin();
    let always = RestartPolicy { name: Some(RestartPolicyNameEnum::ALWAYS), maximum_retry_count: None };
    let host_config = HostConfig { restart_policy: Some(always), ..HostConfig::default() };
    let id = made(machine.engine(), "again", "echo hello; sleep 1", host_config).await;
    let path = path_of(&admin, "again", "created").await;
    let mut reader = Events::open(&admin, &format!("{path}/logs?follow=true"), None).await;
    machine.engine().client().start_container(&id, None).await.unwrap();
    let mut kinds = Vec::new();
    let mut last = None;
    while kinds.iter().filter(|kind| **kind == "line").count() < 4 {
        let event = reader.next().await.unwrap();
        assert!(event.kind == "mark" || event.text() == "hello", "{event:?}");
        last = event.id;
        kinds.push(event.kind);
    }
    assert_eq!(kinds, ["line", "mark", "line", "mark", "line", "mark", "line"]);
    // Another one sees the same from the beginning, and who comes back sees nothing twice.
    let mut other = Events::open(&admin, &format!("{path}/logs?follow=true"), None).await;
    let mut same = Vec::new();
    for _ in 0..kinds.len() {
        same.push(other.next().await.unwrap().kind);
    }
    assert_eq!(same, kinds);
    let mut again = Events::open(&admin, &format!("{path}/logs?follow=true"), last.as_deref()).await;
    assert_eq!(again.next().await.unwrap().kind, "mark");
    assert_eq!(other.next().await.unwrap().kind, "mark");
    machine.engine().remove(&id).await;
    let mut end = reader.next().await.unwrap();
    while end.kind != "end" {
        end = reader.next().await.unwrap();
    }
    assert_eq!(end.data["reason"], "the container was removed");
}

#[tokio::test]
async fn a_program_is_run_in_a_container_with_input_and_with_a_terminal() {
    let Some(machines) = machines() else { return };
    let machine = machines.shared(2).await;
    let site = Site::start(machines, Backend::Sqlite, &[]);
    let _agent = site.agent(&machine, "c").await;
    let admin = site.admin();
    let id = made(machine.engine(), "inside", "sleep 1000", HostConfig::default()).await;
    machine.engine().client().start_container(&id, None).await.unwrap();
    let path = path_of(&admin, "inside", "running").await;
    let run = async |script: &str, more: &str| {
        let script = script.bytes().fold(String::new(), |script, byte| format!("{script}%{byte:02x}"));
        let query = format!("command=sh&command=-c&command={script}&force=true{more}");
        let path = format!("{path}/exec?{query}&ticket={}", ticket(&admin).await);
        let mut socket = open(&site, &path).await;
        assert_eq!(json_of(&next(&mut socket).await)["kind"], "started");
        socket
    };
    let mut socket = run("read x; echo got $x; echo bad >&2; exit 7", "").await;
    socket.send(Message::binary(b"\xc3\xa4 1\n".to_vec())).await.unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let end = loop {
        match next(&mut socket).await {
            Message::Binary(bytes) if bytes[0] == 1 => out.extend_from_slice(&bytes[1..]),
            Message::Binary(bytes) => err.extend_from_slice(&bytes[1..]),
            other => break json_of(&other),
        }
    };
    assert_eq!((&out[..], &err[..]), (&b"got \xc3\xa4 1\n"[..], &b"bad\n"[..]));
    assert_eq!(end, json!({ "kind": "exited", "code": 7 }));
    assert_eq!(closed(&mut socket).await.0, 1000);
    // A terminal has the size that it was given, and the one that it is given later.
    let mut socket = run("read x; stty size; read x; stty size", "&tty=true&rows=30&cols=90").await;
    let mut seen = String::new();
    for (size, message) in
        [("30 90\r\n", None), ("24 80\r\n", Some("{\"kind\":\"resize\",\"rows\":24,\"columns\":80}"))]
    {
        if let Some(message) = message {
            socket.send(Message::text(message)).await.unwrap();
        }
        socket.send(Message::text("{\"kind\":\"input\",\"text\":\"\\n\"}")).await.unwrap();
        while !seen.contains(size) {
            let Message::Binary(bytes) = next(&mut socket).await else { panic!("{seen}") };
            assert_eq!(bytes[0], 1, "a terminal has one output");
            seen.push_str(std::str::from_utf8(&bytes[1..]).unwrap());
        }
    }
    assert_eq!(json_of(&next(&mut socket).await)["code"], 0);
    // Input that ends, ends what reads it.
    let mut socket = run("cat", "").await;
    socket.send(Message::text("{\"kind\":\"end_input\"}")).await.unwrap();
    assert_eq!(json_of(&next(&mut socket).await), json!({ "kind": "exited", "code": 0 }));
    machine.engine().remove(&id).await;
}

#[tokio::test]
async fn what_an_engine_counts_is_told_and_what_it_does_not_keep_is_said() {
    let Some(machines) = machines() else { return };
    let machine = machines.shared(0).await;
    let site = Site::start(machines, Backend::Sqlite, &[]);
    let _agent = site.agent(&machine, "a").await;
    let admin = site.admin();
    let none = HostConfigLogConfig { typ: Some("none".to_owned()), config: None };
    let host_config = HostConfig { log_config: Some(none), memory: Some(64 << 20), ..HostConfig::default() };
    let id = made(machine.engine(), "quiet", "while :; do :; done", host_config).await;
    let path = path_of(&admin, "quiet", "created").await;
    let refused = admin.get(&format!("{path}/stats")).await;
    check_problem(&refused, 409, "stats");
    assert_eq!(refused.code(), "not_running");
    machine.engine().client().start_container(&id, None).await.unwrap();
    path_of(&admin, "quiet", "running").await;
    let usage = admin.get(&format!("{path}/stats")).await.expect(200);
    assert!(usage.at("/cpu_percent").as_f64().unwrap() > 5.0, "{}", usage.text);
    assert_eq!(usage.at("/memory_limit_bytes"), 64 << 20, "{}", usage.text);
    let mut readings = Events::open(&admin, &format!("{path}/stats"), None).await;
    for _ in 0..3 {
        assert_eq!(readings.next().await.unwrap().kind, "usage");
    }
    for query in ["", "?follow=true"] {
        let unreadable = admin.get(&format!("{path}/logs{query}")).await;
        check_problem(&unreadable, 409, query);
        assert_eq!(unreadable.code(), "logs_unreadable", "{}", unreadable.text);
        assert!(unreadable.at("/detail").as_str().is_some_and(|detail| detail.contains("read")), "{}", unreadable.text);
    }
    machine.engine().remove(&id).await;
    let mut end = readings.next().await.unwrap();
    while end.kind != "end" {
        end = readings.next().await.unwrap();
    }
    assert!(matches!(end.data["reason"], Value::Null | Value::String(_)));
}

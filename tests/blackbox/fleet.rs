//! Servers over HTTP.

use crate::{
    on_both, server,
    support::{bearer, column, names, next, server_body, server_with, total, walk},
};
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tests::{Answer, Backend, Client};

on_both!(
    a_server_is_registered_shown_changed_and_removed,
    spellings_of_architectures_are_normalised,
    a_name_belongs_to_one_server,
    a_change_at_an_old_revision_is_refused,
    changes_without_a_revision_all_land_however_many_come_at_once,
    a_merge_patch_keeps_sets_and_clears,
    every_filter_finds_what_it_names_and_nothing_else,
    a_keyword_is_looked_for_literally_and_whatever_its_case,
    every_sort_pages_through_all_rows_in_order,
    pages_neither_repeat_nor_skip_while_others_come_and_go,
    a_cursor_belongs_to_its_sort,
    a_server_joins_a_pool_that_is_there,
    cordoning_again_changes_and_records_nothing,
    decimals_come_back_as_they_were_sent,
    an_amount_below_the_smallest_unit_is_refused,
);

async fn a_server_is_registered_shown_changed_and_removed(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let made = admin.post("/servers", server_body("edge-1")).await.expect(201);
    assert_eq!(made.header("location"), Some("/servers/1"));
    assert_eq!(made.header("etag"), Some("\"1\""));
    assert_eq!(made.at("/status"), "offline");
    let changed = admin.patch("/servers/1", json!({ "zone": "z1", "status": "online" })).await.expect(200);
    assert_eq!((changed.at("/zone"), changed.at("/schedulable")), (json!("z1"), json!(true)));
    assert_eq!(admin.get("/servers/1").await.expect(200).json, changed.json);
    admin.delete("/servers/1").await.expect(204);
    admin.get("/servers/1").await.expect(404);
    admin.delete("/servers/1").await.expect(404);
    let trail = admin.get("/audit/logs?target=server:1&outcome=success").await.expect(200);
    assert_eq!(column(&trail, "action"), ["server.delete", "server.update", "server.create"]);
    assert_eq!(admin.get("/audit/verify").await.at("/valid"), true);
}

async fn spellings_of_architectures_are_normalised(backend: Backend) {
    let server = server(backend);
    let admin: Client = server.admin();
    for (n, (spelling, name)) in
        [("amd64", "x86_64"), ("x64", "x86_64"), ("AArch64", "arm64"), ("arm64/v8", "arm64"), ("riscv64gc", "riscv64")]
            .into_iter()
            .enumerate()
    {
        let body = server_with(&format!("s{n}"), json!({ "architecture": spelling }));
        assert_eq!(admin.post("/servers", body).await.expect(201).at("/architecture"), name, "{spelling}");
    }
    let wrong = server_with("s9", json!({ "architecture": "armv7l" }));
    assert_eq!(admin.post("/servers", wrong).await.expect(400).at("/errors/0/field"), "architecture");
}

async fn a_name_belongs_to_one_server(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let first = admin.post("/servers", server_body("edge")).await.expect(201).id();
    assert_eq!(admin.post("/servers", server_body("edge")).await.expect(409).code(), "name_taken");
    let other = admin.post("/servers", server_body("Edge")).await.expect(201).id();
    let renamed = admin.patch(&format!("/servers/{other}"), json!({ "name": "edge" })).await.expect(409);
    assert_eq!(renamed.code(), "name_taken");
    let racing = join_all((0..16).map(|_| admin.post("/servers", server_body("raced")))).await;
    let mut statuses: Vec<u16> = racing.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [&[201][..], &[409; 15]].concat());
    admin.delete(&format!("/servers/{first}")).await.expect(204);
    admin.post("/servers", server_body("edge")).await.expect(201);
}

async fn at_revision(admin: &Client, method: Method, etag: &str, body: Value) -> Answer {
    Client::send(admin.request(method, "/servers/1").header("if-match", etag).json(&body)).await
}

async fn a_change_at_an_old_revision_is_refused(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    admin.post("/servers", server_body("edge")).await.expect(201);
    let patch =
        |etag: &'static str| at_revision(&admin, Method::PATCH, etag, json!({ "zone": etag.len().to_string() }));
    let changed = patch("\"1\"").await.expect(200);
    assert_eq!((changed.header("etag"), changed.at("/revision")), (Some("\"2\""), json!(2)));
    let stale = patch("\"1\"").await.expect(412);
    assert_eq!(stale.code(), "stale");
    patch("W/\"2\"").await.expect(412);
    patch("\"3\"").await.expect(412);
    for malformed in ["2", "\"2", "\"2\","] {
        assert_eq!(patch(malformed).await.expect(400).at("/errors/0/field"), "If-Match", "{malformed}");
    }
    patch("*").await.expect(200);
    at_revision(&admin, Method::DELETE, "\"2\"", Value::Null).await.expect(412);
    assert_eq!(admin.get("/servers/1").await.expect(200).header("etag"), Some("\"3\""));
    let both = join_all((0..8).map(|_| patch("\"3\""))).await;
    assert_eq!(both.iter().filter(|answer| answer.status == 200).count(), 1);
    assert_eq!(both.iter().filter(|answer| answer.status == 412).count(), 7);
    at_revision(&admin, Method::DELETE, "\"4\"", Value::Null).await.expect(204);
}

async fn changes_without_a_revision_all_land_however_many_come_at_once(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    admin.post("/servers", server_body("edge")).await.expect(201);
    let admin_ref = &admin;
    let patches = (0..5).map(|n| async move {
        admin_ref.patch("/servers/1", json!({ "tags": { format!("t{n}"): n.to_string() } })).await.expect(200);
    });
    join_all(patches).await;
    let after = admin.get("/servers/1").await.expect(200);
    assert_eq!(after.at("/tags"), json!({ "t0": "0", "t1": "1", "t2": "2", "t3": "3", "t4": "4" }));
    assert_eq!(after.at("/revision"), 6);
    assert_eq!(total(&admin, "/audit/logs?action=server.update").await, 5);
}

async fn a_merge_patch_keeps_sets_and_clears(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let more = json!({
        "location": "rack 1", "cluster": "c", "zone": "z", "gpu_model": "A1", "total_gpu": 2,
        "tags": { "keep": "1", "drop": "2", "change": "3" },
    });
    let before = admin.post("/servers", server_with("edge", more)).await.expect(201);
    let patch =
        json!({ "location": null, "zone": "z2", "tags": { "drop": null, "change": "4", "new": "", "never": null } });
    let after = admin.patch("/servers/1", patch).await.expect(200);
    let mut expected = before.json.clone();
    for (member, value) in [
        ("location", Value::Null),
        ("zone", json!("z2")),
        ("tags", json!({ "keep": "1", "change": "4", "new": "" })),
        ("revision", json!(2)),
        ("updated_at", after.at("/updated_at")),
    ] {
        expected[member] = value;
    }
    assert_eq!(after.json, expected);
    let cleared =
        json!({ "cluster": null, "zone": null, "gpu_model": null, "tags": null, "total_gpu": 0, "total_cpu": 2 });
    let after = admin.patch("/servers/1", cleared).await.expect(200);
    assert_eq!((after.at("/cluster"), after.at("/tags"), after.at("/total_cpu")), (Value::Null, json!({}), json!(2.0)));
    for required in ["name", "architecture", "status", "total_cpu", "total_memory", "total_storage", "total_gpu"] {
        let refused = admin.patch("/servers/1", json!({ required: null })).await.expect(400);
        assert_eq!(refused.at("/errors/0/field"), required);
    }
    let several = json!({ "name": " x", "total_cpu": -1, "zone": "a\nb", "status": "online" });
    let refused = admin.patch("/servers/1", several).await.expect(400);
    let fields: Vec<Value> = refused.at("/errors").as_array().unwrap().iter().map(|e| e["field"].clone()).collect();
    assert_eq!(fields, ["name", "total_cpu", "zone"], "every fault is named at once");
    assert_eq!(admin.get("/servers/1").await.expect(200).json, after.json);
}

async fn check_filter(admin: &Client, query: &str, expected: &[&str]) {
    let found = admin.get(&format!("/servers?sort=name&{query}")).await.expect(200);
    assert_eq!(names(&found), expected, "{query}");
    assert_eq!(found.header("x-total-count"), Some(expected.len().to_string().as_str()), "{query}");
}

async fn every_filter_finds_what_it_names_and_nothing_else(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let pool = admin.post("/pools", json!({ "name": "p" })).await.expect(201).id();
    let rows = [
        (
            "a",
            json!({ "architecture": "amd64", "status": "online", "cluster": "c1", "zone": "z1", "pool_id": pool,
            "tags": { "env": "prod", "url": "http://x" } }),
        ),
        (
            "b",
            json!({ "architecture": "aarch64", "cluster": "c1", "zone": "z2", "tags": { "env": "prod", "rack": "7" } }),
        ),
        (
            "c",
            json!({ "architecture": "riscv64", "status": "maintenance", "cluster": "C1", "pool_id": pool,
            "tags": { "env": "test", "rack": "7" } }),
        ),
        ("d", json!({ "architecture": "arm64", "status": "provisioning", "zone": "z1" })),
    ];
    for (name, more) in rows {
        admin.post("/servers", server_with(name, more)).await.expect(201);
    }
    let pool_query = format!("pool_id={pool}");
    for (query, expected) in [
        ("", &["a", "b", "c", "d"][..]),
        ("architecture=x64", &["a"]),
        ("architecture=AArch64", &["b", "d"]),
        ("architecture=arm64%2Fv8", &["b", "d"]),
        ("architecture=riscv64gc", &["c"]),
        ("status=online", &["a"]),
        ("status=offline", &["b"]),
        ("status=maintenance", &["c"]),
        ("status=provisioning", &["d"]),
        (&pool_query, &["a", "c"]),
        ("pool_id=999", &[]),
        ("cluster=c1", &["a", "b"]),
        ("cluster=", &[]),
        ("zone=z1", &["a", "d"]),
        ("tag=env:prod", &["a", "b"]),
        ("tag=env%3Aprod&tag=rack%3A7", &["b"]),
        ("tag=rack:7&tag=env:test", &["c"]),
        ("tag=env:prod&tag=env:test", &[]),
        ("tag=url:http%3A%2F%2Fx", &["a"]),
        ("tag=env:", &[]),
        ("architecture=arm64&zone=z1&status=provisioning", &["d"]),
        ("cluster=c1&zone=z1&tag=env:test", &[]),
    ] {
        check_filter(&admin, query, expected).await;
    }
}

#[tokio::test]
async fn a_filter_that_means_nothing_is_refused() {
    let server = server(Backend::Sqlite);
    let admin = server.admin();
    for (query, field) in [
        ("architecture=vax", "architecture"),
        ("status=Online", "status"),
        ("tag=env", "tag"),
        ("pool_id=x", "pool_id"),
        ("sort=zone", "sort"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("cursor=x", "cursor"),
    ] {
        let refused = admin.get(&format!("/servers?{query}")).await.expect(400);
        assert_eq!(refused.at("/errors/0/field"), field, "{query}");
    }
}

async fn a_keyword_is_looked_for_literally_and_whatever_its_case(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let rows = [
        ("100%-edge", json!({ "location": "Москва, Склад 7" })),
        ("100x-edge", json!({ "cluster": "Größe", "gpu_model": "NVIDIA A100" })),
        ("under_score", json!({ "tags": { "Rack": "R-12" } })),
        ("underXscore", json!({ "zone": "back\\slash" })),
        ("服务器", json!({ "location": "quote ' \" ;--" })),
    ];
    for (name, more) in rows {
        admin.post("/servers", server_with(name, more)).await.expect(201);
    }
    for (keyword, expected) in [
        ("EDGE", &["100%-edge", "100x-edge"][..]),
        ("100%", &["100%-edge"]),
        ("%", &["100%-edge"]),
        ("_", &["under_score"]),
        ("r_s", &["under_score"]),
        ("\\", &["underXscore"]),
        ("K\\S", &["underXscore"]),
        ("МОСКВА", &["100%-edge"]),
        ("склад", &["100%-edge"]),
        ("GRÖßE", &["100x-edge"]),
        ("nvidia a", &["100x-edge"]),
        ("rack:r-12", &["under_score"]),
        ("服务", &["服务器"]),
        ("' \" ;--", &["服务器"]),
        ("absent", &[]),
    ] {
        let request = admin.request(Method::GET, "/servers").query(&[("keyword", keyword), ("sort", "name")]);
        let found = Client::send(request).await.expect(200);
        assert_eq!(names(&found), expected, "{keyword}");
    }
    let renamed = admin.get("/servers?keyword=100x").await.at("/0/id");
    admin.patch(&format!("/servers/{renamed}"), json!({ "name": "renamed" })).await.expect(200);
    check_filter(&admin, "keyword=100x", &[]).await;
    check_filter(&admin, "keyword=RENAMED", &["renamed"]).await;
}

async fn every_sort_pages_through_all_rows_in_order(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let mut rows = Vec::new();
    for n in 0..20_u32 {
        // Names in no order, of both cases and beyond ASCII; sizes with ties.
        let name = format!("{}-{n}", ["beta", "Alpha", "éclair", "zeta", "Ж"][usize::try_from(n * 7 % 5).unwrap()]);
        let (cpu, memory) = (1 + n * 3 % 4, 1 + n * 5 % 11);
        let body =
            server_with(&name, json!({ "total_cpu": cpu, "total_memory": memory, "zone": format!("z{}", n % 2) }));
        rows.push((admin.post("/servers", body).await.expect(201).id(), name, cpu, memory));
    }
    for key in ["id", "name", "total_cpu", "total_memory"] {
        rows.sort_by(|a, b| match key {
            "name" => a.1.cmp(&b.1),
            "total_cpu" => (a.2, a.0).cmp(&(b.2, b.0)),
            "total_memory" => (a.3, a.0).cmp(&(b.3, b.0)),
            _ => a.0.cmp(&b.0),
        });
        let ids: Vec<i64> = rows.iter().map(|row| row.0).collect();
        let reversed: Vec<i64> = ids.iter().rev().copied().collect();
        check_walk(&admin, &format!("/servers?sort={key}&limit=3"), &ids).await;
        check_walk(&admin, &format!("/servers?limit=3&sort=-{key}"), &reversed).await;
        let odd: Vec<i64> = ids.iter().filter(|id| *id % 2 == 0).copied().collect();
        check_walk(&admin, &format!("/servers?sort={key}&limit=3&zone=z1"), &odd).await;
    }
    rows.sort_by_key(|row| std::cmp::Reverse(row.0));
    check_walk(&admin, "/servers?limit=7", &rows.iter().map(|row| row.0).collect::<Vec<_>>()).await;
    let last = admin.get("/servers?limit=20").await.expect(200);
    assert_eq!((last.header("link"), last.header("x-total-count")), (None, Some("20")));
}

async fn check_walk(admin: &Client, path: &str, expected: &[i64]) {
    let found: Vec<i64> = walk(admin, path).await.iter().map(|row| row["id"].as_i64().unwrap()).collect();
    assert_eq!(found, expected, "{path}");
    assert_eq!(total(admin, path).await, i64::try_from(expected.len()).unwrap(), "{path}");
}

async fn pages_neither_repeat_nor_skip_while_others_come_and_go(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    for n in 0..20 {
        admin
            .post("/servers", server_with(&format!("stay-{n:02}"), json!({ "total_cpu": 1 + n % 3 })))
            .await
            .expect(201);
        admin.post("/servers", server_with(&format!("go-{n:02}"), json!({ "total_cpu": 1 + n % 4 }))).await.expect(201);
    }
    let mut going: Vec<Value> =
        walk(&admin, "/servers?keyword=go-").await.iter().map(|row| row["id"].clone()).collect();
    for (round, sort) in ["id", "-id", "name", "-name", "total_cpu", "-total_memory"].into_iter().enumerate() {
        let mut seen = BTreeMap::<String, u32>::new();
        let (mut path, mut step) = (Some(format!("/servers?limit=4&sort={sort}")), 0);
        while let Some(page) = path {
            let answer = admin.get(&page).await.expect(200);
            for name in names(&answer) {
                *seen.entry(name).or_default() += 1;
            }
            path = next(&answer);
            step += 1;
            if step <= 8 {
                let fresh = format!("{}-{round}-{step}", ["aaa", "stax", "zzz"][step % 3]);
                admin.post("/servers", server_with(&fresh, json!({ "total_cpu": 1 + step % 5 }))).await.expect(201);
            }
            if let Some(id) = (step <= 3).then(|| going.pop()).flatten() {
                admin.delete(&format!("/servers/{id}")).await.expect(204);
            }
        }
        let stayed: Vec<(&String, &u32)> = seen.iter().filter(|(name, _)| name.starts_with("stay-")).collect();
        assert_eq!(stayed.len(), 20, "{sort}: a row was skipped");
        assert!(seen.values().all(|times| *times == 1), "{sort}: a row was repeated: {seen:?}");
    }
}

async fn a_cursor_belongs_to_its_sort(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    for n in 0..3 {
        admin.post("/servers", server_body(&format!("s{n}"))).await.expect(201);
    }
    let page = admin.get("/servers?limit=1&sort=name").await.expect(200);
    let cursor = next(&page).unwrap().split("cursor=").nth(1).unwrap().to_owned();
    admin.get(&format!("/servers?sort=name&cursor={cursor}")).await.expect(200);
    for other in
        ["/servers?sort=-name", "/servers?sort=total_cpu", "/servers?limit=2", "/pools?limit=1", "/audit/logs?limit=1"]
    {
        let refused = admin.get(&format!("{other}&cursor={cursor}")).await.expect(400);
        assert_eq!(refused.at("/errors/0/field"), "cursor", "{other}");
    }
}

async fn a_server_joins_a_pool_that_is_there(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let refused = admin.post("/servers", server_with("edge", json!({ "pool_id": 7 }))).await.expect(400);
    assert_eq!(refused.at("/errors/0/field"), "pool_id");
    assert_eq!(total(&admin, "/servers").await, 0);
    let pool = admin.post("/pools", json!({ "name": "p" })).await.expect(201).id();
    let made = admin.post("/servers", server_with("edge", json!({ "pool_id": pool }))).await.expect(201);
    assert_eq!(made.at("/pool_id"), pool);
    let refused = admin.patch("/servers/1", json!({ "pool_id": null })).await.expect(400);
    assert_eq!(refused.at("/errors/0/field"), "pool_id", "a server is moved, not patched");
}

async fn cordoning_again_changes_and_records_nothing(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    admin.post("/servers", server_with("edge", json!({ "status": "online" }))).await.expect(201);
    for (verb, cordoned, revision) in [("cordon", true, 2), ("uncordon", false, 3)] {
        let path = format!("/servers/1/{verb}");
        let first = admin.post_empty(&path).await.expect(200);
        assert_eq!((first.at("/cordoned"), first.at("/schedulable")), (json!(cordoned), json!(!cordoned)));
        assert_eq!(first.at("/revision"), revision);
        let again = admin.post_empty(&path).await.expect(200);
        assert_eq!(again.json, first.json);
        assert_eq!(total(&admin, &format!("/audit/logs?action=server.{verb}")).await, 1, "{verb}");
    }
    admin.post_empty("/servers/1/uncordon").await.expect(200);
    admin.post_empty("/servers/2/cordon").await.expect(404);
    let viewer = bearer(&admin, "v", "viewer", None).await;
    viewer.post_empty("/servers/1/cordon").await.expect(403);
    assert_eq!(admin.get("/servers/1").await.at("/cordoned"), false);
}

async fn decimals_come_back_as_they_were_sent(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    for (n, (sent, told)) in [
        ("1.67", "1.67"),
        ("0.1", "0.1"),
        ("0.30000000000000004", "0.3"),
        ("0.57", "0.57"),
        ("1.005", "1.005"),
        ("0.001", "0.001"),
        ("2.0019", "2.001"),
        ("1e3", "1000.0"),
        ("1000000", "1000000.0"),
    ]
    .into_iter()
    .enumerate()
    {
        let body = format!(
            r#"{{"name":"s{n}","architecture":"arm64","total_cpu":{sent},"total_memory":0.5,"total_storage":0.1}}"#
        );
        let request = admin.request(Method::POST, "/servers").header("content-type", "application/json").body(body);
        let made = Client::send(request).await.expect(201);
        assert!(made.text.contains(&format!("\"total_cpu\":{told},")), "{sent}: {}", made.text);
        assert!(made.text.contains(&format!("\"available_cpu\":{told},")), "{sent}: {}", made.text);
        // 0.1 GiB is 102.4 MiB, of which 102 are there to be promised.
        assert_eq!(
            (made.at("/total_memory"), made.at("/total_storage")),
            (json!(0.5), json!(102.0 / 1024.0)),
            "{sent}"
        );
        let shown = admin.get(&format!("/servers/{}", made.id())).await.expect(200);
        assert_eq!(shown.json, made.json);
    }
}

async fn an_amount_below_the_smallest_unit_is_refused(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    admin.post("/servers", server_body("edge")).await.expect(201);
    for (member, wrong) in [
        ("total_cpu", json!(0.0004)),
        ("total_cpu", json!(0)),
        ("total_cpu", json!(-1)),
        ("total_cpu", json!(1_000_000.5)),
        ("total_memory", json!(0.0009)),
        ("total_memory", json!(1e10)),
        ("total_storage", json!(-0.1)),
        ("total_gpu", json!(-1)),
        ("total_gpu", json!(1.5)),
        ("total_gpu", json!(100_001)),
    ] {
        let refused = admin.post("/servers", server_with("wrong", json!({ member: wrong }))).await.expect(400);
        assert_eq!(refused.at("/errors/0/field"), member, "{wrong}");
        let refused = admin.patch("/servers/1", json!({ member: wrong })).await.expect(400);
        assert_eq!(refused.at("/errors/0/field"), member, "{wrong}");
    }
    assert_eq!(total(&admin, "/servers").await, 1);
    assert_eq!(admin.get("/servers/1").await.at("/revision"), 1);
}

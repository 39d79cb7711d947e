//! The audit log over HTTP: what it tells, and that nobody can change it unnoticed.

use crate::{
    on_both, server,
    support::{bearer, column, server_body, total, walk},
};
use reqwest::Method;
use serde_json::{Value, json};
use tests::{Answer, Backend, Client, Server};

on_both!(
    rows_tell_who_did_what_to_what,
    every_filter_finds_its_rows,
    pages_go_from_the_newest_row_to_the_first,
    an_export_holds_every_row_and_the_head,
    a_spreadsheet_takes_no_text_for_a_formula,
    tampering_with_a_running_server_is_found,
    tampering_with_a_stopped_server_is_found_when_it_starts,
);

const COLUMNS: [&str; 12] = [
    "seq",
    "created_at",
    "actor",
    "on_behalf_of",
    "action",
    "target",
    "outcome",
    "before",
    "after",
    "message",
    "request_id",
    "hash",
];

async fn rows_tell_who_did_what_to_what(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    let create =
        admin.request(Method::POST, "/servers").header("x-request-id", "my-request").json(&server_body("edge"));
    Client::send(create).await.expect(201);
    admin.patch("/servers/1", json!({ "zone": "z1" })).await.expect(200);
    admin.delete("/servers/1").await.expect(204);
    let rows = admin.get("/audit/logs?target=server:1").await.expect(200);
    for row in rows.json.as_array().unwrap() {
        let mut members: Vec<&str> = row.as_object().unwrap().keys().map(String::as_str).collect();
        let mut columns = COLUMNS;
        members.sort_unstable();
        columns.sort_unstable();
        assert_eq!(members, columns);
        assert!(row["created_at"].as_str().unwrap().ends_with('Z'));
        assert!(
            row["hash"].as_str().unwrap().len() == 64 && row["outcome"] == "success" && row["actor"] == "token:admin",
            "{row}"
        );
    }
    let [delete, update, create] = rows.json.as_array().unwrap().as_slice() else { panic!("{}", rows.text) };
    assert_eq!((&create["action"], &create["request_id"]), (&json!("server.create"), &json!("my-request")));
    assert_eq!((&create["before"], &create["after"]["name"]), (&Value::Null, &json!("edge")));
    assert_eq!((&update["before"]["zone"], &update["after"]["zone"]), (&Value::Null, &json!("z1")));
    assert_eq!((&update["before"], &update["after"]), (&create["after"], &delete["before"]));
    assert_eq!((&delete["action"], &delete["after"]), (&json!("server.delete"), &Value::Null));
    let verdict = admin.get("/audit/verify").await.expect(200);
    let head = json!({ "seq": delete["seq"], "hash": delete["hash"] });
    assert_eq!(
        verdict.json,
        json!({ "valid": true, "checked": delete["seq"], "head": head, "broken_at": null, "reason": null })
    );
}

/// Some rows of every kind.
async fn populate(admin: &Client) {
    for name in ["a", "b"] {
        admin.post("/servers", server_body(name)).await.expect(201);
        admin.post("/pools", json!({ "name": name })).await.expect(201);
    }
    let viewer = bearer(admin, "viewer", "viewer", None).await;
    viewer.delete("/servers/1").await.expect(403);
    admin.post_empty("/servers/1/cordon").await.expect(200);
    admin.patch("/servers/2", json!({ "zone": "z" })).await.expect(200);
    admin.delete("/pools/1").await.expect(204);
}

/// Whether a row is one that a filter asks for.
type Check<'a> = &'a dyn Fn(&Value) -> bool;

async fn every_filter_finds_its_rows(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    populate(&admin).await;
    let all = walk(&admin, "/audit/logs").await;
    let middle = all[3]["created_at"].as_str().unwrap().to_owned();
    let from = format!("from={middle}");
    let (to, both) = (format!("to={middle}"), format!("from={middle}&to={middle}"));
    let at = |text: &Value| text.as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap();
    let moment = at(&all[3]["created_at"]);
    let cases: [(&str, Check); 12] = [
        ("actor=token:viewer", &|row: &Value| row["actor"] == "token:viewer"),
        ("actor=token:view", &|_: &Value| false),
        ("action=server.create", &|row: &Value| row["action"] == "server.create"),
        ("action=server.", &|row: &Value| row["action"].as_str().unwrap().starts_with("server.")),
        ("action=server", &|_: &Value| false),
        ("target=server:1", &|row: &Value| row["target"] == "server:1"),
        ("outcome=refused", &|row: &Value| row["outcome"] == "refused"),
        ("outcome=failed", &|_: &Value| false),
        ("action=pool.&outcome=success&target=pool:1", &|row: &Value| row["target"] == "pool:1"),
        (&from, &|row: &Value| at(&row["created_at"]) >= moment),
        (&to, &|row: &Value| at(&row["created_at"]) < moment),
        (&both, &|_: &Value| false),
    ];
    for (query, fits) in cases {
        let expected: Vec<Value> = all.iter().filter(|row| fits(row)).map(|row| row["seq"].clone()).collect();
        let found = admin.get(&format!("/audit/logs?{query}")).await.expect(200);
        assert_eq!(column(&found, "seq"), expected, "{query}");
        assert_eq!(found.header("x-total-count"), Some(expected.len().to_string().as_str()), "{query}");
        let exported = admin.get(&format!("/audit/export?{query}")).await.expect(200);
        assert_eq!(exported.text.lines().count(), expected.len() + 1, "{query}: {}", exported.text);
    }
    for (query, field) in
        [("outcome=Success", "outcome"), ("from=yesterday", "from"), ("to=1", "to"), ("limit=-1", "limit")]
    {
        assert_eq!(admin.get(&format!("/audit/logs?{query}")).await.expect(400).at("/errors/0/field"), field);
    }
}

async fn pages_go_from_the_newest_row_to_the_first(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    populate(&admin).await;
    let newest = admin.get("/audit/logs?limit=1").await.at("/0/seq").as_i64().unwrap();
    let mut seen = Vec::new();
    let mut path = Some("/audit/logs?limit=2".to_owned());
    while let Some(page) = path {
        let answer = admin.get(&page).await.expect(200);
        seen.extend(column(&answer, "seq").iter().map(|seq| seq.as_i64().unwrap()));
        path = crate::support::next(&answer);
        // What is written meanwhile neither shifts nor joins the pages that follow.
        admin.post("/pools", json!({ "name": format!("p{}", seen.len()) })).await.expect(201);
    }
    assert_eq!(seen, (1..=newest).rev().collect::<Vec<_>>());
}

async fn an_export_holds_every_row_and_the_head(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    populate(&admin).await;
    let mut expected = walk(&admin, "/audit/logs?limit=3").await;
    expected.reverse();
    let last = expected.last().unwrap();
    let mark = format!("{}:{}", last["seq"], last["hash"].as_str().unwrap());

    let export = admin.get("/audit/export?format=jsonl").await.expect(200);
    assert_eq!(export.header("x-audit-head"), Some(mark.as_str()));
    assert_eq!(export.header("content-type"), Some("application/x-ndjson"));
    assert_eq!(export.header("content-disposition"), Some("attachment; filename=\"audit.jsonl\""));
    let mut lines: Vec<Value> = export.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.pop().unwrap(), json!({ "head": { "seq": last["seq"], "hash": last["hash"] } }));
    assert_eq!(lines, expected);

    let export = admin.get("/audit/export?format=csv").await.expect(200);
    assert_eq!(export.header("x-audit-head"), Some(mark.as_str()));
    assert_eq!(export.header("content-type"), Some("text/csv; charset=utf-8"));
    let mut table = csv::Reader::from_reader(export.text.as_bytes());
    assert_eq!(table.headers().unwrap().iter().collect::<Vec<_>>(), COLUMNS);
    let records: Vec<csv::StringRecord> = table.records().map(Result::unwrap).collect();
    assert_eq!(records.len(), expected.len());
    for (record, row) in records.iter().zip(&expected) {
        for (cell, member) in record.iter().zip(COLUMNS) {
            let told = match &row[member] {
                Value::Null => String::new(),
                Value::String(text) if member == "created_at" => {
                    let at: chrono::DateTime<chrono::Utc> = text.parse().unwrap();
                    at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
                }
                Value::String(text) => text.clone(),
                Value::Object(_) => {
                    assert_eq!(serde_json::from_str::<Value>(cell).unwrap(), row[member]);
                    continue;
                }
                other => other.to_string(),
            };
            assert_eq!(cell, told, "{member} of {row}");
        }
    }
}

async fn a_spreadsheet_takes_no_text_for_a_formula(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    for (name, id) in
        [("=1+1", "-1"), ("+49 30 1234", "-2-3"), ("@SUM(1)", "_x"), ("Иван \"Rack\", 3", ".y"), ("-2+3", "-")]
    {
        let login = admin.anonymous().request(Method::POST, "/auth/login").header("x-request-id", id);
        Client::send(login.json(&json!({ "name": name, "password": "x" }))).await.expect(401);
        let create = admin.request(Method::POST, "/servers").header("x-request-id", id).json(&server_body(name));
        Client::send(create).await.expect(201);
    }
    let rows = walk(&admin, "/audit/logs").await;
    let export = admin.get("/audit/export?format=csv").await.expect(200);
    let mut table = csv::Reader::from_reader(export.text.as_bytes());
    let records: Vec<csv::StringRecord> = table.records().map(Result::unwrap).collect();
    assert_eq!(records.len(), rows.len());
    for (record, row) in records.iter().zip(rows.iter().rev()) {
        assert_eq!(record.len(), COLUMNS.len());
        for (cell, member) in record.iter().zip(COLUMNS) {
            assert!(!cell.starts_with(['=', '+', '-', '@', '\t', '\r']), "{member}: {cell}");
            if let Value::String(text) = &row[member]
                && member != "created_at"
            {
                assert_eq!(cell.strip_prefix('\'').unwrap_or(cell), text, "{member}");
            }
        }
    }
}

/// What is done to the log, the row at which it must be found, and a word of the reason.
struct Tampering {
    sql: String,
    broken_at: i64,
    reason: &'static str,
}

/// Every kind of tampering with a log whose last row is `last`.
fn tamperings(last: i64) -> Vec<Tampering> {
    let edit = |column: &str, value: &str| format!("UPDATE audit_logs SET {column} = {value} WHERE seq = 3");
    let tampering = |sql: String, broken_at: i64, reason| Tampering { sql, broken_at, reason };
    let head =
        |seq: i64| format!("UPDATE audit_head SET seq = {seq}, hash = (SELECT hash FROM audit_logs WHERE seq = {seq})");
    vec![
        tampering(edit("created_at_us", "created_at_us + 1"), 3, "created_at_us"),
        tampering(edit("actor", "'user:mallory'"), 3, "actor"),
        tampering(edit("action", "'server.delete'"), 3, "action"),
        tampering(edit("target", "NULL"), 3, "target"),
        tampering(edit("outcome", "'refused'"), 3, "outcome"),
        tampering(edit("canonical", "replace(canonical, 'token:admin', 'token:other')"), 3, "actor"),
        tampering(
            "UPDATE audit_logs SET actor = 'token:other', canonical = replace(canonical, 'token:admin', 'token:other') WHERE seq = 3".to_owned(),
            3,
            "seal",
        ),
        tampering(edit("canonical", "'{}'"), 3, "cannot be read"),
        tampering(edit("hash", "(SELECT hash FROM audit_logs WHERE seq = 2)"), 3, "seal"),
        tampering(edit("seq", "1000"), 3, "missing"),
        tampering("DELETE FROM audit_logs WHERE seq = 4".to_owned(), 4, "missing"),
        tampering("DELETE FROM audit_logs WHERE seq = 1".to_owned(), 1, "missing"),
        tampering(
            "UPDATE audit_logs SET seq = -1 WHERE seq = 3; UPDATE audit_logs SET seq = 3 WHERE seq = 4; \
             UPDATE audit_logs SET seq = 4 WHERE seq = -1".to_owned(),
            3,
            "swapped",
        ),
        tampering(format!("DELETE FROM audit_logs WHERE seq >= {}", last - 1), last - 1, "missing at the end"),
        tampering(format!("DELETE FROM audit_logs WHERE seq >= {}; {}", last - 1, head(last - 2)), last - 1, "cut off"),
        tampering("DELETE FROM audit_logs; UPDATE audit_head SET seq = 0, hash = ''".to_owned(), 1, "cut off"),
        tampering(format!("UPDATE audit_head SET seq = {}", last - 1), last, "head"),
        tampering("UPDATE audit_head SET hash = 'x'".to_owned(), last, "head"),
        tampering("UPDATE audit_logs SET seq = 0 WHERE seq = 1".to_owned(), 0, "does not belong"),
    ]
}

fn keep(server: &Server) {
    server
        .sql()
        .run("CREATE TABLE kept AS SELECT * FROM audit_logs; CREATE TABLE kept_head AS SELECT * FROM audit_head");
}

fn put_back(server: &Server) {
    let columns = "seq, created_at_us, actor, action, target, outcome, canonical, hash";
    server.sql().run(&format!(
        "DELETE FROM audit_logs; INSERT INTO audit_logs ({columns}) SELECT {columns} FROM kept; \
         UPDATE audit_head SET seq = (SELECT seq FROM kept_head), hash = (SELECT hash FROM kept_head)"
    ));
}

#[track_caller]
fn check_found(verdict: &Answer, tampering: &Tampering) {
    let Tampering { sql, broken_at, reason } = tampering;
    assert_eq!(verdict.status, 200, "{sql}: {}", verdict.text);
    assert_eq!(
        (verdict.at("/valid"), verdict.at("/broken_at")),
        (json!(false), json!(broken_at)),
        "{sql}: {}",
        verdict.text
    );
    assert!(verdict.at("/reason").as_str().unwrap().contains(reason), "{sql}: {}", verdict.text);
}

async fn last_row(admin: &Client) -> i64 {
    assert_eq!(admin.get("/audit/verify").await.expect(200).at("/valid"), true);
    admin.get("/audit/logs?limit=1").await.at("/0/seq").as_i64().unwrap()
}

async fn tampering_with_a_running_server_is_found(backend: Backend) {
    let server = server(backend);
    let admin = server.admin();
    populate(&admin).await;
    let last = last_row(&admin).await;
    keep(&server);
    for tampering in tamperings(last) {
        server.sql().run(&tampering.sql);
        check_found(&admin.get("/audit/verify").await, &tampering);
        put_back(&server);
        assert_eq!(last_row(&admin).await, last);
    }
    // What is done afterwards does not heal it.
    server.sql().run("UPDATE audit_logs SET actor = 'user:mallory' WHERE seq = 3");
    admin.post("/pools", json!({ "name": "later" })).await.expect(201);
    assert_eq!(admin.get("/audit/verify").await.expect(200).at("/broken_at"), 3);
    assert_eq!(total(&admin, "/audit/logs").await, last + 1, "a broken log is still written to and read");
}

async fn tampering_with_a_stopped_server_is_found_when_it_starts(backend: Backend) {
    let mut server = server(backend);
    populate(&server.admin()).await;
    let last = last_row(&server.admin()).await;
    keep(&server);
    for tampering in tamperings(last) {
        server.terminate();
        server.sql().run(&tampering.sql);
        server.restart();
        check_found(&server.admin().get("/audit/verify").await, &tampering);
        let told = tests::eventually("the log to tell", async || {
            server.log().lines().find(|line| line.contains("AUDIT LOG IS BROKEN")).map(str::to_owned)
        });
        let told = told.await;
        assert!(told.contains(&format!("at row {}", tampering.broken_at)), "{told}");
        server.admin().get("/servers").await.expect(200);
        put_back(&server);
        assert_eq!(last_row(&server.admin()).await, last);
    }
}

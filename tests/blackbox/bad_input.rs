//! Bad input to every operation of the API document: the right status, a complete problem document, and nothing
//! changed.

use crate::{
    server,
    support::{bearer, check_problem, server_body, total},
};
use domain::identity::{Access, Operation as Permission};
use reqwest::{Method, RequestBuilder};
use serde_json::{Map, Value, json};
use tests::{Backend, Client, eventually};

/// The API document, read.
pub(crate) struct Api {
    document: Value,
    /// Its operations.
    pub(crate) operations: Vec<Operation>,
}

/// One operation of the document.
#[derive(Clone)]
pub(crate) struct Operation {
    /// Its method.
    pub(crate) method: Method,
    /// What the document says of it.
    pub(crate) value: Value,
    template: String,
}

impl Api {
    /// Reads the document of a server.
    pub(crate) async fn read(client: &Client) -> Self {
        let document = client.get("/openapi.json").await.expect(200).json;
        let operations = document["paths"].as_object().unwrap().iter().flat_map(|(template, item)| {
            item.as_object().unwrap().iter().map(move |(method, value)| Operation {
                method: method.to_uppercase().parse().unwrap(),
                template: template.clone(),
                value: value.clone(),
            })
        });
        let operations = operations.collect();
        Self { document, operations }
    }

    /// The schema itself, where this one refers to it.
    fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        let several = ["allOf", "anyOf", "oneOf"].into_iter().find_map(|several| schema[several].as_array());
        let only = several.and_then(|several| several.first());
        match (schema["$ref"].as_str(), only) {
            (Some(target), _) => self.resolve(self.document.pointer(target.trim_start_matches('#')).unwrap()),
            (None, Some(only)) => self.resolve(only),
            (None, None) => schema,
        }
    }

    /// The members of the body of an operation, with their schemas.
    fn members(&self, operation: &Operation) -> Option<Map<String, Value>> {
        let content = operation.value["requestBody"]["content"].as_object()?;
        self.resolve(&content.values().next()?["schema"])["properties"].as_object().cloned()
    }

    /// A good body: what is required of a `POST`, nothing of a `PATCH`.
    fn good_body(&self, operation: &Operation) -> Option<Value> {
        let content = operation.value["requestBody"]["content"].as_object()?;
        if operation.is_packed() {
            return None;
        }
        let mut body = self.good_object(self.resolve(&content.values().next()?["schema"]));
        // What the schema cannot say: that there is at least one member, and which members go together.
        match operation.id() {
            "sample_create" => body["cpu_usage"] = json!(1),
            "alert_target_create" => body["url"] = json!("https://example.org/hook"),
            "alert_rule_create" | "alert_rule_preview" => {
                body["condition"] =
                    json!({ "kind": "metric", "metric": "cpu_usage", "comparison": "gt", "threshold": 1 });
            }
            _ => {}
        }
        Some(body)
    }

    fn good_object(&self, schema: &Value) -> Value {
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        let member = |name: &Value| {
            let name = name.as_str()?;
            Some((name.to_owned(), self.good_value(&schema["properties"][name])))
        };
        Value::Object(required.iter().filter_map(member).collect())
    }

    fn good_value(&self, schema: &Value) -> Value {
        let schema = self.resolve(schema);
        match (schema["enum"].get(0), schema["type"].as_str()) {
            (Some(first), _) => first.clone(),
            (None, Some("number" | "integer")) => json!(1),
            (None, Some("boolean")) => json!(true),
            (None, Some("object")) => self.good_object(schema),
            (None, Some("array")) => json!([]),
            (None, _) if schema["format"] == "date-time" => json!("2026-01-01T00:00:00Z"),
            _ => json!("good-enough"),
        }
    }
}

impl Operation {
    /// Its id.
    pub(crate) fn id(&self) -> &str {
        self.value["operationId"].as_str().unwrap()
    }

    /// Its path with an id in it.
    pub(crate) fn path_with(&self, id: &str) -> String {
        self.template.replace("{id}", id)
    }

    /// Whether its body is no JSON but bytes in snappy.
    fn is_packed(&self) -> bool {
        self.value["requestBody"]["content"].get("application/x-protobuf").is_some()
    }

    /// Whether its body may be an array as well.
    fn takes_many(&self) -> bool {
        let content = self.value["requestBody"]["content"].as_object().and_then(|content| content.values().next());
        let several = content.and_then(|content| content["schema"]["anyOf"].as_array());
        several.is_some_and(|several| several.iter().any(|one| one["type"] == "array"))
    }

    fn access(&self) -> Access {
        Permission::by_id(self.id()).unwrap().access()
    }

    fn query(&self) -> impl Iterator<Item = (&str, &Value)> {
        let parameters = self.value["parameters"].as_array().into_iter().flatten();
        parameters.filter(|parameter| parameter["in"] == "query").map(|p| (p["name"].as_str().unwrap(), &p["schema"]))
    }

    fn answers(&self, status: &str) -> bool {
        self.value["responses"].get(status).is_some()
    }
}

/// A server with one of each thing, and the callers who are refused.
struct Site {
    server: tests::Server,
    admin: Client,
    api: Api,
    /// What only an agent may call, and what it is lenient about for agents that are newer than the server.
    agents: Vec<Operation>,
}

impl Site {
    async fn start() -> Self {
        let server = server(Backend::Sqlite);
        let admin = server.admin();
        admin.post("/servers", server_body("edge")).await.expect(201);
        admin.post("/pools", json!({ "name": "pool" })).await.expect(201);
        let user = json!({ "name": "alice", "role": "viewer", "password": "alice-password" });
        admin.post("/auth/users", user).await.expect(201);
        let target = json!({ "name": "hook", "kind": "webhook", "url": "https://example.org/hook" });
        admin.post("/alerts/targets", target).await.expect(201);
        let mut api = Api::read(&admin).await;
        let agents = api.operations.extract_if(.., |operation| operation.id().starts_with("agent_")).collect();
        Self { server, admin, api, agents }
    }

    /// A good request but for what the caller does to it.
    fn request(&self, client: &Client, operation: &Operation) -> RequestBuilder {
        let request = client.request(operation.method.clone(), &operation.path_with("1"));
        match self.api.good_body(operation) {
            Some(body) => request.json(&body),
            None if operation.is_packed() => {
                let request = request.header("content-type", "application/x-protobuf");
                request.header("content-encoding", "snappy").body(vec![0])
            }
            None => request,
        }
    }

    fn with_body(&self, operation: &Operation, body: impl Into<reqwest::Body>) -> RequestBuilder {
        let request = self.admin.request(operation.method.clone(), &operation.path_with("1"));
        request.header("content-type", "application/json").body(body)
    }

    /// Everything that a request could have changed.
    async fn state(&self) -> Vec<Value> {
        let mut state = Vec::new();
        for list in ["/servers", "/pools", "/tasks", "/auth/users", "/auth/tokens", "/alerts/rules", "/alerts/targets"]
        {
            let mut rows = self.admin.get(list).await.expect(200).json;
            for row in rows.as_array_mut().unwrap() {
                // Written down in the background.
                row["last_used_at"] = Value::Null;
            }
            state.push(rows);
        }
        state.push(total(&self.admin, "/audit/logs?outcome=success").await.into());
        state
    }

    /// Sends each request, which must be refused as told, and change nothing.
    async fn check(&self, cases: Vec<(String, RequestBuilder, u16)>) {
        assert!(!cases.is_empty());
        let before = self.state().await;
        for (case, request, status) in cases {
            let answer = Client::send(request).await;
            check_problem(&answer, status, &case);
            match status {
                401 => assert_eq!(answer.header("www-authenticate"), Some("Bearer"), "{case}"),
                405 => assert!(answer.header("allow").is_some(), "{case}"),
                _ => {}
            }
        }
        assert_eq!(self.state().await, before);
        assert!(!self.server.log().contains("panicked"), "{}", self.server.log());
    }
}

#[tokio::test]
async fn a_body_that_is_no_json_or_of_the_wrong_shape_is_refused() {
    let site = Site::start().await;
    let mut cases = Vec::new();
    for operation in site.api.operations.iter().filter(|operation| site.api.members(operation).is_some()) {
        let good = site.api.good_body(operation).unwrap().to_string();
        let open = good.trim_end_matches('}');
        let comma = if open == "{" { "" } else { "," };
        let deep = format!("{open}{comma}\"deep\":{}{}}}", "[".repeat(1000), "]".repeat(1000));
        for body in [
            "",
            "{",
            "{\"name\":",
            "null",
            "true",
            "7",
            "\"text\"",
            "[]",
            "[{}]",
            "{}{}",
            "{\"a\":1,}",
            "{'a':1}",
            "\u{feff}{}",
            &format!("{good}x"),
            &format!("{open}{comma}\"unknown_member\":1}}"),
            &deep,
            &"[".repeat(1000),
        ] {
            // A body whose members are all optional may be left out.
            if body.is_empty() && operation.value["requestBody"]["required"] == false {
                continue;
            }
            // Of an array, each item is judged by itself.
            if ["[]", "[{}]"].contains(&body) && operation.takes_many() {
                continue;
            }
            let case = format!("{} with the body {}", operation.id(), body.chars().take(60).collect::<String>());
            cases.push((case, site.with_body(operation, body.to_owned()), 400));
        }
        let not_utf8 = [good.as_bytes(), b"\xff"].concat();
        cases.push((format!("{} with bytes", operation.id()), site.with_body(operation, not_utf8), 400));
    }
    site.check(cases).await;
}

/// Values that no member of this type has.
fn wrong_values(schema: &Value) -> Vec<&'static str> {
    let mut wrong = match schema["type"].as_str() {
        Some("string") => vec!["1", "true", "[]", "{}", "\"\\u0000\""],
        Some("integer") => vec!["\"1\"", "1.5", "true", "[]", "1e999", "-1", "9223372036854775808", "NaN", "Infinity"],
        Some("number") => vec!["\"1\"", "true", "{}", "1e999", "-1e999", "-1", "1e300", "NaN", "-Infinity"],
        Some("boolean") => vec!["1", "\"true\"", "[]"],
        Some("array") => vec!["1", "\"x\"", "{}", "[[]]", "[null]"],
        _ => vec!["1", "\"x\"", "[]", "true"],
    };
    if schema["minimum"].as_f64().is_some_and(|least| least < -1.0) {
        wrong.retain(|wrong| *wrong != "-1");
    }
    if schema["enum"].is_array() {
        wrong.extend(["\"unknown_word\"", "\"\""]);
    }
    wrong
}

#[tokio::test]
async fn a_member_of_the_wrong_type_or_out_of_range_is_refused_by_name() {
    let site = Site::start().await;
    let mut cases = Vec::new();
    for operation in &site.api.operations {
        for (name, schema) in site.api.members(operation).into_iter().flatten() {
            let mut good = site.api.good_body(operation).unwrap();
            good.as_object_mut().unwrap().remove(&name);
            let open = good.to_string().trim_end_matches('}').to_owned();
            let comma = if open == "{" { "" } else { "," };
            // A name and a password to sign in with are compared, not checked.
            let free = operation.id() == "auth_login";
            for wrong in
                wrong_values(site.api.resolve(&schema)).into_iter().filter(|wrong| !(free && wrong.contains("u0000")))
            {
                let body = format!("{open}{comma}\"{name}\":{wrong}}}");
                cases.push((format!("{}: {body}", operation.id()), site.with_body(operation, body), 400));
            }
            let twice = format!("{open}{comma}\"{name}\":null,\"{name}\":null}}");
            cases.push((format!("{}: {twice}", operation.id()), site.with_body(operation, twice), 400));
        }
    }
    site.check(cases).await;
}

#[tokio::test]
async fn a_body_that_is_too_large_or_of_another_kind_is_refused() {
    let site = Site::start().await;
    let mut cases = Vec::new();
    for operation in site.api.operations.iter().filter(|operation| site.api.members(operation).is_some()) {
        let megabytes = if operation.takes_many() { 17 } else { 5 };
        let large = format!("{{\"name\":\"{}\"}}", "x".repeat(megabytes << 20));
        cases.push((format!("{} with too much", operation.id()), site.with_body(operation, large.clone()), 413));
        let pieces =
            large.into_bytes().chunks(1 << 16).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect::<Vec<_>>();
        let streamed = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
        cases.push((
            format!("{} with too much of unknown length", operation.id()),
            site.with_body(operation, streamed),
            413,
        ));
        for kind in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data",
            "application/xml",
            "application/json; charset=latin1",
        ] {
            let request =
                site.admin.request(operation.method.clone(), &operation.path_with("1")).header("content-type", kind);
            cases.push((format!("{} with {kind}", operation.id()), request.body("{}"), 415));
        }
        let none = site.admin.request(operation.method.clone(), &operation.path_with("1")).body("{}");
        cases.push((format!("{} without a type", operation.id()), none, 415));
        let packed = site.with_body(operation, "{}").header("content-encoding", "gzip");
        cases.push((format!("{} packed", operation.id()), packed, 415));
    }
    site.check(cases).await;
}

#[tokio::test]
async fn a_parameter_that_is_unknown_or_wrong_is_refused() {
    let site = Site::start().await;
    let mut cases = Vec::new();
    for operation in &site.api.operations {
        let path = operation.path_with("1");
        let mut queries = vec!["nonsense=1".to_owned(), "Limit=1".to_owned(), "%00=1".to_owned()];
        for (name, schema) in operation.query() {
            let schema = site.api.resolve(schema);
            let wrong: &[&str] = match (schema["type"].as_str(), schema["enum"].is_array(), name) {
                (Some("integer"), ..) => &["", "x", "1.5", "99999999999999999999", "1e3", "1%00"],
                (_, true, _) => &["unknown_word", "%00"],
                (_, _, "cursor") => &["", "x", "e30", "eyJzIjoiLWlkIiwiayI6IiIsImkiOiJ4In0"],
                (_, _, "from" | "to") => &["", "yesterday", "2026-13-01T00:00:00Z"],
                _ => &[],
            };
            queries.extend(wrong.iter().map(|wrong| format!("{name}={wrong}")));
            if schema["type"] != "array" {
                queries.push(format!("{name}=1&{name}=2"));
            }
        }
        for query in queries {
            let request = site.admin.request(operation.method.clone(), &format!("{path}?{query}"));
            let request = match site.api.good_body(operation) {
                Some(body) => request.json(&body),
                None => request,
            };
            cases.push((format!("{} with {query}", operation.id()), request, 400));
        }
    }
    site.check(cases).await;
}

#[tokio::test]
async fn a_path_a_method_or_a_media_type_that_is_not_there_is_refused() {
    let site = Site::start().await;
    let mut cases = Vec::new();
    for operation in &site.api.operations {
        let id = operation.id();
        for method in [Method::PUT, Method::OPTIONS, Method::TRACE] {
            cases.push((format!("{method} for {id}"), site.admin.request(method, &operation.path_with("1")), 405));
        }
        if operation.answers("406") {
            for accept in [
                "image/png",
                "application/json;q=0, text/plain;q=0, text/csv;q=0, application/x-ndjson;q=0, text/event-stream;q=0",
            ] {
                let request = site.request(&site.admin, operation).header("accept", accept);
                cases.push((format!("{id} as {accept}"), request, 406));
            }
        }
        for (wrong, status) in [
            ("x", 400),
            ("0", 400),
            ("-1", 400),
            ("1.5", 400),
            ("%00", 400),
            ("1%20", 400),
            ("99999999999999999999", 400),
            ("987654321", 404),
        ] {
            if !operation.template.contains("{id}") {
                continue;
            }
            let request = site.admin.request(operation.method.clone(), &operation.path_with(wrong));
            let request = match site.api.good_body(operation) {
                Some(body) => request.json(&body),
                None => request,
            };
            cases.push((format!("{id} of {wrong}"), request, status));
        }
    }
    for path in
        ["/", "/server", "/servers/", "/servers/1/", "/servers/1/reboot", "/%2e%2e/etc/passwd", "//servers", "/SERVERS"]
    {
        cases.push((path.to_owned(), site.admin.request(Method::GET, path), 404));
    }
    site.check(cases).await;
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() {
    let site = Site::start().await;
    for (path, allow) in [
        ("/servers", "GET, HEAD, POST"),
        ("/servers/1", "DELETE, GET, HEAD, PATCH"),
        ("/servers/1/cordon", "POST"),
        ("/auth/tokens/1", "DELETE, GET, HEAD"),
        ("/healthz", "GET, HEAD"),
    ] {
        let answer = Client::send(site.admin.request(Method::PUT, path)).await.expect(405);
        assert_eq!(answer.header("allow"), Some(allow), "{path}");
    }
    let head = Client::send(site.admin.request(Method::HEAD, "/servers")).await.expect(200);
    assert_eq!((head.text.as_str(), head.header("x-total-count")), ("", Some("1")));
}

#[tokio::test]
async fn a_caller_who_is_unknown_or_may_not_is_refused() {
    let site = Site::start().await;
    let made = site.admin.post("/pools", json!({ "name": "clock" })).await.expect(201);
    let now: chrono::DateTime<chrono::Utc> = serde_json::from_value(made.at("/created_at")).unwrap();
    let soon = json!({ "name": "short", "role": "admin", "expires_at": now + chrono::TimeDelta::milliseconds(1200) });
    let made = site.admin.post("/auth/tokens", soon).await.expect(201);
    let expired = site.admin.with_token(made.at("/secret").as_str().unwrap());
    let viewer = bearer(&site.admin, "viewer", "viewer", None).await;
    eventually("the token to expire", async || (expired.get("/auth/me").await.status == 401).then_some(())).await;
    let mut cases = Vec::new();
    for operation in site.api.operations.iter().chain(&site.agents) {
        let id = operation.id();
        if operation.access() == Access::Public {
            continue;
        }
        let anonymous = site.admin.anonymous();
        let unknown = site.admin.with_token(&format!("slt_{}", "0".repeat(64)));
        for (caller, client) in [("anonymous", &anonymous), ("unknown", &unknown), ("expired", &expired)] {
            cases.push((format!("{id} by {caller}"), site.request(client, operation), 401));
        }
        for scheme in ["Basic YWxpY2U6eA==", "Bearer", "Bearer ", "slt_1"] {
            let request = site.request(&anonymous, operation).header("authorization", scheme);
            cases.push((format!("{id} with {scheme}"), request, 401));
        }
        let cookie = site.request(&anonymous, operation).header("cookie", "starlink_session=sls_0");
        cases.push((format!("{id} with a made-up cookie"), cookie, 401));
        if operation.access() == Access::Agent {
            let request = site.request(&site.admin, operation).query(&[("session", "s")]);
            let request = if operation.query().any(|(name, _)| name == "session") {
                request
            } else {
                site.request(&site.admin, operation)
            };
            cases.push((format!("{id} by an admin"), request, 403));
        }
        if matches!(operation.access(), Access::Change(_) | Access::Manage(_)) {
            cases.push((format!("{id} by a viewer"), site.request(&viewer, operation), 403));
        }
    }
    site.check(cases).await;
}

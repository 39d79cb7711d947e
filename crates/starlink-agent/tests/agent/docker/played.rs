//! What a real engine does not do when it is told to, played.

use super::bed::{Bed, container, in_time, lines, reason, shell};
use crate::engine::fake::{Fake, Request, Response};
use domain::containers::{Login, Logins};
use serde_json::{Value, json};
use starlink_agent::drivers::Driver;
use std::{
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

const EARLY: &str = "2026-11-25T09:00:00.000000001Z";
const LATE: &str = "2026-11-25T09:00:09Z";

/// A container of the first attempt of task 1.
pub(super) fn inspected(installation: &str, status: &str) -> Response {
    let labels = [("installation", installation), ("task", "1"), ("attempt", "1")];
    let labels: Value =
        labels.map(|(name, value)| (format!("org.starlink.{name}"), json!(value))).into_iter().collect();
    Response::json(
        200,
        &json!({
            "Id": "0a1b",
            "State": { "Status": status, "ExitCode": 0, "StartedAt": EARLY, "FinishedAt": LATE },
            "Config": { "Labels": labels },
        }),
    )
}

fn frame(stream: u8, bytes: &[u8]) -> Vec<u8> {
    let mut frame = vec![stream, 0, 0, 0];
    frame.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
    frame.extend(bytes);
    frame
}

fn stamped(bytes: &[u8]) -> Vec<u8> {
    [EARLY.as_bytes(), b" ", bytes].concat()
}

fn pieces(pieces: Vec<Vec<u8>>, pause: u64) -> Response {
    Response { status: 200, pieces, pause: Duration::from_millis(pause), stays_open: false }
}

/// A container that writes what `follow` answers, and ends then.
async fn check_output(follow: Vec<Vec<u8>>, so_far: Vec<Vec<u8>>, expected: &[&str]) {
    let installation = Arc::new(OnceLock::<String>::new());
    let (name, over) = (Arc::clone(&installation), AtomicBool::new(false));
    let fake = Fake::start(move |request| {
        if request.line.contains("follow=true") {
            over.store(true, Ordering::Relaxed);
            pieces(follow.clone(), 100)
        } else if request.line.contains("/logs?") {
            pieces(so_far.clone(), 0)
        } else if request.line.contains("/containers/") {
            inspected(name.get().unwrap(), if over.load(Ordering::Relaxed) { "exited" } else { "running" })
        } else {
            pieces(Vec::new(), 0)
        }
    });
    let bed = Bed::at(&fake.socket(), |_| {});
    installation.set(bed.installation.to_string()).unwrap();
    let work = bed.work(1, shell("x"));
    let exit = bed.end(&work).await;
    assert_eq!((exit.code, reason(&exit)), (Some(0), None), "{exit:?}");
    assert_eq!(lines(&work), expected);
}

#[tokio::test]
async fn fc_11_a_character_and_a_header_in_pieces_come_through() {
    let (first, second, third) =
        (frame(1, &stamped(b"\xf0\x9f")), frame(2, &stamped(b"err\n")), frame(1, &stamped(b"\x9a\x80\n")));
    let follow = vec![[&first[..], &second[..5]].concat(), second[5..].to_vec(), third.clone()];
    let so_far = vec![[first, second, third].concat()];
    check_output(follow, so_far, &["stderr: err", "stdout: \u{1f680}"]).await;
}

#[tokio::test]
async fn fc_11_an_engine_that_tells_no_times_is_understood() {
    let (first, second, third) = (frame(1, b"\xf0\x9f"), frame(2, b"err\n"), frame(1, b"\x9a\x80\n"));
    let follow = vec![[&first[..], &second[..5]].concat(), second[5..].to_vec(), third];
    check_output(follow, Vec::new(), &["stderr: err", "stdout: \u{1f680}"]).await;
}

#[tokio::test]
async fn what_was_cut_short_is_asked_for_again() {
    let (first, second) = (frame(1, &stamped(b"one\n")), frame(1, &stamped(b"two\n")));
    let follow = vec![first.clone(), second[..12].to_vec()];
    let so_far = vec![[first, second].concat()];
    check_output(follow, so_far, &["stdout: one", "stdout: two"]).await;
}

/// An engine that has no image until it was pulled, and answers to that so.
fn registry(pull: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Fake {
    let pulled = AtomicBool::new(false);
    Fake::start(move |request| {
        if request.line.starts_with("POST /images/create") {
            pulled.store(true, Ordering::Relaxed);
            pull(request)
        } else if request.line.starts_with("GET /version") {
            Response::json(200, &json!({ "Arch": "amd64", "ApiVersion": "1.41" }))
        } else if request.line.starts_with("GET /images/") && pulled.load(Ordering::Relaxed) {
            Response::json(200, &json!({ "Id": "sha256:0", "Architecture": "amd64", "Os": "linux" }))
        } else if request.line.starts_with("POST /containers/create") {
            Response::json(201, &json!({ "Id": "0a1b", "Warnings": [] }))
        } else if request.line.starts_with("POST /containers/0a1b/start") {
            Response { pieces: Vec::new(), ..Response::json(204, &Value::Null) }
        } else {
            Response::missing()
        }
    })
}

fn news(items: &[Value]) -> Response {
    pieces(items.iter().map(|item| format!("{item}\r\n").into_bytes()).collect(), 1)
}

/// Whose base64 has both of the characters that are written in two ways.
const PASSWORD: &str = "reg-s3cret-77>>>???~~~";

#[tokio::test]
async fn a_pull_tells_how_far_it_is_and_keeps_the_password_to_the_engine() {
    let fake = registry(|_| {
        news(&[
            json!({ "status": "Pulling from a/b", "id": "1" }),
            json!({ "status": "Pulling fs layer", "id": "l1", "progressDetail": {} }),
            json!({ "status": "Downloading", "id": "l1", "progressDetail": { "current": 50, "total": 100 } }),
            json!({ "status": "Pull complete", "id": "l1", "progressDetail": {} }),
            json!({ "status": "Status: Downloaded newer image for x" }),
        ])
    });
    let login = Login { username: "robot".to_owned(), password: PASSWORD.to_owned() };
    let bed = Bed::at(&fake.socket(), |options| {
        options.logins = Logins::from([("registry.example:5000".to_owned(), login)]);
    });
    let told = Mutex::new(Vec::new());
    let work = bed.work(1, container("registry.example:5000/a/b", &[]));
    in_time("the start", bed.driver.start(&work, &|text| told.lock().unwrap().push(text))).await.unwrap();
    let image = "pulling image registry.example:5000/a/b";
    assert_eq!(*told.lock().unwrap(), [image.to_owned(), format!("{image}: 35 %"), format!("{image}: 100 %")]);

    let requests = fake.requests();
    let pull = requests.iter().find(|request| request.line.starts_with("POST /images/create")).unwrap();
    assert!(pull.line.contains("fromImage=registry.example%3A5000%2Fa%2Fb%3Alatest"), "{}", pull.line);
    let header = pull.head.lines().find_map(|line| line.strip_prefix("x-registry-auth: ")).unwrap();
    assert!(header.contains('-') && header.contains('_') && !header.contains(['+', '/']), "{header}");
    for request in requests.iter().filter(|request| !request.line.starts_with("POST /images/create")) {
        assert!(!request.head.contains("x-registry-auth") && !request.body.contains("s3cret"), "{request:?}");
    }
    assert!(!format!("{:?}", bed.options).contains("s3cret"));
}

#[tokio::test]
async fn a_password_goes_to_its_own_registry_only() {
    let fake = registry(|_| news(&[]));
    let login = Login { username: "robot".to_owned(), password: PASSWORD.to_owned() };
    let bed = Bed::at(&fake.socket(), |options| options.logins = Logins::from([("docker.io".to_owned(), login)]));
    bed.start(1, container("elsewhere.example/a/b:1", &[])).await;
    let header = |request: &Request| {
        let auth = request.head.lines().find_map(|line| line.strip_prefix("x-registry-auth: "));
        auth.is_some_and(|auth| auth.len() > 10)
    };
    assert!(!fake.requests().iter().any(header));
}

#[tokio::test]
async fn a_pull_that_fails_half_way_is_told_in_the_engines_words() {
    let error = "toomanyrequests: you have reached your pull rate limit";
    for (answer, reason, words) in [
        (json!({ "errorDetail": { "message": error }, "error": error }), "image_missing", error),
        (
            json!({ "errorDetail": { "message": "write /x: no space left on device" }, "error": "x" }),
            "disk_full",
            "no space left on device",
        ),
    ] {
        let fake = registry(move |_| news(&[json!({ "status": "Pulling fs layer", "id": "l1" }), answer.clone()]));
        let failure = Bed::at(&fake.socket(), |_| {}).refusal(container("a/b:1", &[])).await;
        assert_eq!(failure.reason, reason);
        assert!(failure.detail.contains(words) && failure.detail.contains("a/b:1"), "{failure}");
    }
    let fake = registry(|_| Response::json(404, &json!({ "message": "manifest for a/b:1 not found" })));
    let failure = Bed::at(&fake.socket(), |_| {}).refusal(container("a/b:1", &[])).await;
    assert_eq!((failure.reason, failure.detail.contains("manifest for a/b:1 not found")), ("image_missing", true));
}

#[tokio::test]
async fn an_engine_that_starts_the_program_itself_tells_of_its_format() {
    let message = "OCI runtime create failed: exec /prog: exec format error: unknown";
    let tries = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&tries);
    let fake = Fake::start(move |request| {
        if request.line.starts_with("GET /version") {
            // Not quite there yet.
            match counted.fetch_add(1, Ordering::Relaxed) {
                0 => Response::json(503, &json!({ "message": "starting" })),
                _ => Response::json(200, &json!({ "Arch": "arm64" })),
            }
        } else if request.line.starts_with("GET /images/") {
            Response::json(200, &json!({ "Architecture": "arm64" }))
        } else if request.line.starts_with("POST /containers/create") {
            Response::json(201, &json!({ "Id": "0a1b", "Warnings": [] }))
        } else if request.line.contains("/start") {
            Response::json(400, &json!({ "message": message }))
        } else {
            Response::missing()
        }
    });
    let failure = Bed::at(&fake.socket(), |_| {}).refusal(container("x", &[])).await;
    assert_eq!((failure.reason, failure.detail.as_str()), ("exec_format", message));
    assert_eq!(tries.load(Ordering::Relaxed), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_is_given_up_leaves_no_container_that_is_made_later() {
    let installation = Arc::new(OnceLock::<String>::new());
    let (going_on, wait) = std::sync::mpsc::channel::<()>();
    let (name, wait) = (Arc::clone(&installation), Mutex::new(wait));
    let [asked, made] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
    let (was_asked, is_made) = (Arc::clone(&asked), Arc::clone(&made));
    let fake = Fake::start(move |request| {
        if request.line.starts_with("GET /version") {
            Response::json(200, &json!({ "Arch": "amd64" }))
        } else if request.line.starts_with("GET /images/") {
            Response::json(200, &json!({ "Architecture": "amd64" }))
        } else if request.line.starts_with("POST /containers/create") {
            was_asked.store(true, Ordering::Relaxed);
            wait.lock().unwrap().recv().unwrap();
            is_made.store(true, Ordering::Relaxed);
            Response::json(201, &json!({ "Id": "0a1b", "Warnings": [] }))
        } else if request.line.starts_with("DELETE /containers/0a1b") {
            Response { pieces: Vec::new(), ..Response::json(204, &Value::Null) }
        } else if is_made.load(Ordering::Relaxed) {
            inspected(name.get().unwrap(), "created")
        } else {
            Response::missing()
        }
    });
    let bed = Bed::at(&fake.socket(), |_| {});
    installation.set(bed.installation.to_string()).unwrap();
    let work = bed.work(1, shell("x"));
    let (driver, starting) = (Arc::clone(&bed.driver), work.clone());
    let starting = tokio::spawn(async move { driver.start(&starting, &|_| {}).await });
    super::bed::until("the question", async || asked.load(Ordering::Relaxed)).await;
    starting.abort();
    let driver = Arc::clone(&bed.driver);
    let mut removing = tokio::spawn(async move { driver.remove(&work).await });
    let early = tokio::time::timeout(Duration::from_millis(100), &mut removing).await;
    assert!(early.is_err(), "it is removed before it is made");
    going_on.send(()).unwrap();
    in_time("the removal", removing).await.unwrap().unwrap();
    let asked = fake.requests();
    assert!(
        asked.iter().any(|request| request.line.starts_with("DELETE /containers/0a1b?v=true&force=true")),
        "{asked:?}"
    );
    assert!(!asked.iter().any(|request| request.line.contains("/start")), "{asked:?}");
}

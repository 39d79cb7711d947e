//! An engine that is played over a real Unix socket, for what a real one does not do when it is told to.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};

/// The longest head of a request.
const HEAD: usize = 64 * 1024;

/// A request: method and path with query, head, body.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// Such as `GET /info`.
    pub(crate) line: String,
    /// All of its head.
    pub(crate) head: String,
    /// Its body.
    pub(crate) body: String,
}

/// What is sent back.
pub(crate) struct Response {
    pub(crate) status: u16,
    /// Pieces, with a pause before each but the first.
    pub(crate) pieces: Vec<Vec<u8>>,
    pub(crate) pause: Duration,
    /// Whether the connection stays open, as that of a container that runs on does.
    pub(crate) stays_open: bool,
}

impl Response {
    /// An answer that is JSON.
    pub(crate) fn json(status: u16, value: &serde_json::Value) -> Self {
        let pieces = vec![value.to_string().into_bytes()];
        Self { status, pieces, pause: Duration::ZERO, stays_open: false }
    }

    /// What the engine answers to what it does not have.
    pub(crate) fn missing() -> Self {
        Self::json(404, &serde_json::json!({ "message": "page not found" }))
    }
}

/// What is answered to a request.
type Answer = dyn Fn(&Request) -> Response + Send + Sync;

/// A played engine; ends with the value.
pub(crate) struct Fake {
    directory: tempfile::TempDir,
    requests: Arc<Mutex<Vec<Request>>>,
    server: tokio::task::JoinHandle<()>,
}

impl Fake {
    /// One that answers so. An answer may block until the test goes on.
    pub(crate) fn start(answer: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("socket")).unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (answer, asked): (Arc<Answer>, _) = (Arc::new(answer), Arc::clone(&requests));
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, asked) = (Arc::clone(&answer), Arc::clone(&asked));
                tokio::spawn(async move {
                    let _ = serve(stream, answer, &asked).await;
                });
            }
        });
        Self { directory, requests, server }
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    /// What it was asked.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(mut stream: UnixStream, answer: Arc<Answer>, asked: &Mutex<Vec<Request>>) -> std::io::Result<()> {
    let request = read(&mut stream).await?;
    // On a thread of its own: a worker that is blocked may be the one that all others wait for.
    let (request, response) = tokio::task::spawn_blocking(move || {
        let response = answer(&request);
        (request, response)
    })
    .await
    .map_err(std::io::Error::other)?;
    asked.lock().unwrap().push(request);
    let head = format!(
        "HTTP/1.1 {} played\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
        response.status
    );
    stream.write_all(head.as_bytes()).await?;
    for (index, piece) in response.pieces.iter().enumerate() {
        if index > 0 {
            tokio::time::sleep(response.pause).await;
        }
        stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await?;
        stream.write_all(piece).await?;
        stream.write_all(b"\r\n").await?;
        stream.flush().await?;
    }
    if response.stays_open {
        // Until the other side goes.
        let _ = stream.read(&mut [0]).await?;
    }
    stream.write_all(b"0\r\n\r\n").await
}

async fn read(stream: &mut UnixStream) -> std::io::Result<Request> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if bytes.len() > HEAD || stream.read_buf(&mut bytes).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let length =
        head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
    while bytes.len() < end + length.unwrap_or(0) {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    let line = head.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
    let body = String::from_utf8_lossy(&bytes[end..]).into_owned();
    Ok(Request { line, head, body })
}

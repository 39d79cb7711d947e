//! As much of HTTP/1.1 as an agent speaks.

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) bearer: Option<String>,
    pub(crate) body: Value,
}

impl Request {
    /// Such as `POST /agent/session`.
    pub(crate) fn call(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn ok(status: u16, body: &impl serde::Serialize) -> Self {
        Self { status, body: serde_json::to_string(body).unwrap() }
    }

    pub(crate) fn empty() -> Self {
        Self { status: 204, body: String::new() }
    }

    pub(crate) fn problem(status: u16, code: &str) -> Self {
        let detail = format!("the server says {code}");
        let kind = format!("urn:starlink:problem:{code}");
        Self::ok(status, &serde_json::json!({"type": kind, "code": code, "detail": detail, "status": status}))
    }
}

/// The next request of a connection; `None` once there will be none.
pub(crate) async fn read(socket: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Request> {
    let head_end = loop {
        if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        more(socket, buffer).await?;
    };
    let head = String::from_utf8(buffer.drain(..head_end).collect()).unwrap();
    let mut lines = head.lines();
    let mut words = lines.next()?.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let header = |wanted: &str| {
        head.lines().skip(1).find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case(wanted).then(|| value.trim().to_owned())
        })
    };
    let length = header("content-length").map_or(0, |length| length.parse().unwrap());
    while buffer.len() < length {
        more(socket, buffer).await?;
    }
    let body: Vec<u8> = buffer.drain(..length).collect();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    Some(Request {
        method,
        path: path.to_owned(),
        query: query.to_owned(),
        bearer: header("authorization").and_then(|value| value.strip_prefix("Bearer ").map(str::to_owned)),
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
    })
}

async fn more(socket: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    let read = socket.read_buf(buffer).await.ok()?;
    (read > 0).then_some(())
}

pub(crate) async fn write(socket: &mut TcpStream, response: &Response) -> std::io::Result<()> {
    let Response { status, body } = response;
    let kind = match body.chars().next() {
        None => "",
        Some('{') if *status < 400 => "content-type: application/json\r\n",
        Some('{') => "content-type: application/problem+json\r\n",
        Some(_) => "content-type: text/html\r\n",
    };
    let head = format!("HTTP/1.1 {status} x\r\n{kind}content-length: {}\r\n\r\n", body.len());
    socket.write_all(format!("{head}{body}").as_bytes()).await
}

//! A client that does next to nothing: HTTP/1.1 over one connection that stays open, one request after the other.

use crate::Outcome;
use std::net::SocketAddr;
use tests::Server;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Room for an answer at first; it grows to the largest one.
const ROOM: usize = 4096;

/// Where a server listens and what its admin's token is.
#[derive(Clone)]
pub(crate) struct Target {
    address: SocketAddr,
    token: String,
}

impl Target {
    /// This server.
    pub(crate) fn of(server: &Server) -> Outcome<Self> {
        let address = server.base.strip_prefix("http://").unwrap_or(&server.base).parse()?;
        Ok(Self { address, token: server.admin_secret() })
    }

    /// The same server, for the bearer of another token.
    pub(crate) fn with_token(&self, token: String) -> Self {
        Self { token, ..self.clone() }
    }

    /// The bytes of a `GET`.
    pub(crate) fn get(&self, path: &str) -> Vec<u8> {
        self.head("GET", path, "").into_bytes()
    }

    /// The bytes of a `GET` of something that goes on, in this media type.
    pub(crate) fn follow(&self, path: &str, media_type: &str) -> Vec<u8> {
        self.head("GET", path, &format!("accept: {media_type}\r\n")).into_bytes()
    }

    /// The bytes of a `POST` of a JSON document.
    pub(crate) fn post(&self, path: &str, body: &str) -> Vec<u8> {
        let describes = format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
        format!("{}{body}", self.head("POST", path, &describes)).into_bytes()
    }

    fn head(&self, method: &str, path: &str, more: &str) -> String {
        let Self { address, token } = self;
        format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n{more}\r\n")
    }
}

/// A connection.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Opens one.
    pub(crate) async fn open(target: &Target) -> Outcome<Self> {
        let stream = TcpStream::connect(target.address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(ROOM) })
    }

    /// Sends a request, waits until its answer is complete, and returns the status.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> Outcome<u16> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let head = loop {
            self.read().await?;
            if let Some(head) = Head::find(&self.buffer) {
                break head?;
            }
        };
        while self.buffer.len() < head.length + head.body {
            self.read().await?;
        }
        Ok(head.status)
    }

    /// Fails unless the answer has this status.
    pub(crate) async fn expect(&mut self, request: &[u8], status: u16) -> Outcome<()> {
        match self.ask(request).await? {
            found if found == status => Ok(()),
            found => Err(format!("answered {found}: {}", String::from_utf8_lossy(&self.buffer)).into()),
        }
    }

    /// The body of the last answer.
    pub(crate) fn json(&self) -> Outcome<serde_json::Value> {
        let end = self.buffer.windows(4).position(|window| window == b"\r\n\r\n").ok_or("no head")?;
        Ok(serde_json::from_slice(self.buffer.get(end + 4..).unwrap_or_default())?)
    }

    /// The size of the last answer in bytes.
    pub(crate) fn answered(&self) -> usize {
        self.buffer.len()
    }

    /// A header of the last answer.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let head = self.buffer.get(..2048).unwrap_or(&self.buffer);
        let lines = head.split(|byte| *byte == b'\n').map_while(|line| std::str::from_utf8(line).ok());
        lines
            .map(str::trim)
            .filter_map(|line| line.split_once(": "))
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// Asks for something that goes on, and hands over each piece of it, with what lies around it, until that is enough.
    pub(crate) async fn follow(mut self, request: &[u8], mut enough: impl FnMut(&[u8]) -> bool) -> Outcome<()> {
        self.stream.write_all(request).await?;
        loop {
            self.buffer.clear();
            self.buffer.reserve(1 << 18);
            self.read().await?;
            if enough(&self.buffer) {
                return Ok(());
            }
        }
    }

    async fn read(&mut self) -> Outcome<()> {
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            return Err("the server closed the connection".into());
        }
        Ok(())
    }
}

/// What is known of an answer once its head is there.
struct Head {
    status: u16,
    /// Bytes before the body.
    length: usize,
    /// Bytes of the body.
    body: usize,
}

impl Head {
    fn find(bytes: &[u8]) -> Option<Outcome<Self>> {
        // Heads are far shorter than this; a body must not be searched for the end of its head again and again.
        let start = bytes.get(..2048).unwrap_or(bytes);
        let end = start.windows(4).position(|window| window == b"\r\n\r\n")?;
        Some(Self::parse(start.get(..end).unwrap_or_default(), end + 4))
    }

    fn parse(head: &[u8], length: usize) -> Outcome<Self> {
        let mut lines = std::str::from_utf8(head)?.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).ok_or("no status line")?.parse()?;
        if status == 204 {
            return Ok(Self { status, length, body: 0 });
        }
        let body = lines
            .filter_map(|line| line.split_once(": "))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .ok_or("an answer without content-length")?;
        Ok(Self { status, length, body: body.1.parse()? })
    }
}

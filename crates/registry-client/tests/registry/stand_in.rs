//! A registry over a real socket which does what a test says, and remembers what it was asked.

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};
use test_engine::manifests::{self, Content};

/// What was asked.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// The path, with its query.
    pub(crate) path: String,
    /// By name, in lower case.
    pub(crate) headers: BTreeMap<String, String>,
}

impl Request {
    pub(crate) fn authorization(&self) -> Option<&str> {
        self.headers.get("authorization").map(String::as_str)
    }
}

/// What is answered.
pub(crate) enum Reply {
    /// A status, headers and a body.
    Answer(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// A body that never ends; how much of it was sent is counted there, in bytes.
    Endless(Arc<AtomicUsize>),
    /// Nothing, until the other side gives up.
    Nothing,
}

impl Reply {
    pub(crate) fn status(status: u16) -> Self {
        Self::Answer(status, Vec::new(), Vec::new())
    }

    pub(crate) fn content(content: &Content) -> Self {
        let headers = vec![("Content-Type", content.kind.to_owned()), ("Docker-Content-Digest", content.digest())];
        Self::Answer(200, headers, content.body.clone())
    }

    pub(crate) fn json(text: &str) -> Self {
        Self::Answer(200, vec![("Content-Type", "application/json".to_owned())], text.as_bytes().to_vec())
    }

    pub(crate) fn challenge(challenge: &str) -> Self {
        Self::Answer(401, vec![("WWW-Authenticate", challenge.to_owned())], b"{}".to_vec())
    }

    pub(crate) fn redirect(to: &str) -> Self {
        Self::Answer(307, vec![("Location", to.to_owned())], Vec::new())
    }
}

/// A gate, before which requests wait.
#[derive(Default)]
pub(crate) struct Gate {
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    pub(crate) fn open(&self) {
        *self.is_open.lock().unwrap() = true;
        self.opened.notify_all();
    }

    pub(crate) fn pass(&self) {
        drop(self.opened.wait_while(self.is_open.lock().unwrap(), |is_open| !*is_open).unwrap());
    }
}

type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

/// It listens until the test's process ends.
pub(crate) struct StandIn {
    port: u16,
    log: Arc<Mutex<Vec<Request>>>,
}

impl StandIn {
    /// One that answers like this.
    pub(crate) fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::listen(None, Box::new(handler))
    }

    /// The same with TLS.
    pub(crate) fn start_tls(tls: ServerConfig, handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::listen(Some(Arc::new(tls)), Box::new(handler))
    }

    /// One with a single image under each name: for Linux on x86-64.
    pub(crate) fn with_image() -> Self {
        Self::start(image)
    }

    fn listen(tls: Option<Arc<ServerConfig>>, handler: Box<Handler>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stand_in = Self { port: listener.local_addr().unwrap().port(), log: Arc::default() };
        let (log, handler): (_, Arc<Handler>) = (stand_in.log.clone(), handler.into());
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let (log, handler, tls) = (log.clone(), handler.clone(), tls.clone());
                std::thread::spawn(move || match tls {
                    None => serve(socket, &log, &*handler),
                    Some(tls) => serve(StreamOwned::new(ServerConnection::new(tls).unwrap(), socket), &log, &*handler),
                });
            }
        });
        stand_in
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The registry, as it is named in images.
    pub(crate) fn registry(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.registry())
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.registry())
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.log.lock().unwrap().clone()
    }

    /// What was asked, without headers.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.requests().iter().map(|request| format!("{} {}", request.method, request.path)).collect()
    }

    /// How often that was asked whose path contains this.
    pub(crate) fn count(&self, part: &str) -> usize {
        self.asked().iter().filter(|asked| asked.contains(part)).count()
    }
}

/// The manifest and configuration that [`image`] answers with.
pub(crate) fn the_image() -> (Content, Content) {
    let config = manifests::config("linux/amd64");
    (manifests::manifest(&config), config)
}

/// Answers as a registry with a single image under each name does.
pub(crate) fn image(request: &Request) -> Reply {
    let (manifest, config) = the_image();
    if request.path.contains("/manifests/") {
        Reply::content(&manifest)
    } else if request.path.ends_with(&format!("/blobs/{}", config.digest())) {
        Reply::content(&config)
    } else {
        Reply::status(404)
    }
}

fn serve(stream: impl Read + Write, log: &Mutex<Vec<Request>>, handler: &Handler) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read(&mut stream) {
        log.lock().unwrap().push(request.clone());
        if write(stream.get_mut(), &request, handler(&request)).is_none() {
            return;
        }
    }
}

fn read(stream: &mut impl BufRead) -> Option<Request> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let mut words = lines.first()?.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let header = |line: &String| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    };
    Some(Request { method, path, headers: lines.iter().skip(1).filter_map(header).collect() })
}

/// `None`, if the connection is of no more use.
fn write(stream: &mut (impl Read + Write), request: &Request, reply: Reply) -> Option<()> {
    match reply {
        Reply::Answer(status, headers, body) => {
            let headers: String = headers.iter().map(|(name, value)| [name, ": ", value, "\r\n"].concat()).collect();
            let length = body.len();
            let head = format!("HTTP/1.1 {status} Whatever\r\nContent-Length: {length}\r\n{headers}\r\n");
            stream.write_all(head.as_bytes()).ok()?;
            if request.method != "HEAD" {
                stream.write_all(&body).ok()?;
            }
            stream.flush().ok()
        }
        Reply::Endless(sent) => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").ok()?;
            let chunk = [b" ".repeat(0x1_0000), b"\r\n".to_vec()].concat();
            loop {
                stream.write_all(b"10000\r\n").and_then(|()| stream.write_all(&chunk)).ok()?;
                sent.fetch_add(chunk.len(), Ordering::SeqCst);
            }
        }
        Reply::Nothing => {
            let _ = stream.read(&mut [0]);
            None
        }
    }
}

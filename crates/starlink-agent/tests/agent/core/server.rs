//! A server that speaks the agents' protocol, true to the contract, and can be told to misbehave.

use super::http::{Request, Response, read, write};
use domain::{
    clock::Timestamp,
    fleet::protocol::{
        Deliveries, End, EnrollRequest, Enrolled, InventoryReport, LogQuery, ResultReport, SessionOpened,
        SessionRequest, StreamOrder, StreamSource,
    },
    ids::{OperationId, ServerId},
    observability::{
        Sample,
        wire::{MOST_IN_REPORT, Rejected, SampleReport, Taken},
    },
    text::Name,
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc},
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async, tungstenite::handshake::server as handshake};

pub(crate) const TOKEN: &str = "sla_its-own-token";
pub(crate) const JOIN_TOKEN: &str = "slj_a-join-token";
pub(crate) const INSTALLATION: &str = "0a1b2c3d";

/// What a fault does to a call.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// Nothing.
    Go,
    /// Breaks the connection off.
    Drop,
    /// Answers this instead; what was handled stays handled.
    Answer(Response),
    /// Takes its time.
    Wait(Duration),
    /// Never answers.
    Hang,
}

/// When a fault is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    BeforeHandling,
    AfterHandling,
}

pub(crate) type Hook = Arc<dyn Fn(&Request, When) -> Act + Send + Sync>;

/// What the server knows of an operation.
#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is what a test asks for")]
pub(crate) struct Op {
    pub(crate) order: Value,
    pub(crate) expires_in_seconds: u64,
    pub(crate) running: bool,
    pub(crate) closed: bool,
    pub(crate) cancel: bool,
    /// Whether it is delivered in every poll, as if each answer had been lost.
    pub(crate) again_and_again: bool,
    pub(crate) told_to: Option<(String, bool)>,
    pub(crate) deliveries: usize,
    pub(crate) started: usize,
    pub(crate) progress: Vec<String>,
    pub(crate) results: Vec<End>,
}

/// What the server knows of what was measured.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    pub(crate) stored: BTreeMap<Timestamp, Sample>,
    /// The times of those that came, report by report, in their order.
    pub(crate) reports: Vec<Vec<Timestamp>>,
    /// Of what times none is taken.
    pub(crate) refused: BTreeSet<Timestamp>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) installation: String,
    pub(crate) token: String,
    pub(crate) enrolled: Vec<EnrollRequest>,
    pub(crate) sessions: Vec<SessionRequest>,
    pub(crate) session: Option<String>,
    pub(crate) inventories: Vec<InventoryReport>,
    pub(crate) operations: BTreeMap<i64, Op>,
    pub(crate) streams: VecDeque<StreamOrder>,
    pub(crate) samples: Samples,
    /// Every call, in the order in which they came.
    pub(crate) calls: Vec<String>,
}

pub(crate) struct Inner {
    state: Mutex<State>,
    hook: Mutex<Option<Hook>>,
    /// Rung whenever anything happens.
    bell: Notify,
    sockets: mpsc::UnboundedSender<(String, WebSocketStream<TcpStream>)>,
}

pub(crate) struct FakeServer {
    pub(crate) inner: Arc<Inner>,
    pub(crate) address: SocketAddr,
    pub(crate) sockets: mpsc::UnboundedReceiver<(String, WebSocketStream<TcpStream>)>,
    listening: Option<JoinHandle<()>>,
}

impl FakeServer {
    pub(crate) async fn start() -> Self {
        let (sender, sockets) = mpsc::unbounded_channel();
        let state = State { installation: INSTALLATION.to_owned(), token: TOKEN.to_owned(), ..State::default() };
        let inner = Inner { state: Mutex::new(state), hook: Mutex::default(), bell: Notify::new(), sockets: sender };
        let mut server = Self { inner: Arc::new(inner), address: ([127, 0, 0, 1], 0).into(), sockets, listening: None };
        server.up().await;
        server
    }

    /// Listens, where it did before if it did.
    pub(crate) async fn up(&mut self) {
        let listener = loop {
            // The port may still be in use by connections that were broken off.
            match TcpListener::bind(self.address).await {
                Ok(listener) => break listener,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        self.address = listener.local_addr().unwrap();
        let inner = self.inner.clone();
        self.listening = Some(tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let Ok((socket, _)) = listener.accept().await else { continue };
                connections.spawn(inner.clone().connection(socket));
            }
        }));
    }

    /// Breaks off every connection, and takes no more.
    pub(crate) async fn down(&mut self) {
        if let Some(listening) = self.listening.take() {
            listening.abort();
            let _ = listening.await;
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn hook(&self, hook: impl Fn(&Request, When) -> Act + Send + Sync + 'static) {
        *self.inner.hook.lock().unwrap() = Some(Arc::new(hook));
    }

    pub(crate) fn unhook(&self) {
        *self.inner.hook.lock().unwrap() = None;
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap()
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.inner.bell.notify_waiters();
    }

    pub(crate) fn order(&self, id: i64, order: Value) {
        let op = Op { order, expires_in_seconds: 600, ..Op::default() };
        self.change(|state| _ = state.operations.insert(id, op));
    }

    pub(crate) fn op(&self, id: i64) -> Op {
        self.state().operations.get(&id).cloned().unwrap_or_default()
    }

    pub(crate) fn cancel(&self, id: i64) {
        self.change(|state| state.operations.get_mut(&id).unwrap().cancel = true);
    }

    pub(crate) fn order_stream(&self, id: &str, query: LogQuery) {
        self.order_source(id, StreamSource::Logs(query));
    }

    pub(crate) fn order_source(&self, id: &str, source: StreamSource) {
        let stream = StreamOrder { id: id.to_owned(), source };
        self.change(|state| state.streams.push_back(stream));
    }

    /// Waits until something is so.
    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&State) -> bool) {
        let wait = async {
            loop {
                let rung = self.inner.bell.notified();
                let mut rung = std::pin::pin!(rung);
                rung.as_mut().enable();
                if is_so(&self.state()) {
                    return;
                }
                rung.await;
            }
        };
        let waited = timeout(Duration::from_secs(10), wait).await;
        assert!(waited.is_ok(), "waited in vain until {what}; calls: {:#?}", self.state().calls);
    }

    /// Waits until an operation has ended, and tells how.
    pub(crate) async fn ended(&self, id: i64) -> End {
        self.until(&format!("operation {id} ends"), |state| state.operations[&id].closed).await;
        self.op(id).results.first().cloned().unwrap()
    }

    pub(crate) async fn running(&self, id: i64) {
        self.until(&format!("operation {id} runs"), |state| state.operations[&id].running).await;
    }

    pub(crate) async fn connected(&self) {
        let polls = |state: &State| state.calls.iter().any(|call| call == "GET /agent/operations");
        self.until("the agent polls", |state| state.session.is_some() && polls(state)).await;
    }
}

impl Inner {
    async fn connection(self: Arc<Self>, mut socket: TcpStream) {
        if is_stream(&socket).await {
            return self.stream(socket).await;
        }
        let mut buffer = Vec::new();
        while let Some(request) = read(&mut socket, &mut buffer).await {
            let response = self.answer(&request).await;
            self.bell.notify_waiters();
            let Some(response) = response else { return };
            if write(&mut socket, &response).await.is_err() {
                return;
            }
        }
    }

    #[expect(clippy::result_large_err, reason = "the library wants it so")]
    async fn stream(&self, socket: TcpStream) {
        let mut path = String::new();
        let mut authorized = false;
        let look = |request: &handshake::Request, response: handshake::Response| {
            request.uri().path().clone_into(&mut path);
            let bearer = format!("Bearer {TOKEN}");
            authorized =
                request.headers().get("authorization").is_some_and(|value| value.as_bytes() == bearer.as_bytes());
            Ok(response)
        };
        let Ok(socket) = accept_hdr_async(socket, look).await else { return };
        assert!(authorized, "a stream without a token");
        let id = path.strip_prefix("/agent/streams/").unwrap().to_owned();
        self.sockets.send((id, socket)).ok();
    }

    async fn answer(&self, request: &Request) -> Option<Response> {
        self.state.lock().unwrap().calls.push(request.call());
        self.bell.notify_waiters();
        if let Some(instead) = self.misbehave(request, When::BeforeHandling).await {
            return instead;
        }
        let response = self.handle(request).await;
        self.bell.notify_waiters();
        match self.misbehave(request, When::AfterHandling).await {
            Some(instead) => instead,
            None => Some(response),
        }
    }

    async fn misbehave(&self, request: &Request, when: When) -> Option<Option<Response>> {
        let hook = self.hook.lock().unwrap().clone();
        match hook.map_or(Act::Go, |hook| hook(request, when)) {
            Act::Go => None,
            Act::Drop => Some(None),
            Act::Answer(response) => Some(Some(response)),
            Act::Wait(time) => {
                tokio::time::sleep(time).await;
                None
            }
            Act::Hang => std::future::pending().await,
        }
    }

    async fn handle(&self, request: &Request) -> Response {
        let parts: Vec<&str> = request.path.trim_start_matches('/').split('/').collect();
        if let ["agent", "enroll"] = parts.as_slice() {
            return self.enroll(request);
        }
        if request.bearer.as_deref() != Some(&self.state.lock().unwrap().token) {
            return Response::problem(401, "unauthenticated");
        }
        let session = match parts.as_slice() {
            ["agent", "session"] => return self.open_session(request),
            ["agent", "operations"] => request.parameter("session").unwrap().to_owned(),
            _ => request.body["session"].as_str().unwrap().to_owned(),
        };
        let is_open = || self.state.lock().unwrap().session.as_ref() == Some(&session);
        if !is_open() {
            return Response::problem(409, "session_gone");
        }
        match parts.as_slice() {
            ["agent", "operations"] => self.poll(&session, request.parameter("wait").unwrap().parse().unwrap()).await,
            ["agent", "inventory"] => {
                let report = serde_json::from_value(request.body["inventory"].clone()).unwrap();
                self.state.lock().unwrap().inventories.push(report);
                Response::empty()
            }
            ["agent", "metrics"] => {
                let report = serde_json::from_value(request.body.clone()).unwrap();
                Response::ok(200, &self.state.lock().unwrap().samples.take(&report))
            }
            ["agent", "operations", id, what] => self.report(id.parse().unwrap(), what, &request.body),
            _ => Response::problem(404, "not_found"),
        }
    }

    fn enroll(&self, request: &Request) -> Response {
        let body: EnrollRequest = serde_json::from_value(request.body.clone()).unwrap();
        if body.join_token != JOIN_TOKEN {
            return Response::problem(401, "unauthenticated");
        }
        let mut state = self.state.lock().unwrap();
        state.enrolled.push(body);
        let token = state.token.clone();
        Response::ok(201, &Enrolled { server_id: ServerId(7), token })
    }

    fn open_session(&self, request: &Request) -> Response {
        let body: SessionRequest = serde_json::from_value(request.body.clone()).unwrap();
        let mut state = self.state.lock().unwrap();
        state.session = Some(body.session.clone());
        state.sessions.push(body);
        let begun = |op: &Op| op.running && !op.closed;
        let opened = SessionOpened {
            server_id: ServerId(7),
            name: Name::parse("edge-1").unwrap(),
            protocol: 1,
            installation: state.installation.clone(),
            begun: state.operations.iter().filter(|(_, op)| begun(op)).map(|(id, _)| OperationId(*id)).collect(),
        };
        let mut opened = serde_json::to_value(opened).unwrap();
        opened["weather"] = json!("fine");
        Response::ok(200, &opened)
    }

    async fn poll(&self, session: &str, wait: u64) -> Response {
        let look = async {
            loop {
                let rung = self.bell.notified();
                let mut rung = std::pin::pin!(rung);
                rung.as_mut().enable();
                if self.state.lock().unwrap().session.as_deref() != Some(session) {
                    return Response::problem(409, "session_gone");
                }
                if let Some(deliveries) = self.state.lock().unwrap().take(session) {
                    return Response::ok(200, &deliveries);
                }
                rung.await;
            }
        };
        match timeout(Duration::from_secs(wait), look).await {
            Ok(response) => response,
            Err(_) => Response::ok(200, &Deliveries::default()),
        }
    }

    fn report(&self, id: i64, what: &str, body: &Value) -> Response {
        let mut state = self.state.lock().unwrap();
        let Some(op) = state.operations.get_mut(&id) else { return Response::problem(404, "not_found") };
        if what == "result" {
            let report: ResultReport = serde_json::from_value(body.clone()).unwrap();
            if op.closed && op.results.first() != Some(&report.end) {
                return Response::problem(409, "operation_closed");
            }
            if !op.closed {
                op.results.push(report.end);
            }
            op.closed = true;
            return Response::empty();
        }
        if op.closed {
            return Response::problem(409, "operation_closed");
        }
        match what {
            "started" => (op.running, op.started) = (true, op.started + 1),
            "progress" => op.progress.push(body["message"].as_str().unwrap().to_owned()),
            _ => return Response::problem(404, "not_found"),
        }
        Response::empty()
    }
}

impl Samples {
    /// Takes what was not there, and is not to be refused.
    fn take(&mut self, report: &SampleReport) -> Taken {
        assert!(!report.samples.is_empty() && report.samples.len() <= MOST_IN_REPORT);
        self.reports.push(report.samples.iter().map(|sample| sample.at).collect());
        let mut taken = Taken::default();
        for (index, sample) in report.samples.iter().enumerate() {
            if self.refused.contains(&sample.at) {
                taken.rejected.push(Rejected { index, reason: "recorded_at is not to the server's liking".to_owned() });
                continue;
            }
            let is_new = !self.stored.contains_key(&sample.at);
            self.stored.entry(sample.at).or_insert(*sample);
            if is_new { taken.accepted += 1 } else { taken.duplicate += 1 }
        }
        taken
    }
}

impl State {
    /// What is to be told now; told to a session once, as if the answer always came through.
    fn take(&mut self, session: &str) -> Option<Value> {
        let (mut operations, mut cancel) = (Vec::new(), Vec::new());
        for (id, op) in self.operations.iter_mut().filter(|(_, op)| !op.closed) {
            let told = op.told_to.as_ref() == Some(&(session.to_owned(), op.cancel));
            if (told || op.running && !op.cancel) && !op.again_and_again {
                continue;
            }
            op.told_to = Some((session.to_owned(), op.cancel));
            op.deliveries += 1;
            if op.cancel {
                cancel.push(*id);
            }
            if !op.cancel || op.again_and_again {
                operations.push(json!({
                    "id": id, "expires_in_seconds": op.expires_in_seconds, "order": op.order, "colour": "red",
                }));
            }
        }
        let streams: Vec<StreamOrder> = self.streams.drain(..).collect();
        if operations.is_empty() && cancel.is_empty() && streams.is_empty() {
            return None;
        }
        Some(json!({"operations": operations, "cancel": cancel, "streams": streams, "weather": "fine"}))
    }
}

/// Whether a connection asks for a stream; nothing of it is consumed.
async fn is_stream(socket: &TcpStream) -> bool {
    const WANTED: &[u8] = b"GET /agent/streams/";
    let mut start = [0; WANTED.len()];
    loop {
        match socket.peek(&mut start).await {
            Ok(0) | Err(_) => return false,
            Ok(length) if start[..length] != WANTED[..length] => return false,
            Ok(length) if length == WANTED.len() => return true,
            Ok(_) => tokio::task::yield_now().await,
        }
    }
}

//! The calls to the server.
//!
//! Invariants: no answer is longer than what is made room for; nothing is sent anywhere but to the server itself, so
//! that redirects and proxies of the environment are not followed; a token is never printed.

mod address;
mod error;
mod tls;

pub use address::{PlainHttp, ServerAddress};
pub use error::{CallError, Meaning};
pub use tls::TlsError;
pub(crate) use tls::trusting_nobody;

use domain::{
    containers::wire::ContainerReport,
    fleet::protocol::{
        Deliveries, Delivery, EnrollRequest, Enrolled, InventoryReport, Order, ProgressReport, ResultReport,
        SessionOpened, SessionRequest, StartedReport, StreamOrder, StreamSource,
    },
    identity::Secret,
    ids::OperationId,
    observability::wire::{SampleReport, Taken},
};
use reqwest::{RequestBuilder, Response, StatusCode, Url, header, redirect};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{path::Path, sync::Arc, time::Duration};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, client_async_tls_with_config,
    tungstenite::{self, client::IntoClientRequest, protocol::WebSocketConfig},
};

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a call may take, besides what it was asked to wait.
const CALL: Duration = Duration::from_secs(30);
/// The longest answer that orders work: a few tasks with the largest environments that the server takes.
const LONGEST_DELIVERY: usize = 64 << 20;
/// The longest of any other answer.
const LONGEST_ANSWER: usize = 1 << 20;
/// How much of a stream is put together before it is sent, and the longest message that is taken from one.
const STREAM_BUFFER: usize = 64 << 10;
/// The longest message that is sent: a line of a MiB, with everything in it escaped, and what was put together before.
const LONGEST_MESSAGE: usize = 8 << 20;

/// A WebSocket to the server.
pub type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Why calls cannot be made at all.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Whom to trust is not clear.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The HTTP client does not start.
    #[error("HTTP cannot be spoken")]
    Http(#[from] reqwest::Error),
}

/// Speaks with a server, without a token.
#[derive(Clone)]
pub struct Wire {
    http: reqwest::Client,
    server: ServerAddress,
    tls: Arc<rustls::ClientConfig>,
}

impl Wire {
    /// To this server, which is trusted by these authorities or those of the machine.
    ///
    /// # Errors
    /// [`SetupError`]
    pub fn new(server: ServerAddress, ca: Option<&Path>) -> Result<Self, SetupError> {
        let tls = if server.is_encrypted() { tls::client_config(ca)? } else { tls::trusting_nobody()? };
        let builder = reqwest::Client::builder()
            .user_agent(concat!("starlink-agent/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .no_proxy()
            .http1_only()
            .connect_timeout(CONNECT)
            .tcp_keepalive(Duration::from_secs(15))
            .pool_max_idle_per_host(4)
            .tls_backend_preconfigured(tls.clone());
        Ok(Self { http: builder.build()?, server, tls: Arc::new(tls) })
    }

    /// The server.
    #[must_use]
    pub fn server(&self) -> &ServerAddress {
        &self.server
    }

    /// Joins the fleet.
    ///
    /// # Errors
    /// [`CallError`]
    pub async fn enroll(&self, request: &EnrollRequest) -> Result<Enrolled, CallError> {
        self.answer(self.http.post(self.url(&["enroll"])).json(request)).await
    }

    /// The same with a token.
    #[must_use]
    pub fn with_token(self, token: Secret) -> Client {
        Client { wire: self, token }
    }

    fn url(&self, parts: &[&str]) -> Url {
        let parts: Vec<&str> = std::iter::once("agent").chain(parts.iter().copied()).collect();
        self.server.call(&parts)
    }

    async fn answer<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, CallError> {
        let body = self.send(request.timeout(CALL), LONGEST_ANSWER).await?;
        serde_json::from_slice(&body).map_err(|error| self.unreadable(error))
    }

    async fn send(&self, request: RequestBuilder, longest: usize) -> Result<Vec<u8>, CallError> {
        let response = request.send().await.map_err(|error| CallError::unreachable(&self.server, error))?;
        let status = response.status();
        if status.is_success() {
            if !is_ours(&response) {
                return Err(self.unreadable("it is no JSON: something on the way has answered instead of the server"));
            }
            return self.body(response, longest).await;
        }
        let location =
            response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok().map(str::to_owned));
        let body = self.body(response, LONGEST_ANSWER).await.unwrap_or_default();
        Err(CallError::answered(&self.server, status, location.as_deref(), &body))
    }

    async fn body(&self, mut response: Response, longest: usize) -> Result<Vec<u8>, CallError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| CallError::unreachable(&self.server, error))? {
            if body.len() + chunk.len() > longest {
                return Err(self.unreadable(format!("it is longer than {longest} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn unreadable(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> CallError {
        CallError::Unreadable { server: self.server.clone(), source: source.into() }
    }
}

/// Speaks with a server as one of its agents.
#[derive(Clone)]
pub struct Client {
    wire: Wire,
    token: Secret,
}

impl Client {
    /// The server.
    #[must_use]
    pub fn server(&self) -> &ServerAddress {
        &self.wire.server
    }

    /// Opens a session.
    ///
    /// # Errors
    /// [`CallError`]
    pub async fn open_session(&self, request: &SessionRequest) -> Result<SessionOpened, CallError> {
        self.wire.answer(self.post(&["session"]).json(request)).await
    }

    /// Asks what is to be done, and waits that long for something.
    ///
    /// # Errors
    /// [`CallError`]
    pub async fn poll(&self, session: &str, wait: Duration) -> Result<Deliveries, CallError> {
        let query = [("session", session.to_owned()), ("wait", wait.as_secs().to_string())];
        let request = self.wire.http.get(self.wire.url(&["operations"])).query(&query);
        let request = request.bearer_auth(self.token.expose()).timeout(wait + CALL);
        let body = self.wire.send(request, LONGEST_DELIVERY).await?;
        deliveries(&body).map_err(|error| self.wire.unreadable(error))
    }

    /// Tells what the machine is.
    ///
    /// # Errors
    /// [`CallError`]
    pub async fn inventory(&self, session: &str, inventory: &InventoryReport) -> Result<(), CallError> {
        #[derive(Serialize)]
        struct Body<'a> {
            session: &'a str,
            inventory: &'a InventoryReport,
        }
        self.tell(&["inventory"], &Body { session, inventory }).await
    }

    /// Tells what containers there are.
    ///
    /// # Errors
    /// [`CallError`]
    pub async fn containers(&self, report: &ContainerReport) -> Result<(), CallError> {
        self.tell(&["containers"], report).await
    }

    /// Tells what was measured. Says what became of it.
    ///
    /// # Errors
    /// [`CallError`]
    pub async fn samples(&self, report: &SampleReport) -> Result<Taken, CallError> {
        self.wire.answer(self.post(&["metrics"]).json(report)).await
    }

    /// Tells that an operation runs.
    ///
    /// # Errors
    /// [`CallError`]
    pub async fn started(&self, id: OperationId, report: &StartedReport) -> Result<(), CallError> {
        self.tell(&["operations", &id.to_string(), "started"], report).await
    }

    /// Tells what an operation is at.
    ///
    /// # Errors
    /// [`CallError`]
    pub async fn progress(&self, id: OperationId, report: &ProgressReport) -> Result<(), CallError> {
        self.tell(&["operations", &id.to_string(), "progress"], report).await
    }

    /// Tells how an operation ended.
    ///
    /// # Errors
    /// [`CallError`]
    pub async fn result(&self, id: OperationId, report: &ResultReport) -> Result<(), CallError> {
        self.tell(&["operations", &id.to_string(), "result"], report).await
    }

    /// Opens a stream that the server ordered.
    ///
    /// # Errors
    /// [`CallError`]
    pub async fn stream(&self, id: &str) -> Result<Socket, CallError> {
        match tokio::time::timeout(CALL, self.connect(id)).await {
            Ok(outcome) => outcome,
            Err(late) => Err(CallError::unreachable(&self.wire.server, late)),
        }
    }

    async fn connect(&self, id: &str) -> Result<Socket, CallError> {
        let server = &self.wire.server;
        // "http" becomes "ws", and "https" becomes "wss".
        let url = self.wire.url(&["streams", id]).as_str().replacen("http", "ws", 1);
        let mut request = url.into_client_request().map_err(|error| failed(server, error))?;
        let mut bearer = header::HeaderValue::try_from(format!("Bearer {}", self.token.expose()))
            .map_err(|error| CallError::unreachable(server, error))?;
        bearer.set_sensitive(true);
        request.headers_mut().insert(header::AUTHORIZATION, bearer);
        let config = WebSocketConfig::default()
            .read_buffer_size(4 << 10)
            .write_buffer_size(STREAM_BUFFER)
            .max_write_buffer_size(LONGEST_MESSAGE + STREAM_BUFFER)
            .max_message_size(Some(STREAM_BUFFER))
            .max_frame_size(Some(STREAM_BUFFER));
        let tcp = TcpStream::connect(server.socket()).await.map_err(|error| CallError::unreachable(server, error))?;
        tcp.set_nodelay(true).map_err(|error| CallError::unreachable(server, error))?;
        // It is used only where the address says so.
        let connector = Some(Connector::Rustls(self.wire.tls.clone()));
        let opened = client_async_tls_with_config(request, tcp, Some(config), connector).await;
        opened.map(|(socket, _)| socket).map_err(|error| failed(server, error))
    }

    fn post(&self, parts: &[&str]) -> RequestBuilder {
        self.wire.http.post(self.wire.url(parts)).bearer_auth(self.token.expose())
    }

    async fn tell(&self, parts: &[&str], body: &impl Serialize) -> Result<(), CallError> {
        self.wire.send(self.post(parts).json(body).timeout(CALL), LONGEST_ANSWER).await.map(|_| ())
    }
}

/// Whether an answer may be the server's: JSON, or nothing at all. A page that a proxy shows must not pass for a report
/// that was taken.
fn is_ours(response: &Response) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    match kind {
        Some(kind) => kind.starts_with("application/json"),
        None => response.content_length().unwrap_or_default() == 0,
    }
}

fn failed(server: &ServerAddress, error: tungstenite::Error) -> CallError {
    match error {
        tungstenite::Error::Http(response) => {
            let status = StatusCode::from_u16(response.status().as_u16()).unwrap_or(StatusCode::BAD_GATEWAY);
            CallError::answered(server, status, None, response.body().as_deref().unwrap_or_default())
        }
        tungstenite::Error::Io(error) => CallError::unreachable(server, error),
        error => CallError::unreachable(server, error),
    }
}

/// Reads what is to be done. One order that this agent cannot read, because it is too old, must not hide the others.
fn deliveries(body: &[u8]) -> serde_json::Result<Deliveries> {
    #[derive(Deserialize)]
    struct Raw {
        #[serde(default)]
        operations: Vec<serde_json::Value>,
        #[serde(default)]
        cancel: Vec<OperationId>,
        #[serde(default)]
        streams: Vec<serde_json::Value>,
    }
    #[derive(Deserialize)]
    struct RawDelivery {
        id: OperationId,
        #[serde(default)]
        expires_in_seconds: u64,
    }
    #[derive(Deserialize)]
    struct RawStream {
        id: String,
    }
    match serde_json::from_slice(body) {
        Ok(deliveries) => return Ok(deliveries),
        Err(error) => {
            tracing::warn!(%error, "something that the server wants is not understood: is the agent too old?");
        }
    }
    let raw: Raw = serde_json::from_slice(body)?;
    let operation = |value: serde_json::Value| {
        Delivery::deserialize(&value).or_else(|_| {
            RawDelivery::deserialize(value).map(|raw| Delivery {
                id: raw.id,
                expires_in_seconds: raw.expires_in_seconds,
                order: Order::Unknown,
            })
        })
    };
    let stream = |value: serde_json::Value| {
        StreamOrder::deserialize(&value).or_else(|_| {
            RawStream::deserialize(value).map(|raw| StreamOrder { id: raw.id, source: StreamSource::Unknown })
        })
    };
    Ok(Deliveries {
        operations: raw.operations.into_iter().map(operation).collect::<Result<_, _>>()?,
        cancel: raw.cancel,
        streams: raw.streams.into_iter().map(stream).collect::<Result<_, _>>()?,
    })
}

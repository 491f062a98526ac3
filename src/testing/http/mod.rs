//! A front end on in-memory connections, with a paused clock and a master that keeps its promises
//! in memory.

pub(crate) mod fake;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::mpsc,
};

use self::fake::Fake;
use super::stepped_world::SteppedWorld;
use crate::{
    config::Config,
    env::{BoxFuture, BoxStream, Env, Listener, TaskGuard},
    http::{Access, HttpParams, Metrics, Tls, serve},
    node::handle::MasterHandle,
};

pub(crate) const HOST: &str = "127.0.0.1:8080";

/// Front end that is running.
pub(crate) struct Site {
    pub(crate) env: Env,
    pub(crate) fake: Fake,
    pub(crate) dial: mpsc::Sender<(BoxStream, String)>,
    pub(crate) handle: MasterHandle,
    pub(crate) metrics: Metrics,
    pub(crate) server: Option<TaskGuard>,
}

impl Site {
    pub(crate) fn new() -> Self {
        Self::with(Config::default())
    }

    pub(crate) fn with(config: Config) -> Self {
        let access = Access::default().with_public(&fake::this_master().http).expect("a URL");
        Self::start(config, access, None)
    }

    /// Starts one that speaks TLS.
    pub(crate) fn over_tls(config: Config, tls: Tls) -> Self {
        let access = Access::default().with_public("https://localhost:8443").expect("a URL");
        Self::start(config, access.only_https(), Some(tls))
    }

    fn start(config: Config, access: Access, tls: Option<Tls>) -> Self {
        let env = Env::new(SteppedWorld::new());
        let (fake, handle) = Fake::start(&env);
        let (dial, taken) = mpsc::channel(64);
        let metrics = Metrics::new();
        let params = HttpParams { config, metrics: metrics.clone(), access, tls };
        let listener = Box::new(Dialled(taken));
        let served = serve(env.clone(), listener, handle.clone(), params);
        let server = Some(env.spawn("http", served).abort_on_drop());
        Self { env, fake, dial, handle, metrics, server }
    }

    /// Connects from this address, with so many bytes of buffer.
    pub(crate) async fn connect_from(&self, peer: &str, room: usize) -> DuplexStream {
        let (here, there) = duplex(room);
        self.dial.send((Box::new(there), peer.to_owned())).await.expect("it listens");
        here
    }

    pub(crate) async fn connect(&self) -> DuplexStream {
        self.connect_from("10.0.0.1:4000", 1 << 20).await
    }

    /// Sends one request on a connection of its own.
    pub(crate) async fn send(&self, request: Ask<'_>) -> Answer {
        self.send_from("10.0.0.1:4000", request).await
    }

    /// Sends one request on a connection of its own from this address.
    pub(crate) async fn send_from(&self, peer: &str, request: Ask<'_>) -> Answer {
        let mut stream = self.connect_from(peer, 1 << 20).await;
        stream.write_all(&request.bytes(true)).await.expect("written");
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.expect("read");
        Answer::parse(&bytes)
    }

    pub(crate) async fn get(&self, path: &str, token: &str) -> Answer {
        self.send(Ask::new("GET", path).token(token)).await
    }

    pub(crate) async fn post(&self, path: &str, token: &str, body: &Value) -> Answer {
        self.send(Ask::new("POST", path).token(token).json(body)).await
    }

    /// Opens a session and returns its token.
    pub(crate) async fn join(&self, name: &str) -> String {
        let body = serde_json::json!({ "name": name });
        let answer = self.send(Ask::new("POST", "/api/v1/sessions").json(&body)).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()["token"].as_str().expect("a token").to_owned()
    }
}

/// Listener whose connections are put into a channel.
pub(crate) struct Dialled(pub(crate) mpsc::Receiver<(BoxStream, String)>);

impl Listener for Dialled {
    fn accept(&mut self) -> BoxFuture<'_, std::io::Result<(BoxStream, String)>> {
        Box::pin(async {
            match self.0.recv().await {
                Some(dialled) => Ok(dialled),
                None => std::future::pending().await,
            }
        })
    }

    fn local_addr(&self) -> String {
        HOST.to_owned()
    }
}

/// Builder of a request.
#[derive(Clone, Default)]
pub(crate) struct Ask<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Option<Vec<u8>>,
}

impl<'a> Ask<'a> {
    pub(crate) fn new(method: &'a str, path: &'a str) -> Self {
        Self { method, path, ..Self::default() }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Nothing for an empty token.
    pub(crate) fn token(self, token: &str) -> Self {
        if token.is_empty() {
            return self;
        }
        self.header("Authorization", &format!("Bearer {token}"))
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        self.raw_json(&body.to_string())
    }

    pub(crate) fn raw_json(self, body: &str) -> Self {
        let mut ask = self.header("Content-Type", "application/json");
        ask.body = Some(body.as_bytes().to_vec());
        ask
    }

    pub(crate) fn bytes(&self, close: bool) -> Vec<u8> {
        let Self { method, path, headers, body } = self;
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        if !headers.iter().any(|(name, _)| name == "Host") {
            head.push_str(&format!("Host: {HOST}\r\n"));
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if close {
            head.push_str("Connection: close\r\n");
        }
        if let Some(body) = body {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        let mut bytes = format!("{head}\r\n").into_bytes();
        bytes.extend_from_slice(body.as_deref().unwrap_or_default());
        bytes
    }
}

/// Answer of the front end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n").expect("a whole head");
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status");
        let headers = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        Self { status: status.parse().expect("a number"), headers, body: body.to_owned() }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(is, _)| is == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }

    /// Slug of the problem's type.
    pub(crate) fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let json = self.json();
        assert_eq!(json["status"], self.status);
        let kind = json["type"].as_str().and_then(|kind| kind.strip_prefix("urn:chatchat:"));
        kind.expect("one of our types").to_owned()
    }
}

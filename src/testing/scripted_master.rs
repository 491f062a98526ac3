//! A master over real sockets that answers each request as a script says.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::env::{BoxStream, Env, TaskGuard};

/// Reaction of a scripted master to one request.
pub(crate) enum Act {
    /// Status, headers, body.
    Answer(u16, &'static str, String),
    /// Closes the connection without an answer.
    Drop,
    /// Keeps the connection open without an answer, and takes further ones.
    Hang,
    /// A stream with this content, then its end.
    Stream(String),
}

/// Method, path with query, body.
pub(crate) type Asked = (String, String, String);

pub(crate) struct Scripted {
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    _task: TaskGuard,
}

impl Scripted {
    /// `act` is told how many requests came before and this one.
    pub(crate) async fn start(
        env: &Env,
        act: impl Fn(usize, &Asked) -> Act + Send + 'static,
    ) -> Self {
        let mut listener = env.listen("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = asked.clone();
        let task = env.spawn("scripted master", async move {
            let mut hanging = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let Some(request) = read(&mut stream).await else { continue };
                let nth = seen.lock().expect("no test panics with it").len();
                seen.lock().expect("no test panics with it").push(request.clone());
                let text = match act(nth, &request) {
                    Act::Drop => continue,
                    Act::Hang => {
                        hanging.push(stream);
                        continue;
                    }
                    Act::Answer(status, headers, body) => format!(
                        "HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n{headers}\r\n{body}",
                        body.len()
                    ),
                    Act::Stream(body) => format!(
                        "HTTP/1.1 200 x\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n{body}"
                    ),
                };
                let _ = stream.write_all(text.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        Self { url, asked, _task: task.abort_on_drop() }
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no test panics with it").clone()
    }

    pub(crate) fn posts(&self) -> Vec<(String, String)> {
        let of = |body: &str| {
            let value: serde_json::Value = serde_json::from_str(body).expect("JSON");
            (
                value["id"].as_str().expect("a text").to_owned(),
                value["text"].as_str().expect("a text").to_owned(),
            )
        };
        self.asked().iter().filter(|a| a.0 == "POST").map(|a| of(&a.2)).collect()
    }
}

pub(crate) async fn read(stream: &mut BoxStream) -> Option<Asked> {
    let mut text = Vec::new();
    let head_len = loop {
        let mut piece = [0; 1024];
        let n = stream.read(&mut piece).await.ok().filter(|n| *n > 0)?;
        text.extend_from_slice(&piece[..n]);
        if let Some(at) = text.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
    };
    let head = String::from_utf8(text[..head_len].to_vec()).expect("UTF-8");
    let len = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok())
        .unwrap_or(0);
    while text.len() < head_len + len {
        let mut piece = [0; 1024];
        let n = stream.read(&mut piece).await.ok().filter(|n| *n > 0)?;
        text.extend_from_slice(&piece[..n]);
    }
    let mut first = head.split(' ');
    let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
    Some((method, path, String::from_utf8(text[head_len..].to_vec()).expect("UTF-8")))
}

//! Streams beyond their first chunk, where hyper no longer serves the connection: what a client sees of
//! HTTP/1.1 stays the same.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};

use super::stream::{open, post, until};
use crate::{
    client::Trust,
    config::Config,
    http::Tls,
    node::handle::{ByeReason, Delivery},
    testing::{
        certificates::self_signed,
        http::{Ask, HOST, Site, fake::OpenStream},
        stepped_world::SECOND,
    },
};

const STREAM: &str = "/api/v1/stream";
const LAST_CHUNK: &str = "\r\n0\r\n\r\n";

fn health() -> Vec<u8> {
    Ask::new("GET", "/healthz").bytes(false)
}

fn bye() -> Delivery {
    Delivery::Bye { reason: ByeReason::Draining, to: Vec::new(), retry_ms: 200 }
}

/// Returns what is left until the server closes the connection, and the time until then.
async fn rest(site: &Site, mut stream: impl AsyncRead + Unpin) -> (String, u64) {
    let start = site.env.now();
    let mut bytes = Vec::new();
    // A reset is an end too.
    let _ = stream.read_to_end(&mut bytes).await;
    (String::from_utf8_lossy(&bytes).into_owned(), site.env.now().since(start).as_secs())
}

/// Returns the data of a body in chunks, which has to be whole.
fn dechunked(mut body: &str) -> String {
    let mut data = String::new();
    loop {
        let (size, after) = body.split_once("\r\n").expect("a size");
        let size = usize::from_str_radix(size, 16).expect("in hexadecimal");
        data.push_str(&after[..size]);
        body = after[size..].strip_prefix("\r\n").expect("an end of line");
        if size == 0 {
            assert_eq!(body, "", "nothing follows the last chunk");
            return data;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn chunks_are_framed_alike_before_and_after_hyper() {
    let site = Site::new();
    let token = site.join("Ada").await;
    let mut stream = open(&site, STREAM, &token, None).await;
    let mut text = until(&mut stream, "beat_ms").await;
    let events = site.fake.stream().events.expect("open");
    for seq in 1..=3 {
        events.send(post(seq)).await.expect("read");
        text.push_str(&until(&mut stream, "event: post").await);
    }
    events.send(bye()).await.expect("read");
    text.push_str(&until(&mut stream, LAST_CHUNK).await);
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    assert!(head.to_ascii_lowercase().contains("transfer-encoding: chunked"), "{head}");
    let data = dechunked(body);
    let names: Vec<_> = data.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    assert_eq!(names, ["hello", "post", "post", "post", "bye"]);
}

#[tokio::test(start_paused = true)]
async fn connection_serves_the_next_request_after_a_stream() {
    let site = Site::new();
    let token = site.join("Ada").await;
    let mut stream = open(&site, STREAM, &token, None).await;
    for _ in 0..2 {
        until(&mut stream, "beat_ms").await;
        site.fake.stream().events.expect("open").send(bye()).await.expect("read");
        until(&mut stream, LAST_CHUNK).await;
        stream.write_all(&health()).await.expect("written");
        until(&mut stream, "HTTP/1.1 200 OK").await;
        let again = Ask::new("GET", STREAM).token(&token).bytes(false);
        stream.write_all(&again).await.expect("written");
    }
    until(&mut stream, "beat_ms").await;
    site.fake.stream().events.expect("open").send(bye()).await.expect("read");
    until(&mut stream, LAST_CHUNK).await;
    assert_eq!(rest(&site, stream).await, (String::new(), 120), "as any idle connection");
}

#[tokio::test(start_paused = true)]
async fn request_sent_during_a_stream_waits_for_its_end() {
    let site = Site::new();
    let token = site.join("Ada").await;
    let ask = Ask::new("GET", STREAM).token(&token).bytes(false);
    for is_early in [true, false] {
        let mut stream = site.connect().await;
        let early = if is_early { health() } else { Vec::new() };
        stream.write_all(&[&ask[..], &early].concat()).await.expect("written");
        until(&mut stream, "beat_ms").await;
        if !is_early {
            stream.write_all(&health()).await.expect("written");
        }
        let events = site.fake.stream().events.expect("open");
        events.send(post(1)).await.expect("read");
        let text = until(&mut stream, "event: beat").await;
        assert!(text.contains("event: post") && !text.contains("HTTP/1.1"), "{text}");
        events.send(bye()).await.expect("read");
        let text = until(&mut stream, LAST_CHUNK).await;
        let answer = match text.split_once(LAST_CHUNK) {
            Some((_, answer)) if !answer.is_empty() => answer.to_owned(),
            _ => until(&mut stream, "HTTP/1.1 200 OK").await,
        };
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn long_requests_behind_two_streams_are_answered_whole_and_in_order() {
    let site = Site::new();
    let token = site.join("Ada").await;
    let padded = |path: &str, len: usize| {
        Ask::new("GET", path).token(&token).header("x-padding", &"p".repeat(len)).bytes(false)
    };
    // hyper has all of it, or none, at the end of the first stream; it takes 8 KiB after that, in
    // which the second stream begins.
    let requests = [
        padded(STREAM, 8300),
        padded(STREAM, 10),
        padded("/healthz", 5000),
        padded("/healthz", 5000),
        padded("/healthz", 10),
    ];
    let mut stream = site.connect_from("10.0.0.1:1", 64 * 1024).await;
    stream.write_all(&requests.concat()).await.expect("written");
    let mut text = String::new();
    for nth in 1..=2 {
        while text.matches("beat_ms").count() < nth {
            text.push_str(&until(&mut stream, "\n").await);
        }
        site.fake.stream().events.expect("open").send(bye()).await.expect("read");
        while text.matches(LAST_CHUNK).count() < nth {
            text.push_str(&until(&mut stream, "\n").await);
        }
    }
    text.push_str(&rest(&site, stream).await.0);
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 5, "{text}");
    assert!(!text.contains("HTTP/1.1 400"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn peer_that_sends_without_end_fills_no_memory_and_gets_its_events() {
    let site = Site::new();
    let token = site.join("Ada").await;
    let mut stream = site.connect_from("10.0.0.1:1", 512).await;
    stream.write_all(&Ask::new("GET", STREAM).token(&token).bytes(false)).await.expect("written");
    until(&mut stream, "beat_ms").await;
    let mut taken = 0;
    while let Ok(sent) = site.env.timeout(SECOND, stream.write(&[b'x'; 100])).await {
        taken += sent.expect("open");
    }
    assert!((1..4096).contains(&taken), "{taken} bytes");
    site.fake.stream().events.expect("open").send(post(1)).await.expect("read");
    until(&mut stream, "event: post").await;
}

#[tokio::test(start_paused = true)]
async fn body_of_a_stream_request_is_not_taken_for_the_next_request() {
    let site = Site::new();
    let token = site.join("Ada").await;
    let hidden = String::from_utf8(health()).expect("a text");
    let ask = Ask::new("GET", STREAM).token(&token).raw_json(&hidden);
    let mut stream = site.connect().await;
    stream.write_all(&ask.bytes(false)).await.expect("written");
    until(&mut stream, "beat_ms").await;
    site.fake.stream().events.expect("open").send(bye()).await.expect("read");
    let (text, _) = rest(&site, stream).await;
    assert!(text.ends_with("0\r\n\r\n") && !text.contains("HTTP/1.1"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn head_of_a_stream_is_its_head_alone() {
    let site = Site::new();
    let token = site.join("Ada").await;
    let mut stream = site.connect().await;
    stream.write_all(&Ask::new("HEAD", STREAM).token(&token).bytes(false)).await.expect("written");
    let text = until(&mut stream, "\r\n\r\n").await;
    assert!(text.starts_with("HTTP/1.1 200 OK") && text.ends_with("\r\n\r\n"), "{text}");
    assert!(text.contains("text/event-stream"), "{text}");
    assert!(site.fake.stream().gone.await.is_err(), "its stream was closed");
    stream.write_all(&health()).await.expect("written");
    let text = until(&mut stream, "\r\n\r\n").await;
    assert!(text.starts_with("HTTP/1.1 200 OK"), "nothing came before it: {text}");
}

#[tokio::test(start_paused = true)]
async fn client_of_http_1_0_reads_a_stream_up_to_the_end_of_the_connection() {
    let site = Site::new();
    let token = site.join("Ada").await;
    let mut stream = site.connect().await;
    let ask =
        format!("GET {STREAM} HTTP/1.0\r\nHost: {HOST}\r\nAuthorization: Bearer {token}\r\n\r\n");
    stream.write_all(ask.as_bytes()).await.expect("written");
    let text = until(&mut stream, "beat_ms").await;
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.0 200 OK"), "{head}");
    assert!(!head.to_ascii_lowercase().contains("transfer-encoding"), "{head}");
    assert!(body.starts_with("event: hello\n"), "{body}");
    let events = site.fake.stream().events.expect("open");
    events.send(post(1)).await.expect("read");
    events.send(bye()).await.expect("read");
    let (text, took) = rest(&site, stream).await;
    assert!(text.contains("event: post") && text.ends_with("\n\n"), "{text}");
    assert_eq!(took, 0);
}

#[tokio::test(start_paused = true)]
async fn connection_that_its_client_will_not_use_again_ends_with_the_stream() {
    let site = Site::new();
    let token = site.join("Ada").await;
    for value in ["close", "Keep-Alive, Close"] {
        let mut stream = site.connect().await;
        let ask = Ask::new("GET", STREAM).token(&token).header("Connection", value);
        stream.write_all(&ask.bytes(false)).await.expect("written");
        let text = until(&mut stream, "beat_ms").await;
        assert!(text.to_ascii_lowercase().contains("\r\nconnection: close\r\n"), "{text}");
        let events = site.fake.stream().events.expect("open");
        events.send(post(1)).await.expect("read");
        events.send(bye()).await.expect("read");
        let (text, took) = rest(&site, stream).await;
        assert!(text.ends_with(LAST_CHUNK), "{text}");
        assert_eq!(took, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn stream_ends_once_its_client_has_closed_its_half() {
    let site = Site::new();
    let token = site.join("Ada").await;
    let mut stream = open(&site, STREAM, &token, None).await;
    until(&mut stream, "beat_ms").await;
    let feed = site.fake.stream();
    stream.shutdown().await.expect("closed");
    let (text, took) = rest(&site, stream).await;
    assert_eq!((text.as_str(), took), ("", 0), "as hyper does it, without a last chunk");
    assert!(feed.gone.await.is_err());
}

/// Opens a stream on a connection with little room and reads nothing of it until it is stuck.
async fn stuck(site: &Site) -> (DuplexStream, OpenStream) {
    let token = site.join("Ada").await;
    let mut stream = site.connect_from("10.0.0.1:1", 1024).await;
    stream.write_all(&Ask::new("GET", STREAM).token(&token).bytes(false)).await.expect("written");
    until(&mut stream, "beat_ms").await;
    let feed = site.fake.stream();
    for seq in 1..20 {
        let _ = feed.events.as_ref().expect("open").try_send(post(seq));
        site.env.sleep(SECOND / 100).await;
    }
    (stream, feed)
}

#[tokio::test(start_paused = true)]
async fn client_that_leaves_while_a_chunk_waits_for_it_is_noticed() {
    let site = Site::new();
    let (mut stream, feed) = stuck(&site).await;
    let start = site.env.now();
    stream.shutdown().await.expect("closed");
    assert!(feed.gone.await.is_err());
    assert_eq!(site.env.now().since(start).as_secs(), 0);
    drop(stream);
}

#[tokio::test(start_paused = true)]
async fn stream_that_nobody_reads_does_not_hold_up_the_stop_of_the_server() {
    let mut site = Site::new();
    let (stream, feed) = stuck(&site).await;
    let start = site.env.now();
    drop(site.server.take());
    assert!(feed.gone.await.is_err());
    let took = site.env.now().since(start).as_secs();
    assert!(took <= 6, "{took}");
    drop(stream);
}

#[tokio::test(start_paused = true)]
async fn stream_under_tls_ends_with_bye_and_serves_the_next_request() {
    let made = self_signed(&["localhost"]);
    let tls = Tls::new(made.certificate.as_bytes(), made.key.as_bytes()).expect("a pair");
    let site = Site::over_tls(Config::default(), tls);
    let trust = Trust::of_authorities(made.certificate.as_bytes()).expect("a certificate");
    let connect = async || {
        let stream = Box::new(site.connect().await);
        trust.connect(&site.env, "localhost", stream, SECOND * 5).await.expect("a connection")
    };
    let mut stream = connect().await;
    let body = serde_json::json!({ "name": "Ada" });
    let joining = Ask::new("POST", "/api/v1/sessions").json(&body);
    send(&mut stream, &joining).await;
    let text = seen(&mut stream, "\"token\":\"").await;
    let token = text.split("\"token\":\"").nth(1).and_then(|rest| rest.split('"').next());
    let token = token.expect("a token").to_owned();
    send(&mut stream, &Ask::new("GET", STREAM).token(&token)).await;
    seen(&mut stream, "beat_ms").await;
    let events = site.fake.stream().events.expect("open");
    for seq in 1..=3 {
        events.send(post(seq)).await.expect("read");
        seen(&mut stream, "event: post").await;
    }
    seen(&mut stream, "event: beat").await;
    events.send(bye()).await.expect("read");
    seen(&mut stream, LAST_CHUNK).await;
    send(&mut stream, &Ask::new("GET", "/healthz")).await;
    seen(&mut stream, "HTTP/1.1 200 OK").await;

    send(&mut stream, &Ask::new("GET", STREAM).token(&token)).await;
    seen(&mut stream, "beat_ms").await;
    let feed = site.fake.stream();
    drop(stream);
    assert!(feed.gone.await.is_err(), "its end is noticed");
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), ask: &Ask<'_>) {
    stream.write_all(&ask.bytes(false)).await.expect("written");
    stream.flush().await.expect("sent");
}

async fn seen(stream: &mut (impl AsyncRead + Unpin), mark: &str) -> String {
    let mut text = String::new();
    let mut bytes = [0; 4096];
    while !text.contains(mark) {
        let read = stream.read(&mut bytes).await.expect("read");
        assert_ne!(read, 0, "ended before {mark}: {text}");
        text.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
    text
}

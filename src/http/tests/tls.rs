//! Connections under TLS: the same deadlines and caps, another cookie.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    client::Trust,
    config::Config,
    env::BoxStream,
    http::Tls,
    testing::{
        certificates::{SelfSigned, self_signed},
        http::{Answer, Ask, Site, fake::CLUSTER},
        stepped_world::SECOND,
    },
};

/// First bytes of a client's first message, which is longer.
const BEGUN: &[u8] = &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];

fn tls(made: &SelfSigned) -> Tls {
    Tls::new(made.certificate.as_bytes(), made.key.as_bytes()).expect("a pair")
}

fn site(config: Config) -> (Site, SelfSigned) {
    let made = self_signed(&["localhost"]);
    (Site::over_tls(config, tls(&made)), made)
}

/// Connects as a client that trusts this certificate.
async fn connect(site: &Site, made: &SelfSigned) -> std::io::Result<BoxStream> {
    let trust = Trust::of_authorities(made.certificate.as_bytes()).expect("a certificate");
    let stream = Box::new(site.connect().await);
    trust.connect(&site.env, "localhost", stream, SECOND * 5).await
}

async fn send(site: &Site, made: &SelfSigned, ask: Ask<'_>) -> Answer {
    let mut stream = connect(site, made).await.expect("a connection");
    stream.write_all(&ask.bytes(true)).await.expect("written");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.expect("it ends by a goodbye");
    Answer::parse(&bytes)
}

/// Returns the time until the server closes the connection.
async fn closed_after(site: &Site, mut stream: impl AsyncReadExt + Unpin) -> u64 {
    let start = site.env.now();
    // A reset is an end too.
    let _ = stream.read_to_end(&mut Vec::new()).await;
    site.env.now().since(start).as_secs()
}

#[tokio::test(start_paused = true)]
async fn cookie_of_https_goes_to_no_other_host_and_never_out_plain() {
    let (site, made) = site(Config::default());
    let body = json!({ "name": "Ada", "cookie": true });
    let opening = Ask::new("POST", "/api/v1/sessions").json(&body);
    let opened = send(&site, &made, opening.clone()).await;
    assert_eq!(opened.status, 201);
    let line = opened.header("set-cookie").expect("a cookie").to_owned();
    let name = format!("__Host-chatchat-{}", hex::encode(CLUSTER));
    assert!(line.starts_with(&format!("{name}=")), "{line}");
    for word in ["; Secure", "; HttpOnly", "; SameSite=Strict", "; Path=/"] {
        assert!(line.contains(word), "{line}");
    }
    assert!(!line.contains("Domain"), "{line}");
    let pair = line.split(';').next().expect("a pair").to_owned();
    let with = |method, pair: &str| Ask::new(method, "/api/v1/session").header("Cookie", pair);
    assert_eq!(send(&site, &made, with("GET", &pair)).await.status, 200);
    // A page that came plain, or of another name of the domain, can set one without the prefix.
    let tossed = pair.replace("__Host-", "");
    assert_eq!(send(&site, &made, with("GET", &tossed)).await.status, 401);
    let closed = send(&site, &made, with("DELETE", &pair)).await;
    let cleared = closed.header("set-cookie").expect("removed");
    assert!(cleared.starts_with(&format!("{name}=;")) && cleared.contains("Secure"), "{cleared}");

    let of = |origin| opening.clone().header("Host", "localhost:8443").header("Origin", origin);
    assert_eq!(send(&site, &made, of("http://localhost:8443")).await.problem(), "foreign-origin");
    assert_eq!(send(&site, &made, of("https://localhost:8443")).await.status, 201);
}

#[tokio::test(start_paused = true)]
async fn peer_that_stalls_in_the_handshake_is_closed() {
    let (site, _) = site(Config::default());
    let silent = site.connect().await;
    assert_eq!(closed_after(&site, silent).await, 10, "it sent nothing");
    let mut begun = site.connect().await;
    begun.write_all(BEGUN).await.expect("written");
    assert_eq!(closed_after(&site, begun).await, 10, "it began");
    let (reader, mut writer) = tokio::io::split(site.connect().await);
    let drip = site.env.clone();
    site.env.spawn("drip", async move {
        for byte in BEGUN.iter().chain(&[0; 500]) {
            if writer.write_all(&[*byte]).await.is_err() {
                break;
            }
            drip.sleep(SECOND).await;
        }
    });
    assert_eq!(closed_after(&site, reader).await, 10, "a byte each second is no progress");
    let view = site.handle.cluster().await.expect("a view");
    let text = site.metrics.text(&view, 0).expect("text");
    assert!(text.contains("chatchat_http_connections_broken_total{part=\"tls\"} 3"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn slow_headers_and_silence_after_the_handshake_end_a_connection() {
    let (site, made) = site(Config::default());
    let silent = connect(&site, &made).await.expect("a connection");
    assert_eq!(closed_after(&site, silent).await, 5);
    let (reader, mut writer) = tokio::io::split(connect(&site, &made).await.expect("a connection"));
    let drip = site.env.clone();
    site.env.spawn("drip", async move {
        let mut line = &b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"[..];
        while writer.write_all(line).await.is_ok() && writer.flush().await.is_ok() {
            drip.sleep(SECOND * 4).await;
            line = b"X: y\r\n";
        }
    });
    let took = closed_after(&site, reader).await;
    assert!((19..=21).contains(&took), "{took}");
}

#[tokio::test(start_paused = true)]
async fn handshakes_count_as_connections() {
    let config = Config { connections_max: 3, connections_per_address_max: 2, ..Config::default() };
    let (site, made) = site(config);
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = site.connect().await;
        stream.write_all(BEGUN).await.expect("written");
        open.push(stream);
    }
    let third = site.connect().await;
    assert_eq!(closed_after(&site, third).await, 0, "its address has all its places");
    site.env.sleep(Duration::from_secs(11)).await;
    let answer = send(&site, &made, Ask::new("GET", "/healthz")).await;
    assert_eq!(answer.status, 200, "there is room again");
}

#[tokio::test(start_paused = true)]
async fn plain_request_and_garbage_end_the_connection_and_nothing_else() {
    let (site, made) = site(Config::default());
    for sent in [&b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"[..], &[0; 64]] {
        let mut stream = site.connect().await;
        stream.write_all(sent).await.expect("written");
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).await;
        assert!(!bytes.starts_with(b"HTTP"), "{bytes:?}");
    }
    assert_eq!(send(&site, &made, Ask::new("GET", "/healthz")).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn replaced_certificate_serves_the_next_connection_and_a_bad_one_changes_nothing() {
    let first = self_signed(&["localhost"]);
    let tls = tls(&first);
    let site = Site::over_tls(Config::default(), tls.clone());
    let mut kept = connect(&site, &first).await.expect("a connection");
    let second = self_signed(&["localhost"]);
    for (certificate, key) in [("", &second.key), (&second.certificate, &first.key)] {
        assert!(tls.replace(certificate.as_bytes(), key.as_bytes()).is_err());
    }
    assert!(connect(&site, &first).await.is_ok() && connect(&site, &second).await.is_err());
    tls.replace(second.certificate.as_bytes(), second.key.as_bytes()).expect("a pair");
    assert!(connect(&site, &first).await.is_err() && connect(&site, &second).await.is_ok());
    kept.write_all(&Ask::new("GET", "/healthz").bytes(true)).await.expect("written");
    let mut bytes = Vec::new();
    kept.read_to_end(&mut bytes).await.expect("an open connection lives on");
    assert_eq!(Answer::parse(&bytes).status, 200);
}

#[tokio::test(start_paused = true)]
async fn client_believes_the_named_host_or_the_exact_certificate_and_nobody_else() {
    let (site, made) = site(Config::default());
    let reach = async |trust: Trust, host: &str| {
        let stream = Box::new(site.connect().await);
        trust.connect(&site.env, host, stream, SECOND * 5).await.is_ok()
    };
    let pem = made.certificate.as_bytes();
    let of = |pem| Trust::of_authorities(pem).expect("a certificate");
    assert!(reach(of(pem), "localhost").await);
    assert!(!reach(of(pem), "elsewhere.example").await, "another name");
    let exact = |pem| Trust::of_certificate(pem).expect("a certificate");
    assert!(reach(exact(pem), "elsewhere.example").await);
    let other = self_signed(&["localhost"]);
    assert!(!reach(exact(other.certificate.as_bytes()), "localhost").await, "another key");
    assert!(Trust::of_authorities(b"").is_err() && Trust::of_certificate(b"").is_err());
}

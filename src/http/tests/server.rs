//! Connections: deadlines, caps, the end.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::{
    config::Config,
    testing::{
        http::{Ask, Site},
        stepped_world::SECOND,
    },
};

/// Returns the time until the server closes the connection, and its answer.
async fn closed_after(site: &Site, mut stream: DuplexStream) -> (u64, String) {
    let start = site.env.now();
    let mut bytes = Vec::new();
    // A reset is an end too.
    let _ = stream.read_to_end(&mut bytes).await;
    (site.env.now().since(start).as_secs(), String::from_utf8_lossy(&bytes).into_owned())
}

#[tokio::test(start_paused = true)]
async fn silent_connection_is_closed() {
    let site = Site::new();
    let stream = site.connect().await;
    assert_eq!(closed_after(&site, stream).await, (5, String::new()));
}

#[tokio::test(start_paused = true)]
async fn connection_ends_with_its_answer_while_the_master_is_being_drained() {
    let site = Site::new();
    let kept = async || {
        let mut stream = site.connect().await;
        stream.write_all(&Ask::new("GET", "/healthz").bytes(false)).await.expect("written");
        let (took, text) = closed_after(&site, stream).await;
        assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
        took
    };
    assert_eq!(kept().await, 120, "it is kept for the next request");
    site.fake.state().drain.begin();
    assert_eq!(kept().await, 0);
}

#[tokio::test(start_paused = true)]
async fn connection_with_slow_headers_is_closed() {
    let site = Site::new();
    let mut stream = site.connect().await;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n").await.expect("written");
    let (mut reader, mut writer) = tokio::io::split(stream);
    let drip = site.env.clone();
    site.env.spawn("drip", async move {
        while writer.write_all(b"X: y\r\n").await.is_ok() {
            drip.sleep(SECOND * 4).await;
        }
    });
    let start = site.env.now();
    let mut bytes = Vec::new();
    let _ = reader.read_to_end(&mut bytes).await;
    let took = site.env.now().since(start).as_secs();
    assert!((19..=21).contains(&took), "{took}");
    let view = site.handle.cluster().await.expect("a view");
    let text = site.metrics.text(&view, 0).expect("text");
    assert!(text.contains("chatchat_http_connections_broken_total{part=\"http\"} 1"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn connection_with_a_slow_body_is_answered_and_closed() {
    let site = Site::new();
    let mut stream = site.connect().await;
    let head = "POST /api/v1/sessions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
        Content-Length: 100\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.expect("written");
    let (took, text) = closed_after(&site, stream).await;
    assert!(text.starts_with("HTTP/1.1 408 "), "{text}");
    assert!((10..=31).contains(&took), "{took}");
}

#[tokio::test(start_paused = true)]
async fn header_above_the_bound_is_refused() {
    let site = Site::new();
    let long = "x".repeat(17 * 1024);
    let many = Ask { method: "GET", path: "/healthz", ..Ask::default() };
    let many = (0..70).fold(many, |ask, n| ask.header(&format!("X-{n}"), "y"));
    for ask in [Ask::new("GET", "/healthz").header("X", &long), many] {
        let answer = site.send(ask).await;
        assert_eq!(answer.status, 431);
    }
    assert_eq!(site.get("/healthz", "").await.status, 200, "the server lives on");
}

#[tokio::test(start_paused = true)]
async fn garbage_is_refused_and_the_server_goes_on() {
    let site = Site::new();
    for garbage in
        [&b"\x16\x03\x01\x02\x00\x01\x00\x01"[..], b"HELO\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"]
    {
        let mut stream = site.connect().await;
        stream.write_all(garbage).await.expect("written");
        let (took, text) = closed_after(&site, stream).await;
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 400 "), "{text}");
        assert!(took <= 20, "{took}");
    }
    assert_eq!(site.get("/healthz", "").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn connections_are_capped_by_address_and_in_all() {
    let config = Config { connections_max: 3, connections_per_address_max: 2, ..Config::default() };
    let site = Site::with(config);
    let mut open = Vec::new();
    for peer in ["10.0.0.1:1", "10.0.0.1:2"] {
        let mut stream = site.connect_from(peer, 4096).await;
        stream.write_all(b"GET ").await.expect("written");
        open.push(stream);
    }
    let third = site.connect_from("10.0.0.1:3", 4096).await;
    assert_eq!(closed_after(&site, third).await, (0, String::new()));
    let mut other = site.connect_from("10.0.0.2:1", 4096).await;
    other.write_all(b"GET ").await.expect("written");
    let fourth = site.connect_from("10.0.0.3:1", 4096).await;
    assert_eq!(closed_after(&site, fourth).await, (0, String::new()));
    drop(open);
    site.env.sleep(SECOND).await;
    assert_eq!(site.get("/healthz", "").await.status, 200, "there is room again");
}

#[tokio::test(start_paused = true)]
async fn connection_carries_many_requests() {
    let site = Site::new();
    let mut stream = site.connect().await;
    for _ in 0..3 {
        stream.write_all(&Ask::new("GET", "/healthz").bytes(false)).await.expect("written");
        let mut bytes = [0; 4096];
        let read = stream.read(&mut bytes).await.expect("answered");
        assert!(bytes[..read].starts_with(b"HTTP/1.1 200 OK"));
        site.env.sleep(SECOND * 15).await;
    }
}

#[tokio::test(start_paused = true)]
async fn streams_and_connections_end_when_the_server_stops() {
    let mut site = Site::new();
    let token = site.join("Ada").await;
    let mut streaming = site.connect().await;
    let ask = Ask::new("GET", "/api/v1/stream").token(&token).bytes(false);
    streaming.write_all(&ask).await.expect("written");
    let mut idle = site.connect().await;
    idle.write_all(&Ask::new("GET", "/healthz").bytes(false)).await.expect("written");
    site.env.sleep(SECOND).await;
    drop(site.server.take());
    let (took, text) = closed_after(&site, streaming).await;
    assert!(took <= 1 && text.ends_with("0\r\n\r\n"), "{took} s: {text}");
    assert!(closed_after(&site, idle).await.0 <= 1);
}

#[tokio::test(start_paused = true)]
async fn answers_are_counted_by_route() {
    let site = Site::new();
    let token = site.join("Ada").await;
    site.get("/api/v1/boards/lobby/posts", &token).await;
    site.get("/no/such", &token).await;
    let view = site.handle.cluster().await.expect("a view");
    let text = site.metrics.text(&view, 0).expect("text");
    for line in [
        "route=\"/api/v1/boards/{board}/posts\",status=\"200\"} 1",
        "route=\"none\",status=\"404\"} 1",
        "chatchat_store_reachable 1",
        "chatchat_nodes{role=\"worker\",state=\"failed\"} 1",
        "chatchat_queue_waiting_tasks{resource=\"board\"} 2",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn idle_connection_outlives_common_balancers_and_ends_after_the_last_request() {
    let site = Site::new();
    let mut stream = site.connect().await;
    let mut bytes = [0; 4096];
    // The last one comes just before the connection would end.
    for idle_s in [0, 20, 75, 119] {
        site.env.sleep(SECOND * idle_s).await;
        stream.write_all(&Ask::new("GET", "/healthz").bytes(false)).await.expect("written");
        let read = stream.read(&mut bytes).await.expect("answered");
        assert!(bytes[..read].starts_with(b"HTTP/1.1 200 OK"), "after {idle_s} s");
    }
    assert_eq!(closed_after(&site, stream).await, (120, String::new()));
}

/// Sends a post of 5 MB as most programs do: all of it, then a look at the answer.
async fn send_too_much(site: &Site, expect: &str) -> String {
    let token = site.join("Ada").await;
    let mut stream = site.connect_from("10.0.0.1:1", 64 * 1024).await;
    let body = vec![b'x'; 5_000_000];
    let head = format!(
        "POST /api/v1/boards/lobby/posts HTTP/1.1\r\nHost: localhost\r\n{expect}\
         Authorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.expect("written");
    if expect.is_empty() {
        stream.write_all(&body).await.expect("all of it is taken");
    }
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test(start_paused = true)]
async fn refusal_of_a_large_body_reaches_who_sends_all_of_it_first() {
    let text = send_too_much(&Site::new(), "").await;
    assert!(text.starts_with("HTTP/1.1 413 "), "{text}");
}

#[tokio::test(start_paused = true)]
async fn large_body_that_is_announced_is_refused_before_it_is_sent() {
    let text = send_too_much(&Site::new(), "Expect: 100-continue\r\n").await;
    assert!(text.starts_with("HTTP/1.1 413 "), "{text}");
}

//! Names, origins and proxies, from outside.

use serde_json::json;

use crate::testing::{
    http::{Ask, Site},
    stepped_world::SECOND,
};

fn opening(headers: &[(&str, &str)]) -> Ask<'static> {
    let ask = Ask::new("POST", "/api/v1/sessions").json(&json!({ "name": "Ada" }));
    headers.iter().fold(ask, |ask, (name, value)| ask.header(name, value))
}

#[tokio::test(start_paused = true)]
async fn own_page_may_write_whatever_a_proxy_made_of_the_host() {
    let site = Site::new();
    for headers in [
        &[("Host", "10.0.0.9"), ("Origin", "null"), ("Sec-Fetch-Site", "same-origin")][..],
        &[("Host", "10.0.0.9"), ("Origin", "https://a.example"), ("Sec-Fetch-Site", "same-origin")],
        &[("Host", "127.0.0.1:80"), ("Origin", "http://127.0.0.1")],
        &[("Host", "LOCALHOST:80"), ("Origin", "http://localhost")],
    ] {
        let answer = site.send(opening(headers)).await;
        assert_eq!(answer.status, 201, "{headers:?}: {answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn unknown_name_is_refused_everywhere() {
    let site = Site::new();
    for path in ["/", "/readyz", "/api/v1/boards", "/nowhere"] {
        let answer = site.send(Ask::new("GET", path).header("Host", "evil.example:8080")).await;
        assert_eq!((answer.status, &*answer.problem()), (421, "unknown-host"), "{path}");
    }
    let absolute = Ask::new("GET", "http://evil.example/readyz");
    assert_eq!(site.send(absolute).await.status, 421);
    for host in ["127.0.0.1", "[::1]:8080", "localhost:8080"] {
        let answer = site.send(Ask::new("GET", "/healthz").header("Host", host)).await;
        assert_eq!(answer.status, 200, "{host}");
    }
}

#[tokio::test(start_paused = true)]
async fn stream_is_not_to_be_transformed() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let site = Site::new();
    let token = site.join("Ada").await;
    let mut stream = site.connect().await;
    let ask = Ask::new("GET", "/api/v1/stream").token(&token).bytes(false);
    stream.write_all(&ask).await.expect("written");
    site.env.sleep(SECOND).await;
    let mut bytes = [0; 4096];
    let read = stream.read(&mut bytes).await.expect("answered");
    let head = String::from_utf8_lossy(&bytes[..read]).to_lowercase();
    assert!(head.contains("cache-control: no-store, no-transform"), "{head}");
}

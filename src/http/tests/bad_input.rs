//! Answers to bad input: a clear error, and nothing is lost.

use std::fmt::Write as _;

use serde_json::json;

use crate::testing::{
    http::{Ask, Site},
    snapshots,
};

const ID: &str = "3f0e8c5a-9d0b-4b6e-8a57-6f2f0d9a7c11";
const LOBBY: &str = "/api/v1/boards/lobby/posts";

#[tokio::test(start_paused = true)]
async fn bad_input_is_answered_with_its_problem() {
    let site = Site::new();
    let token = site.join("Ada").await;
    let taken = json!({ "id": ID, "text": "the first" });
    assert_eq!(site.post(LOBBY, &token, &taken).await.status, 201);
    let written = site.fake.state().submitted;

    let long = "x".repeat(8 * 1024 + 1);
    let huge = format!("{{\"name\": \"{}\"}}", "x".repeat(16 * 1024));
    let text = |text: &str| json!({ "id": ID, "text": text }).to_string();
    let unknown = "A".repeat(43);
    let no_cookie = format!("chatchat-{}=nonsense", "cc".repeat(16));
    let post = |path| Ask::new("POST", path).token(&token);
    let get = |path| Ask::new("GET", path).token(&token);
    let put = |path| Ask::new("PUT", path).token(&token);
    let open = || Ask::new("POST", "/api/v1/sessions");
    let ok = || text("fine");
    let cases = [
        ("text over 8 KiB", post(LOBBY).raw_json(&text(&long))),
        ("text of nothing", post(LOBBY).raw_json(&text(""))),
        ("text with U+0000", post(LOBBY).raw_json(&text("a\0b"))),
        ("bad id", post(LOBBY).raw_json(r#"{"id":"42","text":"x"}"#)),
        ("bad board", post("/api/v1/boards/No%20Such/posts").raw_json(&ok())),
        ("bad board, not UTF-8", post("/api/v1/boards/%ff/posts").raw_json(&ok())),
        ("unknown board", get("/api/v1/boards/nowhere/posts")),
        ("post to an unknown board", post("/api/v1/boards/nowhere/posts").raw_json(&text("other"))),
        ("broken JSON", post(LOBBY).raw_json(r#"{"id": "#)),
        ("JSON with a lone surrogate", post(LOBBY).raw_json(r#"{"id":"x","text":"\ud800"}"#)),
        ("missing field", post(LOBBY).raw_json(r#"{"id":"x"}"#)),
        ("wrong type", post(LOBBY).raw_json(r#"{"id":1,"text":"x"}"#)),
        ("no body", post(LOBBY).raw_json("")),
        ("no JSON", post(LOBBY).header("Content-Type", "text/plain")),
        ("same id, other text", post(LOBBY).raw_json(&text("another"))),
        ("no token", Ask::new("GET", "/api/v1/session")),
        ("garbled token", Ask::new("GET", "/api/v1/session").token("x")),
        ("unknown token", Ask::new("GET", "/api/v1/session").token(&unknown)),
        ("no bearer", Ask::new("GET", "/api/v1/session").header("Authorization", "Basic eDp5")),
        ("garbled cookie", Ask::new("GET", "/api/v1/session").header("Cookie", &no_cookie)),
        ("empty name", open().raw_json(r#"{"name":"  "}"#)),
        ("hidden characters in a name", open().raw_json(r#"{"name":"a\u202eb"}"#)),
        ("body over 16 KiB", open().raw_json(&huge)),
        ("both ends of a range", get("/api/v1/boards/lobby/posts?after=1&before=2")),
        ("a range of words", get("/api/v1/boards/lobby/posts?after=x")),
        ("no posts at all", get("/api/v1/boards/lobby/posts?limit=0")),
        ("another consistency", get("/api/v1/boards/lobby/posts?consistency=maybe")),
        ("mark above the end", put("/api/v1/boards/lobby/read-mark").raw_json(r#"{"seq":9}"#)),
        ("a negative mark", put("/api/v1/boards/lobby/read-mark").raw_json(r#"{"seq":-1}"#)),
        ("bad id in a path", get("/api/v1/posts/42")),
        ("bad board to create", put("/api/v1/boards/-x")),
        ("nothing there", get("/api/v1/nothing")),
        ("wrong method", Ask::new("PATCH", "/api/v1/boards").token(&token)),
        ("foreign origin", post(LOBBY).header("Origin", "http://evil.example").raw_json(&ok())),
        ("another port's page", post(LOBBY).header("Sec-Fetch-Site", "same-site").raw_json(&ok())),
        (
            "garbled ticket",
            Ask::new("POST", "/api/v1/handover/redeem").raw_json(r#"{"ticket":"x"}"#),
        ),
    ];
    let mut seen = String::new();
    for (name, ask) in cases {
        let answer = site.send(ask).await;
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{name}");
        let json = answer.json();
        let (kind, detail) = (answer.problem(), &json["detail"]);
        writeln!(seen, "{name}: {} {kind}: {detail}", answer.status).expect("a string");
    }
    let lost = site.get(LOBBY, &token).await.json();
    assert_eq!(lost["posts"].as_array().map(Vec::len), Some(1), "nothing was changed");
    // Only what is well-formed reached the master: a conflict, an unknown board, a mark.
    assert_eq!(site.fake.state().submitted, written + 3);
    snapshots().bind(|| insta::assert_snapshot!("http_bad_input", seen));
}

#[tokio::test(start_paused = true)]
async fn problem_has_type_title_status_and_detail() {
    let site = Site::new();
    let answer = site.get("/api/v1/session", "").await;
    let mut headers = answer.headers.clone();
    headers.sort();
    let headers = headers.into_iter().filter(|(name, _)| name != "connection");
    let lines: Vec<_> = headers.map(|(name, value)| format!("{name}: {value}")).collect();
    let pretty = serde_json::to_string_pretty(&answer.json()).expect("JSON");
    let whole = format!("{}\n{}\n\n{pretty}", answer.status, lines.join("\n"));
    snapshots().bind(|| insta::assert_snapshot!("http_problem", whole));
}

#[tokio::test(start_paused = true)]
async fn escaped_text_within_the_bound_is_accepted() {
    let site = Site::new();
    let token = site.join("Ada").await;
    let escaped = "\\u0001".repeat(8 * 1024);
    let body = format!(r#"{{"id":"{ID}","text":"{escaped}"}}"#);
    let answer = site.send(Ask::new("POST", LOBBY).token(&token).raw_json(&body)).await;
    assert_eq!(answer.status, 201);
}

#[tokio::test(start_paused = true)]
async fn every_answer_carries_the_security_headers() {
    let site = Site::new();
    for path in ["/healthz", "/api/v1/openapi.json", "/nowhere", "/api/v1/session"] {
        let answer = site.get(path, "").await;
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "strict-origin"),
            ("cache-control", "no-store"),
            ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{path}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn name_or_text_that_nobody_sees_is_refused() {
    let site = Site::new();
    for name in [
        "\u{200b}",
        "Ann\u{200b}",
        "Ann\u{fe0f}",
        "\u{3164}",
        "\u{301}",
        "a\u{200d}",
        "Ann #3f0e",
        "\u{2800}",
    ] {
        let ask = Ask::new("POST", "/api/v1/sessions").json(&json!({ "name": name }));
        let answer = site.send(ask).await;
        assert_eq!((answer.status, &*answer.problem()), (400, "malformed-name"), "{name:?}");
    }
    let token = site.join("Ada").await;
    for text in [" ", "\n\n", "\u{200b}", "\u{3000}\u{2060}"] {
        let answer = site.post(LOBBY, &token, &json!({ "id": ID, "text": text })).await;
        assert_eq!((answer.status, &*answer.problem()), (422, "text-refused"), "{text:?}");
    }
    let opened = Ask::new("POST", "/api/v1/sessions").json(&json!({ "name": "Zoe\u{308}" }));
    assert_eq!(site.send(opened).await.json()["user"]["name"], "Zo\u{eb}");
}

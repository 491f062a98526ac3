//! Endpoints in a healthy cluster, and their answers when it is not.

use serde_json::{Value, json};

use crate::{
    api::{MasterState, Readiness, StoreReach},
    model::{absence::AwayReason, ids::NodeId, outcome::Outcome},
    node::handle::{MasterInfo, RequestError},
    testing::{
        http::{
            Ask, Site,
            fake::{CLUSTER, Silent},
        },
        stepped_world::SECOND,
    },
};

const ID: &str = "3f0e8c5a-9d0b-4b6e-8a57-6f2f0d9a7c11";
const LOBBY: &str = "/api/v1/boards/lobby/posts";

#[tokio::test(start_paused = true)]
async fn session_opens_restores_and_closes() {
    let site = Site::new();
    let token = site.join(" Ada ").await;
    let restored = site.get("/api/v1/session", &token).await;
    assert_eq!(restored.status, 200);
    let json = restored.json();
    assert_eq!(json["user"]["name"], "Ada");
    assert_eq!(json["boards"], json!([{ "name": "lobby", "last_seq": 0, "read_mark": 0 }]));
    assert_eq!(json["consistency"], "strong");
    assert_eq!(json["pending"], json!([]));
    assert_eq!(json["epoch"], 7);
    assert_eq!(json["cluster"], hex::encode(CLUSTER));

    let alive = Ask::new("POST", "/api/v1/session/alive").token(&token);
    assert_eq!(site.send(alive).await.status, 204);
    assert_eq!(site.fake.state().alive, 1);

    let closed = site.send(Ask::new("DELETE", "/api/v1/session").token(&token)).await;
    assert_eq!(closed.status, 204);
    assert_eq!(site.get("/api/v1/session", &token).await.status, 401);
}

#[tokio::test(start_paused = true)]
async fn browser_token_stays_in_a_cookie() {
    let site = Site::new();
    let body = json!({ "name": "Ada", "cookie": true });
    let opened = site.send(Ask::new("POST", "/api/v1/sessions").json(&body)).await;
    assert_eq!(opened.status, 201);
    assert!(opened.json().get("token").is_none());
    let line = opened.header("set-cookie").expect("a cookie").to_owned();
    assert!(line.starts_with(&format!("chatchat-{}=", hex::encode(CLUSTER))), "{line}");
    for word in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=2592000"] {
        assert!(line.contains(word), "{line}");
    }
    let cookie = line.split(';').next().expect("a pair");
    let with = |method, path| Ask::new(method, path).header("Cookie", &format!("a=b; {cookie}"));
    assert_eq!(site.send(with("GET", "/api/v1/session")).await.json()["user"]["name"], "Ada");
    let closed = site.send(with("DELETE", "/api/v1/session")).await;
    assert!(closed.header("set-cookie").expect("removed").contains("Max-Age=0"));
}

#[tokio::test(start_paused = true)]
async fn post_is_created_once_and_found_again() {
    let site = Site::new();
    let token = site.join("Ada").await;
    let body = json!({ "id": ID, "text": "hello" });
    let created = site.post(LOBBY, &token, &body).await;
    assert_eq!(created.status, 201);
    let post = created.json();
    assert_eq!(
        (&post["seq"], &post["text"], &post["board"]),
        (&1.into(), &"hello".into(), &"lobby".into())
    );
    assert_eq!(post["author"]["name"], "Ada");
    assert_eq!(post["posted_at"], 1001);
    let again = site.post(LOBBY, &token, &body).await;
    assert_eq!((again.status, again.json()), (200, post.clone()));

    let found = site.get(&format!("/api/v1/posts/{ID}"), &token).await.json();
    assert_eq!((&found["state"], &found["seq"]), (&"committed".into(), &1.into()));
    let late = site.send(Ask::new("DELETE", &format!("/api/v1/posts/{ID}")).token(&token)).await;
    assert_eq!((&late.json()["state"], &late.json()["seq"]), (&"committed".into(), &1.into()));
}

#[tokio::test(start_paused = true)]
async fn request_of_a_session_is_one_message_to_the_master() {
    let site = Site::new();
    let token = site.join("Ada").await;
    let of = |method, path| Ask::new(method, path).token(&token);
    let requests = [
        of("POST", LOBBY).json(&json!({ "id": ID, "text": "hello" })),
        of("DELETE", "/api/v1/posts/0190163d-8694-739b-aea5-966c26f8ad91"),
        of("PUT", "/api/v1/boards/lobby/read-mark").json(&json!({ "seq": 1 })),
        of("PUT", "/api/v1/boards/lobby"),
        of("GET", "/api/v1/boards"),
        of("GET", LOBBY),
        of("GET", "/api/v1/users"),
        of("GET", "/api/v1/cluster"),
        of("POST", "/api/v1/session/alive"),
        of("POST", "/api/v1/handover"),
        of("DELETE", "/api/v1/session"),
    ];
    for request in requests {
        let name = format!("{} {}", request.method, request.path);
        let before = site.fake.state().messages;
        let status = site.send(request).await.status;
        assert!((200..300).contains(&status), "{name}: {status}");
        assert_eq!(site.fake.state().messages - before, 1, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn strangers_keep_no_place_in_the_table_of_rates() {
    let config = crate::config::Config {
        session_requests_per_s: 1,
        session_requests_burst: 2,
        sessions_cached_max: 1,
        ..Default::default()
    };
    let site = Site::with(config);
    let token = site.join("Ada").await;
    for n in ["A", "B"] {
        let stranger = format!("{}A", n.repeat(42));
        assert_eq!(site.get("/api/v1/boards", &stranger).await.status, 401);
        let post = site.post(LOBBY, &stranger, &json!({ "id": ID, "text": "x" })).await;
        assert_eq!((post.status, post.problem().as_str()), (401, "unknown-session"));
    }
    assert_eq!(site.get("/api/v1/boards", &token).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn cancelled_post_stays_out() {
    let site = Site::new();
    let token = site.join("Ada").await;
    let path = format!("/api/v1/posts/{ID}");
    assert_eq!(site.get(&path, &token).await.problem(), "not-committed");
    let cancelled = site.send(Ask::new("DELETE", &path).token(&token)).await;
    assert_eq!(cancelled.json(), json!({ "state": "cancelled", "id": ID }));
    assert_eq!(site.get(&path, &token).await.json()["state"], "cancelled");
    let sent = site.post(LOBBY, &token, &json!({ "id": ID, "text": "late" })).await;
    assert_eq!((sent.status, sent.problem()), (410, "cancelled".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn board_is_read_in_pages() {
    let site = Site::new();
    let token = site.join("Ada").await;
    for n in 1..=5 {
        let id = format!("3f0e8c5a-9d0b-4b6e-8a57-00000000000{n}");
        assert_eq!(site.post(LOBBY, &token, &json!({ "id": id, "text": "x" })).await.status, 201);
    }
    let read = async |query: &str| {
        let json = site.get(&format!("{LOBBY}?{query}"), &token).await.json();
        let posts = json["posts"].as_array().expect("posts");
        let seqs: Vec<u64> = posts.iter().filter_map(|post| post["seq"].as_u64()).collect();
        (seqs, json["truncated"] == true, json["consistency"] == "weak")
    };
    assert_eq!(read("").await, (vec![1, 2, 3, 4, 5], false, false));
    assert_eq!(read("limit=2").await, (vec![4, 5], true, false));
    assert_eq!(read("after=1&limit=2").await, (vec![2, 3], true, false));
    assert_eq!(read("after=3").await, (vec![4, 5], false, false));
    assert_eq!(read("before=3").await, (vec![1, 2], false, false));
    assert_eq!(read("before=5&limit=2").await, (vec![3, 4], true, false));
    assert_eq!(read("after=5&consistency=weak").await, (vec![], false, true));
    assert_eq!(read("limit=100000").await.0.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn boards_are_created_once_and_marked() {
    let site = Site::new();
    let token = site.join("Ada").await;
    let create = || Ask::new("PUT", "/api/v1/boards/dev").token(&token);
    assert_eq!(site.send(create()).await.status, 201);
    let writes = site.fake.state().submitted;
    assert_eq!(site.send(create()).await.status, 200);
    assert_eq!(site.fake.state().submitted, writes, "nothing is written for a board that is there");

    site.post(LOBBY, &token, &json!({ "id": ID, "text": "x" })).await;
    let mark = |seq: u64| {
        Ask::new("PUT", "/api/v1/boards/lobby/read-mark").token(&token).json(&json!({ "seq": seq }))
    };
    assert_eq!(site.send(mark(1)).await.status, 204);
    let beyond = site.send(mark(2)).await;
    assert_eq!((beyond.status, beyond.problem()), (400, "above-end".to_owned()));
    let boards = site.get("/api/v1/boards", &token).await.json();
    assert_eq!(boards["boards"][1], json!({ "name": "lobby", "last_seq": 1, "read_mark": 1 }));
}

#[tokio::test(start_paused = true)]
async fn ticket_moves_a_session_once() {
    let site = Site::new();
    let token = site.join("Ada").await;
    let issued = site.send(Ask::new("POST", "/api/v1/handover").token(&token)).await;
    assert_eq!(issued.status, 201);
    let redeem = || Ask::new("POST", "/api/v1/handover/redeem").json(&issued.json());
    let moved = site.send(redeem()).await;
    assert_eq!((moved.status, &moved.json()["user"]["name"]), (201, &"Ada".into()));
    assert!(moved.header("set-cookie").is_some() && moved.json().get("token").is_none());
    let again = site.send(redeem()).await;
    assert_eq!((again.status, again.problem()), (404, "unknown-ticket".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn ticket_of_another_user_sets_no_cookie() {
    let site = Site::new();
    let eve = site.join("Eve").await;
    let issued = site.send(Ask::new("POST", "/api/v1/handover").token(&eve)).await;
    let redeem = Ask::new("POST", "/api/v1/handover/redeem")
        .header("Chatchat-User", &"0".repeat(32))
        .json(&issued.json());
    let refused = site.send(redeem).await;
    assert_eq!((refused.status, refused.problem()), (401, "other-session".to_owned()));
    assert_eq!(refused.header("set-cookie"), None);
}

#[tokio::test(start_paused = true)]
async fn session_of_another_user_than_the_one_named_is_refused() {
    let site = Site::new();
    let (bob, carol) = (site.join("Bob").await, site.join("Carol").await);
    let id = site.get("/api/v1/session", &bob).await.json()["user"]["id"].clone();
    let id = id.as_str().expect("an id").to_owned();
    let body = json!({ "id": ID, "text": "hello" });
    let write = |token: &str| Ask::new("POST", LOBBY).token(token).json(&body);
    let refused = site.send(write(&carol).header("Chatchat-User", &id)).await;
    assert_eq!((refused.status, refused.problem()), (401, "other-session".to_owned()));
    let stream = format!("/api/v1/stream?boards=lobby&user={id}");
    assert_eq!(site.get(&stream, &carol).await.problem(), "other-session");
    assert_eq!(site.send(write(&bob).header("Chatchat-User", &id)).await.status, 201);
}

#[tokio::test(start_paused = true)]
async fn pages_of_people_go_on_after_the_last_one_though_it_left() {
    let site = Site::new();
    let token = site.join("Ada").await;
    let (left, _) = (site.join("Ben").await, site.join("Cleo").await);
    let names = |list: &Value| {
        let users = list["users"].as_array().cloned().unwrap_or_default();
        users.iter().filter_map(|user| user["name"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    let two = site.get("/api/v1/users?limit=2", &token).await.json();
    assert_eq!(names(&two), ["Ada", "Ben"]);
    let (id, next) = (two["users"][1]["id"].as_str(), two["next"].as_str().expect("one is left"));
    let by_id = format!("/api/v1/users?after={}", id.expect("an id"));
    let by_next = format!("/api/v1/users?limit=2&after={next}");
    for path in [&by_id, &by_next] {
        let rest = site.get(path, &token).await.json();
        assert_eq!((names(&rest), rest.get("next")), (vec!["Cleo".to_owned()], None), "{path}");
    }
    let gone = site.send(Ask::new("DELETE", "/api/v1/session").token(&left)).await;
    assert_eq!(gone.status, 204);
    assert_eq!(names(&site.get(&by_next, &token).await.json()), ["Cleo"]);
    let answer = site.get(&by_id, &token).await;
    assert_eq!((answer.status, answer.problem().as_str()), (400, "malformed-query"));
}

#[tokio::test(start_paused = true)]
async fn people_and_cluster_need_a_session() {
    let site = Site::new();
    for path in ["/api/v1/users", "/api/v1/cluster"] {
        assert_eq!(site.get(path, "").await.problem(), "no-session");
    }
    let token = site.join("Ada").await;
    let users = site.get("/api/v1/users", &token).await.json();
    assert_eq!(users["users"][0]["name"], "Ada");
    assert_eq!(users["users"][0]["last_seen"], 900);
    assert_eq!((&users["total"], &users["version"]), (&json!(1), &json!(3)));
    site.join("Ben").await;
    let first = site.get("/api/v1/users?limit=1", &token).await.json();
    assert_eq!(first["users"].as_array().map(Vec::len), Some(1));
    assert_eq!((&first["users"][0]["name"], &first["total"]), (&json!("Ada"), &json!(2)));
    for query in ["limit=0", "limit=-1", "limit=many", "after=", "after=Ada", "after=:Ada"] {
        let answer = site.get(&format!("/api/v1/users?{query}"), &token).await;
        assert_eq!((answer.status, answer.problem().as_str()), (400, "malformed-query"), "{query}");
    }
    let cluster = site.get("/api/v1/cluster", &token).await.json();
    assert_eq!(cluster["store"], "here");
    assert_eq!(cluster["nodes"][1]["state"], "failed");
    assert_eq!(cluster["nodes"][1]["failed"], json!({ "why": "silent", "times": 1 }));
    assert!(cluster["nodes"][0].get("failed").is_none(), "it did not fail");
    assert!(cluster.get("queues").is_none(), "operators only");
}

#[tokio::test(start_paused = true)]
async fn foreign_origin_may_read_health_only() {
    let site = Site::new();
    for path in ["/healthz", "/readyz"] {
        let answer = site.get(path, "").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    }
    for path in ["/api/v1/openapi.json", "/api/v1/session", "/nowhere"] {
        assert_eq!(site.get(path, "").await.header("access-control-allow-origin"), None);
    }
    let readiness = |ready, store| Readiness {
        store_reason: (store == StoreReach::Away).then_some(AwayReason::Locked),
        ready,
        store,
        state: if ready { MasterState::Serving } else { MasterState::Draining },
    };
    site.fake.state().readiness = Some(readiness(true, StoreReach::Away));
    let away = site.get("/readyz", "").await;
    assert_eq!((away.status, &away.json()["store"]), (200, &"away".into()));
    assert_eq!(away.json()["store_reason"], "locked");
    site.fake.state().readiness = Some(readiness(false, StoreReach::Here));
    assert_eq!(site.get("/readyz", "").await.status, 503);
}

#[tokio::test(start_paused = true)]
async fn draining_master_sends_pages_to_the_others_in_turn() {
    let site = Site::new();
    let other = |n: u8, http: &str| MasterInfo {
        id: NodeId([n; 16]),
        name: format!("other-{n}"),
        http: http.to_owned(),
    };
    site.fake.state().others = vec![
        other(1, "http://127.0.0.1:8081"),
        other(2, "http://chat.example"),
        other(3, "http://;"),
    ];
    assert_eq!(site.get("/", "").await.status, 200);
    site.fake.state().drain.begin();
    let to = async |path: &str| {
        let answer = site.get(path, "").await;
        assert_eq!(answer.status, 307, "{path}");
        answer.header("location").map(str::to_owned)
    };
    assert_eq!(to("/").await.as_deref(), Some("http://127.0.0.1:8081/"));
    assert_eq!(to("/?board=dev").await.as_deref(), Some("http://chat.example/?board=dev"));
    assert_eq!(to("/").await.as_deref(), Some("http://127.0.0.1:8081/"), "not to itself");
    site.fake.state().others.clear();
    assert_eq!(site.get("/", "").await.status, 200, "there is no other one");
}

#[tokio::test(start_paused = true)]
async fn each_outcome_of_a_write_has_one_status() {
    let site = Site::new();
    let token = site.join("Ada").await;
    let outcomes = [
        (Outcome::Overloaded { retry_ms: 1500 }, 429, "overloaded", Some("2")),
        (Outcome::Unavailable { retry_ms: 100 }, 503, "unavailable", Some("1")),
        (Outcome::Unknown, 504, "outcome-unknown", None),
        (Outcome::DeadLetter, 504, "dead-letter", None),
    ];
    for (outcome, status, kind, retry) in outcomes {
        site.fake.state().outcome = Some(outcome);
        let answer = site.post(LOBBY, &token, &json!({ "id": ID, "text": "x" })).await;
        assert_eq!((answer.status, answer.problem().as_str()), (status, kind));
        assert_eq!(answer.header("retry-after"), retry);
    }
    site.fake.state().outcome = Some(Outcome::Pending { copies: 2 });
    let answer = site.post(LOBBY, &token, &json!({ "id": ID, "text": "x" })).await;
    assert_eq!(answer.status, 202);
    assert_eq!(answer.json(), json!({ "id": ID, "state": "pending", "copies": 2 }));
}

#[tokio::test(start_paused = true)]
async fn session_is_not_unknown_while_the_store_is_away() {
    let site = Site::new();
    let token = site.join("Ada").await;
    for (why, status) in [(RequestError::Away, 503), (RequestError::Overloaded, 429)] {
        site.fake.state().read_error = Some(why);
        for path in ["/api/v1/session", LOBBY, "/api/v1/users"] {
            let answer = site.get(path, &token).await;
            assert_eq!(answer.status, status);
            assert!(answer.header("retry-after").is_some());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn silent_master_makes_writes_unknown_and_reads_unavailable() {
    let site = Site::new();
    let token = site.join("Ada").await;
    site.fake.state().silent = Silent::Writes;
    let answer = site.post(LOBBY, &token, &json!({ "id": ID, "text": "x" })).await;
    assert_eq!(answer.problem(), "outcome-unknown");
    site.fake.state().silent = Silent::All;
    assert_eq!(site.get(LOBBY, &token).await.problem(), "unavailable");
}

#[tokio::test(start_paused = true)]
async fn session_above_its_rate_gets_retry_after() {
    let config = crate::config::Config {
        session_requests_per_s: 1,
        session_requests_burst: 2,
        ..Default::default()
    };
    let site = Site::with(config);
    let (ada, bob) = (site.join("Ada").await, site.join("Bob").await);
    for _ in 0..2 {
        assert_eq!(site.get("/api/v1/boards", &ada).await.status, 200);
    }
    let refused = site.get("/api/v1/boards", &ada).await;
    assert_eq!((refused.status, refused.problem().as_str()), (429, "rate-limited"));
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(site.get("/api/v1/boards", &bob).await.status, 200);
    site.env.sleep(SECOND).await;
    assert_eq!(site.get("/api/v1/boards", &ada).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn address_above_its_opening_rate_gets_retry_after() {
    let config =
        crate::config::Config { openings_per_s: 1, openings_burst: 2, ..Default::default() };
    let site = Site::with(config);
    for name in ["Ada", "Bob"] {
        site.join(name).await;
    }
    let opened = site.post("/api/v1/sessions", "", &json!({ "name": "Eve" })).await;
    assert_eq!((opened.status, opened.problem().as_str()), (429, "rate-limited"));
    assert_eq!(opened.header("retry-after"), Some("1"));
    let redeemed = site.post("/api/v1/handover/redeem", "", &json!({ "ticket": "x" })).await;
    assert_eq!(redeemed.problem(), "rate-limited", "no guessing of tickets either");
    site.env.sleep(SECOND).await;
    site.join("Eve").await;
}

#[tokio::test(start_paused = true)]
async fn page_policy_allows_masters_only() {
    let site = Site::new();
    let page = site.get("/", "").await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let policy = page.header("content-security-policy").expect("a policy");
    let parts: Vec<&str> = policy.split("; ").collect();
    for part in [
        "default-src 'none'",
        "script-src 'self'",
        "connect-src 'self' http://127.0.0.1:8080",
        "require-trusted-types-for 'script'",
        "frame-ancestors 'none'",
    ] {
        assert!(parts.contains(&part), "{part} in {policy}");
    }
    assert!(page.body.contains(r#"<meta name="masters" content="http://127.0.0.1:8080">"#));
    let file = site.get("/page/app.js", "").await;
    let tag = file.header("etag").expect("a tag").to_owned();
    let again = Ask::new("GET", "/page/app.js").header("If-None-Match", &tag);
    assert_eq!(site.send(again).await.status, 304);
}

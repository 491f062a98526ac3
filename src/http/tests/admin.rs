//! The operators' listener.

use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::sync::mpsc;

use crate::{
    config::Config,
    env::BoxStream,
    http::{AdminParams, AdminToken, serve_admin},
    model::{
        ids::{Author, BoardName, PostId, Resource, UserId},
        outcome::Outcome,
        rows::{DeadLetter, NewPost},
    },
    testing::{
        http::{Answer, Ask, Dialled, Site},
        snapshots,
    },
};

async fn ask(site: &Site, token: &AdminToken, ask: Ask<'_>) -> Answer {
    let (dial, taken) = mpsc::channel(1);
    let params = AdminParams {
        config: Config::default(),
        metrics: site.metrics.clone(),
        token: token.clone(),
        tls: None,
    };
    let listener = Box::new(Dialled(taken));
    let served = serve_admin(site.env.clone(), listener, site.handle.clone(), params);
    let _server = site.env.spawn("admin", served).abort_on_drop();
    let (mut here, there) = duplex(1 << 20);
    dial.send((Box::new(there) as BoxStream, "127.0.0.1:1".to_owned())).await.expect("it listens");
    here.write_all(&ask.bytes(true)).await.expect("written");
    let mut bytes = Vec::new();
    here.read_to_end(&mut bytes).await.expect("read");
    Answer::parse(&bytes)
}

#[tokio::test(start_paused = true)]
async fn admin_listener_needs_the_token() {
    let site = Site::new();
    let token = AdminToken::new("secret\n");
    for path in ["/metrics", "/api/v1/admin/cluster", "/nowhere"] {
        for shown in ["", "secre", "secret2", &"A".repeat(43)] {
            let answer = ask(&site, &token, Ask::new("GET", path).token(shown)).await;
            assert_eq!(answer.status, 401, "{path} {shown}");
        }
    }
    let answer = ask(&site, &token, Ask::new("GET", "/metrics").token("secret")).await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.ends_with("# EOF\n"), "{}", answer.body);
    assert!(answer.body.contains("chatchat_operators_refused_total 12\n"), "{}", answer.body);
}

#[tokio::test(start_paused = true)]
async fn unknown_methods_are_counted_as_one() {
    let site = Site::new();
    for nth in 0..20 {
        site.send(Ask::new(&format!("MADE-UP-{nth}"), "/")).await;
    }
    let token = AdminToken::new("secret");
    let answer = ask(&site, &token, Ask::new("GET", "/metrics").token("secret")).await;
    let made_up: Vec<_> = answer
        .body
        .lines()
        .filter(|l| l.contains("http_answers") && l.contains("method="))
        .collect();
    assert_eq!(made_up.len(), 1, "{}", answer.body);
    assert!(made_up[0].contains("method=\"other\"") && made_up[0].ends_with(" 20"), "{made_up:?}");
}

#[tokio::test(start_paused = true)]
async fn operator_sees_the_whole_cluster() {
    let site = Site::new();
    let token = AdminToken::new("secret");
    let path = "/api/v1/admin/cluster";
    let answer = ask(&site, &token, Ask::new("GET", path).token("secret")).await;
    let pretty = serde_json::to_string_pretty(&answer.json()).expect("JSON");
    snapshots().bind(|| insta::assert_snapshot!("http_admin_cluster", pretty));
}

#[tokio::test(start_paused = true)]
async fn token_is_made_once_and_kept() {
    let site = Site::new();
    let made = AdminToken::of_disk(&site.env).expect("made");
    assert!(AdminToken::of_disk(&site.env).expect("kept") == made);
    let other = Site::new();
    other.env.disk().write_atomic("admin.token", b" \n").expect("written");
    assert!(AdminToken::of_disk(&other.env).is_err(), "an empty token would open to everyone");
}

#[tokio::test(start_paused = true)]
async fn join_token_is_made_for_operators_only() {
    let site = Site::new();
    let token = AdminToken::new("secret");
    let path = "/api/v1/admin/tokens";
    let stranger = ask(&site, &token, Ask::new("POST", path)).await;
    assert_eq!(stranger.status, 401);
    let made = ask(&site, &token, Ask::new("POST", path).token("secret")).await;
    assert_eq!((made.status, made.json()["token"].as_str()), (201, Some("CHAT1.a.b.c")));
    assert_eq!(made.json()["masters"][0], "127.0.0.1:8180");
    assert_eq!(ask(&site, &token, Ask::new("PUT", path).token("secret")).await.status, 405);
}

#[tokio::test(start_paused = true)]
async fn join_token_is_made_on_the_terms_of_the_body_and_on_no_terms_out_of_bounds() {
    let site = Site::new();
    let token = AdminToken::new("secret");
    let new = || Ask::new("POST", "/api/v1/admin/tokens").token("secret");
    let day = 24 * 3600 * 1000;
    for (asked, uses, life_ms) in [
        (new(), 1, day),
        (new().raw_json(""), 1, day),
        (new().raw_json("{}"), 1, day),
        (new().raw_json(r#"{"uses":6}"#), 6, day),
        (new().raw_json(r#"{"for_ms":60000}"#), 1, 60_000),
        (new().raw_json(r#"{"uses":1024,"for_ms":2592000000}"#), 1024, 30 * day),
    ] {
        let made = ask(&site, &token, asked).await;
        assert_eq!(made.status, 201, "{}", made.body);
        let terms = site.fake.state().join_terms.take().expect("a token was asked for");
        assert_eq!((terms.uses(), terms.life_ms()), (uses, life_ms));
    }
    let no_mime = Ask { body: Some(b"{}".to_vec()), ..new() };
    let long = format!(r#"{{"uses":1{}}}"#, " ".repeat(1024));
    for (asked, status) in [
        (new().raw_json(r#"{"uses":0}"#), 400),
        (new().raw_json(r#"{"uses":1025}"#), 400),
        (new().raw_json(r#"{"uses":null}"#), 400),
        (new().raw_json(r#"{"for_ms":0}"#), 400),
        (new().raw_json(r#"{"for_ms":59999}"#), 400),
        (new().raw_json(r#"{"for_ms":2592000001}"#), 400),
        (new().raw_json(r#"{"uses":2,"for":60000}"#), 400),
        (new().raw_json("2"), 400),
        (new().raw_json(r#"{"uses":"#), 400),
        (new().raw_json(&long), 413),
        (no_mime, 415),
    ] {
        let refused = ask(&site, &token, asked).await;
        assert_eq!(refused.status, status, "{}", refused.body);
        assert_eq!(refused.header("content-type"), Some("application/problem+json"));
    }
    let refused = ask(&site, &token, new().raw_json(r#"{"uses":1025}"#)).await;
    assert_eq!(refused.json()["type"], "urn:chatchat:malformed-body");
    assert_eq!(refused.json()["detail"], "a join token has 1 to 1024 uses");
    let stranger = Ask::new("POST", "/api/v1/admin/tokens").raw_json("{}");
    assert_eq!(ask(&site, &token, stranger).await.status, 401);
    assert_eq!(site.fake.state().join_terms, None, "nothing was made");
}

#[tokio::test(start_paused = true)]
async fn join_tokens_are_listed_and_revoked_for_operators_only() {
    let site = Site::new();
    let token = AdminToken::new("secret");
    let of = |id: &str| format!("/api/v1/admin/tokens/{id}");
    assert_eq!(ask(&site, &token, Ask::new("GET", "/api/v1/admin/tokens")).await.status, 401);
    let listed = Ask::new("GET", "/api/v1/admin/tokens").token("secret");
    let listed = ask(&site, &token, listed).await;
    assert_eq!(listed.status, 200);
    assert_eq!(listed.json()["tokens"][0]["id"], "0707070707070707");
    assert!(!listed.body.contains("guard") && !listed.body.contains("sha256"), "{}", listed.body);
    let known = of("0707070707070707");
    assert_eq!(ask(&site, &token, Ask::new("DELETE", &known)).await.status, 401);
    for (path, status) in [(known, 204), (of("0808080808080808"), 404), (of("x"), 400)] {
        let answer = ask(&site, &token, Ask::new("DELETE", &path).token("secret")).await;
        assert_eq!(answer.status, status, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn dead_letter_is_listed_sent_again_once_and_dropped_for_operators_only() {
    let site = Site::new();
    let token = AdminToken::new("secret");
    let author = Author { id: UserId([3; 16]), name: "Ann".parse().expect("a name") };
    let text = "lost?".parse().expect("a text");
    let letter = |number, post| DeadLetter {
        number,
        resource: Resource::Board(BoardName::lobby()),
        post,
        why: "four attempts".to_owned(),
        at_ms: 9,
    };
    let post = NewPost { id: PostId([4; 16]), author, text };
    site.fake.state().letters =
        vec![letter(3, Some(post.clone())), letter(2, Some(post)), letter(1, None)];
    let all = "/api/v1/admin/dead-letters";
    assert_eq!(ask(&site, &token, Ask::new("GET", all)).await.status, 401);
    let listed = ask(&site, &token, Ask::new("GET", all).token("secret")).await;
    assert_eq!(listed.json()["letters"][0]["post"]["text"], "lost?");
    assert_eq!(listed.json()["letters"][2]["post"], serde_json::Value::Null);
    let retry = |number: &str| format!("{all}/{number}/retry");
    assert_eq!(ask(&site, &token, Ask::new("POST", &retry("3"))).await.status, 401);
    for (number, status) in [("3", 200), ("3", 404), ("2", 200), ("1", 422), ("x", 404)] {
        let answer = ask(&site, &token, Ask::new("POST", &retry(number)).token("secret")).await;
        assert_eq!(answer.status, status, "{number}: {}", answer.body);
        if status == 200 {
            assert_eq!(answer.json()["seq"], 1, "{number}: it is there once");
        }
    }
    site.fake.state().outcome = Some(Outcome::Unknown);
    for (number, status) in [("1", 204), ("1", 404)] {
        let path = format!("{all}/{number}");
        let answer = ask(&site, &token, Ask::new("DELETE", &path).token("secret")).await;
        assert_eq!(answer.status, status, "{number}: {}", answer.body);
    }
}

fn letter_of(number: u64, text: &str) -> DeadLetter {
    let author = Author { id: UserId([3; 16]), name: "Ann".parse().expect("a name") };
    let id = PostId(u128::from(number).to_be_bytes());
    DeadLetter {
        number,
        resource: Resource::Board(BoardName::lobby()),
        post: Some(NewPost { id, author, text: text.parse().expect("a text") }),
        why: "four attempts".to_owned(),
        at_ms: 9,
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_dead_letter_cancels_its_post_or_stays() {
    let site = Site::new();
    let token = AdminToken::new("secret");
    let one = "/api/v1/admin/dead-letters/7";
    let lost = || vec![letter_of(7, "lost?")];
    site.fake.state().letters = lost();
    site.fake.state().outcome = Some(Outcome::Unknown);
    for status in [504, 204, 404] {
        let answer = ask(&site, &token, Ask::new("DELETE", one).token("secret")).await;
        assert_eq!(answer.status, status, "{}", answer.body);
    }
    // As a worker or an outbox would that has the post still.
    site.fake.state().letters = lost();
    let retry = format!("{one}/retry");
    let again = ask(&site, &token, Ask::new("POST", &retry).token("secret")).await;
    assert_eq!(again.status, 410, "{}", again.body);
}

#[tokio::test(start_paused = true)]
async fn dead_letter_that_cannot_be_removed_after_its_post_was_settled_is_no_refusal() {
    let site = Site::new();
    let token = AdminToken::new("secret");
    let of = |number| format!("/api/v1/admin/dead-letters/{number}");
    let of_sessions = DeadLetter { post: None, ..letter_of(6, "none") };
    site.fake.state().letters = vec![letter_of(8, "lost?"), letter_of(7, "lost?"), of_sessions];
    site.fake.state().letters_stay = true;
    let retry = format!("{}/retry", of(8));
    let answers = [
        (true, ask(&site, &token, Ask::new("POST", &retry).token("secret")).await),
        (true, ask(&site, &token, Ask::new("DELETE", &of(7)).token("secret")).await),
        (false, ask(&site, &token, Ask::new("DELETE", &of(6)).token("secret")).await),
    ];
    for (has_post, answer) in answers {
        assert_eq!(answer.status, 504, "{}", answer.body);
        assert_eq!(answer.body.contains("its post is settled"), has_post, "{}", answer.body);
        assert!(answer.body.contains("a 404 then means that it is gone"), "{}", answer.body);
    }
    site.fake.state().letters_stay = false;
    for (number, status) in [(7, 204), (7, 404), (6, 204), (6, 404)] {
        let again = ask(&site, &token, Ask::new("DELETE", &of(number)).token("secret")).await;
        assert_eq!(again.status, status, "{number}: {}", again.body);
    }
    let again = ask(&site, &token, Ask::new("POST", &retry).token("secret")).await;
    assert_eq!((again.status, again.json()["seq"].as_u64()), (200, Some(1)), "{}", again.body);
    assert!(site.fake.state().letters.is_empty());
}

#[tokio::test(start_paused = true)]
async fn dead_letters_are_listed_in_pages_and_found_whatever_their_age() {
    let site = Site::new();
    let token = AdminToken::new("secret");
    let long = "x".repeat(8000);
    let text = |number| if number <= 300 { long.as_str() } else { "short" };
    site.fake.state().letters =
        (1..=1500).rev().map(|number| letter_of(number, text(number))).collect();
    let all = "/api/v1/admin/dead-letters";
    let mut pages = Vec::new();
    let (mut path, mut seen) = (all.to_owned(), Vec::new());
    loop {
        let page = ask(&site, &token, Ask::new("GET", &path).token("secret")).await;
        assert_eq!(page.status, 200, "{}", page.body);
        let page = page.json();
        let letters = page["letters"].as_array().expect("a list");
        seen.extend(letters.iter().filter_map(|letter| letter["number"].as_u64()));
        pages.push(letters.len());
        if page["truncated"] == false {
            break;
        }
        path = format!("{all}?before={}", seen.last().expect("a letter"));
    }
    assert_eq!(seen, (1..=1500).rev().collect::<Vec<u64>>());
    assert!(pages[0] == 1000 && pages.len() > 3, "long ones fill a page sooner: {pages:?}");
    for (query, status) in [("before=x", 400), ("before=1", 200)] {
        let path = format!("{all}?{query}");
        let answer = ask(&site, &token, Ask::new("GET", &path).token("secret")).await;
        assert_eq!(answer.status, status, "{query}: {}", answer.body);
    }
    for (number, status) in [("1", 204), ("1", 404), ("18446744073709551615", 404)] {
        let path = format!("{all}/{number}");
        let answer = ask(&site, &token, Ask::new("DELETE", &path).token("secret")).await;
        assert_eq!(answer.status, status, "{number}: {}", answer.body);
    }
}

#[tokio::test(start_paused = true)]
async fn master_is_drained_by_operators_and_the_last_one_only_by_force() {
    let site = Site::new();
    let token = AdminToken::new("secret");
    let path = "/api/v1/admin/drain";
    assert_eq!(ask(&site, &token, Ask::new("POST", path)).await.status, 401);
    let force = |value: &str| format!("{path}?force={value}");
    for (path, status) in
        [(path.to_owned(), 422), (force("false"), 422), (force("x"), 400), (force("true"), 202)]
    {
        let answer = ask(&site, &token, Ask::new("POST", &path).token("secret")).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        if status == 202 {
            assert_eq!(answer.json()["within_ms"], 10_000);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn workers_are_expelled_by_operators_and_masters_are_not() {
    let site = Site::new();
    let token = AdminToken::new("secret");
    let of = |id: String| format!("/api/v1/admin/nodes/{id}");
    let worker = of("bb".repeat(16));
    assert_eq!(ask(&site, &token, Ask::new("DELETE", &worker)).await.status, 401);
    let (master, nobody) = (of("aa".repeat(16)), of("cc".repeat(16)));
    for (path, status) in [(worker, 204), (master, 422), (nobody, 404), (of("x".to_owned()), 400)] {
        let answer = ask(&site, &token, Ask::new("DELETE", &path).token("secret")).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
    }
}

#[tokio::test(start_paused = true)]
async fn worker_is_drained_by_operators_at_its_own_master_and_the_last_one_only_by_force() {
    let site = Site::new();
    let token = AdminToken::new("secret");
    let of = |id: &str| format!("/api/v1/admin/nodes/{id}/drain");
    let worker = of(&"bb".repeat(16));
    assert_eq!(ask(&site, &token, Ask::new("POST", &worker)).await.status, 401);
    let (elsewhere, old) = (of(&"dd".repeat(16)), of(&"ee".repeat(16)));
    let by_force = format!("{worker}?force=true");
    for (path, status, says) in [
        (by_force, 202, "2500"),
        (worker, 422, "force=true"),
        (elsewhere, 404, "south"),
        (old, 422, "SIGTERM"),
        (of(&"cc".repeat(16)), 404, "no worker"),
        (of("x"), 400, ""),
    ] {
        let answer = ask(&site, &token, Ask::new("POST", &path).token("secret")).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        assert!(answer.body.contains(says), "{path}: {}", answer.body);
    }
}

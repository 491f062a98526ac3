//! Stream of events, byte by byte.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::{
    api::{PresenceEvent, User},
    model::{
        ids::{Author, Cursor, Post, PostId, Seq, StoreEpoch, UserId},
        rows::ActiveUser,
        shared::Shared,
        stream::{PresenceChange, PresenceWindow},
    },
    node::handle::{
        ByeReason, Consistency, Delivery, FirstReset, PresenceForm, RequestError, ResetReason,
    },
    testing::{
        http::{Answer, Ask, Site, fake::this_master},
        snapshots,
        stepped_world::SECOND,
    },
};

pub(super) async fn open(site: &Site, path: &str, token: &str, last: Option<&str>) -> DuplexStream {
    let mut ask = Ask::new("GET", path).token(token);
    if let Some(last) = last {
        ask = ask.header("Last-Event-ID", last);
    }
    let mut stream = site.connect().await;
    stream.write_all(&ask.bytes(false)).await.expect("written");
    stream
}

/// Reads until this was seen.
pub(super) async fn until(stream: &mut DuplexStream, mark: &str) -> String {
    let mut text = String::new();
    let mut bytes = [0; 4096];
    while !text.contains(mark) {
        let read = stream.read(&mut bytes).await.expect("read");
        assert_ne!(read, 0, "ended before {mark}: {text}");
        text.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
    text
}

pub(super) fn post(seq: u64) -> Delivery {
    Delivery::Post(Shared::new(Post {
        id: PostId([3; 16]),
        board: "lobby".parse().expect("a name"),
        seq: Seq(seq),
        author: Author { id: UserId([1; 16]), name: "Ada".parse().expect("a name") },
        text: "two\nlines".parse().expect("a text"),
        posted_at_ms: 1000,
    }))
}

#[tokio::test(start_paused = true)]
async fn stream_begins_with_hello_and_ends_with_bye() {
    let site = Site::new();
    let token = site.join("Ada").await;
    let mut stream = open(&site, "/api/v1/stream?boards=lobby", &token, None).await;
    let mut text = until(&mut stream, "beat_ms").await;
    let feed = site.fake.stream();
    let events = feed.events.expect("open");
    let users = site.fake.state().users();
    let user_id = users[0].user.id.to_string();
    let cursor: Cursor = "8;lobby:4".parse().expect("a cursor");
    let masters = vec![this_master()];
    for event in [
        Delivery::State(Consistency::Strong),
        Delivery::Presence(Shared::new(users)),
        post(1),
        Delivery::Masters(masters.clone()),
        Delivery::Reset { reason: ResetReason::Epoch, cursor },
        post(5),
        Delivery::Bye { reason: ByeReason::Draining, to: masters, retry_ms: 200 },
    ] {
        events.send(event).await.expect("read");
    }
    // Chunked: the end is an empty chunk.
    text.push_str(&until(&mut stream, "\r\n0\r\n\r\n").await);
    let head = Answer::parse(text.as_bytes());
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    assert_eq!(head.header("cache-control"), Some("no-store, no-transform"));
    assert_eq!(head.header("x-accel-buffering"), Some("no"));
    // Chunk sizes depend on timing.
    let is_size = |line: &&str| line.len() < 6 && u32::from_str_radix(line.trim_end(), 16).is_ok();
    let lines = head.body.lines().filter(|line| !is_size(line));
    let seen = lines.collect::<Vec<_>>().join("\n").replace(&user_id, "USER");
    let seen = seen.replace("\n\n\n", "\n\n");
    snapshots().bind(|| insta::assert_snapshot!("http_stream", seen));
}

/// Returns the names and ids of the events of a text.
fn ids(text: &str) -> Vec<(&str, Option<&str>)> {
    let events = text.split("event: ").skip(1);
    events
        .map(|event| {
            let mut lines = event.lines();
            let name = lines.next().unwrap_or_default();
            (name, lines.find_map(|line| line.strip_prefix("id: ")))
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn place_stays_the_one_that_was_asked_with_until_the_reset_is_told() {
    for (asked, before) in [
        (Some("6;dev:4,lobby:90"), "6;dev:4,lobby:90"),
        // What is not followed is nobody's place.
        (Some("7;lobby:90,ghost:4"), "7;lobby:90"),
        (None, "7;lobby:0"),
    ] {
        let site = Site::new();
        let token = site.join("Ada").await;
        let asked = asked.map(|text| text.parse().expect("a cursor"));
        site.fake.state().reset = Some(FirstReset { reason: ResetReason::Epoch, asked });
        let mut stream = open(&site, "/api/v1/stream?boards=lobby", &token, None).await;
        let text = until(&mut stream, "event: reset\nid: 7;lobby:0\n").await;
        let told = [("hello", Some(before)), ("reset", Some("7;lobby:0"))];
        assert_eq!(ids(&text), told);
    }
}

/// Reads the presence events of a text.
fn presence(text: &str) -> Vec<PresenceEvent> {
    let data = text.split("event: presence\ndata: ").skip(1);
    let json = data.map(|rest| rest.lines().next().expect("a line"));
    json.map(|json| serde_json::from_str(json).expect("an event")).collect()
}

#[tokio::test(start_paused = true)]
async fn stream_of_changes_tells_a_window_with_its_reader_then_changes() {
    let site = Site::new();
    let token = site.join("Ada").await;
    let mut stream = open(&site, "/api/v1/stream?presence=later", &token, None).await;
    until(&mut stream, "beat_ms").await;
    let feed = site.fake.stream();
    assert_eq!(feed.presence, PresenceForm::Changes);
    let events = feed.events.expect("open");
    let active = |n: u8| ActiveUser {
        user: Author { id: UserId([n; 16]), name: format!("Ada {n}").parse().expect("a name") },
        since_ms: 1,
        last_seen_ms: 2,
    };
    let window = |count, users| Shared::new(PresenceWindow { version: 3, count, users });
    let many = window(900, vec![active(1), active(2)]);
    let change =
        PresenceChange { version: 4, count: 2, came: vec![active(3)], left: vec![UserId([1; 16])] };
    for delivery in [
        Delivery::PresenceWindow { window: window(0, vec![]), own: Some(active(9)) },
        Delivery::PresenceWindow { window: many.clone(), own: None },
        Delivery::PresenceWindow { window: many, own: Some(active(9)) },
        Delivery::PresenceChange(Shared::new(change)),
        Delivery::State(Consistency::Strong),
    ] {
        events.send(delivery).await.expect("read");
    }
    let users = |numbers: &[u8]| numbers.iter().map(|n| User::from(&active(*n))).collect();
    let window =
        |count, numbers| PresenceEvent::Window { version: 3, total: count, users: users(numbers) };
    let came = users(&[3]);
    let left = vec![UserId([1; 16])];
    assert_eq!(
        presence(&until(&mut stream, "consistency").await),
        [
            window(1, &[9]),
            window(900, &[1, 2]),
            window(900, &[1, 2, 9]),
            PresenceEvent::Change { version: 4, since: 3, total: 2, came, left },
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn stream_is_told_changes_unless_it_asks_for_lists() {
    let site = Site::new();
    let token = site.join("Ada").await;
    for (query, form) in [
        ("", PresenceForm::Changes),
        ("?presence=", PresenceForm::Changes),
        ("?presence=lists", PresenceForm::Lists),
    ] {
        let mut stream = open(&site, &format!("/api/v1/stream{query}"), &token, None).await;
        until(&mut stream, "beat_ms").await;
        assert_eq!(site.fake.stream().presence, form, "{query}");
    }
}

#[tokio::test(start_paused = true)]
async fn readers_share_one_encoding_and_add_their_own_cursors() {
    let site = Site::new();
    let token = site.join("Ada").await;
    let Delivery::Post(shared) = post(5) else { unreachable!() };
    // A mark instead of the post: a reader that encoded it once more would not show this.
    shared.encoded(|_| "data: \"encoded once\"\n\n".into());
    for n in 0..8 {
        let path = format!("/api/v1/stream?boards=lobby,b{n}&cursor=7;b{n}:1,lobby:4");
        let mut stream = open(&site, &path, &token, None).await;
        until(&mut stream, "beat_ms").await;
        let events = site.fake.stream().events.expect("open");
        events.send(Delivery::Post(shared.clone())).await.expect("read");
        let text = until(&mut stream, "encoded once").await;
        let event = format!("event: post\nid: 7;b{n}:0,lobby:5\ndata: \"encoded once");
        assert!(text.contains(&event), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn stream_beats_whether_busy_or_quiet() {
    let site = Site::new();
    let token = site.join("Ada").await;
    let mut stream = open(&site, "/api/v1/stream", &token, None).await;
    until(&mut stream, "beat_ms").await;
    let events = site.fake.stream().events.expect("open");
    let start = site.env.now();
    until(&mut stream, "event: beat").await;
    assert_eq!(site.env.now().since(start).as_secs(), 4);
    let busy = events.clone();
    site.env.spawn("busy", {
        let env = site.env.clone();
        async move {
            for seq in 1..100 {
                if busy.send(post(seq)).await.is_err() {
                    return;
                }
                env.sleep(SECOND / 10).await;
            }
        }
    });
    until(&mut stream, "event: beat").await;
    assert_eq!(site.env.now().since(start).as_secs(), 8);
}

#[tokio::test(start_paused = true)]
async fn last_event_id_overrides_the_cursor_of_the_query() {
    let site = Site::new();
    let token = site.join("Ada").await;
    let path = "/api/v1/stream?boards=lobby,dev&cursor=7;lobby:2,dev:1";
    let mut stream = open(&site, path, &token, Some("7;lobby:9")).await;
    until(&mut stream, "beat_ms").await;
    let asked = site.fake.stream();
    assert_eq!(asked.boards.len(), 2);
    let cursor = asked.cursor.expect("it parses").expect("it is there");
    assert_eq!(cursor.to_string(), "7;dev:1,lobby:9");
    assert_eq!(cursor.epoch, StoreEpoch(7));
    let mut stream = open(&site, "/api/v1/stream?cursor=nonsense", &token, None).await;
    until(&mut stream, "beat_ms").await;
    assert_eq!(site.fake.stream().cursor, Err(()));
}

#[tokio::test(start_paused = true)]
async fn stream_that_cannot_be_served_is_a_401_or_a_bye() {
    let site = Site::new();
    let token = site.join("Ada").await;
    assert_eq!(site.get("/api/v1/stream", "").await.status, 401);
    assert_eq!(site.get("/api/v1/stream", &"A".repeat(43)).await.status, 401);
    for (why, reason) in
        [(RequestError::Away, "unavailable"), (RequestError::Overloaded, "overloaded")]
    {
        site.fake.state().read_error = Some(why);
        let answer = site.get("/api/v1/stream", &token).await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, Some("text/event-stream"))
        );
        assert!(answer.body.starts_with("event: bye\n"), "{}", answer.body);
        assert!(answer.body.contains(reason) && answer.body.contains("\"retry_ms\":1000"));
    }
}

#[tokio::test(start_paused = true)]
async fn master_notices_that_a_reader_left() {
    let site = Site::new();
    let token = site.join("Ada").await;
    let mut stream = open(&site, "/api/v1/stream", &token, None).await;
    until(&mut stream, "beat_ms").await;
    let feed = site.fake.stream();
    drop(stream);
    assert!(feed.gone.await.is_err(), "the guard was dropped");
}

#[tokio::test(start_paused = true)]
async fn slow_reader_gets_a_bye_when_the_master_gives_up() {
    let site = Site::new();
    let token = site.join("Ada").await;
    let mut stream = open(&site, "/api/v1/stream", &token, None).await;
    until(&mut stream, "beat_ms").await;
    drop(site.fake.stream().events);
    let text = until(&mut stream, "\r\n0\r\n\r\n").await;
    assert!(text.contains("event: bye\ndata: {\"reason\":\"slow\""), "{text}");
}

#[tokio::test(start_paused = true)]
async fn reader_that_takes_nothing_loses_its_connection() {
    let site = Site::new();
    let token = site.join("Ada").await;
    let mut stream = site.connect_from("10.0.0.9:1", 1024).await;
    let ask = Ask::new("GET", "/api/v1/stream").token(&token);
    stream.write_all(&ask.bytes(false)).await.expect("written");
    until(&mut stream, "beat_ms").await;
    let feed = site.fake.stream();
    let events = feed.events.expect("open");
    let start = site.env.now();
    // As the master does: what has no room is not waited for.
    site.env.spawn("posts", {
        let env = site.env.clone();
        async move {
            for seq in 1..10_000 {
                let _ = events.try_send(post(seq));
                env.sleep(SECOND / 100).await;
            }
        }
    });
    assert!(feed.gone.await.is_err());
    let took = site.env.now().since(start);
    assert!((10..40).contains(&took.as_secs()), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn session_with_too_many_streams_is_told_to_come_back() {
    let site = Site::new();
    let (token, other) = (site.join("Ada").await, site.join("Bob").await);
    let mut all = Vec::new();
    for _ in 0..32 {
        let mut stream = open(&site, "/api/v1/stream", &token, None).await;
        until(&mut stream, "beat_ms").await;
        all.push((stream, site.fake.stream()));
    }
    let mut above = open(&site, "/api/v1/stream", &token, None).await;
    let text = until(&mut above, "retry_ms").await;
    assert!(text.contains("event: bye") && text.contains("overloaded"), "{text}");
    let mut of_other = open(&site, "/api/v1/stream", &other, None).await;
    until(&mut of_other, "beat_ms").await;
    all.pop();
    site.env.sleep(SECOND * 5).await;
    let mut again = open(&site, "/api/v1/stream", &token, None).await;
    until(&mut again, "beat_ms").await;
}

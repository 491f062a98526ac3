//! The client against masters that follow a script, over real sockets.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;

use super::{ChatClient, Failure, FollowEvent, Limits, MasterList, NoObserver, StreamEnd};
use crate::{
    api::{Problem, ProblemType, StreamEvent},
    env::{Env, real::RealWorld},
    model::ids::{BoardName, PostId, Seq},
    testing::scripted_master::{Act, Asked, Scripted},
};

const AUTHOR: &str = r#"{"id":"0102030405060708090a0b0c0d0e0f10","name":"Ann"}"#;

fn posted(id: &str, seq: u64, text: &str) -> String {
    format!(
        r#"{{"id":"{id}","board":"lobby","seq":{seq},"author":{AUTHOR},"text":"{text}","posted_at":5}}"#
    )
}

fn committed(asked: &Asked, seq: u64) -> Act {
    let value: serde_json::Value = serde_json::from_str(&asked.2).unwrap();
    let text = value["text"].as_str().unwrap();
    Act::Answer(201, "", posted(value["id"].as_str().unwrap(), seq, text))
}

fn problem(of: ProblemType) -> String {
    serde_json::to_string(&Problem::new(of, "why")).unwrap()
}

const READY: &str = r#"{"ready":true,"state":"serving","store":"here"}"#;

/// Script of a master that is ready; `act` is told how many other requests came before.
fn ready(
    act: impl Fn(usize, &Asked) -> Act + Send + 'static,
) -> impl Fn(usize, &Asked) -> Act + Send + 'static {
    let asked_ready = AtomicUsize::new(0);
    move |nth, asked| match asked.1.as_str() {
        "/readyz" => {
            asked_ready.fetch_add(1, Ordering::Relaxed);
            Act::Answer(200, "", READY.to_owned())
        }
        _ => act(nth - asked_ready.load(Ordering::Relaxed), asked),
    }
}

fn env() -> Env {
    Env::new(RealWorld::temporary().unwrap())
}

fn client(env: &Env, masters: &[&Scripted]) -> ChatClient {
    let masters: Vec<_> = masters.iter().map(|m| m.url.clone()).collect();
    let limits = Limits { backoff_max: Duration::from_millis(200), ..Limits::default() };
    let master_list = MasterList::new(&masters, 0).unwrap();
    ChatClient::new(env, master_list, Some("secret".to_owned()), limits, Arc::new(NoObserver))
}

#[tokio::test]
async fn unsettled_post_is_sent_again_under_its_id() {
    let env = env();
    let silent = Scripted::start(&env, |_, _| Act::Drop).await;
    let slow = ready(|nth, asked| match nth {
        0 => Act::Answer(504, "", problem(ProblemType::OutcomeUnknown)),
        1 => Act::Answer(503, "retry-after: 0\r\n", problem(ProblemType::Unavailable)),
        _ => committed(asked, 7),
    });
    let slow = Scripted::start(&env, slow).await;
    let client = client(&env, &[&silent, &slow]);
    let id = client.new_post_id();
    let text = "hello".parse().unwrap();
    let lobby = BoardName::lobby();
    let sending = client.send(&lobby, id, text);
    let posted = env.timeout(Duration::from_secs(5), sending).await.unwrap().unwrap();
    assert_eq!((posted.id, posted.seq), (id, Seq(7)));
    let sent = [silent.posts(), slow.posts()].concat();
    assert!(sent.len() >= 4, "{sent:?}");
    assert!(sent.iter().all(|(sent, _)| *sent == id.to_string()), "{sent:?}");
    assert!(client.unsettled().is_empty());
}

#[tokio::test]
async fn master_that_two_posts_leave_at_once_is_left_once() {
    let env = env();
    // At once, so that both have asked it the second time before either leaves it.
    let busy =
        ready(|_, _| Act::Answer(503, "retry-after: 0\r\n", problem(ProblemType::Unavailable)));
    let busy = Scripted::start(&env, busy).await;
    let whole = ready(|nth, asked| {
        let Act::Answer(status, headers, body) = committed(asked, nth as u64 + 1) else {
            unreachable!("it is an answer")
        };
        let dev = asked.1.contains("/dev/");
        Act::Answer(status, headers, if dev { body.replace("lobby", "dev") } else { body })
    });
    let whole = Scripted::start(&env, whole).await;
    let silent = Scripted::start(&env, |_, _| Act::Drop).await;
    let client = client(&env, &[&busy, &whole, &silent]);
    let [lobby, dev] = ["lobby", "dev"].map(|name| name.parse::<BoardName>().unwrap());
    let send = |board| client.send(board, client.new_post_id(), "hello".parse().unwrap());
    let both = async { tokio::join!(send(&lobby), send(&dev)) };
    let (one, other) = env.timeout(Duration::from_secs(5), both).await.unwrap();
    assert!(one.is_ok() && other.is_ok(), "{one:?} {other:?}");
    assert_eq!((whole.posts().len(), silent.asked().len()), (2, 0), "the next one was asked");
}

#[tokio::test]
async fn master_that_would_let_a_post_wait_is_asked_whether_it_is_ready() {
    let env = env();
    let lost = Scripted::start(&env, |_, asked| match asked.1.as_str() {
        "/readyz" => Act::Answer(503, "", READY.replace("true", "false")),
        _ => Act::Answer(504, "", problem(ProblemType::OutcomeUnknown)),
    })
    .await;
    let stopped = Scripted::start(&env, |_, _| Act::Hang).await;
    let whole = Scripted::start(&env, ready(|_, asked| committed(asked, 7))).await;
    let client = client(&env, &[&lost, &stopped, &whole]);
    let lobby = BoardName::lobby();
    let sending = client.send(&lobby, client.new_post_id(), "hello".parse().unwrap());
    let posted = env.timeout(Duration::from_secs(5), sending).await.expect("soon");
    assert_eq!(posted.unwrap().seq, Seq(7));
    let posts = [&lost, &stopped, &whole].map(|master| master.posts().len());
    assert_eq!(posts, [1, 0, 1], "neither doubted master got the post");
}

#[tokio::test]
async fn post_reaches_masters_of_whom_none_says_that_it_is_ready() {
    let env = env();
    let unready = |nth: usize, asked: &Asked| match asked.1.as_str() {
        "/readyz" => Act::Answer(503, "", READY.replace("true", "false")),
        _ if nth == 0 => Act::Answer(503, "retry-after: 0\r\n", problem(ProblemType::Unavailable)),
        _ => committed(asked, 7),
    };
    let (one, other) = (Scripted::start(&env, unready).await, Scripted::start(&env, unready).await);
    let client = client(&env, &[&one, &other]);
    let lobby = BoardName::lobby();
    let sending = client.send(&lobby, client.new_post_id(), "hello".parse().unwrap());
    let posted = env.timeout(Duration::from_secs(5), sending).await.expect("soon");
    assert_eq!(posted.unwrap().seq, Seq(7));
}

#[tokio::test]
async fn posts_keep_their_order_when_a_sender_is_dropped() {
    let env = env();
    let master = Scripted::start(&env, |nth, asked| match nth {
        0 => Act::Answer(503, "retry-after: 1\r\n", problem(ProblemType::Unavailable)),
        nth => committed(asked, nth as u64),
    })
    .await;
    let client = client(&env, &[&master]);
    let lobby = BoardName::lobby();
    let send = |text: &str| client.send(&lobby, client.new_post_id(), text.parse().unwrap());
    let dropped = env.timeout(Duration::from_millis(300), send("one")).await;
    assert!(dropped.is_err(), "the master was busy");
    assert_eq!(client.unsettled().len(), 1);
    let (two, three) = tokio::join!(send("two"), send("three"));
    assert_eq!((two.unwrap().seq, three.unwrap().seq), (Seq(2), Seq(3)));
    let texts: Vec<_> = master.posts().into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, ["one", "one", "two", "three"]);
}

#[tokio::test]
async fn refused_post_is_not_sent_again_and_keeps_its_reason() {
    let env = env();
    let problem = r#"{"type":"urn:chatchat:id-conflict","title":"the id stands for another text"}"#;
    let master = Scripted::start(&env, move |_, _| Act::Answer(422, "", problem.to_owned())).await;
    let client = client(&env, &[&master]);
    let refused =
        client.send(&BoardName::lobby(), client.new_post_id(), "x".parse().unwrap()).await;
    let Err(Failure::Refused { status: 422, problem }) = refused else { panic!("{refused:?}") };
    assert_eq!((problem.problem_type(), master.posts().len()), (Some(ProblemType::IdConflict), 1));
}

#[tokio::test]
async fn follower_resumes_on_another_master_without_gap_or_repeat() {
    let env = env();
    let event =
        |name: &str, id: &str, data: &str| format!("event: {name}\nid: {id}\ndata: {data}\n\n");
    let hello = |cursor: &str| {
        let node =
            r#"{"id":"0102030405060708090a0b0c0d0e0f10","name":"m","http":"http://127.0.0.1:1"}"#;
        let data = format!(r#"{{"node":{node},"masters":[],"cursor":"{cursor}","beat_ms":4000}}"#);
        event("hello", cursor, &data)
    };
    let post = |seq: u64| {
        let id = PostId([seq as u8; 16]).to_string();
        event("post", &format!("3;lobby:{seq}"), &posted(&id, seq, "x"))
    };
    let first = [hello("3;lobby:4"), post(5)].concat();
    let second = [hello("3;lobby:5"), post(5), post(6)].concat();
    let dies = Scripted::start(&env, move |nth, _| match nth {
        0 => Act::Stream(first.clone()),
        _ => Act::Drop,
    })
    .await;
    let lives = Scripted::start(&env, move |_, asked| match asked.1.as_str() {
        "/readyz" => Act::Answer(200, "", READY.to_owned()),
        _ => Act::Stream(second.clone()),
    })
    .await;
    let client = client(&env, &[&dies, &lives]);
    let mut follow = client.follow(vec![BoardName::lobby()], None);
    let (mut seqs, mut masters) = (Vec::new(), Vec::new());
    while seqs.len() < 2 {
        let seen = env.timeout(Duration::from_secs(5), follow.next()).await;
        match seen.expect("a master lives") {
            FollowEvent::Event(StreamEvent::Post(post)) => seqs.push(post.seq.0),
            FollowEvent::Connected { master } => masters.push(master),
            FollowEvent::Disconnected { why, .. } => assert_eq!(why, StreamEnd::Ended),
            _ => {}
        }
    }
    assert_eq!(seqs, [5, 6]);
    assert_eq!(masters, [dies.url.clone(), lives.url.clone()]);
    let asked = lives.asked();
    let stream = asked.iter().find(|asked| asked.1.contains("/stream")).unwrap();
    assert_eq!(stream.1, "/api/v1/stream?boards=lobby&cursor=3;lobby:5");
    assert_eq!(follow.cursor().map(ToString::to_string).as_deref(), Some("3;lobby:6"));
}

#[tokio::test]
async fn follower_whom_two_masters_turn_away_comes_to_the_third() {
    let env = env();
    let node = |url: &str| {
        let id = "0102030405060708090a0b0c0d0e0f10";
        format!(r#"{{"id":"{id}","name":"m","http":"{url}"}}"#)
    };
    let to: Arc<OnceLock<String>> = Arc::default();
    let full = || {
        let to = to.clone();
        Scripted::start(&env, move |_, asked| match asked.1.as_str() {
            "/readyz" => Act::Answer(200, "", READY.to_owned()),
            _ => {
                let to = to.get().map_or("", String::as_str);
                let bye = format!(r#"{{"reason":"overloaded","to":[{to}],"retry_ms":0}}"#);
                Act::Stream(format!("event: bye\ndata: {bye}\n\n"))
            }
        })
    };
    let (one, other) = (full().await, full().await);
    let own = node("http://127.0.0.1:1");
    let free = Scripted::start(&env, move |_, asked| match asked.1.as_str() {
        "/readyz" => Act::Answer(200, "", READY.to_owned()),
        _ => {
            let hello =
                format!(r#"{{"node":{own},"masters":[],"cursor":"3;lobby:4","beat_ms":4000}}"#);
            Act::Stream(format!("event: hello\nid: 3;lobby:4\ndata: {hello}\n\n"))
        }
    })
    .await;
    // In one order, as masters send it; the one that has room is the last.
    let all = [&one, &other, &free].map(|master| node(&master.url));
    to.set(all.join(",")).expect("set once");
    let mut follow = client(&env, &[&one]).follow(vec![BoardName::lobby()], None);
    let greeted = async {
        while !matches!(follow.next().await, FollowEvent::Event(StreamEvent::Hello(_))) {}
    };
    env.timeout(Duration::from_secs(10), greeted).await.expect("the third master has room");
    assert!(free.asked().iter().any(|asked| asked.1.contains("/stream")));
}

/// Number of followers of one master; that all of them draw a wait from its first fifth is as good as
/// impossible.
const FOLLOWERS: usize = 10;

/// Returns the waits of some followers between the last event of a stream that ends in this way and the
/// beginning of the next one.
async fn waits_after(env: &Env, last: &str) -> Vec<Duration> {
    let node =
        r#"{"id":"0102030405060708090a0b0c0d0e0f10","name":"m","http":"http://127.0.0.1:1"}"#;
    let hello = format!(r#"{{"node":{node},"masters":[],"cursor":"3;lobby:4","beat_ms":4000}}"#);
    let whole = format!("event: hello\nid: 3;lobby:4\ndata: {hello}\n\n{last}");
    let master = Scripted::start(env, move |_, asked| match asked.1.as_str() {
        "/readyz" => Act::Answer(200, "", READY.to_owned()),
        _ => Act::Stream(whole.clone()),
    })
    .await;
    let wait = |_| async {
        let mut follow = client(env, &[&master]).follow(vec![BoardName::lobby()], None);
        let (mut streams, mut last_at) = (0, env.now());
        loop {
            let seen = env.timeout(Duration::from_secs(20), follow.next()).await;
            match seen.expect("the master lives") {
                FollowEvent::Connected { .. } if streams == 1 => break env.now().since(last_at),
                FollowEvent::Connected { .. } => streams += 1,
                FollowEvent::Event(_) => last_at = env.now(),
                FollowEvent::Disconnected { .. } => {}
                FollowEvent::Ended { why } => panic!("{why}"),
            }
        }
    };
    join_all((0..FOLLOWERS).map(wait)).await
}

#[tokio::test]
async fn followers_whose_streams_end_together_come_back_apart() {
    let (env, ms) = (env(), Duration::from_millis);
    let broken = waits_after(&env, "").await;
    assert!(broken.iter().any(|wait| *wait >= ms(50)), "{broken:?}");
    let bye = "event: bye\ndata: {\"reason\":\"overloaded\",\"to\":[],\"retry_ms\":500}\n\n";
    let turned_away = waits_after(&env, bye).await;
    assert!(turned_away.iter().all(|wait| *wait >= ms(500)), "{turned_away:?}");
    assert!(turned_away.iter().any(|wait| *wait >= ms(550)), "{turned_away:?}");
    let left = waits_after(&env, &bye.replace("500", "0")).await;
    assert!(left.iter().any(|wait| *wait >= ms(50)), "{left:?}");
}

#[tokio::test]
async fn follower_of_whom_a_version_of_the_people_is_missing_opens_another_stream() {
    let env = env();
    let user = |n: u8, name: &str| {
        format!(r#"{{"id":"{}","name":"{name}","since":1,"last_seen":2}}"#, hex::encode([n; 16]))
    };
    let event = |data: String| format!("event: presence\ndata: {data}\n\n");
    let window = |version: u64, users: &[String]| {
        let (count, users) = (users.len(), users.join(","));
        event(format!(r#"{{"version":{version},"total":{count},"users":[{users}]}}"#))
    };
    let change = |since: u64| {
        let (version, came) = (since + 1, user(2, "Ben"));
        let fields = format!(r#""version":{version},"since":{since},"total":2,"came":[{came}]"#);
        event(format!(r#"{{{fields},"left":[]}}"#))
    };
    let first = [window(3, &[user(1, "Ann")]), change(4)].concat();
    let second = [window(5, &[user(1, "Ann")]), change(5)].concat();
    let streams = std::sync::atomic::AtomicUsize::new(0);
    let master = Scripted::start(&env, move |_, asked| match asked.1.as_str() {
        "/readyz" => Act::Answer(200, "", READY.to_owned()),
        _ => match streams.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
            0 => Act::Stream(first.clone()),
            _ => Act::Stream(second.clone()),
        },
    })
    .await;
    let client = client(&env, &[&master]);
    let mut follow = client.follow(vec![BoardName::lobby()], None);
    let mut ends = Vec::new();
    while follow.people().total() < 2 {
        let seen = env.timeout(Duration::from_secs(5), follow.next()).await;
        if let FollowEvent::Disconnected { why, .. } = seen.expect("a master lives") {
            ends.push(why);
        }
    }
    let why = "presence: a version is missing".to_owned();
    assert_eq!(ends, [StreamEnd::Garbled { why }]);
    let names: Vec<_> = follow.people().users().map(|user| user.name.to_string()).collect();
    assert_eq!(names, ["Ann", "Ben"]);
}

#[tokio::test]
async fn post_is_taken_from_a_master_that_fell_silent_and_left_with_one_that_is_slow() {
    let env = env();
    let silent = Scripted::start(&env, |_, _| Act::Hang).await;
    let slow = Scripted::start(&env, ready(|_, _| Act::Hang)).await;
    let whole = Scripted::start(&env, ready(|_, asked| committed(asked, 7))).await;
    let lobby = BoardName::lobby();
    let send = async |first: &Scripted| {
        let client = client(&env, &[first, &whole]);
        let sending = client.send(&lobby, client.new_post_id(), "hello".parse().unwrap());
        env.timeout(Duration::from_secs(8), sending).await.is_ok()
    };
    let (of_silent, of_slow) = tokio::join!(send(&silent), send(&slow));
    assert!(of_silent, "12 s are the most that a master may take");
    assert!(!of_slow, "it says that it is there");
    assert_eq!((silent.posts().len(), slow.posts().len(), whole.posts().len()), (1, 1, 1));
}

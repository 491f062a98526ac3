//! Bench of many people on one master: what its streams tell of people, in bytes, and how long posts
//! take meanwhile.
//!
//! Real TCP on loopback, a real SQLite file, one master and one worker, each with a runtime of its
//! own. [`STREAMS`] streams are open and read to the last byte, their sessions answer beats, one more
//! person joins every second, and one writer posts at fixed times, whether the last post was
//! answered or not. The same is done twice: with streams that are told whole lists, each session
//! asking for the list every 12 s as the pages of that time did, and with streams that are told
//! changes.
//!
//! The readers run beside the master on the same machine, so the time of posts includes theirs.
//!
//! `cargo bench --bench crowd`, or `cargo bench --bench crowd -- changes` for one form alone.

#![expect(clippy::disallowed_methods, reason = "a bench measures the wall clock")]

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use chatchat::{
    client::{Answer, Api, Limits, Request},
    comm::key_source::GeneratedKeys,
    config::Config,
    env::{
        Env,
        real::{RealWorld, TempDir},
    },
    model::ids::{BoardName, PostId, Role},
    store::sqlite,
    testing::cluster::{NodeParts, TestCluster},
};
use rand_chacha::rand_core::Rng;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::Runtime,
};

const STREAMS: usize = 1500;
/// Tasks that open sessions at once, and that answer beats.
const HANDS: usize = 16;
/// Time between two answers to beats of one session.
const ALIVE_INTERVAL: Duration = Duration::from_secs(12);
/// Time from the last stream's opening until the counters run.
const SETTLE: Duration = Duration::from_secs(15);
const MEASURED: Duration = Duration::from_secs(30);
const POST_INTERVAL: Duration = Duration::from_millis(100);
const TEXT: &str = "an ordinary line of an ordinary evening, as long as such lines are";

/// Form in which people are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Lists,
    Changes,
}

/// Bytes and events that arrived since the counters were last taken.
#[derive(Debug, Default)]
struct Counters {
    bytes: AtomicU64,
    presence_bytes: AtomicU64,
    presence_events: AtomicU64,
    polled_bytes: AtomicU64,
    ended: AtomicU64,
}

/// Counts of one kind of event in the text of a stream, whatever the pieces in which it comes.
#[derive(Debug, Default)]
struct Scanner {
    line: Vec<u8>,
    in_presence: bool,
}

impl Scanner {
    fn scan(&mut self, bytes: &[u8], counters: &Counters) {
        const LINE_KEPT: usize = 24;
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = LINE_KEPT.saturating_sub(self.line.len());
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            let ends = part.ends_with(b"\n");
            if ends && self.line.starts_with(b"event: ") {
                self.in_presence = self.line.starts_with(b"event: presence\n");
                counters.presence_events.fetch_add(u64::from(self.in_presence), Relaxed);
            }
            if self.in_presence {
                counters.presence_bytes.fetch_add(part.len() as u64, Relaxed);
            }
            if ends {
                self.line.clear();
            }
        }
        counters.bytes.fetch_add(bytes.len() as u64, Relaxed);
    }
}

/// Running master with its worker and its people.
struct Bench {
    people: Runtime,
    env: Env,
    url: String,
    counters: Arc<Counters>,
    tokens: Arc<Mutex<Vec<String>>>,
    form: Form,
    _cluster: TestCluster,
    _nodes: Vec<Runtime>,
    _dir: TempDir,
}

impl Bench {
    fn start(form: Form) -> Self {
        let (people, dir) = (runtime(), TempDir::new().expect("a folder"));
        let nodes = vec![runtime(), runtime()];
        let world = |on: &Runtime, name: &str| {
            let _entered = on.enter();
            Env::new(RealWorld::new(dir.path().join(name)).expect("a folder"))
        };
        let env = world(&people, "people");
        // Everybody comes from one address.
        let config = Config {
            session_requests_per_s: 1_000_000,
            session_requests_burst: 1_000_000,
            openings_per_s: 1_000_000,
            openings_burst: 1_000_000,
            ..Config::default()
        };
        let cluster = people.block_on(TestCluster::start(1, 1, &config, |role, _| {
            let on = if role == Role::Master { &nodes[0] } else { &nodes[1] };
            let env = world(on, &role.to_string());
            let db = dir.path().join("store.db");
            let store = sqlite::open(&env, &db, config.store_timeout).expect("a store");
            NodeParts { env, store, keys: Arc::new(GeneratedKeys) }
        }));
        let url = cluster.urls()[0].clone();
        Self {
            people,
            env,
            url,
            counters: Arc::default(),
            tokens: Arc::default(),
            form,
            _cluster: cluster,
            _nodes: nodes,
            _dir: dir,
        }
    }

    /// Opens sessions with a stream each.
    fn join(&self, names: impl IntoIterator<Item = usize>) {
        let names = Arc::new(Mutex::new(names.into_iter().collect::<Vec<_>>()));
        self.people.block_on(async {
            let hands = (0..HANDS).map(|_| async {
                let mut api = Api::new(&self.env, &self.url, None, Limits::default());
                loop {
                    let next = lock(&names).pop();
                    let Some(number) = next else { return };
                    let token = self.open(&mut api, number).await;
                    self.follow(&token).await;
                    lock(&self.tokens).push(token);
                }
            });
            futures_util::future::join_all(hands).await;
        });
    }

    async fn open(&self, api: &mut Api, number: usize) -> String {
        for _ in 0..100 {
            let name = format!("Person {number}").parse().expect("a name");
            if let Ok(Answer::Opened(opened)) = api.call(&Request::OpenSession { name }).await {
                return opened.token.expect("a token");
            }
            self.env.sleep(Duration::from_millis(50)).await;
        }
        panic!("no session at {}", self.url);
    }

    /// Opens a stream and reads it in a task of its own.
    async fn follow(&self, token: &str) {
        let address = self.url.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        let presence = if self.form == Form::Changes { "" } else { "&presence=lists" };
        let request = format!(
            "GET /api/v1/stream?boards=lobby{presence} HTTP/1.1\r\nHost: {address}\r\n\
             Authorization: Bearer {token}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.expect("sent");
        let counters = self.counters.clone();
        tokio::spawn(async move {
            let (mut buffer, mut scanner) = (vec![0; 16 * 1024], Scanner::default());
            while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                scanner.scan(&buffer[..read], &counters);
            }
            counters.ended.fetch_add(1, Relaxed);
        });
    }

    /// Answers beats for all sessions in turn, and asks for the list as pages of lists did.
    fn keep_alive(&self) {
        for hand in 0..HANDS {
            let mut api = Api::new(&self.env, &self.url, None, Limits::default());
            let (tokens, counters) = (self.tokens.clone(), self.counters.clone());
            let (form, env) = (self.form, self.env.clone());
            self.people.spawn(async move {
                loop {
                    let mine: Vec<_> =
                        lock(&tokens).iter().skip(hand).step_by(HANDS).cloned().collect();
                    let pause = ALIVE_INTERVAL / u32::try_from(mine.len().max(1)).unwrap_or(1);
                    let round = Instant::now();
                    for (nth, token) in (0_u32..).zip(mine) {
                        api.set_token(Some(token));
                        let _ = api.call(&Request::Alive).await;
                        if form == Form::Lists {
                            let path = "/api/v1/users";
                            let answer = api.raw(chatchat::client::Method::GET, path, None).await;
                            let bytes = answer.map_or(0, |answer| answer.body.len() as u64);
                            counters.polled_bytes.fetch_add(bytes, Relaxed);
                        }
                        env.sleep((pause * (nth + 1)).saturating_sub(round.elapsed())).await;
                    }
                    env.sleep(Duration::from_millis(100)).await;
                }
            });
        }
    }

    /// Posts at fixed times for a while. Returns how long each took from its time on.
    async fn post(&self, token: String) -> Vec<Duration> {
        let count = MEASURED.as_millis() / POST_INTERVAL.as_millis();
        let begun = Instant::now();
        let mut rng = self.env.rng("crowd-posts");
        let posts = (0..u32::try_from(count).unwrap_or(u32::MAX)).map(|nth| {
            let mut id = [0; 16];
            rng.fill_bytes(&mut id);
            let (token, due) = (token.clone(), POST_INTERVAL * nth);
            async move {
                self.env.sleep(due.saturating_sub(begun.elapsed())).await;
                let mut api = Api::new(&self.env, &self.url, Some(token), Limits::default());
                let (board, text) = (BoardName::lobby(), TEXT.parse().expect("a text"));
                let answer = api.call(&Request::Post { board, id: PostId(id), text }).await;
                assert!(matches!(answer, Ok(Answer::Posted(_))), "a post was lost: {answer:?}");
                begun.elapsed().saturating_sub(due)
            }
        });
        futures_util::future::join_all(posts).await
    }

    fn run(&self) {
        let opening = Instant::now();
        self.keep_alive();
        self.join(0..STREAMS);
        let opened = opening.elapsed();
        std::thread::sleep(SETTLE);
        let mut api = Api::new(&self.env, &self.url, None, Limits::default());
        let writer = self.people.block_on(self.open(&mut api, 900_000));
        let count = &self.counters;
        for counter in
            [&count.bytes, &count.presence_bytes, &count.presence_events, &count.polled_bytes]
        {
            counter.store(0, Relaxed);
        }
        let begun = Instant::now();
        let mut took = std::thread::scope(|scope| {
            let posting = scope.spawn(|| self.people.block_on(self.post(writer)));
            let mut joined = 0;
            while begun.elapsed() < MEASURED {
                self.join([STREAMS + joined]);
                joined += 1;
                let next = Duration::from_secs(joined as u64);
                std::thread::sleep(next.saturating_sub(begun.elapsed()));
            }
            posting.join().expect("posts")
        });
        let seconds = begun.elapsed().as_secs_f64();
        took.sort();
        let at = |share: f64| {
            took[((took.len() - 1) as f64 * share).round() as usize].as_secs_f64() * 1e3
        };
        let streams = STREAMS as f64;
        let take = |counter: &AtomicU64| counter.load(Relaxed) as f64;
        let (bytes, of_presence) = (take(&count.bytes), take(&count.presence_bytes));
        let events = take(&count.presence_events);
        println!(
            "{:8} {:7.1} {:12.0} {:10.0} {:8.2} {:12.0} {:11.0} {:8.1} {:8.1} {:8.1} {:6}",
            format!("{:?}", self.form),
            opened.as_secs_f64(),
            bytes / streams / seconds,
            of_presence / streams / seconds,
            events / streams / seconds,
            of_presence / events.max(1.0),
            take(&count.polled_bytes) / streams / seconds,
            at(0.5),
            at(0.99),
            at(1.0),
            take(&count.ended),
        );
    }
}

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().expect("a runtime")
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn main() {
    let asked: Vec<String> = std::env::args().collect();
    let wants = |name: &str| {
        asked.iter().any(|one| one == name)
            || !asked.iter().any(|one| one == "lists" || one == "changes")
    };
    println!("{STREAMS} streams, one join a second, a post every {POST_INTERVAL:?}, {MEASURED:?}");
    println!(
        "         opening | per stream and second                | per event  | polled    | posts, ms                 | streams"
    );
    println!(
        "form           s        bytes   presence   events        bytes     bytes/s      p50      p99      max  ended"
    );
    for (name, form) in [("lists", Form::Lists), ("changes", Form::Changes)] {
        if wants(name) {
            Bench::start(form).run();
        }
    }
}

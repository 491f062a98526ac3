//! Test master on real links, and a store that can be held up.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::{
    comm::{
        DriverStamp, Incoming, Link, LinkId, LinkLimits,
        connection_limit::ConnectionLimit,
        fanout::Fanout,
        handshake::{
            Acceptor, AcceptorParams, AdmissionGrant, AdmissionPolicy, AdmissionRequest, Ready,
            Refusal, Rejection, accept,
        },
    },
    config::Config,
    crypto::{
        admission::{Guard, GuardId, JoinSecret, bearer_matches},
        epoch::EpochKeys,
        handshake::VERSIONS,
        keys::Identity,
    },
    env::{
        BoxFuture, Env, Task,
        real::{RealWorld, TempDir},
    },
    model::{
        absence::AwayReason,
        ids::{
            Author, BoardName, Domain, Fingerprint, Incarnation, KeyEpoch, PostId, Registration,
            Resource, StoreEpoch, Token, UserId,
        },
        message::{Assign, AssignReply, Member, Request, Response, Task as Work, Update, Welcome},
        rows::{Holder, Lease, NewPost, Permission, StoreError},
    },
    node::worker::{WorkerError, WorkerParams, run},
    store::{
        Backend, Op, OpReply, Store,
        sqlite::{NewCluster, memory},
    },
    testing::keys::{TestKeys, WEAK, identity, pair, rng},
};

pub(crate) const EPOCH: StoreEpoch = StoreEpoch(7);

/// Store that a test makes away, or slow to write.
pub(crate) struct Held {
    inner: Store,
    pub away: AtomicBool,
    pub writes: AtomicU64,
    /// One permit for each write that may go on.
    pub gate: Semaphore,
}

impl Backend for Arc<Held> {
    fn call(&self, op: Op) -> BoxFuture<'_, Result<OpReply, StoreError>> {
        Box::pin(async move {
            if self.away.load(Ordering::SeqCst) {
                return Err(StoreError::away(AwayReason::Unreachable, "unplugged"));
            }
            if matches!(op, Op::Write { .. }) {
                self.writes.fetch_add(1, Ordering::SeqCst);
                self.gate.acquire().await.expect("never closed").forget();
            }
            self.inner.call(op).await
        })
    }
}

pub(crate) fn store() -> (Store, Arc<Held>) {
    let new = NewCluster { cluster: [1; 16], epoch: EPOCH, now_ms: 1000 };
    let clock = AtomicU64::new(1000);
    let inner = memory::open(&new, move || clock.fetch_add(1, Ordering::SeqCst)).expect("opens");
    let held = Arc::new(Held {
        inner,
        away: AtomicBool::new(false),
        writes: AtomicU64::new(0),
        gate: Semaphore::new(1000),
    });
    (Store::new(Arc::clone(&held)), held)
}

struct TestGate {
    token: JoinSecret,
    enrolled: Mutex<Option<Guard>>,
    welcome: Mutex<Welcome>,
    keys: Arc<EpochKeys>,
}

impl AdmissionPolicy for TestGate {
    fn guard(&self, id: GuardId) -> BoxFuture<'_, Option<Guard>> {
        let known = match id {
            GuardId::Token(id) => (id == self.token.id).then(|| self.token.guard()),
            GuardId::Node(_) => self.enrolled.lock().expect("no test panics inside").clone(),
        };
        Box::pin(async move { known })
    }

    fn is_denied(&self, _: crate::model::ids::NodeId) -> bool {
        false
    }

    fn admit(&self, request: AdmissionRequest) -> BoxFuture<'_, Result<AdmissionGrant, Refusal>> {
        let mut enrolled = self.enrolled.lock().expect("no test panics inside");
        let known = match &request.bearer {
            Some(bearer) => bearer_matches(bearer, &self.token.bearer_sha256()),
            None => enrolled.is_some(),
        };
        let guard = enrolled.get_or_insert_with(|| Guard::random(&mut rng(77))).clone();
        let welcome = self.welcome.lock().expect("no test panics inside").clone();
        let keys = Some(Arc::clone(&self.keys));
        let grant = AdmissionGrant { welcome, guard: Some(guard), keys, login: None };
        Box::pin(async move { if known { Ok(grant) } else { Err(Rejection::Token.into()) } })
    }
}

/// Link of one worker, at the master.
pub(crate) struct Taken {
    pub link: Link,
    pub ready: Ready,
    pub peer: Member,
    pub said: mpsc::Receiver<(LinkId, Incoming)>,
}

impl Taken {
    pub(crate) async fn call(&self, request: Request) -> Response {
        self.link.call(request, Duration::from_secs(5)).await.expect("answered")
    }

    pub(crate) async fn assign(&self, assign: Assign) -> AssignReply {
        self.assign_all(vec![assign]).await.remove(0)
    }

    /// Has these batches written by one call; returns one reply for each.
    pub(crate) async fn assign_all(&self, batches: Vec<Assign>) -> Vec<AssignReply> {
        let count = batches.len();
        match self.call(Request::Assign(batches)).await {
            Response::Assign(replies) if replies.len() == count => replies,
            other => panic!("{other:?}"),
        }
    }

    /// Waits for the first event of the link that `pick` takes.
    pub(crate) async fn hear<T>(&mut self, pick: impl Fn(Incoming) -> Option<T>) -> T {
        let env = env();
        let heard = async {
            while let Some((_, incoming)) = self.said.recv().await {
                if let Some(found) = pick(incoming) {
                    return found;
                }
            }
            panic!("the link's events ended");
        };
        env.timeout(Duration::from_secs(10), heard).await.expect("heard in time")
    }
}

pub(crate) fn env() -> Env {
    Env::new(RealWorld::temporary().expect("a directory of its own"))
}

/// Master that takes workers in and hands their links out.
pub(crate) struct TestMaster {
    env: Env,
    pub addr: String,
    pub identity: Arc<Identity>,
    pub domain: Domain,
    gate: Arc<TestGate>,
    taken: mpsc::Receiver<Taken>,
    pub fanout: Fanout,
    _accepting: crate::env::TaskGuard,
}

impl TestMaster {
    pub(crate) async fn start(config: &Config) -> Self {
        let env = env();
        let identity = Arc::new(identity(50));
        let domain = Domain { master: identity.node(), incarnation: Incarnation(1) };
        let draw = || {
            let mut rng = rng(3);
            EpochKeys::draw(&mut rng, &identity, domain, KeyEpoch(1), pair(51), WEAK).expect("keys")
        };
        let gate = Arc::new(TestGate {
            token: JoinSecret::random(&mut rng(5), &identity.fingerprint()),
            enrolled: Mutex::new(None),
            welcome: Mutex::new(Welcome { domain, directory: vec![] }),
            keys: Arc::new(draw()),
        });
        let params = AcceptorParams {
            identity: Arc::clone(&identity),
            name: "m0".to_owned(),
            cluster: [1; 16],
            bounds: WEAK,
            version_max: VERSIONS.1,
        };
        let acceptor = Acceptor::new(params, config.handshake_timeout);
        let mut listener = env.listen("127.0.0.1:0").await.expect("a port");
        let (addr, limits) = (listener.local_addr(), LinkLimits::of(config));
        let (to, taken) = mpsc::channel(8);
        let (gate_, env_) = (Arc::clone(&gate), env.clone());
        let accepting = env.spawn("accept", async move {
            let (mut number, connections) = (0, ConnectionLimit::new(8, 8));
            while let Ok((stream, from)) = listener.accept().await {
                let permit = connections.take(&from).expect("one worker");
                // One at a time is enough here.
                let Ok((secured, ready)) = accept(&env_, stream, &*gate_, &acceptor, permit).await
                else {
                    continue;
                };
                number += 1;
                let peer = crate::model::message::Member {
                    fact: crate::model::message::Fact {
                        node: secured.peer.node,
                        role: secured.peer.role,
                        registration: ready.registration,
                        state: crate::model::message::MemberState::In,
                        master: domain.master,
                    },
                    name: secured.peer.name.clone(),
                    link: None,
                    http: None,
                    spki: secured.peer.spki.clone(),
                };
                let (say, said) = mpsc::channel(256);
                let driver = DriverStamp::default();
                let link = Link::start(&env_, LinkId(number), secured, limits.clone(), driver, say);
                if to.send(Taken { link, ready, peer, said }).await.is_err() {
                    return;
                }
            }
        });
        let fanout = Fanout::new(&env, domain.master, 1, draw(), 8);
        let accepting = accepting.abort_on_drop();
        Self { env, addr, identity, domain, gate, taken, fanout, _accepting: accepting }
    }

    pub(crate) fn token(&self) -> String {
        self.gate.token.text().to_string()
    }

    /// Sets the directory of the next Welcome.
    pub(crate) fn set_directory(&self, directory: Vec<Member>) {
        self.gate.welcome.lock().expect("no test panics inside").directory = directory;
    }

    /// Waits for the next worker that is ready.
    pub(crate) async fn take(&mut self) -> Taken {
        let taken = self.env.timeout(Duration::from_secs(20), self.taken.recv()).await;
        taken.expect("ready in time").expect("still accepting")
    }

    /// Returns keys for an epoch of this master's domain; other numbers give other keys.
    pub(crate) fn keys(&self, epoch: u64, number: u8) -> EpochKeys {
        let (rng, epoch) = (&mut rng(number), KeyEpoch(epoch));
        EpochKeys::draw(rng, &self.identity, self.domain, epoch, pair(number), WEAK).expect("keys")
    }

    pub(crate) fn publish(&mut self, to: &Taken, news: &Update) {
        let envelope = self.fanout.seal(&news.clone().into()).expect("seals");
        to.link.publish(envelope).expect("queued");
    }
}

/// Running worker.
pub(crate) struct TestWorker {
    _task: crate::env::TaskGuard,
    pub stop: Option<oneshot::Sender<()>>,
    pub ended: oneshot::Receiver<Result<(), WorkerError>>,
}

/// Polls often; waits for the store longer than a busy machine takes.
pub(crate) fn config() -> Config {
    let ms = Duration::from_millis;
    Config {
        store_poll_interval: ms(200),
        store_timeout: ms(3000),
        attempt_timeout: ms(4000),
        request_timeout: ms(60_000),
        digest_interval: ms(200),
        ..Config::default()
    }
}

/// Starts a worker on a directory; `enrol` gives it a join token.
pub(crate) fn worker(master: &TestMaster, store: &Store, dir: &TempDir, enrol: bool) -> TestWorker {
    worker_with(config(), master, store, dir, enrol)
}

pub(crate) fn worker_with(
    config: Config,
    master: &TestMaster,
    store: &Store,
    dir: &TempDir,
    enrol: bool,
) -> TestWorker {
    let env = Env::new(RealWorld::new(dir.path()).expect("usable"));
    worker_in(env, config, master, store, enrol)
}

/// Starts a worker in this world.
pub(crate) fn worker_in(
    env: Env,
    config: Config,
    master: &TestMaster,
    store: &Store,
    enrol: bool,
) -> TestWorker {
    let pins = vec![master.identity.fingerprint()];
    worker_of(env, config, (master, pins), store, enrol)
}

/// Starts a worker that trusts masters with these keys.
pub(crate) fn worker_of(
    env: Env,
    config: Config,
    (master, pins): (&TestMaster, Vec<Fingerprint>),
    store: &Store,
    enrol: bool,
) -> TestWorker {
    let params = WorkerParams {
        name: "w0".to_owned(),
        config,
        masters: vec![master.addr.clone()],
        pins,
        token: enrol.then(|| master.token()),
        store: store.clone(),
        login: None,
        keys: TestKeys::from(60),
    };
    let (stop, stopped) = oneshot::channel();
    let (end, ended) = oneshot::channel();
    let task: Task = env.clone().spawn("worker", async move {
        let stop = async {
            if stopped.await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let _ = end.send(run(env, params, stop).await);
    });
    TestWorker { _task: task.abort_on_drop(), stop: Some(stop), ended }
}

pub(crate) fn post(n: u8) -> Work {
    let author = Author { id: UserId([9; 16]), name: "ann".parse().expect("a name") };
    let text = format!("post {n}").parse().expect("a text");
    let post = NewPost { id: PostId([n; 16]), author, text };
    Work::Post { board: BoardName::lobby(), post }
}

/// Acquires the lobby's lease for the master.
pub(crate) async fn lobby(store: &Store, master: &TestMaster) -> u64 {
    let holder = Holder { node: master.domain.master, incarnation: Incarnation(1) };
    let lobby = Resource::Board(BoardName::lobby());
    match store.acquire_lease(lobby, holder, 3000).await.expect("asked") {
        Lease::Granted { lease, .. } => lease,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn batch(to: &Taken, lease: u64, n: u64, tasks: Vec<Work>) -> Assign {
    Assign {
        registration: to.ready.registration,
        permission: Permission {
            resource: Resource::Board(BoardName::lobby()),
            token: Token { epoch: EPOCH, lease, n },
            after: None,
            worker: to.peer.fact.node,
        },
        tasks: tasks.into(),
    }
}

pub(crate) fn number(taken: &Taken) -> u64 {
    let Registration(number) = taken.ready.registration;
    number
}

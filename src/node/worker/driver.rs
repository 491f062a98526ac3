//! The one task that owns a worker's state: feeds inputs to the protocol and carries its
//! effects out in order. Nothing here waits but the loop itself; what takes time is a task that
//! comes back as an [`Input`].

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use rand_chacha::{ChaCha20Rng, rand_core::Rng};
use tokio::sync::{Notify, mpsc, oneshot};

use super::{
    assign::{self, BatchId, Batches, Begin, Written},
    database::Database,
    dial::{Dialler, Try},
    repair::{Sources, repair},
    store_watch::Look,
};
use crate::{
    comm::{
        Incoming, Link, LinkEnd, LinkId, LinkLimits, Responder, Secured,
        fanout::Fanout,
        handshake::{HandshakeError, Welcomed},
    },
    config::Config,
    crypto::keys,
    env::{Env, TaskGuard},
    model::{
        event::Event,
        ids::{BoardName, Domain, Fingerprint, KeyEpoch, NodeId, Registration, Role},
        message::{
            Assign, AssignReply, Beat, Close, CloseReason, Direct, Request, Response, Topic,
            Update, Welcome, WorkerStatus,
        },
        time::Mono,
    },
    protocol::worker::{Effect, Worker},
    replica::Applied,
    store::Store,
};

/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// What the driver's own tasks come back with.
pub(super) enum Input {
    /// A master takes this worker in: under which number?
    Welcomed { number: u64, welcome: Welcome, reply: oneshot::Sender<Option<Registration>> },
    /// A try to be taken in ended.
    Dialled { number: u64, result: Result<Box<(Secured, Welcomed)>, HandshakeError> },
    /// A look at the store, or why there is none.
    Looked(Result<Look, String>),
    /// These boards of the node database lack posts, or may.
    Behind(Vec<BoardName>),
    /// A group of news was written, or was lost.
    Written(Option<Applied>),
    /// A repair ended.
    Repaired { board: BoardName, progress: bool, lacks: bool },
    /// A batch ended.
    Assigned { id: BatchId, written: Written },
}

/// What a driver is made of.
pub(super) struct Parts {
    pub env: Env,
    pub config: Config,
    pub node: NodeId,
    pub worker: Worker,
    pub store: Store,
    pub database: Database,
    pub dialler: Arc<Dialler>,
    /// Keys of masters that are trusted beside those of the directory.
    pub pins: Vec<Fingerprint>,
    pub inputs: mpsc::Sender<Input>,
    pub links: mpsc::Sender<(LinkId, Incoming)>,
    /// Asks for a look at the store before its time.
    pub look_now: Arc<Notify>,
}

pub(super) struct Driver {
    parts: Parts,
    rng: ChaCha20Rng,
    link: Option<Link>,
    /// Of the link, its domain's keys.
    fanout: Option<Fanout>,
    last_epoch: Option<(Domain, KeyEpoch)>,
    cluster: Option<[u8; 16]>,
    links_made: u64,
    /// The try under way, and how many there were.
    trying: Option<TaskGuard>,
    tries: u64,
    batches: Batches,
    reaches_store: bool,
}

impl Driver {
    pub(super) fn new(parts: Parts) -> Self {
        Self {
            rng: parts.env.rng("worker"),
            parts,
            link: None,
            fanout: None,
            last_epoch: None,
            cluster: None,
            links_made: 0,
            trying: None,
            tries: 0,
            batches: Batches::default(),
            reaches_store: false,
        }
    }

    /// Runs until `stop`, then says goodbye.
    pub(super) async fn run(
        mut self,
        mut inputs: mpsc::Receiver<Input>,
        mut links: mpsc::Receiver<(LinkId, Incoming)>,
        stop: impl Future<Output = ()> + Send,
    ) {
        let mut stop = std::pin::pin!(stop);
        let env = self.parts.env.clone();
        loop {
            let due = self.parts.worker.next_deadline();
            let timer = async {
                match due {
                    Some(due) => env.sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = &mut stop => break,
                Some(input) = inputs.recv() => self.on_input(input),
                Some((id, incoming)) = links.recv() => self.on_incoming(id, incoming),
                () = timer => {}
            }
            // A stream of other inputs must not hold up what is due.
            let now = self.now();
            if self.parts.worker.next_deadline().is_some_and(|due| due <= now) {
                let draw = self.rng.next_u64();
                let effects = self.parts.worker.on_timer(now, draw);
                self.carry_out(effects);
            }
        }
        self.say_goodbye(&mut links).await;
    }

    fn now(&self) -> Mono {
        self.parts.env.now()
    }

    /// Says that this registration leaves, and keeps what was written.
    async fn say_goodbye(&mut self, links: &mut mpsc::Receiver<(LinkId, Incoming)>) {
        self.trying = None;
        if let Some(link) = self.link.take() {
            link.close(Close { reason: CloseReason::Leaving, retry_ms: 0 });
            let gone = async {
                while let Some((id, incoming)) = links.recv().await {
                    if id == link.id() && matches!(incoming, Incoming::Closed(_)) {
                        break;
                    }
                }
            };
            let _ = self.parts.env.timeout(GOODBYE, gone).await;
        }
        self.parts.database.persist().await;
    }

    fn on_input(&mut self, input: Input) {
        let now = self.now();
        let worker = &mut self.parts.worker;
        let effects = match input {
            Input::Welcomed { number, welcome, reply } => {
                let (registration, effects) = if number == self.tries {
                    worker.on_welcome(now, &welcome)
                } else {
                    (None, Vec::new())
                };
                // Who asked may be gone; then nothing was said under this number.
                let _ = reply.send(registration);
                effects
            }
            Input::Dialled { number, result } if number == self.tries => {
                self.trying = None;
                match result {
                    Ok(done) => self.on_registered(now, done.0, done.1),
                    Err(error) => {
                        tracing::info!(%error, "not taken in");
                        worker.on_dial_failed(now);
                        Vec::new()
                    }
                }
            }
            Input::Dialled { .. } => Vec::new(),
            Input::Looked(Ok(look)) => {
                let mut effects = worker.on_masters(now, look.masters);
                for key in look.closed {
                    effects.extend(worker.on_news(now, Update::SessionClosed(key)));
                }
                self.set_reaches_store(true);
                let (database, inputs) = (self.parts.database.clone(), self.parts.inputs.clone());
                self.spawn("observe", async move {
                    if let Some(applied) = database.observe(look.boards).await {
                        let _ = inputs.send(Input::Behind(gaps(applied))).await;
                    }
                });
                effects
            }
            Input::Looked(Err(why)) => {
                tracing::debug!(why, "the store is away");
                worker.on_store_away();
                self.set_reaches_store(false);
                Vec::new()
            }
            Input::Behind(boards) => {
                worker.on_behind(now, boards);
                Vec::new()
            }
            Input::Written(applied) => {
                let written = applied.is_some();
                worker.on_written(now, written, applied.map(gaps).unwrap_or_default());
                Vec::new()
            }
            Input::Repaired { board, progress, lacks } => {
                worker.on_repaired(now, &board, progress, lacks);
                Vec::new()
            }
            Input::Assigned { id, written } => self.on_assigned(now, &id, written),
        };
        self.carry_out(effects);
    }

    fn on_registered(&mut self, now: Mono, secured: Secured, welcomed: Welcomed) -> Vec<Effect> {
        let Welcomed { welcome, cluster, keys, .. } = welcomed;
        let Some(keys) = keys else {
            tracing::warn!("the Welcome has no keys");
            self.parts.worker.on_dial_failed(now);
            return Vec::new();
        };
        let env = &self.parts.env;
        self.links_made += 1;
        let limits = LinkLimits::of(&self.parts.config);
        let id = LinkId(self.links_made);
        let link = Link::start(env, id, secured, limits, self.parts.links.clone());
        link.beat(Beat { reaches_store: self.reaches_store });
        if let Err(error) = link.subscribe(&Topic::ALL) {
            tracing::warn!(%error, "not subscribed");
        }
        let (domain, epoch) = (welcome.domain, keys.epoch());
        self.last_epoch = Some((domain, epoch));
        self.cluster = Some(cluster);
        self.link = Some(link);
        let effects = self.parts.worker.on_registered(now, &welcome);
        let registration = self.parts.worker.registration().unwrap_or_default();
        let senders_max = self.parts.config.directory_max;
        let fanout = Fanout::new(env, self.parts.node, registration.0, keys, senders_max);
        self.fanout = Some(fanout);
        env.event(&Event::Epoch { domain, epoch });
        effects
    }

    fn on_assigned(&mut self, now: Mono, id: &BatchId, written: Written) -> Vec<Effect> {
        let is_away = matches!(written.reply, AssignReply::StoreAway { .. });
        self.batches.finish(id, &written.reply);
        if is_away {
            // It may have been one slow write: look again before the masters heed it for long.
            self.set_reaches_store(false);
            self.parts.look_now.notify_one();
        } else {
            self.set_reaches_store(true);
        }
        let worker = &mut self.parts.worker;
        written.news.map(|news| worker.on_news(now, news)).unwrap_or_default()
    }

    fn on_incoming(&mut self, id: LinkId, incoming: Incoming) {
        if self.link.as_ref().is_none_or(|link| link.id() != id) {
            return;
        }
        let now = self.now();
        let worker = &mut self.parts.worker;
        let effects = match incoming {
            Incoming::Request { request, reply } => {
                self.serve(request, reply);
                Vec::new()
            }
            Incoming::Direct(Direct::Digest { digest }) => worker.on_digest(digest),
            Incoming::Direct(Direct::Members(members)) => worker.on_members(now, members),
            // What masters say to each other, and what workers say to them.
            Incoming::Direct(Direct::Update(_) | Direct::WorkerStatus(_)) => Vec::new(),
            Incoming::Envelope(envelope) => match self.open(&envelope) {
                Some(news) => self.parts.worker.on_news(now, news),
                None => Vec::new(),
            },
            // A worker publishes nothing now, and heeds its master's words on the store only
            // through what that master does.
            Incoming::Subscribed(_) | Incoming::Beat(_) => Vec::new(),
            Incoming::Closed(end) => {
                tracing::info!(%end, "the link to the master ended");
                self.link = None;
                self.fanout = None;
                let said = match &end {
                    LinkEnd::Said(close) => Some(close),
                    _ => None,
                };
                self.parts.worker.on_link_ended(now, said)
            }
        };
        self.carry_out(effects);
    }

    /// What a publish says, if it is in order. Fanout is a hint: what is lost is repaired.
    fn open(&mut self, envelope: &Bytes) -> Option<Update> {
        let fanout = self.fanout.as_mut()?;
        let master = fanout.domain().master;
        match fanout.open(envelope) {
            // A fellow worker has nothing to tell: what it said would be forged.
            Ok(Some(heard)) if heard.sender != master => {
                tracing::warn!(sender = %heard.sender, "a publish of a member that is no master");
                None
            }
            Ok(Some(heard)) => {
                if heard.missed > 0 && heard.news.topic() == Topic::Board {
                    self.look_for_gaps();
                }
                Some(heard.news)
            }
            // Its keys are on their way.
            Ok(None) => None,
            Err(error) => {
                tracing::debug!(%error, "an envelope");
                None
            }
        }
    }

    /// Posts were told of that did not arrive: the store knows where, and without it every
    /// board is asked for.
    fn look_for_gaps(&self) {
        self.parts.env.sometimes("fanout_lost_posts");
        if self.reaches_store {
            self.parts.look_now.notify_one();
            return;
        }
        let (database, inputs) = (self.parts.database.clone(), self.parts.inputs.clone());
        self.spawn("all-boards", async move {
            if let Some(known) = database.read(|replica| replica.boards()).await {
                let boards = known.boards.into_iter().map(|(board, _)| board).collect();
                let _ = inputs.send(Input::Behind(boards)).await;
            }
        });
    }

    fn serve(&mut self, request: Request, reply: Responder) {
        let database = self.parts.database.clone();
        match request {
            Request::Assign(assign) => self.on_assign(assign, reply),
            Request::Read { board, range, limit } => self.spawn("read", async move {
                let page = database.read(move |replica| replica.read(&board, range, limit)).await;
                answer(reply, &Response::Page(page.flatten()));
            }),
            Request::Session(key) => self.spawn("session", async move {
                let row = database.read(move |replica| replica.session(key)).await;
                answer(reply, &Response::Session(row.flatten()));
            }),
            Request::Echo(bytes) => answer(reply, &Response::Echo(bytes)),
            Request::Forward(_) => answer(reply, &Response::NotServed),
        }
    }

    fn on_assign(&mut self, assign: Assign, reply: Responder) {
        if self.parts.worker.registration() != Some(assign.registration) {
            self.parts.env.sometimes("assign_of_an_old_registration");
            answer(reply, &Response::Assign(AssignReply::StaleRegistration));
            return;
        }
        match self.batches.begin(&assign, reply) {
            Ok(Begin::Wait) => self.parts.env.sometimes("batch_asked_for_again_in_flight"),
            Ok(Begin::Write) => {
                let (env, store) = (self.parts.env.clone(), self.parts.store.clone());
                let (inputs, me) = (self.parts.inputs.clone(), self.parts.node);
                let limit = self.parts.config.store_timeout;
                self.spawn("batch", async move {
                    let written = assign::write(&env, &store, me, limit, &assign).await;
                    let id = (assign.permission.resource, assign.permission.token);
                    let _ = inputs.send(Input::Assigned { id, written }).await;
                });
            }
            Err((reply, said)) => answer(reply, &Response::Assign(said)),
        }
    }

    fn set_reaches_store(&mut self, reaches_store: bool) {
        self.reaches_store = reaches_store;
        if let Some(link) = &self.link {
            link.beat(Beat { reaches_store });
        }
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Dial(addr) => self.dial(addr),
                Effect::CloseLink(reason) => {
                    self.fanout = None;
                    if let Some(link) = self.link.take() {
                        link.close(Close { reason, retry_ms: 0 });
                    }
                }
                Effect::Send(direct) => self.send(&direct),
                Effect::SendStatus => self.send_status(),
                Effect::Write(news) => {
                    let (database, inputs) =
                        (self.parts.database.clone(), self.parts.inputs.clone());
                    self.spawn("write-news", async move {
                        let applied = database.apply(news).await;
                        let _ = inputs.send(Input::Written(applied)).await;
                    });
                }
                Effect::Repair(board) => self.repair(board),
                Effect::KeepMembers(members) => self.parts.database.keep_members(members),
                Effect::Event(event) => self.parts.env.event(&event),
                Effect::FaultPoint(point) => self.parts.env.fault_point(point.name()),
            }
        }
    }

    fn dial(&mut self, addr: String) {
        self.tries += 1;
        let masters = self.parts.worker.registry().members();
        let known = masters
            .filter(|member| member.fact.role == Role::Master)
            .map(|member| keys::fingerprint(&member.spki));
        let with = Try {
            number: self.tries,
            addr,
            pins: self.parts.pins.iter().copied().chain(known).collect(),
            cluster: self.cluster,
            last_epoch: self.last_epoch,
        };
        let (env, inputs) = (self.parts.env.clone(), self.parts.inputs.clone());
        let dial = Arc::clone(&self.parts.dialler).dial(env, with, inputs);
        self.trying = Some(self.parts.env.spawn("dial", dial).abort_on_drop());
    }

    fn repair(&self, board: BoardName) {
        let (env, database) = (self.parts.env.clone(), self.parts.database.clone());
        let from = Sources {
            link: self.link.clone(),
            store: self.parts.store.clone(),
            master_timeout: self.parts.config.attempt_timeout,
            store_timeout: self.parts.config.store_timeout,
        };
        let inputs = self.parts.inputs.clone();
        self.spawn("repair", async move {
            let _ = inputs.send(repair(&env, &database, from, board).await).await;
        });
    }

    fn send(&self, direct: &Direct) {
        if let Some(link) = &self.link
            && let Err(error) = link.send(direct)
        {
            // Digests go on until the directories agree.
            tracing::debug!(%error, "a message to the master");
        }
    }

    fn send_status(&self) {
        let Some(link) = self.link.clone() else { return };
        let database = self.parts.database.clone();
        let in_flight = u32::try_from(self.batches.len()).unwrap_or(u32::MAX);
        let resident_bytes = self.parts.env.resident_bytes();
        self.spawn("status", async move {
            let read = database.read(|replica| Ok((replica.boards()?, replica.session_count()?)));
            let Some((boards, sessions)) = read.await else { return };
            let status =
                WorkerStatus { boards: boards.boards, sessions, in_flight, resident_bytes };
            // The next one says it better.
            let _ = link.send(&Direct::WorkerStatus(status));
        });
    }

    fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.parts.env.spawn(name, task);
    }
}

fn answer(reply: Responder, response: &Response) {
    if let Err(error) = reply.send(response) {
        tracing::debug!(%error, "an answer");
    }
}

fn gaps(applied: Applied) -> Vec<BoardName> {
    applied.gaps.into_iter().map(|gap| gap.board).collect()
}

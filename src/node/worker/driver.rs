//! Driver: the one task that owns a worker's state. It feeds inputs to the protocol and has the
//! effects carried out in order. Nothing here waits but the loop itself; work that takes time is a task
//! that comes back as an [`Input`].

use std::{convert::Infallible, future::Future, sync::Arc};

use futures_util::{FutureExt, future::join_all};
use rand_chacha::{ChaCha20Rng, rand_core::Rng};
use tokio::sync::{Notify, mpsc};

use super::{
    assign::{self, Answered, BATCHES_MAX, BatchId, Batches, Begun, Written},
    database::Database,
    dial::Dialer,
    input::{Input, StoreView},
    key_messages::{KeyMessage, KeyMessages},
    login::LoginAsks,
    session_repair::{self, Round},
};
use crate::{
    comm::{
        DriverStamp, Incoming, Link, LinkEnd, LinkId, LinkLimits, Responder, SecureStream,
        fanout::Fanout, handshake::ReceivedWelcome,
    },
    config::Config,
    env::{Env, TaskGuard},
    model::{
        ids::{BoardName, Domain, Fingerprint, KeyEpoch, NodeId},
        message::{
            Assign, AssignReply, Beat, Close, CloseReason, Direct, Request, Response, Topic,
        },
        time::Mono,
    },
    node::{
        begun::begun,
        inbox::{EVENTS_MAX, Inbox, Inputs, Next},
        store_log::log_store_change,
    },
    protocol::{
        hand_in::HandIn,
        store_watch::StoreWatch,
        worker::{Effect, Worker},
    },
    replica::ApplyReport,
    store::{LoginSlot, OwnEnds, Store},
};

/// Parts that a driver is built from.
pub(super) struct Parts {
    pub env: Env,
    pub config: Config,
    pub node: NodeId,
    pub worker: Worker,
    pub store: Store,
    /// Ends of the boards in the node database, for the guard of the store.
    pub own_ends: OwnEnds,
    pub database: Database,
    pub dialer: Arc<Dialer>,
    /// Keys of masters that are trusted beside those of the directory.
    pub pins: Vec<Fingerprint>,
    pub inputs: Inputs<Input>,
    pub links: mpsc::Sender<(LinkId, Incoming)>,
    /// Asks for a poll of the store before its time.
    pub poll_now: Arc<Notify>,
}

/// State of a running worker.
pub(super) struct Driver {
    pub(super) parts: Parts,
    /// Effects that are not carried out yet, in order.
    pub(super) out: Vec<Effect>,
    pub(super) link: Option<Link>,
    /// Publishes of the link's domain, under its common key.
    pub(super) fanout: Option<Fanout>,
    /// Domain and epoch of the last envelope alarm.
    pub(super) envelope_alarm: Option<(Domain, KeyEpoch)>,
    /// Domain and epoch in which envelopes were last told to be lost.
    pub(super) fanout_lost: Option<(Domain, KeyEpoch)>,
    /// Messages about keys that are not carried out yet.
    pub(super) keys: KeyMessages,
    pub(super) last_epoch: Option<(Domain, KeyEpoch)>,
    pub(super) cluster: Option<[u8; 16]>,
    /// Attempt to register that is under way.
    pub(super) dialing: Option<TaskGuard>,
    /// Number of the last attempt to register.
    pub(super) attempts: u64,
    pub(super) batches: Batches,
    /// Posts that wait for the store on this worker's disk.
    pub(super) held: HandIn,
    /// Openings of the node database after which it was read which posts it holds.
    pub(super) held_of_opening: u64,
    /// Tasks under way after which more posts may be known to wait on the disk.
    pub(super) held_tasks: usize,
    login_asks: LoginAsks,
    rng: ChaCha20Rng,
    links_made: u64,
    pub(super) driver: DriverStamp,
    pub(super) reaches_store: bool,
    watch: StoreWatch,
    /// Whether the master had this worker end.
    pub(super) is_drained: bool,
    /// Time since which this worker takes no more batches, so that it can leave its master.
    pub(super) leaves_since: Option<Mono>,
    /// Time since which this worker tells its master that it takes nothing more, if it ends.
    pub(super) ends_since: Option<Mono>,
    /// Whether this worker hands its held posts over, as it ends: no other post joins them any more.
    pub(super) hands_over: bool,
}

impl Driver {
    pub(super) fn new(parts: Parts) -> Self {
        Self {
            rng: parts.env.rng("worker"),
            parts,
            out: Vec::new(),
            link: None,
            fanout: None,
            envelope_alarm: None,
            fanout_lost: None,
            keys: KeyMessages::default(),
            last_epoch: None,
            cluster: None,
            dialing: None,
            attempts: 0,
            batches: Batches::default(),
            held: HandIn::default(),
            held_of_opening: 0,
            held_tasks: 0,
            login_asks: LoginAsks::default(),
            links_made: 0,
            driver: DriverStamp::default(),
            reaches_store: false,
            watch: StoreWatch::default(),
            is_drained: false,
            leaves_since: None,
            ends_since: None,
            hands_over: false,
        }
    }

    /// Runs the worker until `stop`, or until its master has it end, then says goodbye.
    pub(super) async fn run(
        mut self,
        mut inbox: Inbox<Input>,
        stop: impl Future<Output = ()> + Send,
    ) {
        self.serve_until(&mut inbox, stop, |_| false).await;
        self.end(inbox).await;
    }

    /// Serves until `stop`, until it is done, or until the master has this worker end.
    pub(super) async fn serve_until(
        &mut self,
        inbox: &mut Inbox<Input>,
        stop: impl Future<Output = ()> + Send,
        is_done: fn(&Self) -> bool,
    ) {
        let mut stop = std::pin::pin!(stop);
        let env = self.parts.env.clone();
        while (self.is_ending() || !self.is_drained) && !is_done(self) {
            let now = self.now();
            self.driver.set(now);
            let turn = now + self.parts.config.heartbeat_interval;
            // Who ends hands in nothing more: what was due would be due at once, again and again.
            let hand_in = if self.is_ending() { None } else { self.held.next_deadline() };
            let due = [
                self.parts.worker.next_deadline(),
                self.keys.next_deadline(),
                hand_in,
                self.leaves_next(now),
                self.crossed_next(now),
            ];
            let due = due.into_iter().flatten().fold(turn, Mono::min);
            let mut next = tokio::select! {
                biased;
                () = &mut stop => break,
                next = inbox.next::<Infallible>(None) => match next {
                    Some(next) => Some(next),
                    // This driver holds the other ends: it does not happen.
                    None => break,
                },
                () = env.sleep_until(due) => None,
            };
            // What is ready by now shares one look at the deadlines.
            let mut left = EVENTS_MAX;
            while let Some(event) = next {
                match event {
                    Next::Input(input) => self.on_input(input),
                    Next::Link(id, incoming) => self.on_incoming(id, incoming),
                    Next::Command(never) => match never {},
                }
                left -= 1;
                let more = (left > 0).then(|| inbox.next::<Infallible>(None).now_or_never());
                next = more.flatten().flatten();
            }
            // A stream of other inputs must not delay what is due.
            let now = self.now();
            self.expire_keys(now);
            self.on_opening();
            if !self.is_ending() {
                self.hand_in(now);
                self.leave_if_done(now);
            }
            if self.parts.worker.next_deadline().is_some_and(|due| due <= now) {
                let draw = self.rng.next_u64();
                self.parts.worker.on_timer(now, draw, &mut self.out);
                self.carry();
            }
        }
    }

    fn now(&self) -> Mono {
        self.parts.env.now()
    }

    fn on_input(&mut self, input: Input) {
        let now = self.now();
        let worker = &mut self.parts.worker;
        match input {
            Input::Kept(members) => {
                self.parts.pins.extend(super::master_pins(&members));
                worker.on_kept(&members);
            }
            Input::HeldFound(found) => self.on_held_found(now, found),
            Input::Held { key, age_ms, answer, reply } => {
                self.on_held(now, (key, age_ms), answer, reply);
            }
            Input::HandedIn { key, answer } => self.on_handed_in(now, key, answer),
            Input::HeldLost(key) => {
                self.held.on_lost(key);
                self.tell_held();
            }
            Input::Welcomed { attempt, welcome, reply } => {
                let registration = (attempt == self.attempts)
                    .then(|| worker.on_welcome(now, &welcome, &mut self.out))
                    .flatten();
                // The attempt may be gone; then the number was not sent.
                let _ = reply.send(registration);
            }
            Input::Dialed { attempt, result } if attempt == self.attempts => {
                self.dialing = None;
                match result {
                    Ok(done) => self.on_registered(now, done.0, done.1),
                    Err(error) => {
                        tracing::info!(%error, "not taken in");
                        worker.on_dial_failed(now);
                    }
                }
            }
            Input::Dialed { .. } => {}
            Input::StorePolled(polled) => {
                self.watch.on_answer(&polled);
                log_store_change(now, self.watch.on_state(now, polled.is_ok()));
                match polled {
                    Ok(view) => {
                        self.login_asks.on_store_reached();
                        self.on_store_view(now, view);
                    }
                    Err(_) => {
                        worker.on_store_away(now);
                        self.set_reaches_store(false);
                        self.ask_for_login(now);
                    }
                }
            }
            Input::GapsFound(boards) => worker.on_gaps(now, boards),
            Input::Applied(applied) => {
                let written = applied.is_some();
                worker.on_written(now, written, applied.map(gaps).unwrap_or_default());
            }
            Input::Repaired { board, progress, lacks } => {
                worker.on_repaired(now, &board, progress, lacks);
            }
            Input::SessionsRepaired(round) => {
                let Round { goes_on, gaps, next } = round.unwrap_or_default();
                worker.on_gaps(now, gaps);
                worker.on_sessions_repaired(now, goes_on, next);
            }
            Input::KeyVerified { link, result } => self.on_key_verified(link, result),
            Input::Assigned(ended) => {
                for (id, written) in ended {
                    self.on_assigned(now, &id, written);
                }
            }
        }
        self.carry();
    }

    /// Leaves the master if a login is wanted and it is time: the next Welcome may bring one.
    fn ask_for_login(&mut self, now: Mono) {
        let slot = self.parts.dialer.login.as_ref();
        if let (true, Some(link)) = (slot.is_some_and(LoginSlot::is_wanted), &self.link)
            && !self.is_ending()
            && self.login_asks.leaves(now)
        {
            tracing::info!(
                "this worker has no login that the store takes: it asks for another one"
            );
            link.close(Close { reason: CloseReason::Leaving, retry_ms: 0 });
        }
    }

    fn on_store_view(&mut self, now: Mono, view: StoreView) {
        let worker = &mut self.parts.worker;
        worker.on_masters(now, view.masters, &mut self.out);
        self.set_reaches_store(true);
        let (database, ends) = (self.parts.database.clone(), self.parts.own_ends.clone());
        self.spawn("observe", async move {
            let applied = database.observe(view.boards).await?;
            database.tell_ends(&ends).await;
            Some(Input::GapsFound(gaps(applied)))
        });
    }

    fn on_registered(&mut self, now: Mono, secured: SecureStream, received: ReceivedWelcome) {
        let ReceivedWelcome { welcome, cluster, keys, .. } = received;
        let Some(keys) = keys else {
            tracing::warn!("the Welcome has no keys");
            self.parts.worker.on_dial_failed(now);
            return;
        };
        let env = &self.parts.env;
        self.links_made += 1;
        let limits = LinkLimits::of(&self.parts.config);
        let id = LinkId(self.links_made);
        let (driver, events) = (self.driver.clone(), self.parts.links.clone());
        let link = Link::start(env, id, secured, limits, driver, events);
        link.beat(self.beat());
        if let Err(error) = link.subscribe(&Topic::ALL) {
            tracing::warn!(%error, "not subscribed");
        }
        self.cluster = Some(cluster);
        self.link = Some(link);
        self.parts.worker.on_registered(now, &welcome, &mut self.out);
        self.held.on_registered();
        self.login_asks.on_registered(now);
        if !self.held.is_empty() {
            self.tell_held();
        }
        let registration = self.parts.worker.registration().unwrap_or_default();
        let senders_max = self.parts.config.directory_max;
        let fanout = Fanout::new(env, self.parts.node, registration.0, keys, senders_max);
        self.begin_keys(fanout);
    }

    fn on_assigned(&mut self, now: Mono, id: &BatchId, written: Written) {
        answer_call(self.batches.finish(id, &written.reply));
        match written.reply {
            AssignReply::StoreAway { .. } => {
                self.set_reaches_store(false);
                // It may have been one slow write: poll again before the masters heed it for long.
                self.parts.poll_now.notify_one();
            }
            // Says nothing of the store.
            AssignReply::Busy => {}
            _ => self.set_reaches_store(true),
        }
        if let Some(update) = written.update {
            self.parts.worker.on_update(now, update, &mut self.out);
        }
    }

    fn on_incoming(&mut self, id: LinkId, incoming: Incoming) {
        if self.link.as_ref().is_none_or(|link| link.id() != id) {
            return;
        }
        let now = self.now();
        let worker = &mut self.parts.worker;
        match incoming {
            Incoming::Request { request, reply } => self.serve(request, reply),
            Incoming::Direct(Direct::Digest { digest }) => {
                worker.on_digest(digest, &mut self.out);
            }
            Incoming::Direct(Direct::Members(members)) => {
                worker.on_members(now, members, &mut self.out);
            }
            Incoming::Direct(Direct::KeyInstall(install)) => {
                self.on_key_message(KeyMessage::Install(install));
            }
            Incoming::Direct(Direct::KeyUse(epoch)) => {
                self.on_key_message(KeyMessage::Use(epoch));
            }
            // Between masters, and from workers to masters.
            Incoming::Direct(
                Direct::Updates(_)
                | Direct::WorkerStatus(_)
                | Direct::KeyHeld(_)
                | Direct::KeyAlarm(_)
                | Direct::Holds(_),
            ) => {}
            Incoming::Envelope(envelope) => {
                for update in self.open(&envelope).into_iter().flatten() {
                    self.parts.worker.on_update(now, update, &mut self.out);
                }
            }
            Incoming::Beat(beat) => {
                self.held.on_beat(beat.reaches_store);
                self.login_asks.on_beat(beat.reaches_store);
            }
            // A worker publishes nothing now.
            Incoming::Subscribed(_) => {}
            Incoming::Closed(end) => {
                tracing::info!(%end, "the link to the master ended");
                self.link = None;
                self.leaves_since = None;
                self.held.on_beat(false);
                self.drop_keys();
                let said = match &end {
                    LinkEnd::ClosedByPeer(close) => Some(close),
                    _ => None,
                };
                self.parts.worker.on_link_ended(now, said, &mut self.out);
            }
        }
        self.carry();
    }

    fn serve(&mut self, request: Request, reply: Responder) {
        let database = self.parts.database.clone();
        match request {
            Request::Assign(batches) => self.on_assign(batches, reply),
            Request::Read { board, range, limit } => self.spawn("read", async move {
                let page = database.read(move |replica| replica.read(&board, range, limit)).await;
                answer(reply, &Response::Page(page.flatten()));
                None
            }),
            Request::Session(key) => self.spawn("session", async move {
                let row = database.read(move |replica| replica.session(key)).await;
                answer(reply, &Response::Session(row.flatten()));
                None
            }),
            Request::CopyDigests { .. } => self.spawn("copy-digests", async move {
                let digests = database.read(session_repair::digests).await;
                answer(reply, &Response::CopyDigests(digests));
                None
            }),
            Request::CopySessions { bucket, after, .. } => {
                self.spawn("copy-sessions", async move {
                    let page =
                        database.read(move |replica| session_repair::page(replica, bucket, after));
                    answer(reply, &Response::CopySessions(page.await));
                    None
                })
            }
            Request::Hold { held, .. } => self.hold(held, 0, reply),
            Request::HandOver { held, age_ms, .. } => self.hold(held, age_ms, reply),
            Request::Drain => {
                tracing::info!("this worker ends: its master was asked to drain it");
                self.is_drained = true;
                let within_ms = u64::try_from(self.end_max().as_millis()).unwrap_or(u64::MAX);
                answer(reply, &Response::Draining { within_ms });
            }
            Request::HeldOf(user) => {
                answer(reply, &Response::HeldOf(self.held.of(user).collect()));
            }
            Request::Echo(bytes) => answer(reply, &Response::Echo(bytes)),
            Request::Forward(_) | Request::HandIn { .. } => answer(reply, &Response::NotServed),
        }
    }

    fn on_assign(&mut self, batches: Vec<Assign>, reply: Responder) {
        let mine = self.parts.worker.registration();
        let takes_none = self.is_ending() || self.has_all_batches(self.now());
        let room = if takes_none { 0 } else { BATCHES_MAX };
        let Begun { write, waits, answered } = self.batches.begin(mine, room, batches, reply);
        if waits {
            self.parts.env.sometimes("batch_asked_for_again_in_flight");
        }
        answer_call(answered);
        if write.is_empty() {
            return;
        }
        let (env, store) = (self.parts.env.clone(), self.parts.store.clone());
        let (me, limit) = (self.parts.node, self.parts.config.store_timeout);
        // Batches of a resource reach the store in the order in which they came.
        self.spawn(
            "batches",
            begun(async move {
                let all = write.iter().map(|one| assign::write(&env, &store, me, limit, one));
                let written = join_all(all).await;
                let ids =
                    write.into_iter().map(|one| (one.permission.resource, one.permission.token));
                Some(Input::Assigned(ids.zip(written).collect()))
            }),
        );
    }

    fn set_reaches_store(&mut self, reaches_store: bool) {
        self.reaches_store = reaches_store;
        self.send_beat();
    }

    /// Sends a heartbeat now.
    pub(super) fn send_beat(&self) {
        if let Some(link) = &self.link {
            link.beat(self.beat());
        }
    }

    /// Returns what heartbeats say. One that ends or leaves has nothing written any more, as one
    /// that does not reach the store.
    const fn beat(&self) -> Beat {
        let goes = self.is_ending() || self.leaves_since.is_some();
        Beat { reaches_store: self.reaches_store && !goes }
    }
}

/// Answers calls whose batches have all ended. A caller that gave up asks again, or its link is
/// gone.
fn answer_call(calls: impl IntoIterator<Item = Answered>) {
    for (reply, answers) in calls {
        answer(reply, &Response::Assign(answers));
    }
}

pub(super) fn answer(reply: Responder, response: &Response) {
    if let Err(error) = reply.send(response) {
        tracing::debug!(%error, "an answer");
    }
}

/// Returns the boards that lack posts after a write to the node database.
fn gaps(applied: ApplyReport) -> Vec<BoardName> {
    applied.gaps.into_iter().map(|gap| gap.board).collect()
}

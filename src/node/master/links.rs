//! Links of a master: accepts them, takes what comes over them, publishes over them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};

use super::{
    Driver,
    admission::AdmissionGate,
    held_ids::{self, Asked},
    input::{Arrival, Input},
};
use crate::{
    comm::{
        DriverStamp, Incoming, Link, LinkEnd, LinkLimits, Responder, SecureStream, SendError,
        connection_limit::NodePlaces,
        fanout::Fanout,
        handshake::{Acceptor, accept},
        seldom::Seldom,
    },
    config::Config,
    env::{Env, Listener},
    model::{
        event::Event,
        held::HoldReply,
        ids::{Domain, KeyEpoch, LinkId, NodeId, Role},
        message::{
            Beat, Close, CloseReason, Direct, Fact, Member, MemberState, Request, Response, Topic,
            Updates,
        },
        refusal::Refusal,
        time::Mono,
    },
    node::{
        inbox::Inputs,
        refusals::{Refusals, kind_of},
    },
    protocol::master::LinkOver,
};

/// The most posts in one answer to a node.
const READ_MAX: u32 = 500;
/// Shortest time between two log lines of one kind that strangers cause.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// The same for connections that the system cannot give us, for example for lack of descriptors.
const TELL_FAILED_EVERY: Duration = Duration::from_secs(60);

/// Accepts connections for as long as the node lives. Drops those over the bound at once.
pub(super) async fn accept_all(
    env: Env,
    mut listener: Box<dyn Listener>,
    gate: Arc<AdmissionGate>,
    acceptor: Arc<Acceptor>,
    places: NodePlaces,
    refused: Refusals,
    inputs: Inputs<Input>,
) {
    let (failures, drops) = (Seldom::new(TELL_FAILED_EVERY), Seldom::new(TELL_EVERY));
    let refusals = Arc::new(Seldom::new(TELL_EVERY));
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                if let Some(left_out) = failures.left_out(env.now()) {
                    tracing::warn!(%error, left_out, "a connection could not be taken");
                }
                env.sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(permit) = places.take(&from) else {
            refused.add(Refusal::Crowded);
            if let Some(left_out) = drops.left_out(env.now()) {
                tracing::warn!(from, left_out, "too many handshakes are under way");
            }
            continue;
        };
        let (places, host) = (places.clone(), Arc::clone(permit.host()));
        let (refusals, refused) = (Arc::clone(&refusals), refused.clone());
        let (of_node, gate) = (env.clone(), Arc::clone(&gate));
        let (acceptor, inputs) = (Arc::clone(&acceptor), inputs.clone());
        env.spawn("handshake", async move {
            match accept(&of_node, stream, gate.as_ref(), &acceptor, permit).await {
                Ok((secured, ready)) => {
                    places.met(&host);
                    let arrival = Box::new(Arrival { secured, ready });
                    let _ = inputs.send(Input::LinkAccepted(arrival)).await;
                }
                Err(error) => {
                    refused.add(kind_of(&error));
                    if let Some(left_out) = refusals.left_out(of_node.now()) {
                        tracing::info!(from, %error, left_out, "a node was not taken in");
                    }
                }
            }
        });
    }
}

/// State of a master that its heartbeats carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    /// A write of its own was done lately.
    pub is_strong: bool,
    /// It can have things written.
    pub can_write: bool,
    /// Another master that it is linked to can.
    pub has_successor: bool,
}

/// Links of a master, and what it publishes over them.
pub(super) struct Links {
    open: BTreeMap<LinkId, Link>,
    fanout: Fanout,
    limits: LinkLimits,
    driver: DriverStamp,
    /// Way of all links' events to the driver.
    events: mpsc::Sender<(LinkId, Incoming)>,
    last: u64,
    /// Resident bytes of the workers that are linked.
    memory: BTreeMap<NodeId, u64>,
    /// Numbers of posts that wait on the disks of workers, above 0.
    held: BTreeMap<LinkId, u32>,
    /// Places of questions for people's posts over each link.
    held_asks: BTreeMap<LinkId, Arc<Semaphore>>,
    /// Epoch in which it was last told of an open link that it was too full for a publish.
    full: BTreeMap<LinkId, KeyEpoch>,
    /// State that beats carry: strong, able to have things written, and to know somebody who is.
    state: State,
    /// Refusals on this node's port.
    pub(super) refusals: Refusals,
}

impl Links {
    pub(super) fn new(
        fanout: Fanout,
        config: &Config,
        events: mpsc::Sender<(LinkId, Incoming)>,
        refusals: Refusals,
    ) -> Self {
        Self {
            open: BTreeMap::new(),
            fanout,
            limits: LinkLimits::of(config),
            driver: DriverStamp::default(),
            events,
            last: 0,
            memory: BTreeMap::new(),
            held: BTreeMap::new(),
            held_asks: BTreeMap::new(),
            full: BTreeMap::new(),
            state: State::default(),
            refusals,
        }
    }

    /// Makes a link of a secured stream.
    fn start(&mut self, env: &Env, secured: SecureStream) -> (LinkId, Link) {
        self.last += 1;
        let id = LinkId(self.last);
        let (limits, driver, events) =
            (self.limits.clone(), self.driver.clone(), self.events.clone());
        let link = Link::start(env, id, secured, limits, driver, events);
        self.beat_on(&link);
        self.held_asks.insert(id, held_ids::places());
        (id, link)
    }

    /// Returns this master's part in the fanout, with the common keys that it holds.
    pub(super) const fn fanout(&mut self) -> &mut Fanout {
        &mut self.fanout
    }

    /// Returns the domain of this life of the master.
    pub(super) fn domain(&self) -> Domain {
        self.fanout.domain()
    }

    pub(super) fn get(&self, id: LinkId) -> Option<&Link> {
        self.open.get(&id)
    }

    /// Returns the links to workers, in the order in which they were made.
    pub(super) fn workers(&self) -> impl Iterator<Item = &Link> {
        self.open.values().filter(|link| link.peer().role == Role::Worker)
    }

    /// Returns a worker's resident memory in bytes, as it last said.
    pub(super) fn resident_bytes(&self, node: &NodeId) -> Option<u64> {
        self.memory.get(node).copied()
    }

    /// Returns the workers on whose disks posts wait, to be asked for those of a person.
    pub(super) fn holders(&self) -> impl Iterator<Item = Asked> {
        self.held.keys().filter_map(|id| self.asked(*id))
    }

    /// Returns a node that is linked, to be asked for a person's posts that wait.
    pub(super) fn asked(&self, id: LinkId) -> Option<Asked> {
        let (link, places) = (self.open.get(&id)?, self.held_asks.get(&id)?);
        Some(Asked { link: link.clone(), places: Arc::clone(places) })
    }

    /// Returns the number of posts that wait on a worker's disk, as it last said.
    pub(super) fn held_by(&self, node: &NodeId) -> u32 {
        let of = |(id, held): (&LinkId, &u32)| {
            self.open.get(id).filter(|link| link.peer().node == *node).map(|_| *held)
        };
        self.held.iter().find_map(of).unwrap_or(0)
    }

    /// Returns which releases the nodes with links run, as far as they say so.
    pub(super) fn releases(&self) -> BTreeMap<NodeId, &str> {
        let peers = self.open.values().map(Link::peer);
        peers.filter_map(|peer| Some((peer.node, peer.release.as_deref()?))).collect()
    }

    /// Returns whether this master is strong, as it last said.
    pub(super) const fn is_strong(&self) -> bool {
        self.state.is_strong
    }

    /// Has the beats of all links carry a new state.
    pub(super) fn set_state(&mut self, state: State) {
        if self.state != state {
            self.state = state;
            for link in self.open.values() {
                self.beat_on(link);
            }
        }
    }

    /// Sets what heartbeats say: to a worker, whether this master takes held posts; to a master,
    /// whether it can have things written.
    fn beat_on(&self, link: &Link) {
        let reaches_store = match link.peer().role {
            Role::Worker => self.state.is_strong || self.state.has_successor,
            Role::Master => self.state.can_write,
        };
        link.beat(Beat { reaches_store });
    }

    /// Notes a turn of the driver, or its end: without a turn in each interval the links fall
    /// silent.
    pub(super) fn stamp(&self, turn: Option<Mono>) {
        match turn {
            Some(now) => self.driver.set(now),
            None => self.driver.clear(),
        }
    }

    pub(super) fn close_all(&self, close: Close) {
        for link in self.open.values() {
            link.close(close);
        }
    }

    /// Relays what a worker published: the same bytes go to all other workers that want them.
    fn relay(&mut self, from: LinkId, envelope: &Bytes) {
        let Some(sender) = self.open.get(&from) else { return };
        match self.fanout.relay(sender.peer().node, envelope) {
            Ok(topic) => {
                // What a worker says is for its fellows: this master's own truth is the store.
                for (id, link) in &self.open {
                    if *id != from && link.peer().role == Role::Worker && link.wants(topic) {
                        // A member that cannot keep up finds the gap and asks.
                        let _ = link.publish(envelope.clone());
                    }
                }
            }
            Err(error) => {
                self.refusals.add(Refusal::Envelope);
                tracing::warn!(%error, "a publish was not relayed");
                sender.close(Close { reason: CloseReason::Violation, retry_ms: 1000 });
            }
        }
    }

    /// Publishes to the workers that want it, sealed once; what is for masters alone to none.
    pub(super) fn fan_out(&mut self, env: &Env, updates: &Updates) {
        let wants = |link: &&Link| link.wants(updates.topic());
        if updates.topic() == Topic::Presence || !self.workers().any(|link| wants(&link)) {
            return;
        }
        match self.fanout.seal(updates) {
            Ok(envelope) => {
                let mut full = Vec::new();
                for link in self.workers().filter(wants) {
                    // A member that cannot keep up finds the gap and asks.
                    if link.publish(envelope.clone()) == Err(SendError::Full) {
                        full.push((link.id(), link.peer().node));
                    }
                }
                self.tell_full(env, full);
            }
            Err(error) => tracing::error!(%error, "updates could not be sealed"),
        }
    }

    /// Tells once an epoch of each link that was too full for a publish.
    fn tell_full(&mut self, env: &Env, full: Vec<(LinkId, NodeId)>) {
        if full.is_empty() {
            return;
        }
        let in_use = self.fanout.in_use();
        self.full.retain(|id, _| self.open.contains_key(id));
        for (id, node) in full {
            if self.full.insert(id, in_use) != Some(in_use) {
                env.event(&Event::FanoutFull { node });
            }
        }
    }
}

impl Driver {
    pub(super) fn on_arrival(&mut self, arrival: Arrival) {
        let Arrival { secured, ready } = arrival;
        let peer = secured.peer.clone();
        let (id, link) = self.links.start(&self.env, secured);
        let now = self.env.now();
        // The gate may have read of an expulsion before the driver.
        self.cut_expelled();
        let is_denied = self.gate.lists().is_denied(&peer.node);
        match peer.role {
            _ if is_denied => link.close(Close { reason: CloseReason::Expelled, retry_ms: 0 }),
            Role::Worker => {
                let member = Member {
                    fact: Fact {
                        node: peer.node,
                        role: Role::Worker,
                        registration: ready.registration,
                        state: MemberState::In,
                        master: self.me.holder.node,
                    },
                    name: peer.name,
                    link: None,
                    http: None,
                    spki: peer.spki,
                };
                if let Err(close) = self.core.on_worker(now, id, member, ready.epoch, &mut self.out)
                {
                    link.close(close);
                }
            }
            Role::Master => self.core.on_master(now, id, peer.node, &mut self.out),
        }
        self.links.open.insert(id, link);
        self.note_directory();
    }

    pub(super) fn on_incoming(&mut self, id: LinkId, event: Incoming) {
        let now = self.env.now();
        let Some(link) = self.links.get(id) else { return };
        let role = link.peer().role;
        match event {
            Incoming::Request { request, reply } => self.on_request(id, request, reply),
            Incoming::Direct(direct) => self.on_direct(id, role, direct),
            Incoming::Envelope(envelope) => self.links.relay(id, &envelope),
            Incoming::Subscribed(_) => {}
            Incoming::Beat(beat) => self.core.on_beat(now, id, beat, &mut self.out),
            Incoming::Closed(end) => {
                if matches!(end, LinkEnd::Violation(_)) {
                    self.links.refusals.add(Refusal::Violation);
                }
                let over = match &end {
                    LinkEnd::ClosedByPeer(Close { reason: CloseReason::Leaving, .. }) => {
                        LinkOver::Left
                    }
                    other => LinkOver::Lost(other.to_string()),
                };
                let peer = link.peer().node;
                tracing::info!(peer = %peer.short(), %end, "a link ended");
                self.links.open.remove(&id);
                // If it is back already it says so again soon.
                self.links.memory.remove(&peer);
                self.links.held.remove(&id);
                self.links.held_asks.remove(&id);
                self.core.on_link_over(now, id, &over, &mut self.out);
                self.note_directory();
            }
        }
    }

    fn on_request(&mut self, id: LinkId, request: Request, reply: Responder) {
        let Some(peer) = self.links.get(id).map(|link| link.peer().clone()) else { return };
        let response = match request {
            Request::Forward(tasks) if peer.role == Role::Master && !tasks.is_empty() => {
                let now = self.env.now();
                let taken = self.core.on_forwarded(now, peer.node, tasks, &mut self.out);
                return self.waiters.add_call(now, reply, taken);
            }
            Request::Read { board, range, limit } => {
                return self.serve_read(peer.role, board, range, limit.min(READ_MAX), reply);
            }
            Request::Session(key) if peer.role == Role::Master => {
                return self.serve_session(key, reply);
            }
            Request::CopyDigests { turn } => {
                let request = |turn| Request::CopyDigests { turn };
                return self.pass_on(id, peer.role, turn, request, reply);
            }
            Request::CopySessions { turn, bucket, after } => {
                let request = |turn| Request::CopySessions { turn, bucket, after };
                return self.pass_on(id, peer.role, turn, request, reply);
            }
            // A worker of the release before says neither the age nor how many copies it wants.
            Request::Hold { held, .. } if peer.role == Role::Worker => {
                let answer = |copies: u32| {
                    let is_held = copies > 0;
                    Response::Hold(if is_held { HoldReply::Held } else { HoldReply::Failed })
                };
                return self.hand_over(id, held, 0, answer, reply);
            }
            Request::HandOver { held, age_ms, .. } if peer.role == Role::Worker => {
                let answer = |copies| Response::HandOver { copies };
                return self.hand_over(id, held, age_ms, answer, reply);
            }
            Request::Hold { held, copy } => return self.pass_hold(held, copy, 0, reply),
            Request::HandOver { held, copy, age_ms } => {
                return self.pass_hold(held, copy, age_ms, reply);
            }
            Request::HeldOf(user) if peer.role == Role::Master => {
                return self.pass_held_of(user, reply);
            }
            Request::HandIn { held, age_ms } if peer.role == Role::Worker => {
                return self.on_hand_in(held, age_ms, reply);
            }
            Request::Echo(bytes) => Response::Echo(bytes),
            Request::Forward(_)
            | Request::Assign(_)
            | Request::Session(_)
            | Request::HeldOf(_)
            | Request::HandIn { .. }
            | Request::Drain => Response::NotServed,
        };
        let _ = reply.send(&response);
    }

    /// Passes a question about node databases on: a worker's to another worker or to a master, a
    /// master's to a worker. These take turns by `turn`.
    fn pass_on(
        &self,
        from: LinkId,
        role: Role,
        turn: u32,
        request: impl FnOnce(u32) -> Request,
        reply: Responder,
    ) {
        let others: Vec<_> = self
            .links
            .open
            .iter()
            .filter(|(id, link)| {
                **id != from && (role == Role::Worker || link.peer().role == Role::Worker)
            })
            .map(|(_, link)| link)
            .collect();
        let count = u32::try_from(others.len()).unwrap_or(u32::MAX).max(1);
        let Some(link) = others.get((turn % count) as usize).map(|link| (*link).clone()) else {
            let _ = reply.send(&Response::NotServed);
            return;
        };
        let (request, limit) = (request(turn / count), self.config.store_timeout);
        self.env.spawn("pass-on", async move {
            let answer = link.call(request, limit).await.unwrap_or(Response::NotServed);
            let _ = reply.send(&answer);
        });
    }

    fn on_direct(&mut self, id: LinkId, role: Role, direct: Direct) {
        let now = self.env.now();
        match direct {
            Direct::Digest { digest } => self.core.on_digest(id, digest, &mut self.out),
            Direct::Members(members) => {
                self.core.on_members(now, id, members, &mut self.out);
                self.note_directory();
            }
            Direct::Updates(updates) if role == Role::Master => self.on_updates(id, updates),
            // A worker has no updates of its own, and its word on others' would be forged.
            Direct::Updates(_) => {}
            Direct::KeyHeld(epoch) => self.core.on_key_held(id, epoch),
            Direct::KeyAlarm(epoch) => self.on_key_alarm(id, epoch),
            // A master takes keys from nobody.
            Direct::KeyInstall(_) | Direct::KeyUse(_) => {}
            Direct::Holds(0) => drop(self.links.held.remove(&id)),
            Direct::Holds(posts) if role == Role::Worker => {
                self.links.held.insert(id, posts);
            }
            Direct::Holds(_) => {}
            Direct::WorkerStatus(status) => {
                if status.resident_bytes > 0
                    && let Some(link) = self.links.get(id)
                {
                    let node = link.peer().node;
                    self.links.memory.insert(node, status.resident_bytes);
                }
            }
        }
    }
}

//! Links: taking them, hearing them, and relaying what is published on them.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{Done, Driver, Waiter, admission::AdmissionGate, effects};
use crate::{
    comm::{
        Incoming, Link, LinkEnd, Responder, SecureStream,
        connection_limit::ConnectionLimit,
        handshake::{Acceptor, Ready, accept},
    },
    env::{Env, Listener},
    model::{
        ids::{LinkId, Post, Role},
        message::{
            Beat, Close, CloseReason, Direct, Fact, Member, MemberState, Request, Response, Update,
        },
        rows::{Page, Range},
        time::Mono,
    },
    protocol::{board::TailChange, master::LinkOver},
};

/// The most posts of one answer to a node.
const READ_MAX: u32 = 500;
/// Between two lines on connections that were dropped.
const TELL_DROPPED_EVERY: Duration = Duration::from_secs(1);

/// A secured stream, ready to become a link.
pub(super) struct Arrival {
    pub(super) secured: SecureStream,
    pub(super) ready: Ready,
}

/// Takes connections for as long as the node lives. One over the bound is dropped at once.
pub(super) async fn accept_all(
    env: Env,
    mut listener: Box<dyn Listener>,
    gate: Arc<AdmissionGate>,
    acceptor: Arc<Acceptor>,
    connections: ConnectionLimit,
    done: mpsc::Sender<Done>,
) {
    let (mut told_at, mut dropped): (Option<Mono>, u64) = (None, 0);
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                env.sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(permit) = connections.take(&from) else {
            dropped += 1;
            // What strangers do must not fill the log.
            let now = env.now();
            if told_at.is_none_or(|at| now.since(at) >= TELL_DROPPED_EVERY) {
                tracing::warn!(from, dropped, "too many handshakes are under way");
                (told_at, dropped) = (Some(now), 0);
            }
            continue;
        };
        let (of_node, gate) = (env.clone(), Arc::clone(&gate));
        let (acceptor, done) = (Arc::clone(&acceptor), done.clone());
        env.spawn("handshake", async move {
            match accept(&of_node, stream, gate.as_ref(), &acceptor, permit).await {
                Ok((secured, ready)) => {
                    let arrival = Box::new(Arrival { secured, ready });
                    let _ = done.send(Done::Accepted(arrival)).await;
                }
                Err(error) => tracing::info!(from, %error, "a node was not taken in"),
            }
        });
    }
}

impl Driver {
    pub(super) fn on_arrival(&mut self, arrival: Arrival) {
        let Arrival { secured, ready } = arrival;
        self.last_link += 1;
        let id = LinkId(self.last_link);
        let peer = secured.peer.clone();
        let incoming = self.to_incoming.clone();
        let link = Link::start(&self.env, id, secured, self.limits.clone(), incoming);
        self.beat_on(&link, self.said);
        let now = self.env.now();
        match peer.role {
            Role::Worker => {
                let member = Member {
                    fact: Fact {
                        node: peer.node,
                        role: Role::Worker,
                        registration: ready.registration,
                        state: MemberState::In,
                        master: self.holder.node,
                    },
                    name: peer.name,
                    link: None,
                    http: None,
                    spki: peer.spki,
                };
                if let Err(close) = self.core.on_worker(now, id, member, &mut self.out) {
                    link.close(close);
                }
            }
            Role::Master => self.core.on_master(now, id, peer.node, &mut self.out),
        }
        self.links.insert(id, link);
        self.note_directory();
    }

    /// What heartbeats say: to a worker, whether this master is strong; to a master, whether
    /// it can have things written.
    pub(super) fn beat_on(&self, link: &Link, (strong, can_write): (bool, bool)) {
        let reaches_store = match link.peer().role {
            Role::Worker => strong,
            Role::Master => can_write,
        };
        link.beat(Beat { reaches_store });
    }

    pub(super) fn on_incoming(&mut self, id: LinkId, event: Incoming) {
        let now = self.env.now();
        let Some(link) = self.links.get(&id) else { return };
        let role = link.peer().role;
        match event {
            Incoming::Request { request, reply } => self.on_request(id, request, reply),
            Incoming::Direct(direct) => self.on_direct(id, role, direct),
            Incoming::Envelope(envelope) => self.on_envelope(id, &envelope),
            Incoming::Subscribed(_) => {}
            Incoming::Beat(beat) => self.core.on_beat(now, id, beat, &mut self.out),
            Incoming::Closed(end) => {
                let over = match &end {
                    LinkEnd::ClosedByPeer(Close { reason: CloseReason::Leaving, .. }) => {
                        LinkOver::Left
                    }
                    other => LinkOver::Lost(other.to_string()),
                };
                let peer = link.peer().node;
                tracing::info!(peer = %peer.short(), %end, "a link ended");
                self.links.remove(&id);
                // If it is back already it says so again soon.
                self.memory.remove(&peer);
                self.core.on_link_over(now, id, &over, &mut self.out);
                self.note_directory();
            }
        }
    }

    fn on_request(&mut self, id: LinkId, request: Request, reply: Responder) {
        let Some(peer) = self.links.get(&id).map(|link| link.peer().clone()) else { return };
        let response = match request {
            Request::Forward(task) if peer.role == Role::Master => {
                let now = self.env.now();
                match self.core.on_forwarded(now, peer.node, task, &mut self.out) {
                    Ok(task) => {
                        self.waiters.insert(task, Waiter::Peer(reply));
                        self.deadlines.push_back((now + self.config.request_timeout, task));
                    }
                    Err(answer) => effects::respond(reply, answer),
                }
                return;
            }
            Request::Read { board, range, limit } => {
                self.serve_read(board, range, limit.min(READ_MAX), reply);
                return;
            }
            Request::Echo(bytes) => Response::Echo(bytes),
            Request::Forward(_) | Request::Assign(_) | Request::Session(_) => Response::NotServed,
        };
        let _ = reply.send(&response);
    }

    /// Posts for a node database: from memory, else from the store.
    fn serve_read(
        &self,
        board: crate::model::ids::BoardName,
        range: Range,
        limit: u32,
        reply: Responder,
    ) {
        if let Some(posts) = self.tails.read(&board, range, limit as usize) {
            let page = Page {
                posts: posts.iter().map(|post| Post::clone(post)).collect(),
                last_seq: self.tails.last(&board).unwrap_or_default(),
                epoch: self.tails.epoch(),
                as_of_ms: self.tails.as_of_ms(),
            };
            let _ = reply.send(&Response::Page(Some(page)));
            return;
        }
        let store = self.store.clone();
        self.env.spawn("serve-read", async move {
            let page = store.read(board, range, limit).await.ok();
            let _ = reply.send(&Response::Page(page));
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
            Direct::Update(Update::Members(members)) if role == Role::Master => {
                self.core.on_members(now, id, members, &mut self.out);
                self.note_directory();
            }
            Direct::Update(news) if role == Role::Master => {
                self.fan_out(&news);
                self.take_news(news);
            }
            // A worker has no news of its own to tell, and its word on others' would be forged.
            Direct::Update(_) => {}
            Direct::WorkerStatus(status) => {
                if status.resident_bytes > 0
                    && let Some(link) = self.links.get(&id)
                {
                    self.memory.insert(link.peer().node, status.resident_bytes);
                }
            }
        }
    }

    /// A member published: the same bytes go to all other members that want them.
    fn on_envelope(&mut self, from: LinkId, envelope: &Bytes) {
        let Some(sender) = self.links.get(&from).map(|link| link.peer().node) else { return };
        match self.fanout.relay(sender, envelope) {
            Ok(topic) => {
                // What a worker says is for its fellows: this master's own truth is the store.
                for (id, link) in &self.links {
                    if *id != from && link.peer().role == Role::Worker && link.wants(topic) {
                        // A member that cannot keep up finds the gap and asks.
                        let _ = link.publish(envelope.clone());
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a publish was not relayed");
                if let Some(link) = self.links.get(&from) {
                    link.close(Close { reason: CloseReason::Violation, retry_ms: 1000 });
                }
            }
        }
    }

    /// Seals once, sends to all members that want it.
    pub(super) fn fan_out(&mut self, news: &Update) {
        let wants = |link: &&Link| link.peer().role == Role::Worker && link.wants(news.topic());
        if !self.links.values().any(|link| wants(&link)) {
            return;
        }
        match self.fanout.seal(news) {
            Ok(envelope) => {
                for link in self.links.values().filter(wants) {
                    let _ = link.publish(envelope.clone());
                }
            }
            Err(error) => tracing::error!(%error, "news could not be sealed"),
        }
    }

    /// Update that are true now, from wherever: tails, streams and sessions follow.
    pub(super) fn take_news(&mut self, news: Update) {
        match news {
            Update::Posts { epoch, board, posts, .. } => {
                match self.tails.apply(epoch, &board, &posts) {
                    TailChange::Extended { .. } => self.deliver(&board),
                    TailChange::Gap { have, .. } => self.fetch(board, have),
                    TailChange::NewEpoch => self.poll_at = self.env.now(),
                    TailChange::Duplicate | TailChange::OldEpoch => {}
                    TailChange::Malformed => tracing::warn!(%board, "malformed news of posts"),
                }
            }
            Update::BoardCreated(board) => {
                self.tails.on_created(&board);
            }
            Update::Session(row) => self.sessions.put(row),
            Update::SessionClosed(key) => self.on_session_closed(key),
            Update::ReadMark { key, board, seq } => self.sessions.raise_mark(&key, board, seq),
            Update::PresenceChanged => self.want_users(),
            Update::Members(_) => {}
        }
    }
}

//! A worker's decisions: whom it registers with, what it knows of the others, what its node
//! database is fed. Inputs go in, effects come out; a driver carries them out in order.
//!
//! ```text
//!             Dial            on_welcome, on_registered
//!  searching ─────► dialing ───────────────────────────► registered
//!      ▲  ▲            │ on_dial_failed                        │
//!      │  └────────────┘                                       │ the link ended, or it is told
//!      └───────────────────────────────────────────────────────┘ that this registration failed
//! ```
//!
//! 1. A registration is numbered above all that this worker, its disk and the Welcome's
//!    directory know of it, once per Welcome.
//! 2. At most one master is dialled or linked at a time.
//! 3. Work is taken under the number of this link only.
//! 4. A newer fact of another node is announced once in this life, and kept.
//! 5. Who hears that its own registration is over registers again, with the same master first.

mod link;
mod membership;
pub mod replication;
#[cfg(test)]
mod tests;

use std::time::Duration;

use self::replication::Replication;
use super::{gossip::Gossip, master_watch::MasterWatch, registry::Registry, search::Search};
use crate::{
    config::Config,
    model::{
        event::{Event, FaultPoint},
        ids::{BoardName, Domain, NodeId, Registration, Role},
        message::{CloseReason, Direct, Fact, Member, MemberState, Update},
        time::Mono,
    },
};

/// Between two [`Effect::SendStatus`].
pub const STATUS_INTERVAL: Duration = Duration::from_secs(2);

/// What the driver is to do. In order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Dial the master at this address. Its Welcome is [`Worker::on_welcome`]'s, the end of the
    /// handshake [`Worker::on_registered`]'s or [`Worker::on_dial_failed`]'s.
    Dial(String),
    /// Say goodbye on the link and forget it.
    CloseLink(CloseReason),
    /// Send this to the master.
    Send(Direct),
    /// Tell the master how this worker is.
    SendStatus,
    /// Write this group to the node database, then [`Worker::on_written`].
    Write(Vec<Update>),
    /// Ask the master, then the store, for what this board lacks, then [`Worker::on_repaired`].
    Repair(BoardName),
    /// Keep these members in the node database.
    KeepMembers(Vec<Member>),
    /// Write an event line.
    Event(Event),
    /// Announce a moment.
    FaultPoint(FaultPoint),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// Looks for a master; the next step is due then.
    Searching { next: Mono },
    /// Was told to dial this one.
    Dialing { addr: String },
    /// Works for this one.
    Registered { addr: String, domain: Domain, registration: Registration },
}

/// Who this worker is and what it knew before.
#[derive(Clone, Debug)]
pub struct Start {
    /// Its id.
    pub node: NodeId,
    /// Its name for people.
    pub name: String,
    /// Its identity's public key, SPKI DER.
    pub spki: Vec<u8>,
    /// The highest number that it ever registered under, as its disk says.
    pub registration: Registration,
    /// The masters that its configuration names.
    pub masters: Vec<String>,
    /// The directory that its node database kept: where masters were.
    pub kept: Vec<Member>,
    /// A random number: where in its list it begins.
    pub draw: u64,
}

/// The state of one worker.
#[derive(Clone, Debug)]
pub struct Worker {
    /// Itself, under the highest number that it knows.
    own: Member,
    phase: Phase,
    search: Search,
    registry: Registry,
    watch: MasterWatch,
    gossip: Gossip,
    replication: Replication,
    digest_at: Mono,
    digest_interval: Duration,
    status_at: Mono,
}

impl Worker {
    /// A worker that begins to search.
    #[must_use]
    pub fn new(now: Mono, config: &Config, start: Start) -> Self {
        let mut search = Search::new(&start.masters, config.search_backoff_max, start.draw);
        search.on_directory(&start.kept);
        let kept = start.kept.iter().find(|member| member.fact.node == start.node);
        let kept = kept.map_or_else(Registration::default, |member| member.fact.registration);
        let fact = Fact {
            node: start.node,
            role: Role::Worker,
            registration: start.registration.max(kept),
            state: MemberState::Left,
            master: start.node,
        };
        let own = Member { fact, name: start.name, link: None, http: None, spki: start.spki };
        Self {
            own,
            phase: Phase::Searching { next: now },
            search,
            registry: Registry::new(config.directory_max),
            watch: MasterWatch::new(config.master_out_after),
            gossip: Gossip::default(),
            replication: Replication::default(),
            digest_at: now,
            digest_interval: config.digest_interval,
            status_at: now,
        }
    }

    /// The registration under which work is taken; `None` while it has none.
    #[must_use]
    pub const fn registration(&self) -> Option<Registration> {
        match &self.phase {
            Phase::Registered { registration, .. } => Some(*registration),
            _ => None,
        }
    }

    /// The domain that it is in.
    #[must_use]
    pub const fn domain(&self) -> Option<Domain> {
        match &self.phase {
            Phase::Registered { domain, .. } => Some(*domain),
            _ => None,
        }
    }

    /// Who is in, as far as it knows.
    #[must_use]
    pub const fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Does what is due by the clock. `draw` is a random number for a wait's jitter.
    pub fn on_timer(&mut self, now: Mono, draw: u64, out: &mut Vec<Effect>) {
        match &self.phase {
            Phase::Searching { next } if *next <= now => self.search_on(now, draw, out),
            Phase::Registered { .. } => {
                if self.digest_at <= now {
                    self.digest_at = now + self.digest_interval;
                    out.push(Effect::Send(Gossip::digest(&self.registry)));
                }
                if self.status_at <= now {
                    self.status_at = now + STATUS_INTERVAL;
                    out.push(Effect::SendStatus);
                }
            }
            _ => {}
        }
        out.extend(self.replication.next_group(now).map(Effect::Write));
        while let Some(board) = self.replication.next_repair(now) {
            out.push(Effect::Repair(board));
        }
    }

    /// When to call [`Worker::on_timer`] next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        let phase = match &self.phase {
            Phase::Searching { next } => Some(*next),
            Phase::Dialing { .. } => None,
            Phase::Registered { .. } => Some(self.digest_at.min(self.status_at)),
        };
        phase.into_iter().chain(self.replication.next_deadline()).min()
    }

    /// Posts, boards or sessions were told of, or written by this worker.
    pub fn on_update(&mut self, now: Mono, news: Update, out: &mut Vec<Effect>) {
        match news {
            Update::Members(members) => self.on_members(now, members, out),
            // The list of people is the masters'.
            Update::PresenceChanged => {}
            news => self.replication.on_update(now, news),
        }
    }

    /// A group was written, or not; these boards lack posts.
    pub fn on_written(&mut self, now: Mono, written: bool, gaps: Vec<BoardName>) {
        self.replication.on_written(now, written, gaps);
    }

    /// The store's boards were held against the node database: these lack posts.
    pub fn on_gaps(&mut self, now: Mono, boards: Vec<BoardName>) {
        for board in boards {
            self.replication.on_gap(now, board);
        }
    }

    /// A repair ended: whether it brought posts, and whether the board still lacks some.
    pub fn on_repaired(&mut self, now: Mono, board: &BoardName, progress: bool, lacks: bool) {
        self.replication.on_repaired(now, board, progress, lacks);
    }
}

//! Decisions of a worker: its search for a master, its registration, its directory of the other
//! nodes, and the feed of its node database.
//!
//! Inputs go in, effects come out; a driver carries them out in order.
//!
//! ```text
//!             Dial            on_welcome, on_registered
//!  searching ─────► dialing ───────────────────────────► registered
//!      ▲  ▲            │ on_dial_failed                        │
//!      │  └────────────┘                                       │ the link ended, or a fact says
//!      └───────────────────────────────────────────────────────┘ that this registration failed
//! ```
//!
//! 1. The number of a registration is above all numbers of this worker that it, its disk and the
//!    Welcome's directory know; each Welcome gets one.
//! 2. At most one master is dialed or linked at a time.
//! 3. Work is taken under the registration of the current link only.
//! 4. A newer fact of another node is announced once in this life, and kept.
//! 5. A worker that learns that its registration is over registers again, with the same master
//!    first.
//! 6. Boards are repaired while the worker is registered: one that was expelled, or does not know yet
//!    whether it was, reads no further post from a store that cannot refuse it.
//! 7. A worker whose master is cut from the store, or has many more workers than another, moves,
//!    once the batches that it has are answered.

mod link;
mod membership;
pub mod moving;
pub mod replication;
#[cfg(test)]
mod tests;

use std::time::Duration;

use self::{moving::Moving, replication::Replication};
use super::{
    gossip::Gossip,
    master_watch::MasterWatch,
    registry::Registry,
    search::Search,
    session_repair::{RoundStart, SessionRepair},
};
use crate::{
    config::Config,
    model::{
        event::{Event, FaultPoint},
        ids::{BoardName, Domain, NodeId, Registration, Role},
        message::{CloseReason, Direct, Fact, Member, MemberState, Update},
        time::Mono,
    },
};

/// Interval between two [`Effect::SendStatus`].
pub const STATUS_INTERVAL: Duration = Duration::from_secs(2);

/// Action for the driver. Effects are carried out in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Dial the master at this address. Call [`Worker::on_welcome`] with its Welcome, and
    /// [`Worker::on_registered`] or [`Worker::on_dial_failed`] at the end of the handshake.
    Dial(String),
    /// Send this reason on the link, then close the link.
    CloseLink(CloseReason),
    /// Tell the master to give out no more batches to this worker, answer those that it has, then
    /// call [`Worker::on_batches_answered`].
    FinishBatches,
    /// Send this message to the master.
    Send(Direct),
    /// Send the worker's status to the master.
    SendStatus,
    /// Write this group to the node database, then call [`Worker::on_written`].
    Write(Vec<Update>),
    /// Fetch the posts that this board lacks from the master, else from the store, then call
    /// [`Worker::on_repaired`].
    Repair(BoardName),
    /// Compare the sessions of the node database with the store's, or with another copy's, and
    /// repair those that differ, then call [`Worker::on_sessions_repaired`].
    RepairSessions(RoundStart),
    /// Keep these members in the node database.
    KeepMembers(Vec<Member>),
    /// Warn the operator that another process uses this worker's identity.
    WarnOfDouble,
    /// Write an event line.
    Event(Event),
    /// Announce a fault point.
    FaultPoint(FaultPoint),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// Searches for a master; the next step is due at `next`.
    Searching { next: Mono },
    /// Dials the master at `addr`.
    Dialing { addr: String },
    /// Works for the master at `addr`.
    Registered { addr: String, domain: Domain, registration: Registration },
}

/// Identity of a worker, and the state that it kept from earlier lives.
#[derive(Clone, Debug)]
pub struct Start {
    /// Worker's id.
    pub node: NodeId,
    /// Worker's name, for people.
    pub name: String,
    /// Public key of the worker's identity, SPKI DER.
    pub spki: Vec<u8>,
    /// Highest registration number that the worker ever used, from its disk.
    pub registration: Registration,
    /// Addresses of masters from the configuration.
    pub masters: Vec<String>,
    /// Directory kept in the node database, with the masters' last addresses, if it was read.
    pub kept: Vec<Member>,
    /// Random number that chooses where in its list the search begins.
    pub draw: u64,
}

/// State of one worker.
#[derive(Clone, Debug)]
pub struct Worker {
    /// This worker's own member, under the highest registration number known.
    own: Member,
    phase: Phase,
    search: Search,
    registry: Registry,
    watch: MasterWatch,
    moving: Moving,
    /// Master that the worker moves to when the batches that it has are answered.
    moves_to: Option<NodeId>,
    gossip: Gossip,
    replication: Replication,
    session_repair: SessionRepair,
    digest_at: Mono,
    digest_interval: Duration,
    status_at: Mono,
}

impl Worker {
    /// Creates a worker that begins to search for a master.
    #[must_use]
    pub fn new(now: Mono, config: &Config, start: Start) -> Self {
        let search = Search::new(&start.masters, config.search_backoff_max, start.draw);
        let fact = Fact {
            node: start.node,
            role: Role::Worker,
            registration: start.registration,
            state: MemberState::Left,
            master: start.node,
        };
        let own = Member { fact, name: start.name, link: None, http: None, spki: start.spki };
        let mut it = Self {
            own,
            phase: Phase::Searching { next: now },
            search,
            registry: Registry::new(config.directory_max),
            watch: MasterWatch::new(config.master_out_after),
            moving: Moving::new(config.store_poll_interval),
            moves_to: None,
            gossip: Gossip::default(),
            replication: Replication::default(),
            session_repair: SessionRepair::new(now),
            digest_at: now,
            digest_interval: config.digest_interval,
            status_at: now,
        };
        it.on_kept(&start.kept);
        it
    }

    /// Takes the directory that an earlier life kept in the node database.
    pub fn on_kept(&mut self, kept: &[Member]) {
        self.search.on_directory(kept);
        let own = &mut self.own.fact;
        let known = kept.iter().filter(|member| member.fact.node == own.node);
        let highest = known.map(|member| member.fact.registration).max();
        own.registration = highest.map_or(own.registration, |known| own.registration.max(known));
    }

    /// Returns the registration under which work is taken; `None` while there is none.
    #[must_use]
    pub const fn registration(&self) -> Option<Registration> {
        match &self.phase {
            Phase::Registered { registration, .. } => Some(*registration),
            _ => None,
        }
    }

    /// Returns the domain that the worker is registered in.
    #[must_use]
    pub const fn domain(&self) -> Option<Domain> {
        match &self.phase {
            Phase::Registered { domain, .. } => Some(*domain),
            _ => None,
        }
    }

    /// Returns the worker's directory of nodes.
    #[must_use]
    pub const fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Carries out what is due by time. `draw` is a random number for the jitter of a wait.
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
                out.extend(self.session_repair.begin(now, draw).map(Effect::RepairSessions));
            }
            _ => {}
        }
        out.extend(self.replication.next_group(now).map(Effect::Write));
        while self.registration().is_some()
            && let Some(board) = self.replication.next_repair(now)
        {
            out.push(Effect::Repair(board));
        }
    }

    /// Returns the time of the next [`Worker::on_timer`].
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        let (phase, repair) = match &self.phase {
            Phase::Searching { next } => (Some(*next), None),
            Phase::Dialing { .. } => (None, None),
            Phase::Registered { .. } => {
                let due = self.digest_at.min(self.status_at);
                let due = self.session_repair.next_deadline().map_or(due, |repair| due.min(repair));
                (Some(due), self.replication.repair_due())
            }
        };
        [phase, repair, self.replication.group_due()].into_iter().flatten().min()
    }

    /// Takes an update, from the master or written by this worker.
    pub fn on_update(&mut self, now: Mono, update: Update, out: &mut Vec<Effect>) {
        match update {
            Update::Members(members) => self.on_members(now, members, out),
            // Only masters keep the list of people, and tell their streams of posts.
            Update::PresenceChanged | Update::Pending { .. } => {}
            update => self.replication.on_update(now, update),
        }
    }

    /// Ends the write of a group; `gaps` are boards that lack posts.
    pub fn on_written(&mut self, now: Mono, written: bool, gaps: Vec<BoardName>) {
        self.replication.on_written(now, written, gaps);
    }

    /// Notes boards that lack posts in the node database, compared with the store.
    pub fn on_gaps(&mut self, now: Mono, boards: Vec<BoardName>) {
        for board in boards {
            self.replication.on_gap(now, board);
        }
    }

    /// Ends a round of repairs of sessions: `goes_on` if there is more to do at once, `next` is the bucket
    /// behind the last one that it came to, if it came to any.
    pub fn on_sessions_repaired(&mut self, now: Mono, goes_on: bool, next: Option<u8>) {
        self.session_repair.on_ended(now, goes_on, next);
    }

    /// Ends a repair: `progress` if it brought posts, `lacks` if the board still lacks some.
    pub fn on_repaired(&mut self, now: Mono, board: &BoardName, progress: bool, lacks: bool) {
        self.replication.on_repaired(now, board, progress, lacks);
    }
}

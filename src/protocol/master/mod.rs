//! Decisions of a master: takes inputs, returns effects in the order in which they are to be done.
//!
//! ```text
//!   people ──► submit ─┐                        ┌─► assign ──► a worker
//!   masters ─► forward ┤─► queue ─► permission ─┤
//!                      └── forwards ◄───────────└─► forward ─► another master
//! ```
//!
//! One file per source of input: `tasks` from people and peers, `attempts` answered by workers,
//! `forwards` answered by other masters, `leases` answered by the store, `members` for links and
//! membership facts, `dials` of other masters, `keys` for the domain's common key; `drain` for the end of
//! the master.
//!
//! 1. Every accepted task ends exactly once, by one [`Effect::End`] or, if it was
//!    forwarded here, one [`Effect::SendBack`].
//! 2. A resource has at most `batches_in_flight` batches in flight, at one registration of a worker,
//!    each under a token greater than every one before; when one falls, the later ones do.
//! 3. A forwarded task is never forwarded again.
//! 4. A worker in the failed list is registered nowhere here, so it is never picked. One that is known
//!    to end keeps what it has, and is picked for nothing more.
//! 5. A slot without work for `lease_idle` is let go with its lease; when slots run out, the least
//!    recently used idle one is.
//! 6. "Nothing was done" is said only of a task that was never sent anywhere.
//! 7. Only the end of an entry point moves work on: what decides marks slots, and sees no batch
//!    leave before it is done.

mod attempts;
mod dials;
mod drain;
mod forwards;
mod holding;
mod joins;
mod keys;
mod leases;
mod members;
mod tasks;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

pub use self::{
    attempts::{AttemptEnd, CallFailed},
    holding::{HoldEnd, held_by_turn},
    members::LinkOver,
};
use self::{dials::MasterDials, holding::Holding, joins::Joins};
use crate::{
    config::Config,
    model::{
        bounds::WORKER_CALLS,
        event::{Event, FaultPoint},
        held::HeldPost,
        ids::{LinkId, NodeId, Resource},
        message::{Close, Direct, Task, Update},
        outcome::Outcome,
        rows::{DeadLetter, Holder},
        time::Mono,
    },
    protocol::{
        assignment::Assignments,
        calls::{Call, Calls},
        failed_list::FailedList,
        gossip::Gossip,
        key_refresh::{KeyRefresh, KeyStep},
        master_watch::MasterWatch,
        permission::{LeaseState, Permissions},
        registrations::Registrations,
        registry::Registry,
        selection::Selection,
        task_queue::{Bounds, Entry, Slot, TaskId, TaskQueue},
        tries::RetryPolicy,
        turns::Turns,
    },
};

/// Time without a worker that reaches the store after which a task that was not sent is refused;
/// a worker that starts again is back sooner.
const NO_WORKER_AFTER: Duration = Duration::from_secs(3);
/// Time without a write of its own in the store after which a master is weak.
pub const WEAK_AFTER: Duration = Duration::from_secs(2);
/// Time without a worker that reaches the store after which a master gives its leases back.
const UNREACHABLE_FOR: Duration = Duration::from_secs(1);
/// Time that a person is asked to wait when nothing can be done now.
const RETRY_MS: u64 = 1000;

/// Something that the driver does; effects are carried out in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Ask the store for a lease; answer with [`Master::on_lease`].
    AcquireLease {
        /// Slot of the resource; the answer goes there.
        slot: Slot,
        /// The resource.
        resource: Resource,
    },
    /// Renew leases; answer with [`Master::on_renewed`].
    RenewLeases {
        /// Resources, each with the number of its lease.
        leases: Vec<(Resource, u64)>,
    },
    /// Give a lease back. Needs no answer: a lease runs out by itself.
    ReleaseLease {
        /// The resource.
        resource: Resource,
        /// Number of its lease.
        lease: u64,
    },
    /// Write a wish for a lease. Needs no answer.
    Wish {
        /// The resource.
        resource: Resource,
        /// Master that is to have it: this one, or one to which it forwards tasks.
        by: Holder,
    },
    /// Call a worker, for at most `attempt_timeout`; answer with [`Master::on_call`].
    Assign {
        /// Link to the worker.
        link: LinkId,
        /// Call with its batches.
        call: Call,
    },
    /// Call another master, for at most `request_timeout`; answer with [`Master::on_forward`].
    Forward {
        /// Link to the master.
        link: LinkId,
        /// Number of the call.
        call: ForwardId,
        /// Tasks of one resource, with their numbers.
        tasks: Vec<(TaskId, Task)>,
    },
    /// Ask workers over these links to hold a post, until two do; answer with
    /// [`Master::on_hold_end`].
    Hold {
        /// Number of the post's task.
        id: TaskId,
        /// Post to hold.
        post: Box<HeldPost>,
        /// Links to ask over, in this order, with the number of the copy.
        holders: Vec<(LinkId, u8)>,
    },
    /// Answer whoever waits for a task: it ended.
    End {
        /// Number of the task.
        id: TaskId,
        /// How it ended.
        outcome: Outcome,
    },
    /// Answer the master that forwarded a task: it is not coordinated here, and nothing was done.
    SendBack {
        /// Number of the task.
        id: TaskId,
        /// Holder of the resource's lease, if known.
        holder: Option<Holder>,
    },
    /// Publish to the domain, and to the other masters if `spread`.
    Publish {
        /// The update.
        update: Update,
        /// Whether the update began here.
        spread: bool,
    },
    /// Send a direct message.
    Send {
        /// Link to the receiver.
        link: LinkId,
        /// The message.
        direct: Direct,
    },
    /// Close a link.
    Close {
        /// The link.
        link: LinkId,
        /// Its last message.
        close: Close,
    },
    /// Carry out a step of the common key's refresh.
    Keys(KeyStep<LinkId>),
    /// Keep a dead letter in the store.
    DeadLetter(Box<DeadLetter>),
    /// Write an event line.
    Event(Event),
    /// Announce a fault point.
    FaultPoint(FaultPoint),
    /// Mark a probe: this run has seen what the text says.
    Probe(&'static str),
}

/// Another master that is linked.
#[derive(Clone, Copy, Debug)]
struct Peer {
    link: LinkId,
    /// Whether its driver said anything yet: a link to one that hangs is made, and soon falls silent.
    has_spoken: bool,
    /// Whether it can have things written, by its last beat.
    can_write: bool,
    /// Whether it said that it is being drained.
    is_draining: bool,
}

/// Number of a call with forwarded tasks, unique in one life of one master.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ForwardId(pub u64);

/// Task that is with another master.
#[derive(Clone, Debug)]
struct Forwarded {
    slot: Slot,
    entry: Entry,
    /// Whether it was sent somewhere before this.
    sent_before: bool,
    call: ForwardId,
    to: NodeId,
    link: LinkId,
    sent_at: Mono,
    /// Time at which the store is asked for the lease, because the other master is silent.
    look_at: Mono,
}

/// State of one life of one master.
#[derive(Debug)]
pub struct Master {
    me: Holder,
    config: Config,
    queue: TaskQueue,
    permissions: Permissions,
    assignments: Assignments,
    calls: Calls,
    forwards: BTreeMap<TaskId, Forwarded>,
    /// Calls with forwarded tasks that are in flight, each with its slot and its link.
    forward_calls: BTreeMap<ForwardId, (Slot, LinkId)>,
    last_forward: ForwardId,
    /// Posts that workers are asked to hold.
    holding: BTreeMap<TaskId, Holding>,
    /// Links to workers that are known to end, or whose link is known to be over.
    ending: BTreeSet<LinkId>,
    registry: Registry,
    joins: Joins,
    registrations: Registrations<LinkId>,
    selection: Selection,
    failed: FailedList,
    keys: KeyRefresh<LinkId>,
    watch: MasterWatch,
    peers: BTreeMap<NodeId, Peer>,
    /// Ends of other masters' links in the last seconds.
    links_ended: BTreeMap<NodeId, Mono>,
    dials: MasterDials,
    /// Times at which slots are to be looked at again.
    wakes: BTreeSet<(Mono, Slot)>,
    /// Slots to look at before the entry point returns.
    marked: Vec<Slot>,
    /// Slots that wait for a worker with room.
    turns: Turns,
    /// Time at which this life began.
    began_at: Mono,
    /// Time of the last write of this master's own.
    wrote_at: Option<Mono>,
    /// Time since when none of its workers reaches the store.
    unreachable_since: Option<Mono>,
    /// Last time at which another master ceased to be able to have things written: its workers may
    /// come here.
    peer_lost_at: Option<Mono>,
    /// Whether its work is to be handed over to other masters.
    is_draining: bool,
    renew_at: Mono,
    digest_at: Mono,
    /// Progress of comparing directories, by link.
    gossip: BTreeMap<LinkId, Gossip>,
    /// Time of the last task of each slot.
    used_at: BTreeMap<Slot, Mono>,
    tasks: u64,
    /// Buffer that is reused from batch to batch.
    scratch: Vec<Entry>,
}

impl Master {
    /// Returns a master whose life begins now.
    #[must_use]
    pub fn new(now: Mono, me: Holder, config: Config) -> Self {
        Self {
            me,
            queue: TaskQueue::new(Bounds {
                tasks_max: config.queue_tasks_max,
                total_max: config.queue_total_max,
                resources_max: config.resources_max,
            }),
            permissions: Permissions::new(config.lease_ttl),
            assignments: Assignments::new(
                RetryPolicy {
                    per_worker: config.attempts_per_worker,
                    max: config.attempts_max,
                    backoff: config.attempt_backoff,
                },
                keys::first_draw(me.node),
            ),
            calls: Calls::new(config.batches_in_flight.max(WORKER_CALLS)),
            forwards: BTreeMap::new(),
            forward_calls: BTreeMap::new(),
            last_forward: ForwardId::default(),
            holding: BTreeMap::new(),
            ending: BTreeSet::new(),
            registry: Registry::new(config.directory_max),
            joins: Joins::new(),
            registrations: Registrations::new(config.workers_max),
            selection: Selection::new(),
            keys: KeyRefresh::new(now, &config, keys::first_draw(me.node)),
            failed: FailedList::new(now, config.failed_sweep_interval, config.workers_max),
            watch: MasterWatch::new(config.master_out_after),
            peers: BTreeMap::new(),
            links_ended: BTreeMap::new(),
            dials: MasterDials::default(),
            wakes: BTreeSet::new(),
            marked: Vec::new(),
            turns: Turns::default(),
            began_at: now,
            wrote_at: None,
            unreachable_since: Some(now),
            peer_lost_at: None,
            is_draining: false,
            renew_at: now + config.lease_renew_interval,
            digest_at: now + config.digest_interval,
            gossip: BTreeMap::new(),
            used_at: BTreeMap::new(),
            tasks: 0,
            scratch: Vec::new(),
            config,
        }
    }

    /// Returns the master's own identity.
    #[must_use]
    pub const fn me(&self) -> Holder {
        self.me
    }

    /// Returns the directory.
    #[must_use]
    pub const fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Returns the workers registered here.
    #[must_use]
    pub const fn registrations(&self) -> &Registrations<LinkId> {
        &self.registrations
    }

    /// Returns the table from which workers are picked: their state and their load.
    #[must_use]
    pub const fn selection(&self) -> &Selection {
        &self.selection
    }

    /// Returns the failed list.
    #[must_use]
    pub const fn failed(&self) -> &FailedList {
        &self.failed
    }

    /// Returns the schedule of the domain's common key.
    #[must_use]
    pub const fn keys(&self) -> &KeyRefresh<LinkId> {
        &self.keys
    }

    /// Returns the masters' rows as last read.
    #[must_use]
    pub const fn watch(&self) -> &MasterWatch {
        &self.watch
    }

    /// Returns the queues.
    #[must_use]
    pub const fn queue(&self) -> &TaskQueue {
        &self.queue
    }

    /// Returns the state of a slot's lease.
    #[must_use]
    pub fn lease_state(&self, slot: Slot) -> LeaseState {
        self.permissions.state(slot)
    }

    /// Returns the links to other masters, in the order of their ids.
    pub fn peers(&self) -> impl Iterator<Item = (NodeId, LinkId)> {
        self.peers.iter().map(|(node, peer)| (*node, peer.link))
    }

    /// Returns whether another master can have things written, by its last beat; `None` if it is
    /// not linked.
    #[must_use]
    pub fn peer_can_write(&self, node: &NodeId) -> Option<bool> {
        self.peers.get(node).map(|peer| peer.can_write)
    }

    /// Returns whether a write of this master's own was done in the last 2 s.
    #[must_use]
    pub fn is_strong(&self, now: Mono) -> bool {
        self.wrote_at.is_some_and(|at| now.since(at) < WEAK_AFTER)
    }

    /// Returns whether this master can have things written: it is strong, one of its workers
    /// reaches the store, and it does not hand its work over.
    #[must_use]
    pub fn can_write(&self, now: Mono) -> bool {
        self.is_strong(now) && self.selection.anyone_reaches_store() && !self.hands_over()
    }

    /// Returns whether waiting here is in vain: this master's writes do not reach the store, or for a
    /// while it has had no worker that does, and no other master has lost its own either.
    fn is_idle(&self, now: Mono) -> bool {
        let is_over = |since: Mono| now.since(since) >= NO_WORKER_AFTER;
        !self.is_strong(now)
            || self.unreachable_since.is_some_and(is_over) && self.peer_lost_at.is_none_or(is_over)
    }

    /// Returns when [`on_time`](Self::on_time) is to be called next.
    #[must_use]
    pub fn next_deadline(&self) -> Mono {
        let first_wish = self.forwards.values().map(|forward| forward.look_at).min();
        [
            Some(self.renew_at),
            Some(self.digest_at),
            self.wakes.first().map(|(at, _)| *at),
            self.failed.next_deadline(),
            self.keys.next_deadline(),
            self.joins.next_deadline(),
            self.dials.next_deadline(),
            first_wish,
        ]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(self.renew_at)
    }

    /// Does all that is due by now.
    pub fn on_time(&mut self, now: Mono, out: &mut Vec<Effect>) {
        if now >= self.renew_at {
            self.renew_at = now + self.config.lease_renew_interval;
            self.renew(now, out);
            if self.is_alone(now) {
                self.mark_all();
            }
        }
        self.publish_due_joins(now, out);
        if now >= self.digest_at {
            self.publish_joins(now, out);
            self.digest_at = now + self.config.digest_interval;
            self.send_digests(out);
        }
        let swept = self.failed.sweep(now);
        if !swept.is_empty() {
            out.push(Effect::Event(Event::Sweep { nodes: swept }));
        }
        self.refresh_key(now, out);
        self.wish_for_silent(now, out);
        while let Some((at, slot)) = self.wakes.first().copied() {
            if at > now {
                break;
            }
            self.wakes.pop_first();
            self.mark(slot);
        }
        self.pump_marked(now, out);
    }

    fn wake(&mut self, at: Mono, slot: Slot) {
        self.wakes.insert((at, slot));
    }

    /// Marks a slot whose work may go on.
    fn mark(&mut self, slot: Slot) {
        self.marked.push(slot);
    }

    /// Marks every slot, after a change that any of them may have waited for.
    fn mark_all(&mut self) {
        self.marked.extend(self.queue.slots().map(|(slot, _)| slot));
    }
}

#[cfg(test)]
mod tests;

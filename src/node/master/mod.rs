//! A running master: one task owns its tables, its streams and its links.
//!
//! ```text
//!   front end ── Command ──┐                    ┌──► links ──► workers, masters
//!   links ── Incoming ─────┤►  Driver: tables ──┤
//!   store, calls ─ Input ──┘   one task         └──► tasks that wait for the store or a call
//! ```
//!
//! The driver reads a channel, feeds a table of `protocol`, and carries out what the table
//! decided. It awaits nothing but its inbox and its timer; what takes time is spawned
//! and comes back as an `Input`.
//!
//! 1. Effects are carried out in the order in which they were decided.
//! 2. Every channel is bounded. Commands wait outside while the driver is busy, and what the master
//!    lives by waits behind no bulk (`node/inbox.rs`).
//! 3. A master that hears of a newer life of its own stops. One that is off the store's list for its silence
//!    begins a new life (`lives.rs`).
//! 4. A master that is asked to end sends its people and its work to the others first (`drain.rs`).

mod admission;
mod asking;
mod closings;
mod copies;
mod dial;
mod drain;
mod effects;
mod error;
mod held_ids;
mod holding;
mod input;
mod key_maker;
mod keys;
mod links;
mod lives;
mod operators;
mod reads;
mod requests;
mod start;
mod store_poll;
mod streams;
mod updates;
mod upkeep;
mod view;
mod waiters;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::sync::mpsc;

use self::{
    admission::AdmissionGate,
    dial::Dialer,
    drain::Drain,
    input::Input,
    keys::CommonKeys,
    links::{Links, State},
    reads::PendingReads,
    store_poll::StorePoll,
    streams::OpenStreams,
    waiters::{RETRY_MS, SessionWaiter, Waiter, Waiters, Waits},
};
pub use self::{error::NodeError, lives::run, operators::keep_join_token};
use super::{
    handle::{self, Command, Commands, DrainSignal, MasterHandle, SessionRequest},
    inbox::{EVENTS_MAX, Inbox, Inputs, Next},
    store_log::log_store_change,
};
use crate::{
    api::MasterState,
    comm::key_source::KeySource,
    config::Config,
    env::Env,
    model::{
        absence::AwayReason,
        ids::{Fingerprint, UserId},
        message::{Close, CloseReason},
        outcome::Outcome,
        rows::Holder,
        stream::{ByeReason, Consistency, MasterInfo},
        time::Mono,
    },
    protocol::{
        active_list::ActiveList,
        board::Tails,
        dead_letters::DeadLetters,
        master::{Effect, Master},
        presence::Presence,
        read_marks::ReadMarks,
        sessions::Sessions,
    },
    store::Store,
};

/// The most commands that wait for the driver.
const COMMANDS_MAX: usize = 1024;
/// Time that last messages get to leave before the links are dropped.
const GOODBYE: Duration = Duration::from_millis(100);
/// Longest time for which a master that ends tells which sessions are in use.
const USES_TIME: Duration = Duration::from_secs(1);

/// Parts that a master is made of.
#[derive(Clone)]
pub struct MasterParams {
    /// Its name for people.
    pub name: String,
    /// Limits and time-outs.
    pub config: Config,
    /// `http://host:port`, as browsers reach it.
    pub http_public: String,
    /// `host:port`, as nodes reach it.
    pub link_public: String,
    /// The shared store.
    pub store: Store,
    /// Source of its keys.
    pub keys: Arc<dyn KeySource>,
}

/// Returns a handle and the commands that come through it.
#[must_use]
pub fn channel() -> (MasterHandle, Commands) {
    MasterHandle::channel(COMMANDS_MAX)
}

/// Reason for which a starting master waits for the store.
#[derive(Debug, Default)]
struct WaitsFor(Mutex<Option<AwayReason>>);

impl WaitsFor {
    fn set(&self, reason: Option<AwayReason>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    fn get(&self) -> Option<AwayReason> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Identity of one life of a master.
struct Me {
    info: MasterInfo,
    holder: Holder,
    /// Id of the cluster; cookies carry it.
    cluster: [u8; 16],
    fingerprint: Fingerprint,
}

/// Sessions and people as this master knows them.
struct People {
    sessions: Sessions<(Option<UserId>, SessionRequest)>,
    presence: Presence,
    /// Read marks that are not submitted yet.
    marks: ReadMarks<SessionWaiter>,
    /// The active people of the whole system, as last read.
    active: ActiveList,
}

impl People {
    fn new(now: Mono, config: &Config) -> Self {
        let presence = Presence::new(
            now,
            config.presence_touch_interval,
            config.presence_leave_delay,
            config.streams_max,
        );
        let sessions = Sessions::new(config.sessions_cached_max, is_abandoned);
        let marks = ReadMarks::default();
        Self { sessions, presence, marks, active: ActiveList::new(now) }
    }

    fn known(&self) -> handle::People {
        let (version, users) = (self.active.version(), self.active.users().clone());
        handle::People { version, users }
    }
}

/// Returns whether nobody waits for the answer to a request of a session any more.
fn is_abandoned((_, request): &(Option<UserId>, SessionRequest)) -> bool {
    request.is_abandoned()
}

/// State of a running master.
struct Driver {
    env: Env,
    config: Config,
    store: Store,
    me: Me,
    core: Master,
    /// Effects that are not carried out yet, in order.
    out: Vec<Effect>,
    /// Way back for the tasks that this driver spawns.
    inputs: Inputs<Input>,
    links: Links,
    gate: Arc<AdmissionGate>,
    keys: CommonKeys,
    dialer: Dialer,
    waiters: Waiters,
    tails: Tails,
    streams: OpenStreams,
    people: People,
    reads: PendingReads,
    poll: StorePoll,
    letters: DeadLetters,
    drain: Option<Drain>,
    /// Time of the last sign of anybody.
    served_at: Mono,
    /// Word to the front end on the drain.
    signal: DrainSignal,
}

impl Driver {
    async fn run(
        &mut self,
        mut inbox: Inbox<Input>,
        commands: &mut mpsc::Receiver<Command>,
    ) -> Result<(), NodeError> {
        // Registering was a write of this master's own.
        self.core.on_store_write(self.env.now(), true, &mut self.out);
        // A command that comes first finds every board. Without an answer the next poll brings them;
        // until then no stream is opened.
        if let Ok(boards) = self.store.boards().await {
            self.take_boards(&boards);
        }
        let new_ends = self.store.new_ends();
        loop {
            self.carry();
            let now = self.env.now();
            self.links.stamp(Some(now));
            let at = self.next_deadline().min(now + self.config.heartbeat_interval);
            let mut next = tokio::select! {
                biased;
                next = inbox.next(Some(&mut *commands)) => Some(next),
                ends = new_ends.next() => {
                    self.on_new_ends(self.env.now(), ends);
                    None
                }
                () = self.env.sleep_until(at) => None,
            };
            // What is ready by now shares one look at the deadlines.
            let mut left = EVENTS_MAX;
            while let Some(event) = next {
                match event {
                    Some(Next::Input(input)) => self.on_input(input)?,
                    Some(Next::Link(link, event)) => self.on_incoming(link, event),
                    Some(Next::Command(Command::Leave { reply })) => {
                        self.leave(commands).await;
                        let _ = reply.send(());
                        return Ok(());
                    }
                    Some(Next::Command(command)) => self.on_command(command),
                    None => return Ok(()),
                }
                self.carry();
                left -= 1;
                next =
                    (left > 0).then(|| inbox.next(Some(&mut *commands)).now_or_never()).flatten();
            }
            self.on_time();
            if self.go_on_draining(self.env.now()) {
                self.carry();
                self.leave(commands).await;
                return Ok(());
            }
        }
    }

    fn next_deadline(&self) -> Mono {
        let core = self.core.next_deadline();
        [
            self.people.presence.next_deadline(),
            self.people.active.next_deadline(),
            self.people.marks.next_deadline(),
            self.poll.next_deadline(),
            self.waiters.next_deadline(),
            self.letters.next_deadline(),
            self.next_of_drain(),
        ]
        .into_iter()
        .flatten()
        .fold(core, Mono::min)
    }

    fn on_time(&mut self) {
        let now = self.env.now();
        self.core.on_time(now, &mut self.out);
        self.poll_store(now);
        while let Some((id, waits)) = self.waiters.expire(now) {
            let outcome = match waits {
                Waits::One(_) => self.core.on_waited(id),
                // The task stays in the queue; the other master decides by its own clock.
                Waits::Peer(_) => Outcome::Unknown,
            };
            self.waiters.answer(waits, outcome);
        }
        self.write_marks(now);
        self.write_dead_letter(now);
        self.touch_sessions(now);
        self.tell_people(now);
        self.dial(now);
        self.announce_state(now);
    }

    /// Tells links and streams when this master turns weak or strong.
    fn announce_state(&mut self, now: Mono) {
        let is_strong = self.core.is_strong(now);
        log_store_change(now, self.poll.watch.on_state(now, is_strong));
        let was_strong = self.links.is_strong();
        self.links.set_state(State {
            is_strong,
            can_write: self.core.can_write(now),
            has_successor: self.core.has_successor(),
        });
        if is_strong != was_strong {
            self.streams.table.set_state(Consistency::of(is_strong));
            self.deliver_all();
        }
    }

    /// Gives newcomers the directory as it is now.
    fn note_directory(&self) {
        self.gate.lists().set_directory(self.core.registry().members().cloned());
    }

    /// Ends the life, and refuses commands that wait.
    async fn leave(&mut self, commands: &mut mpsc::Receiver<Command>) {
        self.say_goodbye().await;
        commands.close();
        while let Ok(command) = commands.try_recv() {
            requests::refuse(command, MasterState::Draining, None);
        }
    }

    /// Ends streams, leases and links, writes what waits here for the store alone, and leaves its list.
    async fn say_goodbye(&mut self) {
        self.links.stamp(None);
        let others = self.other_masters();
        self.streams.end_all(ByeReason::Draining, &others);
        for mark in self.people.marks.take() {
            Waiter::Marks(mark).answer(Outcome::Unavailable { retry_ms: RETRY_MS });
        }
        for letter in self.letters.take() {
            if self.store.put_dead_letter(letter).await.is_err() {
                break;
            }
        }
        let (store, pages) = (self.store.clone(), self.people.presence.take_uses());
        let told = async {
            for page in pages {
                if store.use_sessions(page).await.is_err() {
                    break;
                }
            }
        };
        // Whoever goes on is noted by another master.
        let _ = self.env.timeout(USES_TIME, told).await;
        // What is not given back runs out by itself.
        let _ = self.store.leave_master(self.me.holder).await;
        self.links.close_all(Close { reason: CloseReason::Draining, retry_ms: 1000 });
        self.env.sleep(GOODBYE).await;
    }
}

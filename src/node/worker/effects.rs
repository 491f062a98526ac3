//! Effects of the worker's decisions, carried out in order.

use std::{future::Future, sync::Arc};

use super::{
    dial::Attempt,
    driver::Driver,
    input::Input,
    linked_store,
    repair::{Sources, repair},
    session_repair::{self, Other},
};
use crate::{
    crypto::keys,
    model::{
        ids::{BoardName, Role},
        message::{Close, CloseReason, Direct, Update, WorkerStatus},
    },
    protocol::{session_repair::RoundStart, worker::Effect},
    store::Store,
};

impl Driver {
    /// Carries out what was decided.
    pub(super) fn carry(&mut self) {
        for effect in std::mem::take(&mut self.out) {
            self.carry_one(effect);
        }
    }

    fn carry_one(&mut self, effect: Effect) {
        match effect {
            // It would register for nothing.
            Effect::Dial(_) if self.is_ending() => {}
            Effect::Dial(addr) => self.dial(addr),
            Effect::CloseLink(reason) => self.close_link(reason),
            Effect::FinishBatches => self.finish_batches(),
            Effect::Send(direct) => self.send(&direct),
            Effect::SendStatus => self.send_status(),
            Effect::Write(updates) => self.write(updates),
            Effect::Repair(board) => self.repair(board),
            Effect::RepairSessions(start) => self.repair_sessions(start),
            Effect::KeepMembers(members) => self.parts.database.keep_members(members),
            Effect::WarnOfDouble => {
                self.parts.env.sometimes("another process took a worker's place");
                tracing::warn!(
                    "another process runs with this worker's identity: stop one of the two, and \
                     give it an identity of its own"
                );
            }
            Effect::Event(event) => self.parts.env.event(&event),
            Effect::FaultPoint(point) => self.parts.env.fault_point(point.name()),
        }
    }

    /// Runs something that takes time and brings its result back.
    pub(super) fn spawn(
        &self,
        name: &'static str,
        work: impl Future<Output = Option<Input>> + Send + 'static,
    ) {
        let inputs = self.parts.inputs.clone();
        self.parts.env.spawn(name, async move {
            if let Some(input) = work.await {
                // The driver may have ended.
                let _ = inputs.send(input).await;
            }
        });
    }

    fn dial(&mut self, addr: String) {
        self.attempts += 1;
        let masters = self.parts.worker.registry().members();
        let known = masters
            .filter(|member| member.fact.role == Role::Master)
            .map(|member| keys::fingerprint(&member.spki));
        let with = Attempt {
            number: self.attempts,
            addr,
            pins: self.parts.pins.iter().copied().chain(known).collect(),
            cluster: self.cluster,
            last_epoch: self.last_epoch,
        };
        let (env, inputs) = (self.parts.env.clone(), self.parts.inputs.clone());
        let dial = Arc::clone(&self.parts.dialer).dial(env, with, inputs);
        self.dialing = Some(self.parts.env.spawn("dial", dial).abort_on_drop());
    }

    fn close_link(&mut self, reason: CloseReason) {
        self.drop_keys();
        self.leaves_since = None;
        self.held.on_beat(false);
        if let Some(link) = self.link.take() {
            link.close(Close { reason, retry_ms: 0 });
        }
    }

    pub(super) fn send(&self, direct: &Direct) {
        if let Some(link) = &self.link
            && let Err(error) = link.send(direct)
        {
            // Digests go on until the directories agree.
            tracing::debug!(%error, "a message to the master");
        }
    }

    fn send_status(&self) {
        let Some(link) = self.link.clone() else { return };
        if !self.held.is_empty() {
            self.tell_held();
        }
        let database = self.parts.database.clone();
        let in_flight = u32::try_from(self.batches.len()).unwrap_or(u32::MAX);
        let resident_bytes = self.parts.env.resident_bytes();
        self.spawn("status", async move {
            let read = database.read(|replica| Ok((replica.boards()?, replica.session_count()?)));
            let (boards, sessions) = read.await?;
            let status =
                WorkerStatus { boards: boards.boards, sessions, in_flight, resident_bytes };
            // The next status makes up for a lost one.
            let _ = link.send(&Direct::WorkerStatus(status));
            None
        });
    }

    fn write(&self, updates: Vec<Update>) {
        updates.iter().for_each(|update| self.parts.own_ends.note(update));
        let database = self.parts.database.clone();
        self.spawn(
            "write-updates",
            async move { Some(Input::Applied(database.apply(updates).await)) },
        );
    }

    fn repair_sessions(&self, RoundStart { turn, from }: RoundStart) {
        let (env, database) = (self.parts.env.clone(), self.parts.database.clone());
        let other = if self.reaches_store {
            Some(Other::Store(self.linked_store(), self.parts.config.store_timeout))
        } else {
            let link = self.link.clone();
            link.map(|link| Other::Copy(link, self.parts.config.attempt_timeout, turn))
        };
        self.spawn("repair-sessions", async move {
            let round = match other {
                Some(other) => session_repair::round(&env, &database, other, from).await,
                None => None,
            };
            Some(Input::SessionsRepaired(round))
        });
    }

    /// Returns the store as long as the link of now is open.
    fn linked_store(&self) -> Store {
        linked_store::while_open(self.parts.store.clone(), self.link.clone())
    }

    fn repair(&self, board: BoardName) {
        let (env, database) = (self.parts.env.clone(), self.parts.database.clone());
        let from = Sources {
            link: self.link.clone(),
            store: self.linked_store(),
            master_timeout: self.parts.config.attempt_timeout,
            store_timeout: self.parts.config.store_timeout,
        };
        self.spawn("repair", async move { Some(repair(&env, &database, from, board).await) });
    }
}

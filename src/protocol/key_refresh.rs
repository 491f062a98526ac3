//! Refresh of a domain's common key, as its master decides it.
//!
//! ```text
//!   made ahead        Install e+1 to all          Use e+1                 Remove e
//!   e+1 ready ──────► members hold e and e+1 ───► e+1 used, e held ─────► e erased
//!            trigger                        all acknowledged,    10 s later, or
//!                                           or 2 s later         before Install e+2
//! ```
//!
//! A trigger is the age of the key in use, a member that left or failed, or an expulsion. `M` names
//! a member: a link of this life of the master, so a worker that registers again is another member.
//!
//! 1. Epochs rise by one, and one is never installed before the one before it is in use. A member
//!    therefore never holds more than two.
//! 2. An epoch is used when every member that it was installed at holds it, or when
//!    `key_install_timeout` is over; the members that do not hold it are then cut off.
//! 3. Members that left or failed are gathered for `key_refresh_gather`, and two installs are at
//!    least `key_refresh_gap` apart. An expulsion waits for neither, only for rule 1.
//! 4. A member that is gone is given nothing more. It may hold an epoch that was being installed when
//!    it went; that epoch is used nevertheless, and the next one follows by rule 3. Otherwise a
//!    stream of leaving members could put off every refresh.
//! 5. A member that joins with an older key than the one in use is given what it lacks at once, and
//!    is cut off when it does not hold it in time. Nobody waits for it.
//! 6. The key of the next epoch is asked for as soon as the one before is installed.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    config::Config,
    model::{event::RefreshReason, ids::KeyEpoch, time::Mono},
};

/// First epoch of every domain.
pub const FIRST_EPOCH: KeyEpoch = KeyEpoch(1);

/// Something that the master does with its keys. Steps are carried out in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyStep<M> {
    /// Make the key of this epoch, away from what is urgent; answer with [`KeyRefresh::on_made`].
    Make(KeyEpoch),
    /// Hold the key that was made for this epoch, and send it to these members.
    Install {
        /// Epoch of the key.
        epoch: KeyEpoch,
        /// Reason of the refresh.
        why: RefreshReason,
        /// Members that it is sent to.
        to: Vec<M>,
    },
    /// Use the key of this epoch, and tell these members.
    Use {
        /// Epoch of the key.
        epoch: KeyEpoch,
        /// Members that are told.
        to: Vec<M>,
    },
    /// Erase the key of this epoch.
    Remove(KeyEpoch),
    /// Send a member that joined late the key of this epoch, which is held.
    Give {
        /// The member.
        to: M,
        /// Epoch of the key.
        epoch: KeyEpoch,
        /// Whether the key is in use already; the member is told.
        is_used: bool,
    },
    /// Cut a member off: it did not install the key of this epoch in time.
    Cut {
        /// The member.
        member: M,
        /// Epoch that it does not hold.
        epoch: KeyEpoch,
    },
}

/// Way of the next epoch's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// To be made at this time.
    Wanted(Mono),
    /// Being made.
    Asked,
    /// Ready to be installed.
    Ready,
}

/// Installation that is under way.
#[derive(Clone, Debug)]
struct Rollout<M> {
    epoch: KeyEpoch,
    /// Members that have not acknowledged.
    waiting: BTreeSet<M>,
    until: Mono,
}

/// Schedule of one domain's common key.
#[derive(Clone, Debug)]
pub struct KeyRefresh<M> {
    interval: Duration,
    gather: Duration,
    gap: Duration,
    install_timeout: Duration,
    overlap: Duration,
    /// Number that spreads the refreshes of several masters.
    draw: u64,
    in_use: KeyEpoch,
    used_at: Mono,
    /// Epoch before the one in use, and the time of its removal.
    before: Option<(KeyEpoch, Mono)>,
    next: Next,
    rollout: Option<Rollout<M>>,
    installed_at: Option<Mono>,
    /// Time from which a gone member's refresh may begin.
    gone_due: Option<Mono>,
    expelled: bool,
    /// Members, each with the newest epoch that it holds.
    members: BTreeMap<M, KeyEpoch>,
    /// Late joiners that lack an epoch, and until when.
    late: BTreeMap<M, (KeyEpoch, Mono)>,
    refreshes: u64,
}

impl<M: Copy + Ord> KeyRefresh<M> {
    /// Returns the schedule of a domain that begins to use its first key. `draw` is a random number.
    #[must_use]
    pub const fn new(now: Mono, config: &Config, draw: u64) -> Self {
        Self {
            interval: config.key_refresh_interval,
            gather: config.key_refresh_gather,
            gap: config.key_refresh_gap,
            install_timeout: config.key_install_timeout,
            overlap: config.key_overlap,
            draw,
            in_use: FIRST_EPOCH,
            used_at: now,
            before: None,
            next: Next::Wanted(now),
            rollout: None,
            installed_at: None,
            gone_due: None,
            expelled: false,
            members: BTreeMap::new(),
            late: BTreeMap::new(),
            refreshes: 0,
        }
    }

    /// Returns the epoch in use.
    #[must_use]
    pub const fn in_use(&self) -> KeyEpoch {
        self.in_use
    }

    /// Returns the time since which it is in use.
    #[must_use]
    pub const fn used_at(&self) -> Mono {
        self.used_at
    }

    /// Returns the epoch that is being installed.
    #[must_use]
    pub fn installing(&self) -> Option<KeyEpoch> {
        self.rollout.as_ref().map(|rollout| rollout.epoch)
    }

    /// Returns the members that do not hold the newest epoch.
    pub fn lacking(&self) -> impl Iterator<Item = M> {
        let newest = self.newest();
        self.members.iter().filter(move |(_, held)| **held < newest).map(|(member, _)| *member)
    }

    /// Returns how many refreshes came to use.
    #[must_use]
    pub const fn refreshes(&self) -> u64 {
        self.refreshes
    }

    fn newest(&self) -> KeyEpoch {
        self.installing().unwrap_or(self.in_use)
    }

    /// Takes a member in. `held` is the epoch that it says it holds.
    pub fn on_join(
        &mut self,
        now: Mono,
        member: M,
        held: Option<KeyEpoch>,
        out: &mut Vec<KeyStep<M>>,
    ) {
        let newest = self.newest();
        // A number of the future is no claim to rely on.
        let held = held.filter(|held| *held <= newest).unwrap_or_default();
        self.members.insert(member, held);
        if held < self.in_use {
            out.push(KeyStep::Give { to: member, epoch: self.in_use, is_used: true });
        }
        if held < newest && newest != self.in_use {
            out.push(KeyStep::Give { to: member, epoch: newest, is_used: false });
        }
        if held < newest {
            self.late.insert(member, (newest, now + self.install_timeout));
        }
    }

    /// Notes that a member left or failed. Its domain needs another key.
    pub fn on_gone(&mut self, now: Mono, member: M) {
        self.forget(member);
        self.gone_due.get_or_insert(now + self.gather);
    }

    /// Notes that a node was expelled. The domain needs another key at once, also if the node is no
    /// member: it may have left shortly before, or be about to join.
    pub const fn renew_at_once(&mut self) {
        self.expelled = true;
    }

    /// Forgets a member: its node was expelled, or has joined again as another one and nobody is gone.
    pub fn forget(&mut self, member: M) {
        self.members.remove(&member);
        self.late.remove(&member);
        if let Some(rollout) = &mut self.rollout {
            rollout.waiting.remove(&member);
        }
    }

    /// Notes that a member holds an epoch. Ignores a strange member and an epoch that was not sent.
    pub fn on_held(&mut self, member: M, epoch: KeyEpoch) {
        let newest = self.newest();
        let Some(held) = self.members.get_mut(&member).filter(|_| epoch <= newest) else { return };
        *held = epoch.max(*held);
        if self.late.get(&member).is_some_and(|(lacks, _)| *lacks <= epoch) {
            self.late.remove(&member);
        }
        if let Some(rollout) = self.rollout.as_mut().filter(|rollout| rollout.epoch == epoch) {
            rollout.waiting.remove(&member);
        }
    }

    /// Notes that the key of an epoch was made, or could not be. `draw` is a random number.
    pub fn on_made(&mut self, now: Mono, epoch: KeyEpoch, is_made: bool, draw: u64) {
        if self.next != Next::Asked || epoch != self.newest().next() {
            return;
        }
        self.draw = draw;
        self.next = if is_made { Next::Ready } else { Next::Wanted(now + self.gap) };
    }

    /// Carries out what is due.
    pub fn on_time(&mut self, now: Mono, out: &mut Vec<KeyStep<M>>) {
        if let Some((epoch, _)) = self.before.take_if(|(_, until)| now >= *until) {
            out.push(KeyStep::Remove(epoch));
        }
        self.begin_use(now, out);
        self.cut_late(now, out);
        // Those who were cut may have been the last to wait for.
        self.begin_use(now, out);
        if let Some(why) = self.trigger(now) {
            self.install(now, why, out);
            // Without members nobody has to acknowledge.
            self.begin_use(now, out);
        }
        if matches!(self.next, Next::Wanted(at) if now >= at) {
            self.next = Next::Asked;
            out.push(KeyStep::Make(self.newest().next()));
        }
    }

    /// Returns when [`KeyRefresh::on_time`] is to be called next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        let rollout = self
            .rollout
            .as_ref()
            .map(|rollout| if rollout.waiting.is_empty() { Mono::ZERO } else { rollout.until });
        let wanted = match self.next {
            Next::Wanted(at) => Some(at),
            Next::Asked | Next::Ready => None,
        };
        let is_free = self.rollout.is_none() && self.next == Next::Ready;
        [
            self.before.map(|(_, until)| until),
            rollout,
            self.late.values().map(|(_, until)| *until).min(),
            wanted,
            is_free.then(|| self.trigger_at()),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Returns the time at which the next refresh begins by what is known now.
    fn trigger_at(&self) -> Mono {
        if self.expelled {
            return Mono::ZERO;
        }
        let aged = self.interval_at();
        let due = self.gone_due.map_or(aged, |gone| gone.min(aged));
        self.installed_at.map_or(due, |at| due.max(at + self.gap))
    }

    /// Returns the time at which the key in use has reached its age: the interval, more or less by
    /// a tenth.
    fn interval_at(&self) -> Mono {
        let share = u32::try_from(self.draw >> 44).unwrap_or(0);
        self.used_at + self.interval * 9 / 10 + self.interval / 5 / (1 << 20) * share
    }

    fn trigger(&self, now: Mono) -> Option<RefreshReason> {
        let is_free = self.rollout.is_none() && self.next == Next::Ready;
        if !is_free || now < self.trigger_at() {
            return None;
        }
        Some(match self.gone_due {
            _ if self.expelled => RefreshReason::MemberExpelled,
            Some(gone) if now >= gone => RefreshReason::MemberGone,
            _ => RefreshReason::Interval,
        })
    }

    fn install(&mut self, now: Mono, why: RefreshReason, out: &mut Vec<KeyStep<M>>) {
        if let Some((epoch, _)) = self.before.take() {
            out.push(KeyStep::Remove(epoch));
        }
        let epoch = self.in_use.next();
        let waiting: BTreeSet<M> = self.members.keys().copied().collect();
        out.push(KeyStep::Install { epoch, why, to: waiting.iter().copied().collect() });
        self.rollout = Some(Rollout { epoch, waiting, until: now + self.install_timeout });
        self.installed_at = Some(now);
        self.next = Next::Wanted(now);
        // This install leaves out everyone who is gone by now.
        self.gone_due = None;
        self.expelled = false;
    }

    fn begin_use(&mut self, now: Mono, out: &mut Vec<KeyStep<M>>) {
        let is_due = |rollout: &mut Rollout<M>| rollout.waiting.is_empty() || now >= rollout.until;
        let Some(Rollout { epoch, waiting, .. }) = self.rollout.take_if(is_due) else { return };
        self.before = Some((self.in_use, now + self.overlap));
        self.in_use = epoch;
        self.used_at = now;
        self.refreshes += 1;
        for member in &waiting {
            self.members.remove(member);
            self.late.remove(member);
        }
        out.push(KeyStep::Use { epoch, to: self.members.keys().copied().collect() });
        out.extend(waiting.into_iter().map(|member| KeyStep::Cut { member, epoch }));
    }

    fn cut_late(&mut self, now: Mono, out: &mut Vec<KeyStep<M>>) {
        let over: Vec<(M, KeyEpoch)> = self
            .late
            .iter()
            .filter(|(_, (_, until))| now >= *until)
            .map(|(member, (epoch, _))| (*member, *epoch))
            .collect();
        for (member, epoch) in over {
            self.forget(member);
            out.push(KeyStep::Cut { member, epoch });
        }
    }
}

#[cfg(test)]
mod tests;

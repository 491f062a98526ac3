//! Session cache with a bound on its size, and the look-ups of sessions that it does not hold.
//!
//! 1. A closed session never opens again: a row that arrives after the close is late.
//! 2. At most `max` rows and `max` closed keys are kept; the oldest of each goes first.
//! 3. A cached read mark only rises: a row that comes late does not lower it, nor does one that was
//!    read before a mark which came while it was looked up.
//! 4. One look-up of a session runs at a time; it answers all who wait for that session. At most
//!    [`LOOKUPS_MAX`] run in all, the others wait their turn: made-up keys must not crowd other
//!    reads out of the store or the links.
//! 5. A look-up whose turn comes when all who waited for it have gone is not made.
//! 6. An answer that was on its way when the rows were forgotten is of no use: nothing of it is cached, and
//!    those who wait are looked up again.
//! 7. From then on each session in use, and each row that is not the store's own answer, is checked: looked
//!    up in the store that is there now, though nobody asks for it (`checks.rs`).

mod checks;

use std::collections::{BTreeMap, BTreeSet, VecDeque, btree_map::Entry};

use self::checks::Checks;
use crate::{
    model::{
        ids::{BoardName, Seq, SessionKey},
        recent::Recent,
        rows::SessionRow,
    },
    protocol::reads::{TooMany, WAITING_MAX},
};

pub use crate::model::bounds::LOOKUPS_MAX;

/// Most boards whose read marks are kept for a session that is looked up. One more is left to the
/// session's row.
const MARKS_MAX: usize = 64;

/// Cache of open sessions, generic over what waits for a look-up.
#[derive(Debug)]
pub struct Sessions<W> {
    rows: BTreeMap<SessionKey, Cached>,
    /// Keys of `rows`, by the number that each was put under.
    by_age: BTreeMap<u64, SessionKey>,
    puts: u64,
    closed: Recent<SessionKey>,
    /// Look-ups that run or are queued.
    lookups: BTreeMap<SessionKey, Lookup<W>>,
    /// Look-ups that wait for one of those under way to end.
    queued: VecDeque<SessionKey>,
    /// Sessions of which the store that is there now has yet to tell.
    checks: Checks,
    waiting: usize,
    /// Returns whether one that waits is gone: nobody would hear the answer.
    is_gone: fn(&W) -> bool,
    max: usize,
}

#[derive(Debug)]
struct Lookup<W> {
    /// Nobody, if it is a check.
    waiters: Vec<W>,
    /// Read marks that came meanwhile, [`MARKS_MAX`] at most.
    marks: BTreeMap<BoardName, Seq>,
    /// Whether the rows were forgotten since it began.
    is_outdated: bool,
}

impl<W> Lookup<W> {
    const fn new(waiters: Vec<W>) -> Self {
        Self { waiters, marks: BTreeMap::new(), is_outdated: false }
    }
}

#[derive(Debug)]
struct Cached {
    number: u64,
    row: SessionRow,
}

impl Cached {
    fn raise(&mut self, board: BoardName, seq: Seq) {
        let marks = &mut self.row.read_marks;
        match marks.binary_search_by(|(name, _)| name.cmp(&board)) {
            Ok(at) => marks[at].1 = marks[at].1.max(seq),
            Err(at) => marks.insert(at, (board, seq)),
        }
    }
}

impl<W> Sessions<W> {
    /// Returns an empty cache of at most `max` sessions. `is_gone` returns whether one that waits for a
    /// look-up does so no longer.
    #[must_use]
    pub const fn new(max: usize, is_gone: fn(&W) -> bool) -> Self {
        Self {
            rows: BTreeMap::new(),
            by_age: BTreeMap::new(),
            puts: 0,
            closed: Recent::new(max),
            lookups: BTreeMap::new(),
            queued: VecDeque::new(),
            checks: Checks::new(),
            waiting: 0,
            is_gone,
            max,
        }
    }

    /// Returns an open session, if it is cached.
    #[must_use]
    pub fn get(&self, key: &SessionKey) -> Option<&SessionRow> {
        self.rows.get(key).map(|cached| &cached.row)
    }

    /// Caches a session, or replaces what is cached of it but for its higher read marks. Ignores
    /// one that was closed. Whoever tells of it may not know yet that the store was replaced: it is
    /// checked then.
    pub fn put(&mut self, row: SessionRow) {
        if self.closed.contains(&row.key) {
            return;
        }
        self.checks.add(row.key);
        if let Some(cached) = self.rows.get_mut(&row.key) {
            let known = std::mem::replace(&mut cached.row, row).read_marks;
            for (board, seq) in known {
                cached.raise(board, seq);
            }
            return;
        }
        self.puts += 1;
        self.by_age.insert(self.puts, row.key);
        self.rows.insert(row.key, Cached { number: self.puts, row });
        if self.rows.len() > self.max
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.rows.remove(&oldest);
        }
        debug_assert_eq!(self.rows.len(), self.by_age.len());
    }

    /// Removes a session for good.
    pub fn close(&mut self, key: &SessionKey) {
        if let Some(cached) = self.rows.remove(key) {
            self.by_age.remove(&cached.number);
        }
        self.checks.on_confirmed(key);
        self.closed.insert(*key);
    }

    /// Forgets all rows, as the store that they are of was replaced by another one. Each is looked up
    /// again when it is needed, and those of `in_use` in any case; one that was closed stays so.
    pub fn forget(&mut self, in_use: BTreeSet<SessionKey>) {
        self.rows.clear();
        self.by_age.clear();
        for lookup in self.lookups.values_mut() {
            lookup.marks.clear();
            lookup.is_outdated = true;
        }
        for key in &self.queued {
            // It has yet to begin.
            if let Some(lookup) = self.lookups.get_mut(key) {
                lookup.is_outdated = false;
            }
        }
        self.checks.restart(in_use, self.max);
    }

    /// Returns whether a session is known to be closed.
    #[must_use]
    pub fn is_closed(&self, key: &SessionKey) -> bool {
        self.closed.contains(key)
    }

    /// Raises how far a session has read a board; a lower mark changes nothing.
    pub fn raise_mark(&mut self, key: &SessionKey, board: BoardName, seq: Seq) {
        if let Some(cached) = self.rows.get_mut(key) {
            cached.raise(board, seq);
        } else if let Some(lookup) = self.lookups.get_mut(key)
            && (lookup.marks.len() < MARKS_MAX || lookup.marks.contains_key(&board))
        {
            let mark = lookup.marks.entry(board).or_default();
            *mark = seq.max(*mark);
        }
    }

    /// Adds one that waits for a session. Returns whether a look-up of it is to begin now.
    ///
    /// # Errors
    /// [`TooMany`] wait already; the waiter comes back.
    pub fn wait(&mut self, key: SessionKey, waiter: W) -> Result<bool, TooMany<W>> {
        if self.waiting >= WAITING_MAX {
            self.drop_gone();
        }
        if self.waiting >= WAITING_MAX {
            return Err(TooMany(waiter));
        }
        self.waiting += 1;
        match self.lookups.entry(key) {
            Entry::Occupied(known) => {
                known.into_mut().waiters.push(waiter);
                return Ok(false);
            }
            Entry::Vacant(new) => {
                new.insert(Lookup::new(vec![waiter]));
            }
        }
        let begins = self.running() <= LOOKUPS_MAX;
        if !begins {
            self.queued.push_back(key);
        }
        Ok(begins)
    }

    /// Whether nobody waits for a look-up.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        self.waiting == 0
    }

    /// Ends a look-up: caches the row that it found, and returns all who waited for it. Call
    /// [`Sessions::on_confirmed`] as well if it was the store that answered.
    ///
    /// Returns `None`, and takes nothing of the answer, if the rows were forgotten since it began:
    /// [`Sessions::next_lookup`] begins it again if anybody waits for it.
    pub fn on_looked_up(&mut self, key: &SessionKey, row: Option<&SessionRow>) -> Option<Vec<W>> {
        self.checks.put_off(key);
        if let Some(lookup) = self.lookups.get_mut(key).filter(|lookup| lookup.is_outdated) {
            lookup.is_outdated = false;
            if lookup.waiters.is_empty() {
                self.lookups.remove(key);
            } else {
                self.queued.push_front(*key);
            }
            return None;
        }
        if let Some(row) = row {
            self.put(row.clone());
        }
        let Some(Lookup { waiters, marks, .. }) = self.lookups.remove(key) else {
            return Some(Vec::new());
        };
        for (board, seq) in marks {
            self.raise_mark(key, board, seq);
        }
        self.waiting -= waiters.len();
        Some(waiters)
    }

    /// Notes that the store that is there now told of a session: it needs no check.
    pub fn on_confirmed(&mut self, key: &SessionKey) {
        self.checks.on_confirmed(key);
    }

    /// Has a session in use checked that was found before the rows were forgotten.
    pub fn check(&mut self, key: SessionKey) {
        self.checks.add(key);
    }

    /// Returns the next session to check: its look-up is to begin now, though nobody waits for it. Ask
    /// again once the store answered.
    pub fn next_check(&mut self) -> Option<SessionKey> {
        while self.running() < LOOKUPS_MAX
            && let Some(key) = self.checks.begin_next()
        {
            // A look-up that somebody waits for is as good.
            if let Entry::Vacant(new) = self.lookups.entry(key) {
                new.insert(Lookup::new(Vec::new()));
                return Some(key);
            }
        }
        None
    }

    /// Returns the number of look-ups that are under way.
    fn running(&self) -> usize {
        self.lookups.len() - self.queued.len()
    }

    /// Returns the look-up that is to begin because another one ended.
    pub fn next_lookup(&mut self) -> Option<SessionKey> {
        if self.running() >= LOOKUPS_MAX {
            return None;
        }
        self.drop_gone();
        self.queued.pop_front()
    }

    /// Drops the queued look-ups that nobody waits for, up to the first one that somebody does.
    fn drop_gone(&mut self) {
        while let Some(key) = self.queued.front()
            && let Some(lookup) = self.lookups.get_mut(key)
        {
            let before = lookup.waiters.len();
            lookup.waiters.retain(|waiter| !(self.is_gone)(waiter));
            self.waiting -= before - lookup.waiters.len();
            if !lookup.waiters.is_empty() {
                return;
            }
            self.checks.put_off(key);
            self.lookups.remove(key);
            self.queued.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;

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

use std::collections::{BTreeMap, VecDeque};

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
    waiting: usize,
    /// Returns whether one that waits is gone: nobody would hear the answer.
    is_gone: fn(&W) -> bool,
    max: usize,
}

#[derive(Debug)]
struct Lookup<W> {
    waiters: Vec<W>,
    /// Read marks that came meanwhile, [`MARKS_MAX`] at most.
    marks: BTreeMap<BoardName, Seq>,
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
    /// one that was closed.
    pub fn put(&mut self, row: SessionRow) {
        if self.closed.contains(&row.key) {
            return;
        }
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
        self.closed.insert(*key);
    }

    /// Forgets all rows, as the store that they are of was replaced by another one. Each is looked up
    /// again when it is needed; one that was closed stays so.
    pub fn forget(&mut self) {
        self.rows.clear();
        self.by_age.clear();
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
        let new = || Lookup { waiters: Vec::new(), marks: BTreeMap::new() };
        let lookup = self.lookups.entry(key).or_insert_with(new);
        lookup.waiters.push(waiter);
        if lookup.waiters.len() > 1 {
            return Ok(false);
        }
        let begins = self.lookups.len() - self.queued.len() <= LOOKUPS_MAX;
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

    /// Ends a look-up: caches the row that it found, and returns all who waited for it.
    pub fn on_looked_up(&mut self, key: &SessionKey, row: Option<&SessionRow>) -> Vec<W> {
        if let Some(row) = row {
            self.put(row.clone());
        }
        let Some(Lookup { waiters, marks }) = self.lookups.remove(key) else { return Vec::new() };
        for (board, seq) in marks {
            self.raise_mark(key, board, seq);
        }
        self.waiting -= waiters.len();
        waiters
    }

    /// Returns the look-up that is to begin because another one ended.
    pub fn next_lookup(&mut self) -> Option<SessionKey> {
        if self.lookups.len() - self.queued.len() >= LOOKUPS_MAX {
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
            self.lookups.remove(key);
            self.queued.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, rc::Rc};

    use proptest::prelude::*;

    use super::*;
    use crate::model::ids::{Author, UserId};

    /// Returns a cache for whose sessions everybody waits to the end.
    fn cache<W>(max: usize) -> Sessions<W> {
        Sessions::new(max, |_| false)
    }

    fn key(n: u8) -> SessionKey {
        SessionKey([n; 32])
    }

    fn row(n: u8) -> SessionRow {
        let user = Author { id: UserId([n; 16]), name: "Ada".parse().expect("a name") };
        SessionRow { key: key(n), user, read_marks: Vec::new() }
    }

    /// Returns one of many keys.
    fn made_up(n: usize) -> SessionKey {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&n.to_le_bytes());
        SessionKey(key)
    }

    #[test]
    fn read_mark_that_comes_during_a_lookup_is_kept_though_the_row_is_older() {
        let mut sessions = cache(2);
        assert_eq!(sessions.wait(key(1), 0), Ok(true));
        for seq in [7, 5] {
            sessions.raise_mark(&key(1), BoardName::lobby(), Seq(seq));
        }
        let older = SessionRow { read_marks: vec![(BoardName::lobby(), Seq(3))], ..row(1) };
        assert_eq!(sessions.on_looked_up(&key(1), Some(&older)), [0]);
        let marks =
            |sessions: &Sessions<_>, n| sessions.get(&key(n)).map(|row| row.read_marks.clone());
        assert_eq!(marks(&sessions, 1), Some(vec![(BoardName::lobby(), Seq(7))]));
        // A session that was not found has no marks, and their number is bounded.
        assert_eq!(sessions.wait(key(2), 0), Ok(true));
        for n in 0..2 * MARKS_MAX {
            sessions.raise_mark(&key(2), format!("b{n}").parse().expect("a name"), Seq(1));
        }
        assert_eq!(sessions.on_looked_up(&key(2), None), [0]);
        assert_eq!(marks(&sessions, 2), None);
        assert_eq!(sessions.wait(key(2), 0), Ok(true));
        for n in 0..2 * MARKS_MAX {
            sessions.raise_mark(&key(2), format!("b{n}").parse().expect("a name"), Seq(1));
        }
        assert_eq!(sessions.on_looked_up(&key(2), Some(&row(2))), [0]);
        assert_eq!(marks(&sessions, 2).map(|marks| marks.len()), Some(MARKS_MAX));
    }

    #[test]
    fn lookups_beyond_the_bound_wait_their_turn() {
        let mut sessions = cache(2);
        let begun = (0..LOOKUPS_MAX + 2).filter(|n| sessions.wait(made_up(*n), *n) == Ok(true));
        assert_eq!(begun.count(), LOOKUPS_MAX);
        assert_eq!(sessions.wait(made_up(LOOKUPS_MAX), 0), Ok(false));
        assert_eq!(sessions.next_lookup(), None);
        assert_eq!(sessions.on_looked_up(&made_up(7), None), [7]);
        assert_eq!(sessions.next_lookup(), Some(made_up(LOOKUPS_MAX)));
        assert_eq!(sessions.next_lookup(), None);
        assert_eq!(sessions.on_looked_up(&made_up(LOOKUPS_MAX), None), [LOOKUPS_MAX, 0]);
        assert_eq!(sessions.next_lookup(), Some(made_up(LOOKUPS_MAX + 1)));
    }

    #[test]
    fn late_row_of_a_closed_session_does_not_open_it() {
        let mut sessions = cache::<()>(2);
        sessions.put(row(1));
        sessions.close(&key(1));
        sessions.put(row(1));
        assert_eq!(sessions.get(&key(1)), None);
        sessions.put(row(2));
        assert_eq!(sessions.get(&key(2)), Some(&row(2)));
    }

    #[test]
    fn session_that_was_forgotten_is_looked_up_again_and_one_that_was_closed_stays_so() {
        let mut sessions = cache(2);
        for n in [1, 2] {
            sessions.put(row(n));
        }
        sessions.close(&key(2));
        sessions.forget();
        assert_eq!((sessions.get(&key(1)), sessions.is_closed(&key(2))), (None, true));
        assert_eq!(sessions.wait(key(1), 0), Ok(true));
        assert_eq!(sessions.on_looked_up(&key(1), Some(&row(1))), [0]);
        assert_eq!(sessions.get(&key(1)), Some(&row(1)));
        sessions.put(row(2));
        assert_eq!(sessions.get(&key(2)), None);
    }

    #[test]
    fn open_and_closed_sessions_are_bounded() {
        let mut sessions = cache::<()>(2);
        for n in 0..9 {
            sessions.put(row(n));
            sessions.close(&key(n + 10));
        }
        assert_eq!((sessions.rows.len(), sessions.closed.lens()), (2, (2, 2)));
    }

    #[test]
    fn read_marks_rise_and_stay_in_the_order_of_names() {
        let mut sessions = cache::<()>(2);
        sessions.put(row(1));
        let [dev, lobby] = ["dev", "lobby"].map(|name| name.parse::<BoardName>().expect("a name"));
        sessions.raise_mark(&key(1), lobby.clone(), Seq(4));
        sessions.raise_mark(&key(1), dev.clone(), Seq(2));
        sessions.raise_mark(&key(1), lobby.clone(), Seq(3));
        sessions.raise_mark(&key(2), lobby.clone(), Seq(9));
        let marks = sessions.get(&key(1)).map(|row| row.read_marks.clone());
        assert_eq!(marks, Some(vec![(dev, Seq(2)), (lobby, Seq(4))]));
    }

    #[test]
    fn late_duplicate_of_an_opening_keeps_the_read_marks() {
        let mut sessions = cache::<()>(2);
        sessions.put(row(1));
        sessions.raise_mark(&key(1), BoardName::lobby(), Seq(4));
        sessions.put(row(1));
        let marks = sessions.get(&key(1)).map(|row| row.read_marks.clone());
        assert_eq!(marks, Some(vec![(BoardName::lobby(), Seq(4))]));
    }

    #[test]
    fn one_look_up_answers_all_who_wait_for_the_session() {
        let mut sessions = cache(2);
        assert_eq!(sessions.wait(key(1), "a"), Ok(true));
        assert_eq!(sessions.wait(key(1), "b"), Ok(false));
        assert_eq!(sessions.wait(key(2), "c"), Ok(true));
        assert_eq!(sessions.on_looked_up(&key(1), Some(&row(1))), ["a", "b"]);
        assert_eq!(sessions.get(&key(1)), Some(&row(1)));
        assert_eq!(sessions.on_looked_up(&key(2), None), ["c"]);
        assert_eq!(sessions.get(&key(2)), None);
        assert_eq!((sessions.waiting, sessions.wait(key(1), "d")), (0, Ok(true)));
    }

    #[test]
    fn too_many_waiters_are_refused_until_some_are_answered() {
        let mut sessions = cache(2);
        for n in 0..WAITING_MAX {
            sessions.wait(key(1), n).expect("room");
        }
        assert_eq!(sessions.wait(key(2), 7), Err(TooMany(7)));
        sessions.on_looked_up(&key(1), None);
        assert_eq!(sessions.wait(key(2), 7), Ok(true));
    }

    /// Returns a cache whose look-ups all run, for one who stays.
    fn busy_cache() -> Sessions<Rc<Cell<bool>>> {
        let mut sessions = Sessions::new(2, |asker: &Rc<Cell<bool>>| asker.get());
        for n in 0..LOOKUPS_MAX {
            assert_eq!(sessions.wait(made_up(n), Rc::default()), Ok(true));
        }
        sessions
    }

    #[test]
    fn lookup_whose_askers_left_is_not_made() {
        let mut sessions = busy_cache();
        let [leaves, stays]: [Rc<Cell<bool>>; 2] = Default::default();
        let [left, shared, last] = [1, 2, 3].map(|n| made_up(LOOKUPS_MAX + n));
        for (key, asker) in [(left, &leaves), (shared, &leaves), (shared, &stays), (last, &stays)] {
            assert_eq!(sessions.wait(key, Rc::clone(asker)), Ok(false));
        }
        leaves.set(true);
        assert_eq!(sessions.on_looked_up(&made_up(0), None).len(), 1);
        assert_eq!(sessions.next_lookup(), Some(shared), "nobody waits for the first one");
        assert_eq!(sessions.on_looked_up(&shared, None), [Rc::clone(&stays)]);
        assert_eq!(sessions.next_lookup(), Some(last));
        assert_eq!(sessions.on_looked_up(&last, None), [stays]);
        assert_eq!(sessions.waiting, LOOKUPS_MAX - 1, "those whose look-ups run");
        assert_eq!(sessions.wait(left, Rc::default()), Ok(true), "who comes back is looked up");
    }

    #[test]
    fn places_of_askers_who_left_are_free_again() {
        let mut sessions = busy_cache();
        let asker: Rc<Cell<bool>> = Rc::default();
        for n in LOOKUPS_MAX..WAITING_MAX {
            assert_eq!(sessions.wait(made_up(n), Rc::clone(&asker)), Ok(false));
        }
        assert!(sessions.wait(key(0xff), Rc::default()).is_err(), "all places are taken");
        asker.set(true);
        assert_eq!(sessions.wait(key(0xff), Rc::default()), Ok(false));
        sessions.on_looked_up(&made_up(0), None);
        assert_eq!(sessions.next_lookup(), Some(key(0xff)));
    }

    proptest! {
        /// The cache against lists that are searched from end to end.
        #[test]
        fn cache_holds_the_newest_open_sessions(moves in prop::collection::vec((any::<bool>(), 0..8u8), 0..60)) {
            const MAX: usize = 3;
            let mut sessions = cache::<()>(MAX);
            let (mut open, mut closed) = (Vec::new(), Vec::new());
            for (put, n) in moves {
                if put {
                    sessions.put(row(n));
                    if !closed.contains(&n) && !open.contains(&n) {
                        open.push(n);
                    }
                } else {
                    sessions.close(&key(n));
                    open.retain(|one| *one != n);
                    if !closed.contains(&n) {
                        closed.push(n);
                    }
                }
                open.drain(..open.len().saturating_sub(MAX));
                closed.drain(..closed.len().saturating_sub(MAX));
                for n in 0..8 {
                    prop_assert_eq!(sessions.get(&key(n)).is_some(), open.contains(&n));
                }
            }
        }
    }
}

//! Open streams: what waits for each reader, and what is read from the store for it.
//!
//! ```text
//!   tails ───────────► backlog ─┐
//!   store ──on_page──────┘      ├──take──► the reader, as far as it has room
//!   state, people, masters ─────┘ (the newest of each)
//! ```
//!
//! 1. What a reader is given of a board is gapless from its cursor on, or a reset comes first.
//! 2. At most [`BACKLOG_MAX`] deliveries and one page wait for one reader, besides the newest
//!    state, people and masters, and the states of [`PENDING_MAX`] of its person's posts. More is taken from the tails or, a page at a time, from the
//!    store as it reads.
//! 3. At most one read of the store is under way for one reader. Readers share
//!    reads (`page_reads`).
//! 4. A stream that was ended is given nothing more.
//! 5. A reader of changes of the people is given each version's, without a hole, or a
//!    window first that stands for all before it.
//! 6. [`take`](Streams::take) stops only when nothing more is due, or when something else will make
//!    the reader's driver call it again: a read of the store, or room that is waited for.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use crate::{
    model::{
        ids::{BoardName, Post, PostId, Seq, SessionKey, StoreEpoch, UserId},
        rows::ActiveUser,
        shared::Shared,
        stream::{Consistency, Delivery, HeldState, MasterInfo, PresenceWindow},
    },
    protocol::{
        active_list::NewVersion,
        board::{Due, Reader, Tails},
    },
};

/// The most deliveries that wait for one reader, a page from the store aside.
pub const BACKLOG_MAX: usize = 128;
/// The most posts of one read of the store for readers.
pub const PAGE_POSTS_MAX: u32 = 128;
/// The most posts of whose waiting for the store a reader is told, until it has taken that.
pub const PENDING_MAX: usize = 64;
/// Time after which a reader that takes nothing is too slow; its cursor resumes elsewhere.
pub const SLOW_AFTER: Duration = Duration::from_secs(10);
/// Pause before a read that the store did not answer is repeated.
pub const READ_RETRY: Duration = Duration::from_millis(500);

/// Read of the store that a reader waits for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoreRead {
    /// The board.
    pub board: BoardName,
    /// The place after which posts are read.
    pub after: Seq,
}

/// Outcome of taking deliveries for one reader.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Deliveries, in order, at most as many as there was room for.
    pub deliveries: Vec<Delivery>,
    /// Read of the store that is to be made; answer with [`Streams::on_page`] or
    /// [`Streams::on_read_failed`].
    pub read: Option<StoreRead>,
    /// More is due than there was room for: nothing more is handed out until
    /// [`Streams::on_room`].
    pub waits_for_room: bool,
}

/// The open streams of a master. `S` names a stream.
#[derive(Debug)]
pub struct Streams<S> {
    open: BTreeMap<S, Stream>,
    by_board: BTreeMap<BoardName, BTreeSet<S>>,
    by_session: BTreeMap<SessionKey, BTreeSet<S>>,
    by_user: BTreeMap<UserId, BTreeSet<S>>,
}

#[derive(Debug)]
struct Stream {
    session: SessionKey,
    user: UserId,
    /// Boards that it is listed under; a reset may take some out of its cursor.
    boards: Vec<BoardName>,
    reader: Reader,
    /// The reader's own person, unless it asked for lists of the people.
    own: Option<ActiveUser>,
    backlog: VecDeque<Delivery>,
    newest: Newest,
    /// Board of which posts are being read from the store.
    reading: Option<BoardName>,
    /// Room is waited for.
    is_blocked: bool,
    is_over: bool,
}

/// The newest of each kind of which a reader needs no history.
#[derive(Debug, Default)]
struct Newest {
    state: Option<Consistency>,
    /// A list, a window or one change.
    presence: Option<Delivery>,
    masters: Option<Vec<MasterInfo>>,
    /// States of the reader's own posts that waited for the store.
    pending: BTreeMap<PostId, HeldState>,
}

impl Newest {
    fn take(&mut self) -> Option<Delivery> {
        let state = self.state.take().map(Delivery::State);
        state
            .or_else(|| self.presence.take())
            .or_else(|| self.masters.take().map(Delivery::Masters))
            .or_else(|| self.pending.pop_first().map(|(id, state)| Delivery::Pending { id, state }))
    }

    fn is_empty(&self) -> bool {
        self.state.is_none()
            && self.presence.is_none()
            && self.masters.is_none()
            && self.pending.is_empty()
    }
}

impl<S> Default for Streams<S> {
    fn default() -> Self {
        Self {
            open: BTreeMap::new(),
            by_board: BTreeMap::new(),
            by_session: BTreeMap::new(),
            by_user: BTreeMap::new(),
        }
    }
}

impl<S: Copy + Ord> Streams<S> {
    /// Returns how many streams are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Returns whether no stream is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Adds a stream of a session of this person. `first` is delivered before anything else. With `own`, its
    /// reader's person, the stream is told changes of the people instead of lists.
    pub fn open(
        &mut self,
        id: S,
        (session, user): (SessionKey, UserId),
        reader: Reader,
        own: Option<ActiveUser>,
        first: impl IntoIterator<Item = Delivery>,
    ) {
        let boards: Vec<BoardName> = reader.cursor().boards.keys().cloned().collect();
        for board in &boards {
            self.by_board.entry(board.clone()).or_default().insert(id);
        }
        self.by_session.entry(session).or_default().insert(id);
        self.by_user.entry(user).or_default().insert(id);
        let (mut backlog, mut newest) = (VecDeque::new(), Newest::default());
        for delivery in first {
            match delivery {
                // Where newer ones take their place.
                Delivery::State(state) => newest.state = Some(state),
                Delivery::Presence(_) | Delivery::PresenceWindow { .. } => {
                    newest.presence = Some(delivery);
                }
                delivery => backlog.push_back(delivery),
            }
        }
        let stream = Stream {
            session,
            user,
            boards,
            reader,
            own,
            backlog,
            newest,
            reading: None,
            is_blocked: false,
            is_over: false,
        };
        self.open.insert(id, stream);
    }

    /// Forgets a stream whose reader is gone. Returns its session, if it was open.
    pub fn close(&mut self, id: S) -> Option<SessionKey> {
        let stream = self.open.remove(&id)?;
        for board in &stream.boards {
            remove_from(&mut self.by_board, board, &id);
        }
        remove_from(&mut self.by_session, &stream.session, &id);
        remove_from(&mut self.by_user, &stream.user, &id);
        Some(stream.session)
    }

    /// Ends a stream: nothing more is delivered, until its reader is gone.
    pub fn end(&mut self, id: S) {
        if let Some(stream) = self.open.get_mut(&id) {
            stream.is_over = true;
            stream.backlog.clear();
            stream.newest = Newest::default();
        }
    }

    /// Returns all open streams.
    #[must_use]
    pub fn ids(&self) -> Vec<S> {
        self.open.keys().copied().collect()
    }

    /// Returns the streams that follow a board.
    #[must_use]
    pub fn followers(&self, board: &BoardName) -> Vec<S> {
        self.by_board.get(board).into_iter().flatten().copied().collect()
    }

    /// Returns the sessions that have streams.
    #[must_use]
    pub fn sessions(&self) -> BTreeSet<SessionKey> {
        self.by_session.keys().copied().collect()
    }

    /// Returns the streams of a session.
    #[must_use]
    pub fn of_session(&self, key: &SessionKey) -> Vec<S> {
        self.by_session.get(key).into_iter().flatten().copied().collect()
    }

    /// Takes what is due to a reader that has room for so many deliveries. News of the cluster
    /// overtake posts: they are newer.
    #[must_use]
    pub fn take(&mut self, id: S, tails: &Tails, room: usize) -> Taken {
        let mut taken = Taken::default();
        let open = self.open.get_mut(&id).filter(|one| !one.is_over && !one.is_blocked);
        let Some(stream) = open else { return taken };
        taken.read = stream.fill(tails);
        // With a backlog that did not get full, all that is due is in it.
        let mut may_have_more = stream.backlog.len() >= BACKLOG_MAX;
        loop {
            if !stream.has_next() && may_have_more {
                taken.read = stream.fill(tails).or(taken.read);
                may_have_more = stream.backlog.len() >= BACKLOG_MAX;
            }
            if !stream.has_next() {
                return taken;
            }
            if taken.deliveries.len() >= room {
                (stream.is_blocked, taken.waits_for_room) = (true, true);
                return taken;
            }
            taken.deliveries.extend(stream.next());
        }
    }

    /// Takes posts that were read from the store of this epoch for a reader, and maybe for others.
    /// Then [`take`](Self::take).
    pub fn on_page(
        &mut self,
        id: S,
        tails: &Tails,
        board: &BoardName,
        epoch: StoreEpoch,
        posts: &[Shared<Post>],
    ) {
        let Some(stream) = self.open.get_mut(&id) else { return };
        stream.reading = None;
        if !stream.is_over && epoch == tails.epoch() && stream.reader.cursor().epoch == epoch {
            stream.take_page(board, posts);
        }
    }

    /// Notes that the store did not answer to a read. Returns the read that is to be repeated
    /// after [`READ_RETRY`]; `None` if nobody needs it any more. Then [`take`](Self::take): a reader of
    /// an earlier epoch is reset, and the store that is there now may not have the board.
    #[must_use]
    pub fn on_read_failed(&mut self, id: S, tails: &Tails, board: BoardName) -> Option<StoreRead> {
        let stream = self.open.get_mut(&id)?;
        let cursor = stream.reader.cursor();
        let after = cursor.boards.get(&board).copied().filter(|_| cursor.epoch == tails.epoch());
        match after {
            Some(after) if !stream.is_over => Some(StoreRead { board, after }),
            _ => {
                stream.reading = None;
                None
            }
        }
    }

    /// Notes that room is no longer waited for: there is some, or the wait took too long.
    pub fn on_room(&mut self, id: S) {
        if let Some(stream) = self.open.get_mut(&id) {
            stream.is_blocked = false;
        }
    }

    /// Tells every reader whether the master reaches the store.
    pub fn set_state(&mut self, state: Consistency) {
        self.set_newest(|newest| newest.state = Some(state));
    }

    /// Tells every reader of lists who is active.
    pub fn set_presence(&mut self, users: &Shared<Vec<ActiveUser>>) {
        for stream in self.living().filter(|stream| stream.own.is_none()) {
            stream.newest.presence = Some(Delivery::Presence(users.clone()));
        }
    }

    /// Tells every reader of changes what changed. One that has not taken the version before gets a
    /// window.
    pub fn set_presence_version(&mut self, new: &NewVersion) {
        for stream in self.living() {
            let Some(own) = &stream.own else { continue };
            let change = new.change.as_ref().filter(|_| stream.newest.presence.is_none());
            stream.newest.presence = Some(match change {
                Some(change) => Delivery::PresenceChange(change.clone()),
                None => window_for(own, new.window.clone()),
            });
        }
    }

    /// Tells every reader which masters are in.
    pub fn set_masters(&mut self, masters: &[MasterInfo]) {
        self.set_newest(|newest| newest.masters = Some(masters.to_vec()));
    }

    /// Tells the streams of a person the state of one of their posts that waited for the store. Returns
    /// these streams. One that lags behind is not told: it asks for its session when it is back.
    pub fn set_pending(&mut self, user: &UserId, id: PostId, state: HeldState) -> Vec<S> {
        let streams: Vec<S> = self.by_user.get(user).into_iter().flatten().copied().collect();
        for stream in &streams {
            let open = self.open.get_mut(stream).filter(|stream| !stream.is_over);
            if let Some(pending) = open.map(|stream| &mut stream.newest.pending)
                && (pending.len() < PENDING_MAX || pending.contains_key(&id))
            {
                pending.insert(id, state);
            }
        }
        streams
    }

    fn set_newest(&mut self, set: impl Fn(&mut Newest)) {
        self.living().for_each(|stream| set(&mut stream.newest));
    }

    fn living(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.open.values_mut().filter(|stream| !stream.is_over)
    }
}

/// Returns a window of the active people, which always shows the reader's own person.
#[must_use]
pub fn window_for(own: &ActiveUser, window: Shared<PresenceWindow>) -> Delivery {
    let is_shown = window.users.iter().any(|one| one.user.id == own.user.id);
    Delivery::PresenceWindow { window, own: (!is_shown).then(|| own.clone()) }
}

/// Removes a stream from an index, and a key without streams with it.
fn remove_from<K: Ord, S: Ord>(index: &mut BTreeMap<K, BTreeSet<S>>, key: &K, id: &S) {
    if let Some(ids) = index.get_mut(key) {
        ids.remove(id);
        if ids.is_empty() {
            index.remove(key);
        }
    }
}

impl Stream {
    fn has_next(&self) -> bool {
        !self.newest.is_empty() || !self.backlog.is_empty()
    }

    fn next(&mut self) -> Option<Delivery> {
        self.newest.take().or_else(|| self.backlog.pop_front())
    }

    /// Moves what is due into the backlog, as far as it fits. Returns the read of the store that is
    /// to be made.
    fn fill(&mut self, tails: &Tails) -> Option<StoreRead> {
        if !self.reader.is_due(tails) {
            return None;
        }
        let mut read = None;
        let boards: Vec<BoardName> = self.reader.cursor().boards.keys().cloned().collect();
        for board in &boards {
            while self.backlog.len() < BACKLOG_MAX && self.reading.as_ref() != Some(board) {
                match self.reader.due(tails, board, BACKLOG_MAX - self.backlog.len()) {
                    Due::Nothing => break,
                    Due::Posts(posts) => {
                        if let Some(last) = posts.last() {
                            self.reader.delivered(board, last.seq);
                        }
                        self.backlog.extend(posts.into_iter().map(Delivery::Post));
                    }
                    // Its turn comes with the page that is on its way.
                    Due::AskStore { .. } if self.reading.is_some() => break,
                    Due::AskStore { after } => {
                        self.reading = Some(board.clone());
                        read = Some(StoreRead { board: board.clone(), after });
                    }
                    Due::Reset(reason) => {
                        self.reader.reset(tails);
                        let cursor = self.reader.cursor().clone();
                        self.backlog.clear();
                        self.backlog.push_back(Delivery::Reset { reason, cursor });
                    }
                }
            }
        }
        read
    }

    fn take_page(&mut self, board: &BoardName, posts: &[Shared<Post>]) {
        let Some(at) = self.reader.cursor().boards.get(board).copied() else { return };
        let new = &posts[posts.partition_point(|post| post.seq <= at)..];
        // A page that does not begin where the reader is would be a gap.
        if new.first().is_some_and(|post| post.seq == at.next()) {
            if let Some(last) = new.last() {
                self.reader.delivered(board, last.seq);
            }
            self.backlog.extend(new.iter().cloned().map(Delivery::Post));
        }
    }
}

#[cfg(test)]
mod tests;

//! Open streams: each is given its boards' posts in order, at its reader's pace.
//!
//! 1. What a reader is given of a board is gapless from its cursor on, or a reset comes first.
//! 2. At most `BACKLOG` events and one page wait here for one reader, the newest state, people and
//!    masters, and `stream_backlog_max` in its channel; more is taken from the tails or, a page
//!    at a time, from the store as it reads.
//! 3. A reader that takes nothing for [`SLOW_AFTER`] is closed; its cursor resumes elsewhere.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};

use super::{Done, Driver, reads::WantStream};
use crate::{
    env::{Env, TimedOut},
    model::{
        ids::{BoardName, SessionKey},
        rows::{ActiveUser, Boards, Page, Range, StoreError},
    },
    node::handle::{
        ByeReason, Consistency, Delivery, Feed, FeedGuard, Hello, MasterInfo, ReadError,
    },
    protocol::board::{Due, Reader, Tails},
    store::Store,
};

/// Events that wait here for one reader.
const BACKLOG: usize = 128;
/// A reader that takes nothing for this long is closed.
const SLOW_AFTER: Duration = Duration::from_secs(10);
/// Posts of one fetch for one reader.
const PAGE: u32 = 128;
/// After a fetch that the store did not answer.
const FETCH_RETRY: Duration = Duration::from_millis(500);

/// What delivering needs of the driver.
type From<'a> = (&'a Env, &'a mpsc::Sender<Done>, &'a Tails);

struct Open {
    key: SessionKey,
    reader: Reader,
    events: mpsc::Sender<Delivery>,
    backlog: VecDeque<Delivery>,
    /// The newest of each kind that is told once, until there is room.
    owed: Owed,
    /// The board of which posts are being read from the store for it.
    fetching: Option<BoardName>,
    /// Room in its channel is being waited for.
    waits_for_room: bool,
}

/// What a reader is told once, when it changes.
#[derive(Default)]
struct Owed {
    state: Option<Consistency>,
    presence: Option<Arc<[ActiveUser]>>,
    masters: Option<Vec<MasterInfo>>,
}

impl Owed {
    const fn is_empty(&self) -> bool {
        self.state.is_none() && self.presence.is_none() && self.masters.is_none()
    }

    fn next(&mut self) -> Option<Delivery> {
        let state = self.state.take().map(Delivery::State);
        let presence = || self.presence.take().map(Delivery::Presence);
        state.or_else(presence).or_else(|| self.masters.take().map(Delivery::Masters))
    }
}

/// All streams of a master.
#[derive(Default)]
pub(super) struct Feeds {
    open: BTreeMap<u64, Open>,
    by_board: BTreeMap<BoardName, BTreeSet<u64>>,
    last: u64,
}

impl Feeds {
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// Opens a stream; its first events are in its channel when this returns.
    fn add(&mut self, key: SessionKey, reader: Reader, events: mpsc::Sender<Delivery>) -> u64 {
        self.last += 1;
        for board in reader.cursor().boards.keys() {
            self.by_board.entry(board.clone()).or_default().insert(self.last);
        }
        let backlog = VecDeque::new();
        let (owed, fetching) = (Owed::default(), None);
        let open = Open { key, reader, events, backlog, owed, fetching, waits_for_room: false };
        self.open.insert(self.last, open);
        self.last
    }

    /// A stream is over: whose it was, if it was open.
    pub(super) fn close(&mut self, feed: u64) -> Option<SessionKey> {
        let open = self.open.remove(&feed)?;
        for board in open.reader.cursor().boards.keys() {
            if let Some(feeds) = self.by_board.get_mut(board) {
                feeds.remove(&feed);
                if feeds.is_empty() {
                    self.by_board.remove(board);
                }
            }
        }
        Some(open.key)
    }

    /// A board has more: to all who follow it.
    pub(super) fn deliver(&mut self, from: From<'_>, store: &Store, board: &BoardName) {
        let feeds: Vec<u64> = self.by_board.get(board).into_iter().flatten().copied().collect();
        for feed in feeds {
            self.go_on(from, store, feed);
        }
    }

    /// Everything may have changed.
    pub(super) fn deliver_all(&mut self, from: From<'_>, store: &Store) {
        let feeds: Vec<u64> = self.open.keys().copied().collect();
        for feed in feeds {
            self.go_on(from, store, feed);
        }
    }

    /// Gives one reader what is due and fits.
    fn go_on(&mut self, from: From<'_>, store: &Store, feed: u64) {
        let (env, done, tails) = from;
        let Some(open) = self.open.get_mut(&feed) else { return };
        let boards: Vec<BoardName> = open.reader.cursor().boards.keys().cloned().collect();
        for board in &boards {
            while open.backlog.len() < BACKLOG && open.fetching.as_ref() != Some(board) {
                match open.reader.due(tails, board, BACKLOG - open.backlog.len()) {
                    Due::Nothing => break,
                    Due::Posts(posts) => {
                        if let Some(last) = posts.last() {
                            open.reader.delivered(board, last.seq);
                        }
                        open.backlog.extend(posts.into_iter().map(Delivery::Post));
                    }
                    // Its turn comes with the page that is on its way.
                    Due::AskStore { .. } if open.fetching.is_some() => break,
                    Due::AskStore { after } => {
                        open.fetching = Some(board.clone());
                        let (store, board) = (store.clone(), board.clone());
                        let done = done.clone();
                        env.spawn("feed-page", async move {
                            let answer = store.read(board.clone(), Range::After(after), PAGE).await;
                            let _ = done.send(Done::FeedPage { feed, board, answer }).await;
                        });
                    }
                    Due::Reset(reason) => {
                        open.reader.reset(tails);
                        let cursor = open.reader.cursor().clone();
                        open.backlog.clear();
                        open.backlog.push_back(Delivery::Reset { reason, cursor });
                    }
                }
            }
        }
        open.flush(env, done, feed);
    }

    /// Posts that were read from the store for one reader.
    pub(super) fn on_page(
        &mut self,
        from: From<'_>,
        store: &Store,
        feed: u64,
        board: &BoardName,
        answer: Result<Page, StoreError>,
    ) {
        let (env, done, tails) = from;
        let Some(open) = self.open.get_mut(&feed) else { return };
        match answer {
            Ok(page) if page.epoch == tails.epoch() => {
                open.fetching = None;
                let at = open.reader.cursor().boards.get(board).copied().unwrap_or_default();
                let new: Vec<_> = page.posts.into_iter().filter(|post| post.seq > at).collect();
                // A page that does not begin where the reader is would be a hole.
                if new.first().is_some_and(|post| post.seq == at.next()) {
                    if let Some(last) = new.last() {
                        open.reader.delivered(board, last.seq);
                    }
                    let posts = new.into_iter().map(|post| Delivery::Post(Arc::new(post)));
                    open.backlog.extend(posts);
                }
            }
            Ok(_) => open.fetching = None,
            Err(_) => {
                let (done, env_later, board) = (done.clone(), env.clone(), board.clone());
                let (store, at) = (store.clone(), open.reader.cursor().boards.get(&board).copied());
                env.spawn("feed-page", async move {
                    env_later.sleep(FETCH_RETRY).await;
                    let range = Range::After(at.unwrap_or_default());
                    let answer = store.read(board.clone(), range, PAGE).await;
                    let _ = done.send(Done::FeedPage { feed, board, answer }).await;
                });
                return;
            }
        }
        self.go_on(from, store, feed);
    }

    /// A reader has room again, or took nothing for too long.
    pub(super) fn on_room(&mut self, from: From<'_>, store: &Store, feed: u64, has_room: bool) {
        if let Some(open) = self.open.get_mut(&feed) {
            open.waits_for_room = false;
        }
        if has_room {
            self.go_on(from, store, feed);
        } else if self.open.contains_key(&feed) {
            from.0.sometimes("a slow stream reader was closed");
            // Its end of the channel closes; FeedGone follows and tells presence.
            if let Some(open) = self.open.get_mut(&feed) {
                open.shut();
            }
        }
    }

    fn tell_all(&mut self, env: &Env, done: &mpsc::Sender<Done>, tell: impl Fn(&mut Owed)) {
        for (feed, open) in &mut self.open {
            tell(&mut open.owed);
            open.flush(env, done, *feed);
        }
    }

    pub(super) fn say_state(&mut self, env: &Env, done: &mpsc::Sender<Done>, state: Consistency) {
        self.tell_all(env, done, |owed| owed.state = Some(state));
    }

    pub(super) fn say_presence(
        &mut self,
        env: &Env,
        done: &mpsc::Sender<Done>,
        users: &Arc<[ActiveUser]>,
    ) {
        self.tell_all(env, done, |owed| owed.presence = Some(Arc::clone(users)));
    }

    pub(super) fn say_masters(
        &mut self,
        env: &Env,
        done: &mpsc::Sender<Done>,
        masters: &[MasterInfo],
    ) {
        self.tell_all(env, done, |owed| owed.masters = Some(masters.to_vec()));
    }

    /// The last event of every stream.
    pub(super) fn say_bye(&mut self, reason: ByeReason, to: &[MasterInfo]) {
        for open in self.open.values_mut() {
            open.say_bye(reason, to);
        }
    }

    /// A session was closed: so are its streams.
    pub(super) fn log_out(&mut self, key: &SessionKey) {
        for open in self.open.values_mut().filter(|open| open.key == *key) {
            open.say_bye(ByeReason::LoggedOut, &[]);
        }
    }
}

impl Open {
    /// Moves what waits into the channel, as far as it fits.
    fn flush(&mut self, env: &Env, done: &mpsc::Sender<Done>, feed: u64) {
        while !self.owed.is_empty() || !self.backlog.is_empty() {
            match self.events.try_reserve() {
                Ok(room) => {
                    // Update of the cluster overtakes posts: it is newer than they are.
                    if let Some(event) = self.owed.next().or_else(|| self.backlog.pop_front()) {
                        room.send(event);
                    }
                }
                Err(mpsc::error::TrySendError::Closed(())) => return,
                Err(mpsc::error::TrySendError::Full(())) => {
                    if !self.waits_for_room {
                        self.waits_for_room = true;
                        self.wait_for_room(env, done, feed);
                    }
                    return;
                }
            }
        }
    }

    fn wait_for_room(&self, env: &Env, done: &mpsc::Sender<Done>, feed: u64) {
        let (events, done, of_node) = (self.events.clone(), done.clone(), env.clone());
        env.spawn("feed-room", async move {
            let room = of_node.timeout(SLOW_AFTER, events.reserve()).await;
            let has_room = !matches!(room, Err(TimedOut));
            drop(room);
            drop(events);
            let _ = done.send(Done::FeedRoom { feed, has_room }).await;
        });
    }

    /// Ends the stream without a word.
    fn shut(&mut self) {
        let (closed, _) = mpsc::channel(1);
        self.events = closed;
        self.backlog.clear();
    }

    fn say_bye(&mut self, reason: ByeReason, to: &[MasterInfo]) {
        let bye = Delivery::Bye { reason, to: to.to_vec(), retry_ms: 0 };
        // If it does not fit the reader finds out by the stream's end.
        let _ = self.events.try_send(bye);
        self.shut();
    }
}

impl Driver {
    /// Opens a stream. `read` is what the store said of all boards just now.
    pub(super) fn open_stream(&mut self, want: WantStream, read: Option<&Boards>) {
        let WantStream { session, boards, cursor, reply } = want;
        if self.feeds.len() >= self.config.streams_max {
            let _ = reply.send(Err(ReadError::Overloaded));
            return;
        }
        let (reader, reset) = Reader::open(&self.tails, &boards, &cursor, read);
        let (events, receiver) = mpsc::channel(self.config.stream_backlog_max.max(4));
        let hello = Hello {
            node: self.me.clone(),
            masters: self.masters.clone(),
            cursor: reader.cursor().clone(),
            beat_ms: u64::try_from(self.config.stream_beat_interval.as_millis())
                .unwrap_or(u64::MAX),
        };
        let (guard, gone) = oneshot::channel();
        let feed = Feed { hello, events: receiver, guard: FeedGuard { _gone: guard } };
        if reply.send(Ok(feed)).is_err() {
            return;
        }
        let now = self.env.now();
        let id = self.feeds.add(session.key, reader, events);
        self.presence.on_stream_opened(now, session.key);
        self.spawn("feed", async move {
            // Nothing is ever sent on it: it ends with the reader.
            let _ = gone.await;
            Done::FeedGone { feed: id }
        });
        let state = if self.core.is_strong(now) { Consistency::Strong } else { Consistency::Weak };
        if let Some(open) = self.feeds.open.get_mut(&id) {
            if let Some(reason) = reset {
                let cursor = open.reader.cursor().clone();
                open.backlog.push_back(Delivery::Reset { reason, cursor });
            }
            open.backlog.push_back(Delivery::State(state));
            open.backlog.push_back(Delivery::Presence(Arc::clone(&self.users)));
        }
        let from = (&self.env, &self.done, &self.tails);
        self.feeds.go_on(from, &self.store, id);
    }
}

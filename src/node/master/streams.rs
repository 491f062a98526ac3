//! Channels of open streams: what the table holds for a reader goes out as the reader has room.

use std::{collections::BTreeMap, time::Duration};

use tokio::sync::{mpsc, oneshot};

use super::{
    Driver,
    input::{Input, StreamId},
    reads::WantStream,
};
use crate::{
    api::HelloEvent,
    env::TimedOut,
    model::{
        ids::{BoardName, Post, SessionKey},
        rows::{Boards, Page, Range, StoreError},
        shared::Shared,
        time::Mono,
    },
    node::handle::{
        ByeReason, Consistency, Delivery, FirstReset, MasterInfo, PresenceForm, RequestError,
        StreamGuard, StreamHandle,
    },
    protocol::{
        board::Reader,
        page_reads::PageReads,
        streams::{PAGE_POSTS_MAX, READ_RETRY, SLOW_AFTER, StoreRead, Streams, window_for},
    },
};

/// The table of streams, and the channel of each that is not ended.
#[derive(Default)]
pub(super) struct OpenStreams {
    pub(super) table: Streams<StreamId>,
    pages: PageReads<StreamId>,
    senders: BTreeMap<StreamId, mpsc::Sender<Delivery>>,
    last: u64,
}

impl OpenStreams {
    fn next_id(&mut self) -> StreamId {
        self.last += 1;
        StreamId(self.last)
    }

    /// Ends a stream; its reader sees its channel close, and then goes.
    fn end(&mut self, id: StreamId) {
        self.table.end(id);
        self.senders.remove(&id);
    }

    /// Ends a stream by a last delivery. If it does not fit, the reader notices the end anyway.
    pub(super) fn end_with_bye(&mut self, id: StreamId, reason: ByeReason, to: &[MasterInfo]) {
        if let Some(sender) = self.senders.get(&id) {
            let _ = sender.try_send(Delivery::Bye { reason, to: to.to_vec(), retry_ms: 0 });
        }
        self.end(id);
    }

    /// Ends every stream.
    pub(super) fn end_all(&mut self, reason: ByeReason, to: &[MasterInfo]) {
        for id in self.table.ids() {
            self.end_with_bye(id, reason, to);
        }
    }

    /// Ends the streams of a session that was closed.
    pub(super) fn log_out(&mut self, key: &SessionKey) {
        for id in self.table.of_session(key) {
            self.end_with_bye(id, ByeReason::LoggedOut, &[]);
        }
    }
}

impl Driver {
    /// Opens a stream. `read` is what the store said of all boards just now; `None` if it was away.
    pub(super) fn open_stream(&mut self, want: WantStream, read: Option<&Boards>) {
        let WantStream { key, epoch, author, boards, cursor, presence, reply } = want;
        if self.drain.is_some() {
            let _ = reply.send(Err(RequestError::Away));
            return;
        }
        if self.streams.table.len() >= self.config.streams_max {
            let _ = reply.send(Err(RequestError::Overloaded));
            return;
        }
        // Its log-out may have come while the boards were read.
        if self.people.sessions.is_closed(&key) {
            let _ = reply.send(Err(RequestError::Unauthorised));
            return;
        }
        // Its reader would never be shown a board of which this master has yet to hear.
        if read.is_none() && !self.tails.can_open(&boards) {
            let _ = reply.send(Err(RequestError::Away));
            return;
        }
        let (reader, reset) = Reader::open(&self.tails, &boards, &cursor, read);
        let (sender, deliveries) = mpsc::channel(self.config.stream_backlog_max.max(4));
        let beat_ms = self.config.stream_beat_interval.as_millis();
        let hello = HelloEvent {
            node: self.me.info.clone(),
            masters: self.poll.masters().to_vec(),
            cursor: reader.cursor().clone(),
            beat_ms: u64::try_from(beat_ms).unwrap_or(u64::MAX),
        };
        let (guard, gone) = oneshot::channel();
        let guard = StreamGuard { _gone: guard };
        let reset = reset.map(|reason| FirstReset { reason, asked: cursor.unwrap_or_default() });
        if reply.send(Ok(StreamHandle { hello, reset, deliveries, guard })).is_err() {
            return;
        }
        let now = self.env.now();
        // What the others were told, so that the next change is one for this stream as well.
        self.announce_state(now);
        let state = Consistency::of(self.links.is_strong());
        let active = &mut self.people.active;
        let own = match presence {
            PresenceForm::Lists => None,
            PresenceForm::Changes => Some(active.row_of(&author, self.tails.as_of_ms())),
        };
        let people = match &own {
            None => Delivery::Presence(active.users().clone()),
            Some(own) => window_for(own, active.window()),
        };
        let id = self.streams.next_id();
        let first = [Delivery::State(state), people];
        self.streams.table.open(id, (key, author.id), reader, own, first);
        self.streams.senders.insert(id, sender);
        self.people.presence.on_stream_opened(now, key);
        if epoch != self.tails.epoch() {
            // The store was replaced while the boards were read, maybe by one without the session.
            self.people.sessions.check(key);
            self.check_sessions();
        }
        self.spawn("stream", async move {
            // Nothing is ever sent on it: it ends with the reader.
            let _ = gone.await;
            Input::StreamGone { id }
        });
        self.feed(id);
    }

    /// Sends all who follow a board what it has more.
    pub(super) fn deliver(&mut self, board: &BoardName) {
        for id in self.streams.table.followers(board) {
            self.feed(id);
        }
    }

    /// Tells the streams what changed of the people, unless they asked for lists, when it is time.
    pub(super) fn tell_people(&mut self, now: Mono) {
        if let Some(version) = self.people.active.due(now) {
            self.streams.table.set_presence_version(&version);
            self.deliver_all();
        }
    }

    /// Sends every reader what is due to it.
    pub(super) fn deliver_all(&mut self) {
        for id in self.streams.table.ids() {
            self.feed(id);
        }
    }

    /// Sends a reader what is due to it, as far as its channel has room.
    pub(super) fn feed(&mut self, id: StreamId) {
        // While a task waits for room the table hands out nothing: this is the only sender.
        let Some(sender) = self.streams.senders.get(&id) else { return };
        let taken = self.streams.table.take(id, &self.tails, sender.capacity());
        for delivery in taken.deliveries {
            if sender.try_send(delivery).is_err() {
                // The reader is gone; so is what it would have been given.
                return;
            }
        }
        if taken.waits_for_room {
            let (sender, env) = (sender.clone(), self.env.clone());
            self.spawn("stream-room", async move {
                let room = env.timeout(SLOW_AFTER, sender.reserve()).await;
                let has_room = !matches!(room, Err(TimedOut));
                Input::StreamRoom { id, has_room }
            });
        }
        if let Some(read) = taken.read {
            self.want_page(id, read, Duration::ZERO);
        }
    }

    /// Has posts read from the store for a reader, after a wait, unless they are being read for
    /// others.
    fn want_page(&mut self, id: StreamId, needed: StoreRead, wait: Duration) {
        let Some(page) = self.streams.pages.add(id, needed) else { return };
        let (env, store) = (self.env.clone(), self.store.clone());
        self.spawn("stream-page", async move {
            if !wait.is_zero() {
                env.sleep(wait).await;
            }
            let StoreRead { board, after } = page.clone();
            let answer = store.read(board, Range::After(after), PAGE_POSTS_MAX).await;
            Input::StreamPage { page, answer }
        });
    }

    pub(super) fn on_stream_page(&mut self, page: &StoreRead, answer: Result<Page, StoreError>) {
        let (waited, board) = (self.streams.pages.end(page), &page.board);
        let Ok(Page { posts, epoch, .. }) = answer else {
            for id in waited {
                match self.streams.table.on_read_failed(id, &self.tails, board.clone()) {
                    Some(needed) => self.want_page(id, needed, READ_RETRY),
                    None => self.feed(id),
                }
            }
            return;
        };
        let posts: Vec<Shared<Post>> = posts.into_iter().map(Shared::new).collect();
        self.tails.prepend(epoch, board, &posts);
        for id in waited {
            self.streams.table.on_page(id, &self.tails, board, epoch, &posts);
            self.feed(id);
        }
    }

    /// Goes on with a reader that has room again, or ends the stream of one that is too slow.
    pub(super) fn on_stream_room(&mut self, id: StreamId, has_room: bool) {
        self.streams.table.on_room(id);
        if has_room {
            self.feed(id);
        } else if self.streams.senders.contains_key(&id) {
            self.env.sometimes("a slow stream reader was closed");
            self.streams.end(id);
        }
    }

    pub(super) fn on_stream_gone(&mut self, id: StreamId) {
        self.streams.senders.remove(&id);
        if let Some(key) = self.streams.table.close(id) {
            self.people.presence.on_stream_closed(self.env.now(), &key);
        }
    }
}

//! What a master asks the store again and again, and what it touches there.

use super::{Done, Driver};
use crate::{
    model::{
        ids::{BoardName, Seq, SessionKey},
        rows::{Active, Admission, Boards, MasterRow, Page, StoreError},
        time::Mono,
    },
    node::handle::MasterInfo,
};

/// The most posts of one fetch.
const FETCH_MAX: u32 = 500;

/// One round of reads; what the store did not answer is `None`.
pub(super) struct Polled {
    boards: Option<Boards>,
    masters: Option<Vec<MasterRow>>,
    admission: Option<Admission>,
    users: Option<Active>,
    closed: Option<(Vec<SessionKey>, u64)>,
}

impl Driver {
    /// Touches this master's row, and reads all that others write.
    pub(super) fn poll(&mut self, now: Mono) {
        if now >= self.touch_at && !self.touching {
            self.touching = true;
            let (store, holder) = (self.store.clone(), self.holder);
            self.spawn(
                "touch",
                async move { Done::Touched(store.touch_master(holder, false).await) },
            );
        }
        if now >= self.poll_at && !self.polling {
            self.polling = true;
            let (store, mark) = (self.store.clone(), self.closed_mark);
            self.spawn("poll", async move {
                let mut polled = Polled {
                    boards: None,
                    masters: None,
                    admission: None,
                    users: None,
                    closed: None,
                };
                // A store that is away makes one question wait, not five.
                polled.boards = store.boards().await.ok();
                if polled.boards.is_some() {
                    polled.masters = store.masters().await.ok();
                    polled.admission = store.admission().await.ok();
                    polled.users = store.active_users().await.ok();
                    polled.closed = store.closed_since(mark).await.ok();
                }
                Done::Polled(Box::new(polled))
            });
        }
    }

    pub(super) fn on_touched(&mut self, now: Mono, done: bool) {
        self.touching = false;
        self.touch_at = now + self.config.store_poll_interval;
        self.core.on_store_write(now, done, &mut self.out);
    }

    pub(super) fn on_polled(&mut self, now: Mono, polled: Polled) {
        self.polling = false;
        self.poll_at = now + self.config.store_poll_interval;
        let Polled { boards, masters, admission, users, closed } = polled;
        if let Some(boards) = boards {
            self.take_boards(&boards);
        }
        if let Some(rows) = &masters {
            self.gate.lists().set_masters(rows);
        }
        self.core.on_masters(now, masters, &mut self.out);
        self.note_masters();
        self.note_directory();
        if let Some(admission) = admission {
            self.gate.lists().set_admission(admission);
        }
        if let Some(users) = users {
            self.take_users(users);
        }
        if let Some((keys, mark)) = closed {
            self.closed_mark = mark;
            for key in keys {
                self.on_session_closed(key);
            }
        }
    }

    /// Streams hear when the list of masters changed.
    fn note_masters(&mut self) {
        let mut masters: Vec<MasterInfo> = self
            .core
            .watch()
            .rows()
            .filter(|(row, is_in)| *is_in && !row.draining && row.node != self.me.id)
            .map(|(row, _)| MasterInfo {
                id: row.node,
                name: row.name.clone(),
                http: row.http.clone(),
            })
            .collect();
        masters.push(self.me.clone());
        masters.sort();
        if masters != self.masters {
            self.masters = masters;
            self.streams.table.set_masters(&self.masters);
            self.flush_all();
        }
    }

    /// The ends of all boards, as the store has them.
    pub(super) fn take_boards(&mut self, boards: &Boards) {
        let noted = self.tails.on_boards(boards);
        if noted.new_epoch {
            let now = self.env.now();
            self.core.on_store_epoch(now, boards.epoch, &mut self.out);
            self.fetching.clear();
            self.deliver_all();
        }
        for (board, have) in noted.behind {
            self.fetch(board, have);
        }
    }

    /// Gets what a tail lacks.
    pub(super) fn fetch(&mut self, board: BoardName, have: Seq) {
        if !self.fetching.insert(board.clone()) {
            return;
        }
        let store = self.store.clone();
        self.spawn("fetch", async move {
            let range = crate::model::rows::Range::After(have);
            let answer = store.read(board.clone(), range, FETCH_MAX).await;
            Done::TailPage { board, answer }
        });
    }

    pub(super) fn on_tail_page(&mut self, board: BoardName, answer: Result<Page, StoreError>) {
        self.fetching.remove(&board);
        // Without an answer the next poll finds the same gap.
        let Ok(page) = answer else { return };
        self.tails.apply(page.epoch, &board, &page.posts);
        self.deliver(&board);
        if let Some(have) = self.tails.last(&board)
            && have < page.last_seq
            && page.epoch == self.tails.epoch()
            && !page.posts.is_empty()
        {
            self.fetch(board, have);
        }
    }

    /// Tells the store who is here, and who left.
    pub(super) fn touch_sessions(&mut self, now: Mono) {
        let due = self.presence.due(now);
        if let Some(keys) = due.touch {
            let (store, me) = (self.store.clone(), self.holder.node);
            self.spawn("presence", async move {
                let answer = store.touch_sessions(me, keys.clone()).await;
                Done::SessionsTouched { keys, answer }
            });
        }
        for (key, seen_ms) in due.leave {
            let (store, me) = (self.store.clone(), self.holder.node);
            self.env.spawn("leave", async move {
                // If it is not heard the row is out by its age soon.
                let _ = store.leave_session(me, key, seen_ms).await;
            });
        }
    }

    pub(super) fn on_sessions_touched(
        &mut self,
        keys: &[SessionKey],
        answer: Result<u64, StoreError>,
    ) {
        let now = self.env.now();
        self.presence.on_touched(keys, answer.as_ref().ok().copied());
        self.core.on_store_write(now, answer.is_ok(), &mut self.out);
        if answer.is_ok() {
            self.want_users();
        } else {
            self.give_up_users();
        }
    }
}

//! Updates: what is published to the domain and to other masters, and what follows from it here.

use super::Driver;
use crate::{
    model::{
        ids::LinkId,
        message::{Direct, Topic, Update, Updates},
    },
    protocol::board::TailChange,
};

impl Driver {
    /// Takes updates in here, and publishes them to the domain, and to the other masters if `spread`.
    pub(super) fn publish(&mut self, updates: Updates, spread: bool) {
        let direct = Direct::Updates(updates);
        if spread {
            for (_, link) in self.core.peers() {
                self.send(link, &direct);
            }
        }
        let Direct::Updates(updates) = direct else { return };
        self.links.fan_out(&self.env, &updates);
        self.take_updates(updates);
    }

    /// Takes what another master publishes to its domain, and publishes it to this one. What it says
    /// of members is compared with the directory first.
    pub(super) fn on_updates(&mut self, id: LinkId, updates: Updates) {
        if updates.topic() != Topic::Membership {
            self.links.fan_out(&self.env, &updates);
            return self.take_updates(updates);
        }
        for update in updates {
            if let Update::Members(members) = update {
                self.core.on_members(self.env.now(), id, members, &mut self.out);
            }
        }
        self.note_directory();
    }

    /// Takes updates in, wherever they come from: tails, streams and sessions follow.
    fn take_updates(&mut self, updates: Updates) {
        for update in updates {
            self.take_update(update);
        }
    }

    fn take_update(&mut self, update: Update) {
        self.poll.own_ends.note(&update);
        match update {
            Update::Posts { epoch, board, posts, .. } => {
                match self.tails.apply(epoch, &board, &posts) {
                    TailChange::Extended { .. } => self.deliver(&board),
                    TailChange::Gap { have, .. } => self.fetch(board, have),
                    TailChange::NewEpoch => self.poll.read_now(self.env.now()),
                    TailChange::Duplicate | TailChange::OldEpoch => {}
                    TailChange::Malformed => tracing::warn!(%board, "a malformed update of posts"),
                }
            }
            Update::BoardCreated(board) => {
                self.tails.on_created(&board);
            }
            Update::Session(row) => self.people.sessions.put(row),
            Update::SessionClosed(key) => self.on_session_closed(key),
            Update::ReadMark { key, board, seq } => {
                self.people.sessions.raise_mark(&key, board, seq)
            }
            Update::PresenceChanged => self.want_users(),
            Update::Pending { user, id, state } => {
                for stream in self.streams.table.set_pending(&user, id, state) {
                    self.feed(stream);
                }
            }
            Update::Members(_) => {}
        }
    }
}

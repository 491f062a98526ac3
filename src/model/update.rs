//! Updates: what is published, alone or together.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::{
    bounds::{
        LIST_BYTES_MAX, MEMBER_LEN_MAX, POST_HEAD_MAX, SESSION_LEN_MAX, UPDATES_MAX, post_len,
    },
    ids::{BoardName, Post, PostId, Seq, SessionKey, StoreEpoch, UserId},
    lists::list,
    member::Member,
    rows::SessionRow,
    stream::HeldState,
};

/// Subject of a publish. Nodes subscribe to topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Topic {
    /// Joins, leaves, failures.
    Membership,
    /// Posts that were committed.
    Board,
    /// Sessions opened, closed, marked.
    Session,
    /// People who came or went, and what only their streams are told: for masters alone.
    Presence,
    /// Announcements of common keys.
    Keys,
}

impl Topic {
    /// All topics.
    pub const ALL: [Self; 5] =
        [Self::Membership, Self::Board, Self::Session, Self::Presence, Self::Keys];
}

/// Content of a publish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Update {
    /// Newer facts about members, with everything that the directory holds about them.
    Members(Vec<Member>),
    /// Committed posts, ascending and without a gap.
    Posts {
        /// Store epoch of the numbers.
        epoch: StoreEpoch,
        /// Board of the posts.
        board: BoardName,
        /// The posts.
        posts: Vec<Post>,
        /// Store time of the commit.
        as_of_ms: u64,
    },
    /// A board was created.
    BoardCreated(BoardName),
    /// A session was opened or marked.
    Session(SessionRow),
    /// A session was closed.
    SessionClosed(SessionKey),
    /// The list of active people changed; ask for it again.
    PresenceChanged,
    /// A session read a board up to a place.
    ReadMark {
        /// Session that read.
        key: SessionKey,
        /// Board that was read.
        board: BoardName,
        /// Last place that was read; only rises.
        seq: Seq,
    },
    /// A post waits for the store on workers' disks, or does no more. For its author's streams only.
    Pending {
        /// Author of the post.
        user: UserId,
        /// Id of the post.
        id: PostId,
        /// Its state.
        state: HeldState,
    },
}

impl Update {
    /// Returns the topic that the update is published on.
    #[must_use]
    pub const fn topic(&self) -> Topic {
        match self {
            Self::Members(_) => Topic::Membership,
            Self::Posts { .. } | Self::BoardCreated(_) => Topic::Board,
            Self::Session(_) | Self::SessionClosed(_) | Self::ReadMark { .. } => Topic::Session,
            Self::PresenceChanged | Self::Pending { .. } => Topic::Presence,
        }
    }

    /// Returns how many bytes the update takes at most.
    fn weight(&self) -> usize {
        match self {
            Self::Members(members) => members.len() * MEMBER_LEN_MAX,
            Self::Posts { posts, .. } => POST_HEAD_MAX + posts.iter().map(post_len).sum::<usize>(),
            Self::Session(_) => SESSION_LEN_MAX,
            _ => POST_HEAD_MAX,
        }
    }
}

/// Updates of one topic that are published together: at least one, at most [`UPDATES_MAX`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "UpdateList")]
pub struct Updates {
    first: Update,
    others: Vec<Update>,
    /// Bytes that they take at most.
    weight: usize,
}

/// Updates as they are written.
#[derive(Deserialize)]
struct UpdateList(#[serde(deserialize_with = "updates")] Vec<Update>);

impl From<Update> for Updates {
    fn from(first: Update) -> Self {
        let weight = first.weight();
        Self { first, others: Vec::new(), weight }
    }
}

impl Serialize for Updates {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(std::iter::once(&self.first).chain(&self.others))
    }
}

impl TryFrom<UpdateList> for Updates {
    type Error = &'static str;

    fn try_from(from: UpdateList) -> Result<Self, Self::Error> {
        let mut list = from.0.into_iter();
        let mut updates = Self::from(list.next().ok_or("no update")?);
        for update in list {
            if update.topic() != updates.topic() {
                return Err("updates of several topics");
            }
            updates.weight += update.weight();
            updates.others.push(update);
        }
        Ok(updates)
    }
}

impl Updates {
    /// Returns the topic of all of them.
    #[must_use]
    pub const fn topic(&self) -> Topic {
        self.first.topic()
    }

    /// Adds an update.
    ///
    /// # Errors
    /// The update, if it is of another topic, or does not fit into one message with the others.
    pub fn push(&mut self, update: Update) -> Result<(), Update> {
        let weight = self.weight + update.weight();
        let is_full = self.others.len() + 1 >= UPDATES_MAX || weight > LIST_BYTES_MAX;
        if is_full || update.topic() != self.topic() {
            return Err(update);
        }
        self.weight = weight;
        self.others.push(update);
        Ok(())
    }
}

impl IntoIterator for Updates {
    type Item = Update;
    type IntoIter = std::iter::Chain<std::iter::Once<Update>, std::vec::IntoIter<Update>>;

    fn into_iter(self) -> Self::IntoIter {
        std::iter::once(self.first).chain(self.others)
    }
}

/// Reads a list of at most [`UPDATES_MAX`].
fn updates<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Update>, D::Error> {
    list::<UPDATES_MAX, D, Update>(from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::Author;

    fn closed(n: u8) -> Update {
        Update::SessionClosed(SessionKey([n; 32]))
    }

    #[test]
    fn updates_are_of_one_topic_bounded_and_keep_their_order() {
        let mut updates = Updates::from(closed(0));
        assert_eq!(updates.push(Update::PresenceChanged), Err(Update::PresenceChanged));
        let count = u8::try_from(UPDATES_MAX).expect("small");
        for n in 1..count {
            assert_eq!(updates.push(closed(n)), Ok(()));
        }
        assert_eq!(updates.push(closed(count)), Err(closed(count)));
        assert!(updates.into_iter().eq((0..count).map(closed)));
    }

    #[test]
    fn updates_that_do_not_fit_into_one_message_are_not_put_together() {
        let user = Author { id: UserId([1; 16]), name: "Ada".parse().expect("a name") };
        let row = SessionRow { key: SessionKey([1; 32]), user, read_marks: Vec::new() };
        let mut updates = Updates::from(Update::Session(row.clone()));
        while updates.push(Update::Session(row.clone())).is_ok() {}
        let sessions = updates.into_iter().count();
        assert!(sessions * SESSION_LEN_MAX <= LIST_BYTES_MAX && sessions < UPDATES_MAX);
    }
}

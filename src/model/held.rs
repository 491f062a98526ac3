//! Posts that wait for the store on the disks of workers, their *holders*.

use serde::{Deserialize, Serialize};

use crate::model::{
    ids::{BoardName, PostId, UserId},
    rows::NewPost,
};

/// Author and id of a post that waits: what the store knows a post by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeldKey {
    /// Author of the post.
    pub user: UserId,
    /// Id of the post.
    pub id: PostId,
}

/// Post that waits for the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldPost {
    /// Board to write to.
    pub board: BoardName,
    /// Post to write.
    pub post: NewPost,
}

impl HeldPost {
    /// Returns what the store knows the post by.
    #[must_use]
    pub const fn key(&self) -> HeldKey {
        HeldKey { user: self.post.author.id, id: self.post.id }
    }
}

/// Answer of a worker that was asked to hold a post.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HoldReply {
    /// The post is on the worker's disk, by this request or an earlier one.
    Held,
    /// The worker holds as many posts as it may; it did not take this one.
    Full,
    /// The worker holds another post under this id; it did not take this one.
    Conflict,
    /// The worker could not take the post, and does not hold it.
    Failed,
    /// The worker may hold the post, or not.
    Unknown,
}

/// Answer of a master to a holder that handed a post in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HandInReply {
    /// The store decided, or the post is kept as a dead letter for its age: it is to be deleted.
    Ended,
    /// Every attempt failed, and the post is kept as a dead letter: it is to be handed in again after
    /// the next registration.
    DeadLetter,
    /// The post could not be written now: it is to be handed in again later.
    Later,
}

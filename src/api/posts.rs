//! Posts: their writing, pages of them, and the fate of one.

use serde::{Deserialize, Serialize};

use crate::model::{
    ids::{Post, PostId, Seq, StoreEpoch},
    rows::Page,
    stream::Consistency,
};

/// Body of `POST /api/v1/boards/{board}/posts`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WritePost {
    /// UUID chosen by the client; the same id makes one post, however often it is sent.
    pub id: String,
    /// Text of 1 byte to 8 KiB without U+0000.
    pub text: String,
}

/// Answer of `GET /api/v1/boards/{board}/posts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostList {
    /// Posts in ascending order, without a gap.
    pub posts: Vec<Post>,
    /// Place of the board's last post.
    pub last_seq: Seq,
    /// The store's epoch.
    pub epoch: StoreEpoch,
    /// How much the answer may be trusted.
    pub consistency: Consistency,
    /// Store time up to which the answer is complete.
    pub as_of: u64,
    /// Whether the board has more posts in the direction asked for.
    pub truncated: bool,
}

impl PostList {
    /// Wraps a page of the store.
    #[must_use]
    pub fn new(page: Page, consistency: Consistency, truncated: bool) -> Self {
        Self {
            posts: page.posts,
            last_seq: page.last_seq,
            epoch: page.epoch,
            consistency,
            as_of: page.as_of_ms,
            truncated,
        }
    }
}

/// Fate of a post: answer of `GET` and `DELETE /api/v1/posts/{id}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum PostState {
    /// The post is in its board for good.
    Committed(Post),
    /// The post was taken and is not in the store yet; also the body of a 202.
    Pending {
        /// The post's id.
        id: PostId,
        /// Number of disks on which it waits.
        copies: u32,
    },
    /// The post never appears.
    Cancelled {
        /// The post's id.
        id: PostId,
    },
}

impl PostState {
    /// Returns the post's id.
    #[must_use]
    pub const fn id(&self) -> PostId {
        match self {
            Self::Committed(post) => post.id,
            Self::Pending { id, .. } | Self::Cancelled { id } => *id,
        }
    }
}

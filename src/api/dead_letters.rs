//! Dead letters, as operators see them.

use serde::{Deserialize, Serialize};

use crate::model::{
    ids::{Author, PostId, PostText},
    rows,
};

/// Answer of `GET /api/v1/admin/dead-letters`: newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetterList {
    /// The letters.
    pub letters: Vec<DeadLetter>,
    /// Whether there are older ones; `?before=` the last one's number lists them.
    #[serde(default)]
    pub truncated: bool,
}

/// A task that was given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Its number.
    pub number: u64,
    /// Resource of the task, such as `board:lobby`.
    pub resource: String,
    /// The post, when the task was to write one.
    pub post: Option<UnsentPost>,
    /// Reason, with the attempts that were made.
    pub why: String,
    /// Store time at which it was given up, ms.
    pub at: u64,
}

/// Post that stands in no board.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnsentPost {
    /// Its id.
    pub id: PostId,
    /// Its author.
    pub author: Author,
    /// Its text.
    pub text: PostText,
}

impl From<rows::DeadLetter> for DeadLetter {
    fn from(row: rows::DeadLetter) -> Self {
        let post =
            row.post.map(|post| UnsentPost { id: post.id, author: post.author, text: post.text });
        let resource = row.resource.to_string();
        Self { number: row.number, resource, post, why: row.why, at: row.at_ms }
    }
}

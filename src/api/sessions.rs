//! Sessions and the tickets that move them to another master.

use serde::{Deserialize, Serialize};

use crate::{
    api::Board,
    model::{
        ids::{Author, PostId, StoreEpoch},
        stream::{Consistency, MasterInfo},
    },
};

/// Body of `POST /api/v1/sessions`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OpenSession {
    /// Name for people, 1 to 40 code points.
    pub name: String,
    /// Whether the token is set as a cookie instead of being part of the answer.
    #[serde(default)]
    pub cookie: bool,
}

/// Answer to an opened session and to a redeemed ticket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionOpened {
    /// The session's secret; absent when it was set as a cookie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The session's user.
    pub user: Author,
    /// All boards.
    pub boards: Vec<Board>,
    /// All masters.
    pub masters: Vec<MasterInfo>,
    /// The store's epoch.
    pub epoch: StoreEpoch,
    /// The cluster's id, 32 hex digits.
    pub cluster: String,
}

/// Answer of `GET /api/v1/session`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRestored {
    /// The session's user.
    pub user: Author,
    /// All boards.
    pub boards: Vec<Board>,
    /// Posts of this user that were taken and are not in the store yet.
    pub pending: Vec<PostId>,
    /// All masters.
    pub masters: Vec<MasterInfo>,
    /// The store's epoch.
    pub epoch: StoreEpoch,
    /// How much the answer may be trusted.
    pub consistency: Consistency,
    /// Store time up to which the answer is complete.
    pub as_of: u64,
    /// The cluster's id, 32 hex digits.
    pub cluster: String,
}

/// Answer of `POST /api/v1/handover`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TicketIssued {
    /// Secret that opens the session on another master, once and within five minutes.
    pub ticket: String,
}

/// Body of `POST /api/v1/handover/redeem`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RedeemTicket {
    /// The ticket as it was issued.
    pub ticket: String,
}

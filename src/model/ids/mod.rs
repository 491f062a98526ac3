//! Ids, names and texts as types, with one written form each.
//!
//! Everything here is a value. A type that has a textual form has one only: `Display` writes it
//! and `FromStr` reads it back, strictly.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use thiserror::Error;

pub use self::{
    post::{Author, Cursor, Post, PostId},
    text::{BoardName, PostText, UserName},
};

/// Error for a text that is not of the type it was read as. Nothing was changed by reading it.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{what}: {why}")]
pub struct Malformed {
    /// Thing that was expected, in the words of the interface.
    pub what: &'static str,
    /// Change that a caller has to make.
    pub why: &'static str,
}

const fn malformed(what: &'static str, why: &'static str) -> Malformed {
    Malformed { what, why }
}

/// Gives an id of bytes its written form in human-readable formats and in logs.
macro_rules! text_or_bytes {
    ($name:ident) => {
        /// Text in human-readable formats, bytes in binary ones.
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                if to.is_human_readable() { to.collect_str(self) } else { self.0.serialize(to) }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                if from.is_human_readable() {
                    String::deserialize(from)?.parse().map_err(D::Error::custom)
                } else {
                    Deserialize::deserialize(from).map(Self)
                }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }
    };
}

mod post;
mod text;

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        text_or_bytes!($name);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut text = [0; 2 * $len];
                hex::encode_to_slice(self.0, &mut text).map_err(|_| fmt::Error)?;
                f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
            }
        }

        impl FromStr for $name {
            type Err = Malformed;

            fn from_str(text: &str) -> Result<Self, Malformed> {
                let mut bytes = [0; $len];
                hex::decode_to_slice(text, &mut bytes)
                    .map_err(|_| malformed($what, concat!("want ", stringify!($len), " bytes in hex")))?;
                Ok(Self(bytes))
            }
        }
    };
}

hex_id! {
    /// Id of a node: the first 16 bytes of SHA-256 over its RSA public key (SPKI DER).
    NodeId, 16, "node id"
}
hex_id! {
    /// Public id of a person, made by the store when the session is opened.
    UserId, 16, "user id"
}
hex_id! {
    /// SHA-256 of a session token. The token itself is never kept.
    SessionKey, 32, "session key"
}
hex_id! {
    /// SHA-256 over a whole SPKI DER public key. Operators pin it.
    Fingerprint, 32, "fingerprint"
}

hex_id! {
    /// Public id of a join token: the part of its text between the last two dots.
    TokenId, 8, "token id"
}

impl NodeId {
    /// Returns the id that belongs to a public key with this fingerprint.
    #[must_use]
    pub fn of(fingerprint: &Fingerprint) -> Self {
        let mut id = [0; 16];
        id.copy_from_slice(&fingerprint.0[..16]);
        Self(id)
    }

    /// Returns the first eight hex digits, enough for people to tell nodes apart.
    #[must_use]
    pub fn short(&self) -> String {
        hex::encode(&self.0[..4])
    }
}

/// Role of a node. A master leads, a worker writes; both talk in the same ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Coordinator with a web front end.
    Master,
    /// Writer of the shared store with a node database.
    Worker,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Master => "master",
            Self::Worker => "worker",
        })
    }
}

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }

        impl $name {
            /// Returns the next number. Saturates, so that no input can wrap it.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }
    };
}

counter! {
    /// Number of a master's starts, issued by the store.
    Incarnation
}
counter! {
    /// Number of a worker's registrations, counted up by the worker.
    Registration
}
counter! {
    /// Number of the shared store's lives: a restored backup begins a new one.
    StoreEpoch
}
counter! {
    /// Number of a common key within its domain.
    KeyEpoch
}
counter! {
    /// Place of a post in its board: 1..n.
    Seq
}
counter! {
    /// Number of a link in one life of one node.
    LinkId
}

/// One life of a master, and the workers registered with that life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Domain {
    /// The master.
    pub master: NodeId,
    /// Life of the master.
    pub incarnation: Incarnation,
}

/// Fencing token of one permission, compared field by field in this order.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Token {
    /// Store epoch in which the lease was granted.
    pub epoch: StoreEpoch,
    /// Number of the lease, counted up by the store at each take-over of the resource.
    pub lease: u64,
    /// Number of the permission, counted up by the coordinator for each batch and for each
    /// further registration that gets it.
    pub n: u64,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.epoch, self.lease, self.n)
    }
}

/// Subject of one permission.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Resource {
    /// Posts of a board, and its creation.
    Board(BoardName),
    /// Everything else that people served by this master write.
    Sessions(NodeId),
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Board(name) => write!(f, "board:{name}"),
            Self::Sessions(master) => write!(f, "sessions:{master}"),
        }
    }
}

impl FromStr for Resource {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        match text.split_once(':') {
            Some(("board", name)) => Ok(Self::Board(name.parse()?)),
            Some(("sessions", master)) => Ok(Self::Sessions(master.parse()?)),
            _ => Err(malformed("resource", "want board:NAME or sessions:MASTER")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_texts_in_human_readable_formats() {
        let node = NodeId([0xab; 16]);
        let json = serde_json::to_string(&node).expect("a text");
        assert_eq!(json, format!("\"{node}\""));
        assert_eq!(serde_json::from_str::<NodeId>(&json).expect("reads back"), node);
        assert!(serde_json::from_str::<NodeId>("\"ab\"").is_err());
        let id = PostId([7; 16]);
        let json = serde_json::to_string(&id).expect("a text");
        assert_eq!(serde_json::from_str::<PostId>(&json).expect("reads back"), id);
    }

    #[test]
    fn tokens_compare_epoch_then_lease_then_n() {
        let token = |epoch, lease, n| Token { epoch: StoreEpoch(epoch), lease, n };
        let mut tokens = [token(2, 1, 1), token(1, 2, 1), token(1, 1, 9), token(1, 1, 2)];
        tokens.sort();
        assert_eq!(tokens, [token(1, 1, 2), token(1, 1, 9), token(1, 2, 1), token(2, 1, 1)]);
    }
}

//! Ids, names and texts as types, with one written form each.
//!
//! Everything here is a value. A type that has a textual form has one only: `Display` writes it
//! and `FromStr` reads it back, strictly.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use thiserror::Error;

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

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        text_or_bytes!($name);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                for byte in self.0 {
                    write!(f, "{byte:02x}")?;
                }
                Ok(())
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

/// Gives a checked text its conversions. Only its `TryFrom<String>` makes one.
macro_rules! checked_text {
    ($name:ident) => {
        impl $name {
            /// Returns the text as written.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Malformed;

            fn from_str(text: &str) -> Result<Self, Malformed> {
                text.to_owned().try_into()
            }
        }

        impl From<$name> for String {
            fn from(text: $name) -> Self {
                text.0
            }
        }
    };
}

/// Name of a board: `[a-z0-9][a-z0-9-]{0,31}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BoardName(String);

checked_text!(BoardName);

impl BoardName {
    /// Returns the name of the default board, which always exists.
    #[must_use]
    pub fn lobby() -> Self {
        Self("lobby".to_owned())
    }
}

impl TryFrom<String> for BoardName {
    type Error = Malformed;

    fn try_from(text: String) -> Result<Self, Malformed> {
        let bytes = text.as_bytes();
        let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let fits = (1..=32).contains(&bytes.len())
            && plain(&bytes[0])
            && bytes.iter().all(|b| plain(b) || *b == b'-');
        if !fits {
            return Err(malformed(
                "board",
                "want 1 to 32 of a-z, 0-9 and '-', not beginning with '-'",
            ));
        }
        Ok(Self(text))
    }
}

impl fmt::Display for BoardName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for BoardName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// Id of a post, a UUID chosen by the client, unique per user over all boards.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PostId(pub [u8; 16]);

text_or_bytes!(PostId);

impl FromStr for PostId {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        // One spelling only, so that one id cannot be two keys of a client.
        let id = (text.len() == 36)
            .then(|| uuid::Uuid::try_parse(text).ok())
            .flatten()
            .ok_or(malformed("id", "want a UUID such as 3f0e8c5a-9d0b-4b6e-8a57-6f2f0d9a7c11"))?;
        Ok(Self(id.into_bytes()))
    }
}

impl fmt::Display for PostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_bytes(self.0).fmt(f)
    }
}

/// Text of a post: 1 byte to 8 KiB of UTF-8 without U+0000.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PostText(String);

checked_text!(PostText);

impl PostText {
    /// Length of the longest text, in bytes.
    pub const LEN_MAX: usize = 8 * 1024;
}

impl TryFrom<String> for PostText {
    type Error = Malformed;

    fn try_from(text: String) -> Result<Self, Malformed> {
        if text.is_empty() {
            return Err(malformed("text", "is empty"));
        }
        if text.len() > Self::LEN_MAX {
            return Err(malformed("text", "is over 8 KiB"));
        }
        if text.contains('\0') {
            return Err(malformed("text", "holds U+0000"));
        }
        Ok(Self(text))
    }
}

/// Shows the length only: logs must not hold people's texts.
impl fmt::Debug for PostText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostText({} bytes)", self.0.len())
    }
}

/// Name of a person: 1 to 40 code points, trimmed, no control or bidi characters. Not unique.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UserName(String);

checked_text!(UserName);

impl TryFrom<String> for UserName {
    type Error = Malformed;

    fn try_from(text: String) -> Result<Self, Malformed> {
        let name = text.trim();
        // Unicode's bidi controls: they can make one name read as another.
        let hidden = |c: char| {
            c.is_control()
                || matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        };
        if name.is_empty() || name.chars().count() > 40 {
            return Err(malformed("name", "want 1 to 40 characters"));
        }
        if name.chars().any(hidden) {
            return Err(malformed("name", "holds control or text-direction characters"));
        }
        Ok(Self(name.to_owned()))
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Post that is committed to its board.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Post {
    /// Id that the client chose.
    pub id: PostId,
    /// Board of the post.
    pub board: BoardName,
    /// Place in the board.
    pub seq: Seq,
    /// Author of the post.
    pub author: Author,
    /// Text of the post.
    pub text: PostText,
    /// Store time of the commit, ms since the Unix epoch; never falls within a board.
    #[serde(rename = "posted_at")]
    pub posted_at_ms: u64,
}

/// Person as posts and lists show one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Author {
    /// Public id.
    pub id: UserId,
    /// Name, not unique.
    pub name: UserName,
}

/// Place up to which a reader has seen each board: `EPOCH;lobby:42,dev:7`, at most 32 boards.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Store epoch of the numbers.
    pub epoch: StoreEpoch,
    /// Last seen place of each board, in the order of names.
    pub boards: std::collections::BTreeMap<BoardName, Seq>,
}

impl Cursor {
    /// Largest number of boards that one cursor, and so one stream, can follow.
    pub const BOARDS_MAX: usize = 32;
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{};", self.epoch)?;
        for (nth, (board, seq)) in self.boards.iter().enumerate() {
            let comma = if nth == 0 { "" } else { "," };
            write!(f, "{comma}{board}:{seq}")?;
        }
        Ok(())
    }
}

impl FromStr for Cursor {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        const WRONG: Malformed = malformed("cursor", "want EPOCH;board:seq,board:seq");
        let (epoch, rest) = text.split_once(';').ok_or(WRONG)?;
        let mut cursor = Self { epoch: StoreEpoch(number(epoch).ok_or(WRONG)?), ..Self::default() };
        for pair in rest.split(',').filter(|pair| !pair.is_empty()) {
            let (board, seq) = pair.split_once(':').ok_or(WRONG)?;
            let seq = Seq(number(seq).ok_or(WRONG)?);
            if cursor.boards.insert(board.parse()?, seq).is_some() {
                return Err(malformed("cursor", "names a board twice"));
            }
            if cursor.boards.len() > Self::BOARDS_MAX {
                return Err(malformed("cursor", "names more than 32 boards"));
            }
        }
        Ok(cursor)
    }
}

/// Reads a number in its one spelling: digits, without a sign or zeros before them.
fn number(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| plain && (text == "0" || !text.starts_with('0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn board_names_are_strict() {
        for good in ["lobby", "a", "0-9", &"x".repeat(32)] {
            assert_eq!(good.parse::<BoardName>().map(String::from).as_deref(), Ok(good));
        }
        for bad in ["", "-a", "Lobby", "a b", "ä", &"x".repeat(33), "a/b"] {
            assert!(bad.parse::<BoardName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn user_names_are_trimmed_and_hold_visible_characters_only() {
        assert_eq!(" Ada ".parse::<UserName>().map(String::from).as_deref(), Ok("Ada"));
        for bad in ["", "  ", "a\nb", "a\u{202e}b", &"x".repeat(41)] {
            assert!(bad.parse::<UserName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn post_texts_outside_their_bounds_are_refused() {
        assert!("x".repeat(PostText::LEN_MAX).parse::<PostText>().is_ok());
        for bad in ["", "a\0b", &"x".repeat(PostText::LEN_MAX + 1)] {
            assert!(bad.parse::<PostText>().is_err());
        }
    }

    #[test]
    fn cursor_reads_back_as_it_was_written() {
        let text = "7;dev:7,lobby:42";
        assert_eq!(text.parse::<Cursor>().map(|c| c.to_string()).as_deref(), Ok(text));
        assert_eq!("7;".parse::<Cursor>().map(|c| c.boards.len()), Ok(0));
        for bad in
            ["", "7", "x;", "7;lobby", "7;lobby:x", "7;a:1,a:2", "7;A:1", "7;a:+1", "+7;", "7;a:01"]
        {
            assert!(bad.parse::<Cursor>().is_err(), "{bad:?}");
        }
        let many: Vec<_> = (0..33).map(|n| format!("b{n}:1")).collect();
        assert!(format!("7;{}", many.join(",")).parse::<Cursor>().is_err());
    }

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
    fn id_has_one_spelling() {
        let id = "3f0e8c5a-9d0b-4b6e-8a57-6f2f0d9a7c11";
        assert_eq!(id.parse::<PostId>().map(|id| id.to_string()).as_deref(), Ok(id));
        assert!(id.replace('-', "").parse::<PostId>().is_err());
        assert!(format!("{{{id}}}").parse::<PostId>().is_err());
    }

    #[test]
    fn tokens_compare_epoch_then_lease_then_n() {
        let token = |epoch, lease, n| Token { epoch: StoreEpoch(epoch), lease, n };
        let mut tokens = [token(2, 1, 1), token(1, 2, 1), token(1, 1, 9), token(1, 1, 2)];
        tokens.sort();
        assert_eq!(tokens, [token(1, 1, 2), token(1, 1, 9), token(1, 2, 1), token(2, 1, 1)]);
    }
}

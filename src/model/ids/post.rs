//! Posts, their ids and authors, and cursors: places of a reader in boards.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{BoardName, Malformed, PostText, Seq, StoreEpoch, UserId, UserName, malformed};

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
    fn id_has_one_spelling() {
        let id = "3f0e8c5a-9d0b-4b6e-8a57-6f2f0d9a7c11";
        assert_eq!(id.parse::<PostId>().map(|id| id.to_string()).as_deref(), Ok(id));
        assert!(id.replace('-', "").parse::<PostId>().is_err());
        assert!(format!("{{{id}}}").parse::<PostId>().is_err());
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
}

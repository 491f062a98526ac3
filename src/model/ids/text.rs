//! Texts that people write, as types: names of boards and of people, and texts of posts.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize, Serializer};

use super::{Malformed, malformed};

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

        /// As the plain text.
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(self.as_str())
            }
        }
    };
}

/// Name of a board: `[a-z0-9][a-z0-9-]{0,31}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
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

/// Text of a post: 1 byte to 8 KiB of UTF-8 without U+0000. Copies of it share its bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct PostText(Arc<str>);

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
        Ok(Self(text.into()))
    }
}

/// Shows the length only: logs must not hold people's texts.
impl fmt::Debug for PostText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostText({} bytes)", self.0.len())
    }
}

/// Name of a person: 1 to 40 code points, trimmed, no control or bidi characters. Not unique.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn board_names_are_strict() {
        for good in ["lobby", "a", "0-9", &"x".repeat(32)] {
            assert_eq!(good.parse::<BoardName>().as_ref().map(BoardName::as_str), Ok(good));
        }
        for bad in ["", "-a", "Lobby", "a b", "ä", &"x".repeat(33), "a/b"] {
            assert!(bad.parse::<BoardName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn user_names_are_trimmed_and_hold_visible_characters_only() {
        assert_eq!(" Ada ".parse::<UserName>().as_ref().map(UserName::as_str), Ok("Ada"));
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
}

//! Problems: answers that are not what was asked for, as `application/problem+json` (RFC 9457).
//!
//! `type` is stable and made for programs, `title` names the type for people, `detail` says what
//! was wrong with this very request.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Prefix of every problem's `type`.
const TYPE_PREFIX: &str = "urn:chatchat:";

macro_rules! problem_types {
    ($($(#[$doc:meta])* $name:ident, $slug:literal, $status:literal, $title:literal;)+) => {
        /// Type of a problem. It fixes the status and the title of the answer.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ProblemType {
            $(
                #[doc = concat!($title, " (", $status, ").")]
                $(#[$doc])*
                $name,
            )+
        }

        impl ProblemType {
            /// All types, by status, then slug.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Returns the stable name, such as `outcome-unknown`.
            #[must_use]
            pub const fn slug(self) -> &'static str {
                match self { $(Self::$name => $slug),+ }
            }

            /// Returns the HTTP status of the answer.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status),+ }
            }

            /// Returns the name for people.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title),+ }
            }
        }
    };
}

problem_types! {
    AboveEnd, "above-end", 400, "The read mark lies above the board's end";
    MalformedBoard, "malformed-board", 400, "Not the name of a board";
    MalformedBody, "malformed-body", 400, "The body is not the JSON expected";
    MalformedId, "malformed-id", 400, "Not an id";
    MalformedName, "malformed-name", 400, "Not a name";
    MalformedQuery, "malformed-query", 400, "The query does not parse";
    NoSession, "no-session", 401, "A session is needed";
    OtherSession, "other-session", 401, "The session is another person's";
    UnknownSession, "unknown-session", 401, "No such session";
    ForeignOrigin, "foreign-origin", 403, "The request comes from another site";
    NotCommitted, "not-committed", 404, "Not committed; it may still come";
    UnknownBoard, "unknown-board", 404, "No such board";
    UnknownNode, "unknown-node", 404, "No such node";
    UnknownPath, "unknown-path", 404, "Nothing is here";
    UnknownTicket, "unknown-ticket", 404, "No such ticket, or it was used";
    UnknownLetter, "unknown-letter", 404, "No such dead letter";
    UnknownToken, "unknown-token", 404, "No such join token, or it ended";
    MethodNotAllowed, "method-not-allowed", 405, "This method is not served here";
    BodyTimeout, "body-timeout", 408, "The body did not come in time";
    Cancelled, "cancelled", 410, "The post was cancelled";
    BodyTooLarge, "body-too-large", 413, "The body is too large";
    TextTooLong, "text-too-long", 413, "The text is too long";
    NotJson, "not-json", 415, "Only JSON is read";
    UnknownHost, "unknown-host", 421, "This name is not served here";
    IdConflict, "id-conflict", 422, "The id stands for another post";
    Refused, "refused", 422, "Refused by a rule";
    TextRefused, "text-refused", 422, "The text is not acceptable";
    Overloaded, "overloaded", 429, "Too much is waiting; nothing was done";
    RateLimited, "rate-limited", 429, "Too many requests; nothing was done";
    TooManyBoards, "too-many-boards", 429, "There are too many boards; nothing was done";
    Broken, "broken", 500, "A fault of ours";
    Unavailable, "unavailable", 503, "This cannot be served now; nothing was done";
    DeadLetter, "dead-letter", 504, "Given up after all attempts; an operator can see it";
    OutcomeUnknown, "outcome-unknown", 504, "No outcome in time; it may still come";
}

impl ProblemType {
    /// Returns the `type` of an answer: a URI made of a fixed prefix and the slug.
    #[must_use]
    pub fn uri(self) -> String {
        format!("{TYPE_PREFIX}{}", self.slug())
    }
}

/// A problem as it travels. Every field may be missing in what a stranger's proxy answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Problem {
    /// URI of the type; see [`Problem::problem_type`].
    #[serde(rename = "type")]
    pub type_uri: String,
    /// Name of the type, for people.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// Fault of this very request, for people.
    pub detail: String,
}

impl Problem {
    /// Returns a problem of this type.
    #[must_use]
    pub fn new(of: ProblemType, detail: impl Into<String>) -> Self {
        Self {
            type_uri: of.uri(),
            title: of.title().to_owned(),
            status: of.status(),
            detail: detail.into(),
        }
    }

    /// Reads the body of an answer. A body that is not a problem becomes the detail, cut to 200
    /// characters.
    #[must_use]
    pub fn read(body: &[u8]) -> Self {
        serde_json::from_slice(body).unwrap_or_else(|_| {
            let text: String = String::from_utf8_lossy(body).chars().take(200).collect();
            Self { detail: text, ..Self::default() }
        })
    }

    /// Whether a master wrote it, perhaps one of a later version.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.type_uri.starts_with(TYPE_PREFIX)
    }

    /// Whether an answer with this status and problem says that nothing was done, and that it may be asked for
    /// again. After 408 the request was not heard to its end.
    #[must_use]
    pub fn puts_off(&self, status: u16) -> bool {
        matches!(status, 408 | 429 | 503) && self.is_ours()
    }

    /// Returns the type; `None` if it is of a later version or not one of ours.
    #[must_use]
    pub fn problem_type(&self) -> Option<ProblemType> {
        let slug = self.type_uri.strip_prefix(TYPE_PREFIX)?;
        ProblemType::ALL.iter().copied().find(|known| known.slug() == slug)
    }
}

/// Shows the most telling part that is there: the detail, the title, else the type.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [self.detail.as_str(), &self.title, &self.type_uri, "no reason given"];
        f.write_str(parts.into_iter().find(|part| !part.is_empty()).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_read_back_from_its_json() {
        for of in ProblemType::ALL {
            let written = serde_json::to_vec(&Problem::new(*of, "why")).expect("it is JSON");
            let read = Problem::read(&written);
            assert_eq!((read.problem_type(), read.status), (Some(*of), of.status()));
            assert_eq!(read.to_string(), "why");
        }
    }

    #[test]
    fn body_that_is_no_problem_is_shown_as_text() {
        let read = Problem::read(b"<html>bad gateway");
        assert_eq!((read.problem_type(), read.to_string().as_str()), (None, "<html>bad gateway"));
        assert_eq!(Problem::read(b"{}").to_string(), "no reason given");
    }
}

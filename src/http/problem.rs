//! What went wrong, as `application/problem+json` (RFC 9457).
//!
//! `type` is stable and made for programs, `title` names the kind, `detail` says what was wrong
//! with this very request.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::{
    model::{ids::Malformed, rows::StoreError},
    node::handle::ReadError,
};

/// All kinds: slug, status, title. A `type` is `urn:chatchat:` and the slug.
pub(super) const KINDS: &[(&str, u16, &str)] = &[
    ("above-end", 400, "The read mark lies above the board's end"),
    ("malformed-board", 400, "Not the name of a board"),
    ("malformed-body", 400, "The body is not the JSON expected"),
    ("malformed-id", 400, "Not an id"),
    ("malformed-name", 400, "Not a name"),
    ("malformed-query", 400, "The query does not parse"),
    ("no-session", 401, "A session is needed"),
    ("unknown-session", 401, "No such session"),
    ("foreign-origin", 403, "The request comes from another site"),
    ("not-committed", 404, "Not committed; it may still come"),
    ("unknown-board", 404, "No such board"),
    ("unknown-path", 404, "Nothing is here"),
    ("unknown-ticket", 404, "No such ticket, or it was used"),
    ("method-not-allowed", 405, "This method is not served here"),
    ("body-timeout", 408, "The body did not come in time"),
    ("cancelled", 410, "The post was cancelled"),
    ("body-too-large", 413, "The body is too large"),
    ("text-too-long", 413, "The text is too long"),
    ("not-json", 415, "Only JSON is read"),
    ("id-conflict", 422, "The id stands for another post"),
    ("refused", 422, "Refused by a rule"),
    ("text-refused", 422, "The text is not acceptable"),
    ("overloaded", 429, "Too much is waiting; nothing was done"),
    ("rate-limited", 429, "Too many requests; nothing was done"),
    ("too-many-boards", 429, "There are too many boards; nothing was done"),
    ("broken", 500, "A fault of ours"),
    ("unavailable", 503, "This cannot be served now; nothing was done"),
    ("dead-letter", 504, "Given up after all attempts; an operator can see it"),
    ("outcome-unknown", 504, "No outcome in time; it may still come"),
];

/// What every `type` begins with.
pub(super) const TYPE_PREFIX: &str = "urn:chatchat:";

/// An answer that is not what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    slug: &'static str,
    detail: String,
    retry_ms: Option<u64>,
}

#[derive(Serialize)]
struct Shape<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
}

impl Problem {
    /// One of [`KINDS`].
    pub(super) fn new(slug: &'static str, detail: impl Into<String>) -> Self {
        debug_assert!(KINDS.iter().any(|(known, ..)| *known == slug), "{slug} is no kind");
        Self { slug, detail: detail.into(), retry_ms: None }
    }

    pub(super) fn retry(slug: &'static str, detail: impl Into<String>, retry_ms: u64) -> Self {
        Self { retry_ms: Some(retry_ms), ..Self::new(slug, detail) }
    }

    pub(super) fn too_many_openings(retry_ms: u64) -> Self {
        Self::retry("rate-limited", "too many sessions are opened from this address", retry_ms)
    }

    pub(super) fn rate_limited(retry_ms: u64) -> Self {
        Self::retry("rate-limited", "this session asks more often than it may", retry_ms)
    }

    pub(super) fn overloaded(retry_ms: u64) -> Self {
        Self::retry("overloaded", "a queue is full; try again after Retry-After", retry_ms)
    }

    pub(super) fn unavailable(retry_ms: u64) -> Self {
        Self::retry(
            "unavailable",
            "no store or no worker can be reached from here; try again after Retry-After",
            retry_ms,
        )
    }

    pub(super) fn outcome_unknown() -> Self {
        Self::new(
            "outcome-unknown",
            "send the same again, or cancel it, to learn what became of it",
        )
    }

    pub(super) fn dead_letter() -> Self {
        Self::new("dead-letter", "every attempt failed; send the same again, or cancel it")
    }

    /// A rule's refusal, for tasks that have no better word for it.
    pub(super) fn refused(why: &StoreError) -> Self {
        match why {
            StoreError::Unknown { what } if what == "session" => {
                Self::new("unknown-session", why.to_string())
            }
            StoreError::Unknown { what } if what == "ticket" => {
                Self::new("unknown-ticket", why.to_string())
            }
            StoreError::Unknown { .. } => Self::new("unknown-board", why.to_string()),
            StoreError::Refused { .. } => Self::new("refused", why.to_string()),
            // The rest are the cluster's own affairs; none of them is the asker's fault.
            _ => Self::new("broken", "the write was refused for a reason inside the cluster"),
        }
    }

    /// A refusal to create a board, as the answer to an asker who may come back.
    pub(super) fn too_many_boards(self) -> Self {
        const RETRY_MS: u64 = 60_000;
        Self::retry("too-many-boards", self.detail, RETRY_MS)
    }

    /// The same under another slug of [`KINDS`].
    pub(super) fn named(self, slug: &'static str) -> Self {
        Self { retry_ms: self.retry_ms, ..Self::new(slug, self.detail) }
    }

    pub(super) fn is(&self, slug: &str) -> bool {
        self.slug == slug
    }

    pub(super) fn status(&self) -> StatusCode {
        let code = KINDS.iter().find(|(slug, ..)| *slug == self.slug).map(|(_, code, _)| *code);
        code.and_then(|code| StatusCode::from_u16(code).ok())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// When to try again, for 429 and 503.
    pub(super) const fn retry_ms(&self) -> Option<u64> {
        self.retry_ms
    }
}

impl From<ReadError> for Problem {
    fn from(why: ReadError) -> Self {
        const RETRY_MS: u64 = 1000;
        match why {
            ReadError::Unknown => Self::new("unknown-board", "there is no board of this name"),
            ReadError::Away => Self::unavailable(RETRY_MS),
            ReadError::Overloaded => Self::overloaded(RETRY_MS),
        }
    }
}

/// A malformed word of the interface: a 400 named after it.
impl From<Malformed> for Problem {
    fn from(why: Malformed) -> Self {
        let slug = match why.what {
            "board" => "malformed-board",
            "id" => "malformed-id",
            "name" => "malformed-name",
            _ => "malformed-query",
        };
        Self::new(slug, why.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        let title = KINDS.iter().find(|(slug, ..)| *slug == self.slug).map_or("", |kind| kind.2);
        let shape = Shape {
            r#type: format!("{TYPE_PREFIX}{}", self.slug),
            title,
            status: status.as_u16(),
            detail: &self.detail,
        };
        let body = serde_json::to_vec(&shape).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(retry_ms) = self.retry_ms {
            // The header counts in whole seconds.
            headers.insert(header::RETRY_AFTER, retry_ms.div_ceil(1000).max(1).into());
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

//! Error answers: a problem with its status and headers.

use crate::{
    api::{Problem, ProblemType},
    model::{ids::Malformed, rows::StoreError},
    node::handle::RequestError,
};
use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

/// Error answer: its problem, and when to try again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ErrorResponse {
    of: ProblemType,
    detail: String,
    retry_ms: Option<u64>,
}

impl ErrorResponse {
    /// Returns an answer without `Retry-After`.
    pub(super) fn new(of: ProblemType, detail: impl Into<String>) -> Self {
        Self { of, detail: detail.into(), retry_ms: None }
    }

    /// Returns an answer that asks the client to come back after `retry_ms`.
    pub(super) fn retry(of: ProblemType, detail: impl Into<String>, retry_ms: u64) -> Self {
        Self { retry_ms: Some(retry_ms), ..Self::new(of, detail) }
    }

    pub(super) fn too_many_openings(retry_ms: u64) -> Self {
        Self::retry(
            ProblemType::RateLimited,
            "too many sessions are opened from this address",
            retry_ms,
        )
    }

    pub(super) fn too_many_unmet(retry_ms: u64) -> Self {
        // By then look-ups of some who are there have ended.
        const RETRY_MS: u64 = 200;
        Self::retry(
            ProblemType::RateLimited,
            "too many requests of unknown sessions come from this address",
            retry_ms.max(RETRY_MS),
        )
    }

    pub(super) fn too_much_unread() -> Self {
        const RETRY_MS: u64 = 1000;
        Self::retry(
            ProblemType::RateLimited,
            "too many long answers to this address wait to be read",
            RETRY_MS,
        )
    }

    pub(super) fn too_many_boards_of_session(retry_ms: u64) -> Self {
        Self::retry(ProblemType::TooManyBoards, "this session created many boards", retry_ms)
    }

    pub(super) fn too_many_boards_of_address(retry_ms: u64) -> Self {
        Self::retry(
            ProblemType::TooManyBoards,
            "many boards were created from this address",
            retry_ms,
        )
    }

    pub(super) fn too_many_streams() -> Self {
        // Vanished readers are found out by then.
        const RETRY_MS: u64 = 15_000;
        Self::retry(ProblemType::RateLimited, "this session has too many streams open", RETRY_MS)
    }

    pub(super) fn rate_limited(retry_ms: u64) -> Self {
        Self::retry(ProblemType::RateLimited, "this session asks more often than it may", retry_ms)
    }

    pub(super) fn overloaded(retry_ms: u64) -> Self {
        Self::retry(
            ProblemType::Overloaded,
            "a queue is full; try again after Retry-After",
            retry_ms,
        )
    }

    pub(super) fn unavailable(retry_ms: u64) -> Self {
        Self::retry(
            ProblemType::Unavailable,
            "no store or no worker can be reached from here; try again after Retry-After",
            retry_ms,
        )
    }

    pub(super) fn other_session() -> Self {
        Self::new(
            ProblemType::OtherSession,
            "the credentials are not those of the user named; in a browser, somebody else joined",
        )
    }

    pub(super) fn outcome_unknown() -> Self {
        Self::new(
            ProblemType::OutcomeUnknown,
            "send the same again, or cancel it, to learn what became of it",
        )
    }

    pub(super) fn dead_letter() -> Self {
        Self::new(
            ProblemType::DeadLetter,
            "every attempt failed; send the same again, or cancel it",
        )
    }

    /// Returns the answer to a write that the store refused.
    pub(super) fn refused(why: &StoreError) -> Self {
        match why {
            StoreError::Unknown { what } if what == "session" => {
                Self::new(ProblemType::UnknownSession, why.to_string())
            }
            StoreError::Unknown { what } if what == "ticket" => {
                Self::new(ProblemType::UnknownTicket, why.to_string())
            }
            StoreError::Unknown { .. } => Self::new(ProblemType::UnknownBoard, why.to_string()),
            StoreError::Refused { .. } => Self::new(ProblemType::Refused, why.to_string()),
            // The rest are the cluster's own affairs; none of them is the asker's fault.
            _ => Self::new(
                ProblemType::Broken,
                "the write was refused for a reason inside the cluster",
            ),
        }
    }

    /// Returns the refusal to create a board; the client may come back.
    pub(super) fn too_many_boards(self) -> Self {
        const RETRY_MS: u64 = 60_000;
        Self::retry(ProblemType::TooManyBoards, self.detail, RETRY_MS)
    }

    /// Returns the same answer with another problem type.
    pub(super) fn named(self, of: ProblemType) -> Self {
        Self { of, ..self }
    }

    /// Whether the problem is of this type.
    pub(super) fn is(&self, of: ProblemType) -> bool {
        self.of == of
    }

    pub(super) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.of.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Returns the wait before another try, for 429 and 503.
    pub(super) const fn retry_ms(&self) -> Option<u64> {
        self.retry_ms
    }
}

impl From<RequestError> for ErrorResponse {
    fn from(why: RequestError) -> Self {
        const RETRY_MS: u64 = 1000;
        match why {
            RequestError::Unauthorised => {
                Self::new(ProblemType::UnknownSession, "the session was closed, or never was")
            }
            RequestError::OtherUser => Self::other_session(),
            RequestError::Unknown => {
                Self::new(ProblemType::UnknownBoard, "there is no board of this name")
            }
            RequestError::Away => Self::unavailable(RETRY_MS),
            RequestError::Overloaded => Self::overloaded(RETRY_MS),
        }
    }
}

/// Turns a malformed value into a 400 named after it.
impl From<Malformed> for ErrorResponse {
    fn from(why: Malformed) -> Self {
        let of = match why.what {
            "board" => ProblemType::MalformedBoard,
            "id" => ProblemType::MalformedId,
            "name" => ProblemType::MalformedName,
            _ => ProblemType::MalformedQuery,
        };
        Self::new(of, why.to_string())
    }
}

impl IntoResponse for ErrorResponse {
    fn into_response(self) -> Response {
        let status = self.status();
        let body = serde_json::to_vec(&Problem::new(self.of, self.detail)).unwrap_or_default();
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

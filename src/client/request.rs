//! Requests and answers as data, and how they are written and read as HTTP.

use std::time::Duration;

use hyper::Method;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::json;

use crate::{
    api::{
        BoardList, Cluster, ClusterState, PostList, PostState, Problem, SessionOpened,
        SessionRestored, UserList,
    },
    client::{
        Failure, Limits,
        exchange::{RawAnswer, RawRequest},
    },
    model::{
        ids::{BoardName, Post, PostId, PostText, Seq, UserName},
        rows::Range,
        stream::Consistency,
    },
};

/// Request of a client. A session is needed for all but [`Request::OpenSession`] and [`Request::Readyz`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Request {
    /// Opens a session. [`Answer::Opened`].
    OpenSession {
        /// The person's name.
        name: UserName,
    },
    /// Restores the session: its user, boards and pending posts. [`Answer::Restored`].
    Restore,
    /// Closes the session. [`Answer::Done`].
    Leave,
    /// Answers a beat. [`Answer::Done`].
    Alive,
    /// Lists the boards. [`Answer::Boards`].
    Boards,
    /// Creates a board; succeeds if it exists. [`Answer::Done`].
    CreateBoard {
        /// Its name.
        board: BoardName,
    },
    /// Writes a post. [`Answer::Posted`] or [`Answer::Pending`].
    Post {
        /// Its board.
        board: BoardName,
        /// Its id, chosen by the client.
        id: PostId,
        /// Its text.
        text: PostText,
    },
    /// Reads a board. [`Answer::Page`].
    Read {
        /// The board.
        board: BoardName,
        /// Part of the board.
        range: Range,
        /// Most posts in the answer.
        limit: u32,
        /// Strong to read the store, weak to read a worker's node database.
        wanted: Consistency,
    },
    /// Asks for the fate of an own post. [`Answer::Fate`].
    Outcome {
        /// The post's id.
        id: PostId,
    },
    /// Cancels an own post. [`Answer::Fate`].
    Cancel {
        /// The post's id.
        id: PostId,
    },
    /// Sets the read mark of a board. [`Answer::Done`].
    ReadMark {
        /// The board.
        board: BoardName,
        /// Last post that was read.
        seq: Seq,
    },
    /// Lists the active people. [`Answer::Users`].
    Users,
    /// Asks for the cluster as people see it. [`Answer::Cluster`].
    Cluster,
    /// Asks an admin listener, with the admin token, for the cluster as operators see it. [`Answer::ClusterState`].
    ClusterState,
    /// Asks whether clients should use this master. [`Answer::Done`], or [`Failure::Busy`].
    Readyz,
}

/// Answer to a request that succeeded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", content = "with", rename_all = "snake_case")]
pub enum Answer {
    /// Done; there is nothing to return.
    Done,
    /// A session was opened.
    Opened(SessionOpened),
    /// The session was restored.
    Restored(SessionRestored),
    /// The boards.
    Boards(BoardList),
    /// The post is in its board.
    Posted(Post),
    /// The post waits on workers' disks for the store.
    Pending {
        /// Number of disks.
        copies: u32,
    },
    /// Part of a board.
    Page(PostList),
    /// Fate of a post; `None`: not committed, may still come.
    Fate(Option<PostState>),
    /// The active people.
    Users(UserList),
    /// The cluster, for people.
    Cluster(Cluster),
    /// The cluster, for operators.
    ClusterState(Box<ClusterState>),
}

impl Request {
    /// Returns the time-out of the answer.
    pub(super) const fn limit(&self, limits: &Limits) -> Duration {
        match self {
            Self::OpenSession { .. }
            | Self::Leave
            | Self::CreateBoard { .. }
            | Self::Post { .. }
            | Self::Cancel { .. }
            | Self::ReadMark { .. } => limits.write,
            Self::Readyz => limits.connect,
            _ => limits.read,
        }
    }

    /// Returns the request as it is sent.
    pub(super) fn raw(&self) -> RawRequest {
        let body = |value: serde_json::Value| Some(value.to_string().into_bytes());
        let (method, path, body) = match self {
            Self::OpenSession { name } => {
                (Method::POST, "sessions".to_owned(), body(json!({ "name": name })))
            }
            Self::Restore => (Method::GET, "session".to_owned(), None),
            Self::Leave => (Method::DELETE, "session".to_owned(), None),
            Self::Alive => (Method::POST, "session/alive".to_owned(), None),
            Self::Boards => (Method::GET, "boards".to_owned(), None),
            Self::CreateBoard { board } => (Method::PUT, format!("boards/{board}"), None),
            Self::Post { board, id, text } => (
                Method::POST,
                format!("boards/{board}/posts"),
                body(json!({ "id": id.to_string(), "text": text })),
            ),
            Self::Read { board, range, limit, wanted } => {
                let range = match range {
                    Range::After(seq) => format!("&after={seq}"),
                    Range::Before(seq) => format!("&before={seq}"),
                    Range::Last => String::new(),
                };
                let wanted = match wanted {
                    Consistency::Strong => "",
                    Consistency::Weak => "&consistency=weak",
                };
                (Method::GET, format!("boards/{board}/posts?limit={limit}{range}{wanted}"), None)
            }
            Self::Outcome { id } => (Method::GET, format!("posts/{id}"), None),
            Self::Cancel { id } => (Method::DELETE, format!("posts/{id}"), None),
            Self::ReadMark { board, seq } => {
                (Method::PUT, format!("boards/{board}/read-mark"), body(json!({ "seq": seq })))
            }
            Self::Users => (Method::GET, "users".to_owned(), None),
            Self::Cluster => (Method::GET, "cluster".to_owned(), None),
            Self::ClusterState => (Method::GET, "admin/cluster".to_owned(), None),
            Self::Readyz => {
                return RawRequest { method: Method::GET, path: "/readyz".to_owned(), body: None };
            }
        };
        RawRequest { method, path: format!("/api/v1/{path}"), body }
    }

    /// Reads the answer to this request.
    ///
    /// # Errors
    /// Any [`Failure`] but [`Failure::Unreached`].
    pub(super) fn read(&self, answer: &RawAnswer) -> Result<Answer, Failure> {
        match (self, answer.status) {
            (Self::Post { .. }, 202) => {
                let state = shape(answer)?;
                let PostState::Pending { copies, .. } = state else {
                    let why = format!("202 with {state:?}");
                    return Err(Failure::Unknown { status: Some(202), why });
                };
                Ok(Answer::Pending { copies })
            }
            (Self::Outcome { .. }, 404) => Ok(Answer::Fate(None)),
            (_, 200..=299) => Ok(match self {
                Self::OpenSession { .. } => Answer::Opened(shape(answer)?),
                Self::Restore => Answer::Restored(shape(answer)?),
                Self::Boards => Answer::Boards(shape(answer)?),
                Self::Post { .. } => Answer::Posted(shape(answer)?),
                Self::Read { .. } => Answer::Page(shape(answer)?),
                Self::Outcome { .. } | Self::Cancel { .. } => Answer::Fate(Some(shape(answer)?)),
                Self::Users => Answer::Users(shape(answer)?),
                Self::Cluster => Answer::Cluster(shape(answer)?),
                Self::ClusterState => Answer::ClusterState(shape(answer)?),
                Self::Leave
                | Self::Alive
                | Self::CreateBoard { .. }
                | Self::ReadMark { .. }
                | Self::Readyz => Answer::Done,
            }),
            // 408: the request was not heard to its end.
            (_, status @ (408 | 429 | 503)) => Err(Failure::Busy {
                status,
                problem: Problem::read(&answer.body),
                retry_after: answer.retry_after,
            }),
            (_, status @ 400..=499) => {
                Err(Failure::Refused { status, problem: Problem::read(&answer.body) })
            }
            (_, status) => Err(Failure::Unknown {
                status: Some(status),
                why: format!("{status} {}", Problem::read(&answer.body)),
            }),
        }
    }
}

/// Reads a successful answer's body. With a malformed body it is unknown whether anything was done.
fn shape<T: DeserializeOwned>(answer: &RawAnswer) -> Result<T, Failure> {
    serde_json::from_slice(&answer.body).map_err(|why| Failure::Unknown {
        status: Some(answer.status),
        why: format!("the answer is not understood: {why}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f0e8c5a-9d0b-4b6e-8a57-6f2f0d9a7c11";

    fn post() -> Request {
        Request::Post {
            board: BoardName::lobby(),
            id: ID.parse().unwrap(),
            text: "hello \"you\"".parse().unwrap(),
        }
    }

    fn answer(status: u16, body: &str) -> RawAnswer {
        RawAnswer {
            status,
            retry_after: Some(Duration::from_secs(1)),
            body: bytes::Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    #[test]
    fn request_is_written_by_the_contract() {
        let asked = post().raw();
        assert_eq!(asked.path, "/api/v1/boards/lobby/posts");
        let body: serde_json::Value = serde_json::from_slice(&asked.body.unwrap()).unwrap();
        assert_eq!(body, json!({ "id": ID, "text": "hello \"you\"" }));
        let read = Request::Read {
            board: BoardName::lobby(),
            range: Range::After(Seq(7)),
            limit: 50,
            wanted: Consistency::Weak,
        };
        assert_eq!(read.raw().path, "/api/v1/boards/lobby/posts?limit=50&after=7&consistency=weak");
    }

    #[test]
    fn answer_tells_whether_anything_was_done() {
        let of = |status, body| post().read(&answer(status, body)).expect_err("not a success");
        for status in [400, 401, 404, 410, 413, 422] {
            assert!(matches!(of(status, "{}"), Failure::Refused { .. }), "{status}");
        }
        for status in [429, 503] {
            let Failure::Busy { retry_after, .. } = of(status, "") else { panic!("{status}") };
            assert_eq!(retry_after, Some(Duration::from_secs(1)));
        }
        for status in [500, 502, 504] {
            assert!(!of(status, r#"{"type":"outcome-unknown"}"#).did_nothing(), "{status}");
        }
        assert!(!of(201, "<html>").did_nothing(), "a garbled success");
        let pending =
            post().read(&answer(202, &format!(r#"{{"id":"{ID}","state":"pending","copies":2}}"#)));
        assert_eq!(pending, Ok(Answer::Pending { copies: 2 }));
        let nothing = Request::Outcome { id: ID.parse().unwrap() }.read(&answer(404, ""));
        assert_eq!(nothing, Ok(Answer::Fate(None)));
    }
}

//! Requests and answers as data, and how they are written and read as HTTP.

use std::time::Duration;

use hyper::Method;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::json;

use crate::{
    api::{
        Board, BoardList, Cluster, ClusterState, DeadLetterList, Draining, JoinInvitation,
        JoinTerms, JoinTokenList, PostList, PostState, Problem, ProblemType, Readiness,
        SessionOpened, SessionRestored, UserList,
    },
    client::{
        Failure, Limits,
        exchange::{RawAnswer, RawRequest},
    },
    model::{
        ids::{BoardName, NodeId, Post, PostId, PostText, Seq, TokenId, UserName},
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
    /// Lists the first of the active people. [`Answer::Users`].
    FirstUsers {
        /// How many, 1 to 1,000.
        limit: u32,
    },
    /// Asks for the cluster as people see it. [`Answer::Cluster`].
    Cluster,
    /// Asks an admin listener, with the admin token, for the cluster as operators see it. [`Answer::ClusterState`].
    ClusterState,
    /// Asks an admin listener, with the admin token, for a join token. [`Answer::Invitation`].
    NewJoinToken {
        /// Its uses and its life.
        terms: JoinTerms,
    },
    /// Asks an admin listener, with the admin token, for the join tokens that have not ended. [`Answer::JoinTokens`].
    JoinTokens,
    /// Asks an admin listener, with the admin token, to revoke a join token. [`Answer::Done`].
    RevokeJoinToken {
        /// The token's id.
        id: TokenId,
    },
    /// Asks an admin listener, with the admin token, to expel a node for good. [`Answer::Done`].
    Expel {
        /// The node's id.
        node: NodeId,
    },
    /// Asks an admin listener, with the admin token, to drain its master. [`Answer::Draining`].
    Drain {
        /// Whether to do so though no other master could go on.
        force: bool,
    },
    /// Asks the admin listener of a worker's master, with the admin token, to drain the worker.
    /// [`Answer::Draining`].
    DrainWorker {
        /// The worker's id.
        node: NodeId,
        /// Whether to do so though no other worker could go on.
        force: bool,
    },
    /// Asks an admin listener, with the admin token, for the latest dead letters. [`Answer::DeadLetters`].
    DeadLetters {
        /// Number above those that are listed; none to begin with the newest.
        before: Option<u64>,
    },
    /// Asks an admin listener, with the admin token, to drop a dead letter and cancel its post.
    /// [`Answer::Done`].
    DropDeadLetter {
        /// The letter's number.
        number: u64,
    },
    /// Asks an admin listener, with the admin token, to send a dead letter's post again. [`Answer::Posted`].
    RetryDeadLetter {
        /// The letter's number.
        number: u64,
    },
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
    /// Facts that a new worker needs to join.
    Invitation(JoinInvitation),
    /// The join tokens that have not ended.
    JoinTokens(JoinTokenList),
    /// Dead letters, the newest first.
    DeadLetters(DeadLetterList),
    /// The node is being drained.
    Draining(Draining),
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
            | Self::ReadMark { .. }
            | Self::DropDeadLetter { .. }
            | Self::RetryDeadLetter { .. } => limits.write,
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
            Self::FirstUsers { limit } => (Method::GET, format!("users?limit={limit}"), None),
            Self::Cluster => (Method::GET, "cluster".to_owned(), None),
            Self::ClusterState => (Method::GET, "admin/cluster".to_owned(), None),
            Self::NewJoinToken { terms } => {
                (Method::POST, "admin/tokens".to_owned(), body(json!(terms)))
            }
            Self::JoinTokens => (Method::GET, "admin/tokens".to_owned(), None),
            Self::RevokeJoinToken { id } => (Method::DELETE, format!("admin/tokens/{id}"), None),
            Self::Expel { node } => (Method::DELETE, format!("admin/nodes/{node}"), None),
            Self::Drain { force } => (Method::POST, format!("admin/drain?force={force}"), None),
            Self::DrainWorker { node, force } => {
                (Method::POST, format!("admin/nodes/{node}/drain?force={force}"), None)
            }
            Self::DeadLetters { before } => {
                let before = before.map_or_else(String::new, |number| format!("?before={number}"));
                (Method::GET, format!("admin/dead-letters{before}"), None)
            }
            Self::DropDeadLetter { number } => {
                (Method::DELETE, format!("admin/dead-letters/{number}"), None)
            }
            Self::RetryDeadLetter { number } => {
                (Method::POST, format!("admin/dead-letters/{number}/retry"), None)
            }
            Self::Readyz => {
                return RawRequest { method: Method::GET, path: "/readyz".to_owned(), body: None };
            }
        };
        RawRequest { method, path: format!("/api/v1/{path}"), body }
    }

    /// Reads the answer to this request. What no master would answer to it, such as a proxy's page,
    /// leaves the outcome unknown whatever its status says.
    ///
    /// # Errors
    /// Any [`Failure`] but [`Failure::Unreached`].
    pub(super) fn read(&self, answer: &RawAnswer) -> Result<Answer, Failure> {
        let strange = |what: &str| Failure::Unknown {
            status: Some(answer.status),
            why: format!("the answer is not to what was asked: {what}"),
        };
        let ours = |is_ours: bool, what| if is_ours { Ok(()) } else { Err(strange(what)) };
        Ok(match (self, answer.status) {
            (Self::Post { board, id, .. }, 200 | 201) => {
                let post: Post = shape(answer)?;
                ours(post.id == *id && post.board == *board, "another post")?;
                Answer::Posted(post)
            }
            (Self::Post { id, .. }, 202) => match shape(answer)? {
                PostState::Pending { id: named, copies } if named == *id => {
                    Answer::Pending { copies }
                }
                _ => return Err(strange("not this post's state")),
            },
            (Self::Outcome { id } | Self::Cancel { id }, 200) => {
                let state: PostState = shape(answer)?;
                ours(state.id() == *id, "another post's state")?;
                Answer::Fate(Some(state))
            }
            (Self::Read { board, .. }, 200) => {
                let page: PostList = shape(answer)?;
                ours(page.posts.iter().all(|post| post.board == *board), "another board")?;
                Answer::Page(page)
            }
            (Self::CreateBoard { board }, 200 | 201) => {
                ours(shape::<Board>(answer)?.name == *board, "another board")?;
                Answer::Done
            }
            (Self::OpenSession { .. }, 201) => Answer::Opened(shape(answer)?),
            (Self::Restore, 200) => Answer::Restored(shape(answer)?),
            (Self::Boards, 200) => Answer::Boards(shape(answer)?),
            (Self::Users | Self::FirstUsers { .. }, 200) => Answer::Users(shape(answer)?),
            (Self::Cluster, 200) => Answer::Cluster(shape(answer)?),
            (Self::ClusterState, 200) => Answer::ClusterState(shape(answer)?),
            (Self::NewJoinToken { .. }, 201) => Answer::Invitation(shape(answer)?),
            (Self::JoinTokens, 200) => Answer::JoinTokens(shape(answer)?),
            (Self::DeadLetters { .. }, 200) => Answer::DeadLetters(shape(answer)?),
            (Self::Drain { .. } | Self::DrainWorker { .. }, 202) => {
                Answer::Draining(shape(answer)?)
            }
            (Self::RetryDeadLetter { .. }, 200) => Answer::Posted(shape(answer)?),
            (
                Self::Leave
                | Self::Alive
                | Self::ReadMark { .. }
                | Self::RevokeJoinToken { .. }
                | Self::Expel { .. }
                | Self::DropDeadLetter { .. },
                204,
            ) => Answer::Done,
            (Self::Readyz, 200 | 503) => match shape::<Readiness>(answer)?.ready {
                true => Answer::Done,
                false => return Err(busy(answer, Problem::default())),
            },
            (_, status) => {
                let problem = Problem::read(&answer.body);
                let is_ours = problem.is_ours();
                match status {
                    404 if problem.problem_type() == Some(ProblemType::NotCommitted) => {
                        Answer::Fate(None)
                    }
                    _ if problem.puts_off(status) => return Err(busy(answer, problem)),
                    400..=499 if is_ours => return Err(Failure::Refused { status, problem }),
                    _ => {
                        let why = format!("{status} {problem}");
                        return Err(Failure::Unknown { status: Some(status), why });
                    }
                }
            }
        })
    }
}

fn busy(answer: &RawAnswer, problem: Problem) -> Failure {
    Failure::Busy { status: answer.status, problem, retry_after: answer.retry_after }
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
            cookie: None,
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
        let letters = |before| Request::DeadLetters { before }.raw().path;
        assert_eq!(letters(None), "/api/v1/admin/dead-letters");
        assert_eq!(letters(Some(7)), "/api/v1/admin/dead-letters?before=7");
    }

    #[test]
    fn answer_tells_whether_anything_was_done() {
        let of = |status, body| post().read(&answer(status, body)).expect_err("not a success");
        let problem = r#"{"type":"urn:chatchat:broken"}"#;
        for status in [400, 401, 404, 410, 413, 422] {
            assert!(matches!(of(status, problem), Failure::Refused { .. }), "{status}");
        }
        for status in [429, 503] {
            let Failure::Busy { retry_after, .. } = of(status, problem) else { panic!("{status}") };
            assert_eq!(retry_after, Some(Duration::from_secs(1)));
        }
        for status in [500, 502, 504] {
            assert!(!of(status, r#"{"type":"outcome-unknown"}"#).did_nothing(), "{status}");
        }
        assert!(!of(201, "<html>").did_nothing(), "a garbled success");
        let pending =
            post().read(&answer(202, &format!(r#"{{"id":"{ID}","state":"pending","copies":2}}"#)));
        assert_eq!(pending, Ok(Answer::Pending { copies: 2 }));
        let missing = r#"{"type":"urn:chatchat:not-committed"}"#;
        let nothing = Request::Outcome { id: ID.parse().unwrap() }.read(&answer(404, missing));
        assert_eq!(nothing, Ok(Answer::Fate(None)));
    }

    #[test]
    fn answer_of_a_stranger_leaves_the_outcome_unknown() {
        const HTML: &str = "<html>sign in to this network</html>";
        let id: PostId = ID.parse().unwrap();
        let board = BoardName::lobby();
        let other = ID.replace('3', "4");
        let author = "00".repeat(16);
        let another = format!(
            r#"{{"id":"{other}","board":"lobby","seq":1,"author":{{"id":"{author}","name":"A"}},"text":"x","posted_at":1}}"#
        );
        let pending = format!(r#"{{"id":"{other}","state":"pending","copies":2}}"#);
        let cancelled = format!(r#"{{"id":"{other}","state":"cancelled"}}"#);
        let range = Range::Last;
        let read =
            Request::Read { board: board.clone(), range, limit: 9, wanted: Consistency::Strong };
        let mark = Request::ReadMark { board: board.clone(), seq: Seq(1) };
        let cases: Vec<(Request, u16, &str)> = vec![
            (post(), 200, &another),
            (post(), 201, &another),
            (post(), 202, &pending),
            (post(), 204, ""),
            (Request::Cancel { id }, 200, &cancelled),
            (Request::Outcome { id }, 200, &cancelled),
            (read, 200, HTML),
            (Request::CreateBoard { board }, 200, HTML),
            (Request::Leave, 200, HTML),
            (Request::Alive, 200, HTML),
            (mark, 200, HTML),
            (Request::Readyz, 200, HTML),
            (Request::Readyz, 503, HTML),
            (post(), 401, HTML),
            (post(), 403, r#"{"error":"blocked"}"#),
            (post(), 429, HTML),
            (post(), 503, HTML),
            (Request::Outcome { id }, 404, HTML),
        ];
        for (request, status, body) in cases {
            let read = request.read(&answer(status, body));
            let is_unknown = matches!(read, Err(Failure::Unknown { .. }));
            assert!(is_unknown, "{request:?} {status} {body}: {read:?}");
        }
    }
}

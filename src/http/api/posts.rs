//! Posts: write, list, find, cancel.

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    http::StatusCode,
};
use serde::Deserialize;

use super::{HandlerResult, LongJson, json, sessions::unexpected};
use crate::{
    api::{PostList, PostState, ProblemType, WritePost},
    http::{
        App,
        auth::Caller,
        body::{self, BoardPath, JsonBody, POST_BODY_BYTES_MAX, PostPath},
        problem::ErrorResponse,
        settled,
    },
    model::{
        event::FaultPoint,
        ids::{Author, BoardName, Post, PostId, PostText, Seq},
        names,
        outcome::{Outcome, TaskResult},
        rows::{Found, Page, Range},
    },
    node::handle::{Consistency, Fate, SessionRequest, Write, Written},
};

/// Most posts in one answer.
const LIMIT_MAX: u32 = 200;
const LIMIT_DEFAULT: u32 = 50;

/// `POST /api/v1/boards/{board}/posts`
pub(super) async fn write(
    State(app): State<App>,
    caller: Caller,
    BoardPath(board): BoardPath,
    JsonBody(asked): JsonBody<WritePost, POST_BODY_BYTES_MAX>,
) -> HandlerResult {
    let id: PostId = asked.id.parse()?;
    let text = read_text(asked.text)?;
    let write = Write::Post { board: board.clone(), id, text: text.clone() };
    let Written { author, outcome } = app.write_or_hold(caller, write).await?;
    if let Outcome::Pending { copies } = outcome {
        return Ok(json(StatusCode::ACCEPTED, &PostState::Pending { id, copies }));
    }
    let (status, post) = written(settled(outcome)?, board, id, author, text)?;
    app.env().fault_point(FaultPoint::AckSent.name());
    Ok(json(status, &post))
}

/// Returns a post that is in its board now, with the status that says whether it is new there.
pub(in crate::http) fn written(
    result: TaskResult,
    board: BoardName,
    id: PostId,
    author: Author,
    text: PostText,
) -> Result<(StatusCode, Post), ErrorResponse> {
    let (status, seq, posted_at_ms) = match result {
        TaskResult::Committed { seq, posted_at_ms } => (StatusCode::CREATED, seq, posted_at_ms),
        TaskResult::Duplicate { seq, posted_at_ms } => (StatusCode::OK, seq, posted_at_ms),
        TaskResult::Conflict => {
            return Err(ErrorResponse::new(
                ProblemType::IdConflict,
                "this id stands for another text or board",
            ));
        }
        TaskResult::Cancelled => {
            return Err(ErrorResponse::new(
                ProblemType::Cancelled,
                "this id was cancelled and never appears",
            ));
        }
        other => return Err(unexpected(&other)),
    };
    Ok((status, Post { id, board, seq, author, text, posted_at_ms }))
}

fn read_text(text: String) -> Result<PostText, ErrorResponse> {
    if text.len() > PostText::LEN_MAX {
        let detail = format!("{} bytes, where {} fit", text.len(), PostText::LEN_MAX);
        return Err(ErrorResponse::new(ProblemType::TextTooLong, detail));
    }
    if !text.is_empty() && names::is_blank(&text) {
        return Err(ErrorResponse::new(
            ProblemType::TextRefused,
            "text: nothing of it can be seen",
        ));
    }
    PostText::try_from(text)
        .map_err(|why| ErrorResponse::new(ProblemType::TextRefused, why.to_string()))
}

#[derive(Debug, Deserialize)]
pub(super) struct ListQuery {
    after: Option<u64>,
    before: Option<u64>,
    limit: Option<u32>,
    consistency: Option<String>,
}

/// `GET /api/v1/boards/{board}/posts`
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    BoardPath(board): BoardPath,
    asked: Result<Query<ListQuery>, QueryRejection>,
) -> HandlerResult {
    let wrong = |detail: &str| ErrorResponse::new(ProblemType::MalformedQuery, detail);
    let asked = body::query(asked)?;
    let range = match (asked.after, asked.before) {
        (None, None) => Range::Last,
        (Some(after), None) => Range::After(Seq(after)),
        (None, Some(before)) => Range::Before(Seq(before)),
        (Some(_), Some(_)) => return Err(wrong("after and before exclude each other")),
    };
    let limit = asked.limit.unwrap_or(LIMIT_DEFAULT).min(LIMIT_MAX);
    if limit == 0 {
        return Err(wrong("limit: want 1 or more"));
    }
    let want = match asked.consistency.as_deref() {
        None | Some("strong") => Consistency::Strong,
        Some("weak") => Consistency::Weak,
        Some(_) => return Err(wrong("consistency: want strong or weak")),
    };
    let answer = LongJson::begin(&app, &caller)?;
    let request = |reply| SessionRequest::Posts { board, range, limit, want, reply };
    let read = app.ask(caller, request).await?;
    let truncated = is_truncated(&read.value, range);
    answer.end(&PostList::new(read.value, read.consistency, truncated))
}

/// Whether the board has more posts in the direction asked for.
fn is_truncated(page: &Page, range: Range) -> bool {
    match range {
        Range::After(_) => page.posts.last().is_some_and(|last| last.seq < page.last_seq),
        Range::Before(_) | Range::Last => {
            page.posts.first().is_some_and(|first| first.seq > Seq(1))
        }
    }
}

/// `GET /api/v1/posts/{id}`
pub(super) async fn find(
    State(app): State<App>,
    caller: Caller,
    PostPath(id): PostPath,
) -> HandlerResult {
    match app.ask(caller, |reply| SessionRequest::FindPost { id, reply }).await? {
        Fate::Stored(Found::Committed(post)) => {
            Ok(json(StatusCode::OK, &PostState::Committed(post)))
        }
        Fate::Stored(Found::Cancelled) => Ok(json(StatusCode::OK, &PostState::Cancelled { id })),
        Fate::Pending { copies } => Ok(json(StatusCode::OK, &PostState::Pending { id, copies })),
        Fate::Stored(Found::Nothing) => Err(ErrorResponse::new(
            ProblemType::NotCommitted,
            "no post of yours has this id; it may still come",
        )),
    }
}

/// `DELETE /api/v1/posts/{id}`
pub(super) async fn cancel(
    State(app): State<App>,
    caller: Caller,
    PostPath(id): PostPath,
) -> HandlerResult {
    match app.write(caller, Write::CancelPost { id }).await?.1 {
        TaskResult::Cancelled => Ok(json(StatusCode::OK, &PostState::Cancelled { id })),
        TaskResult::AlreadyCommitted(post) => {
            Ok(json(StatusCode::OK, &PostState::Committed(*post)))
        }
        other => Err(unexpected(&other)),
    }
}

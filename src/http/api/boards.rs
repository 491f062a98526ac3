//! Boards: list, create, set the read mark.

use axum::{extract::State, http::StatusCode, response::IntoResponse};

use super::{HandlerResult, json, sessions::unexpected};
use crate::{
    api::{Board, BoardList, ProblemType, ReadMark, boards_of},
    http::{
        App,
        auth::Caller,
        body::{BoardPath, JsonBody},
    },
    model::{ids::Seq, message::Task, outcome::TaskResult},
};

/// `GET /api/v1/boards`
pub(super) async fn list(State(app): State<App>, caller: Caller) -> HandlerResult {
    let read = app.read(app.handle().boards()).await?;
    let shape = BoardList {
        boards: boards_of(&read.value, Some(&caller.session)),
        epoch: read.value.epoch,
        consistency: read.consistency,
        as_of: read.value.as_of_ms,
    };
    Ok(json(StatusCode::OK, &shape))
}

/// `PUT /api/v1/boards/{board}`: 201 when it is new, 200 when it was there.
pub(super) async fn create(
    State(app): State<App>,
    caller: Caller,
    BoardPath(board): BoardPath,
) -> HandlerResult {
    let read = app.read(app.handle().boards()).await?;
    let known = boards_of(&read.value, Some(&caller.session));
    if let Some(shape) = known.into_iter().find(|shape| shape.name == board) {
        return Ok(json(StatusCode::OK, &shape));
    }
    match app.submit(Some(caller.session.key), Task::CreateBoard { board: board.clone() }).await {
        Ok(TaskResult::Done) => {
            let shape = Board { name: board, last_seq: Seq(0), read_mark: Seq(0) };
            Ok(json(StatusCode::CREATED, &shape))
        }
        Ok(other) => Err(unexpected(&other)),
        Err(why) if why.is(ProblemType::Refused) => Err(why.too_many_boards()),
        Err(why) => Err(why),
    }
}

/// `PUT /api/v1/boards/{board}/read-mark`
pub(super) async fn mark_read(
    State(app): State<App>,
    caller: Caller,
    BoardPath(board): BoardPath,
    JsonBody(mark): JsonBody<ReadMark>,
) -> HandlerResult {
    let key = caller.session.key;
    let task = Task::SetReadMark { key, board, seq: mark.seq };
    match app.submit(Some(key), task).await {
        Ok(TaskResult::Done) => Ok(StatusCode::NO_CONTENT.into_response()),
        Ok(other) => Err(unexpected(&other)),
        Err(why) if why.is(ProblemType::Refused) => Err(why.named(ProblemType::AboveEnd)),
        Err(why) => Err(why),
    }
}

//! Boards: list, create, set the read mark.

use axum::{extract::State, http::StatusCode, response::IntoResponse};

use super::{HandlerResult, LongJson, json, sessions::unexpected};
use crate::{
    api::{Board, BoardList, ProblemType, ReadMark, boards_of},
    http::{
        App,
        auth::Caller,
        body::{BoardPath, JsonBody},
    },
    model::{ids::Seq, outcome::TaskResult},
    node::handle::{Restored, SessionRequest, Write},
};

/// `GET /api/v1/boards`
pub(super) async fn list(State(app): State<App>, caller: Caller) -> HandlerResult {
    let answer = LongJson::begin(&app, &caller)?;
    let read = app.ask(caller, |reply| SessionRequest::Restore { reply }).await?;
    let Restored { session, boards, .. } = read.value;
    let shape = BoardList {
        boards: boards_of(&boards, Some(&session)),
        epoch: boards.epoch,
        consistency: read.consistency,
        as_of: boards.as_of_ms,
    };
    answer.end(&shape)
}

/// `PUT /api/v1/boards/{board}`: 201 when it is new, 200 when it was there.
pub(super) async fn create(
    State(app): State<App>,
    caller: Caller,
    BoardPath(board): BoardPath,
) -> HandlerResult {
    let read = app.ask(caller.clone(), |reply| SessionRequest::Restore { reply }).await?;
    let known = boards_of(&read.value.boards, Some(&read.value.session));
    if let Some(shape) = known.into_iter().find(|shape| shape.name == board) {
        return Ok(json(StatusCode::OK, &shape));
    }
    // The session is known by now: strangers cannot fill the table.
    app.admit_board(&caller)?;
    let written = app.write(caller.clone(), Write::CreateBoard { board: board.clone() }).await;
    if written.as_ref().is_err_and(|why| !why.is(ProblemType::OutcomeUnknown)) {
        app.give_board_back(&caller);
    }
    match written {
        Ok((_, TaskResult::Done)) => {
            let shape = Board { name: board, last_seq: Seq(0), read_mark: Seq(0) };
            Ok(json(StatusCode::CREATED, &shape))
        }
        Ok((_, other)) => Err(unexpected(&other)),
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
    match app.write(caller, Write::SetReadMark { board, seq: mark.seq }).await {
        Ok((_, TaskResult::Done)) => Ok(StatusCode::NO_CONTENT.into_response()),
        Ok((_, other)) => Err(unexpected(&other)),
        Err(why) if why.is(ProblemType::Refused) => Err(why.named(ProblemType::AboveEnd)),
        Err(why) => Err(why),
    }
}

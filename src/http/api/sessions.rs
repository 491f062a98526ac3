//! Sessions: open, restore, stay alive, leave, and move to a master on another host.

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{HandlerResult, LongJson, json};
use crate::{
    api::{
        OpenSession, ProblemType, RedeemTicket, SessionOpened, SessionRestored, TicketIssued,
        boards_of,
    },
    http::{
        App,
        auth::{self, Caller, Secret},
        body::JsonBody,
        connection::PeerHost,
        problem::ErrorResponse,
    },
    model::{
        ids::Author,
        message::Task,
        names,
        outcome::TaskResult,
        rows::{Boards, SessionRow},
    },
    node::handle::{MasterInfo, RequestError, SessionRequest, Write},
};

/// Contents of the answer to a new session. Read before anything is written, so that a 503 did nothing.
struct Surroundings {
    boards: Boards,
    masters: Vec<MasterInfo>,
    cluster: [u8; 16],
    https: bool,
}

impl Surroundings {
    async fn read(app: &App) -> Result<Self, ErrorResponse> {
        let cluster = app.cluster().await?;
        let read = app.bounded(app.handle().boards()).await;
        let boards = read.unwrap_or(Err(RequestError::Away))?.value;
        let masters = app.bounded(app.handle().masters()).await.unwrap_or_default();
        Ok(Self { boards, masters, cluster, https: app.is_https() })
    }

    fn opened(self, secret: &Secret, session: &SessionRow, cookie: bool) -> Response {
        let shape = SessionOpened {
            token: (!cookie).then(|| secret.text()),
            user: session.user.clone(),
            boards: boards_of(&self.boards, Some(session)),
            masters: self.masters,
            epoch: self.boards.epoch,
            cluster: hex::encode(self.cluster),
        };
        let mut response = json(StatusCode::CREATED, &shape);
        if cookie {
            let line = auth::set_cookie(self.cluster, self.https, secret);
            response.headers_mut().insert(header::SET_COOKIE, line);
        }
        response
    }
}

/// `POST /api/v1/sessions`
pub(super) async fn open(
    State(app): State<App>,
    from: PeerHost,
    JsonBody(asked): JsonBody<OpenSession>,
) -> HandlerResult {
    app.admit_opening(from)?;
    let name = names::chosen_name(&asked.name)?;
    let around = Surroundings::read(&app).await?;
    let secret = Secret::new(app.env());
    let user = Author { id: auth::new_user_id(app.env()), name };
    let key = secret.key();
    match app.submit(Task::OpenSession { key, user: user.clone() }).await? {
        TaskResult::Done => {
            app.on_opened(key);
            let session = SessionRow { key, user, read_marks: Vec::new() };
            Ok(around.opened(&secret, &session, asked.cookie))
        }
        other => Err(unexpected(&other)),
    }
}

/// `GET /api/v1/session`
pub(super) async fn restore(State(app): State<App>, caller: Caller) -> HandlerResult {
    let answer = LongJson::begin(&app, &caller)?;
    let cluster = app.cluster().await?;
    let masters = app.bounded(app.handle().masters()).await.unwrap_or_default();
    let read = app.ask(caller, |reply| SessionRequest::Restore { reply }).await?;
    let restored = read.value;
    let shape = SessionRestored {
        boards: boards_of(&restored.boards, Some(&restored.session)),
        user: restored.session.user,
        pending: restored.pending,
        masters,
        epoch: restored.boards.epoch,
        consistency: read.consistency,
        as_of: restored.boards.as_of_ms,
        cluster: hex::encode(cluster),
    };
    answer.end(&shape)
}

/// `DELETE /api/v1/session`
pub(super) async fn close(State(app): State<App>, caller: Caller) -> HandlerResult {
    let cluster = app.cluster().await?;
    match app.write(caller, Write::CloseSession).await?.1 {
        TaskResult::Done => {
            let gone = [(header::SET_COOKIE, auth::clear_cookie(cluster, app.is_https()))];
            Ok((StatusCode::NO_CONTENT, gone).into_response())
        }
        other => Err(unexpected(&other)),
    }
}

/// `POST /api/v1/session/alive`
pub(super) async fn alive(State(app): State<App>, caller: Caller) -> HandlerResult {
    app.ask(caller, |reply| SessionRequest::Alive { reply }).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST /api/v1/handover`
pub(super) async fn issue_ticket(State(app): State<App>, caller: Caller) -> HandlerResult {
    let ticket = Secret::new(app.env());
    match app.write(caller, Write::PutTicket { ticket_sha256: ticket.sha256() }).await?.1 {
        TaskResult::Done => Ok(json(StatusCode::CREATED, &TicketIssued { ticket: ticket.text() })),
        other => Err(unexpected(&other)),
    }
}

/// `POST /api/v1/handover/redeem`
pub(super) async fn redeem_ticket(
    State(app): State<App>,
    from: PeerHost,
    headers: HeaderMap,
    JsonBody(asked): JsonBody<RedeemTicket>,
) -> HandlerResult {
    app.admit_opening(from)?;
    let ticket = Secret::read(&asked.ticket).ok_or_else(|| {
        ErrorResponse::new(ProblemType::UnknownTicket, "the ticket is not one of ours")
    })?;
    let user = auth::named_in(&headers)?;
    let around = Surroundings::read(&app).await?;
    let secret = Secret::new(app.env());
    let task = Task::RedeemTicket { ticket_sha256: ticket.sha256(), key: secret.key() };
    match app.submit(task).await {
        // Nobody learns the secret of another user's: it ends like any idle session.
        Ok(TaskResult::Session(session)) if user.is_some_and(|user| user != session.user.id) => {
            Err(ErrorResponse::other_session())
        }
        Ok(TaskResult::Session(session)) => {
            app.on_opened(session.key);
            Ok(around.opened(&secret, &session, true))
        }
        Ok(other) => Err(unexpected(&other)),
        // A ticket that is spent, over or never was is the same to whoever shows it.
        Err(why) if why.is(ProblemType::Refused) || why.is(ProblemType::UnknownSession) => {
            Err(why.named(ProblemType::UnknownTicket))
        }
        Err(why) => Err(why),
    }
}

/// Answer to a result that does not belong to its task: a fault of the master's.
pub(in crate::http) fn unexpected(result: &TaskResult) -> ErrorResponse {
    tracing::error!(?result, "a task was answered with another's result");
    ErrorResponse::new(
        ProblemType::Broken,
        "the master answered with something else than was asked",
    )
}

//! The stream of server-sent events: 200 or 401, nothing else, because `EventSource` gives up
//! for good on other answers. Other refusals are sent as a `bye`.
//!
//! 1. `hello` comes first, `bye` last; `hello`, `post` and `reset` carry the cursor after them. What
//!    `hello` does not name is not followed. Where a reset comes second, the cursor after `hello` is still
//!    the one that was asked with.
//! 2. A `beat` is sent every `stream_beat_interval`, busy or not.
//! 3. A reader that takes nothing is closed: its stream by the master, its connection by the server.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde::Deserialize;
use tokio::sync::{
    broadcast,
    mpsc::{self, error::TryRecvError},
};

use super::typed;
use crate::{
    api::{
        ByeEvent, MastersEvent, PendingEvent, PresenceEvent, ResetEvent, StateEvent, StreamEvent,
        User,
    },
    env::Env,
    http::{App, auth::Caller, long_body::long_answer, places::Place, problem::ErrorResponse},
    model::{
        ids::{BoardName, Cursor},
        rows::ActiveUser,
        shared::Shared,
        stream::{ByeReason, Delivery, MasterInfo, PresenceChange, PresenceWindow},
        time::Mono,
    },
    node::handle::{FirstReset, PresenceForm, SessionRequest, StreamGuard, StreamHandle},
};

/// Length at which a chunk is handed on, in bytes, so that a long catch-up is a few large writes.
const CHUNK_BYTES_MAX: usize = 32 * 1024;
/// Wait of a reader that could not be served or was too slow, in milliseconds.
const RETRY_MS: u64 = 1000;

#[derive(Debug, Default, Deserialize)]
pub(super) struct StreamQuery {
    boards: Option<String>,
    cursor: Option<String>,
    presence: Option<String>,
}

impl StreamQuery {
    /// Returns how people are told; other words are those of a later version.
    fn presence(&self) -> PresenceForm {
        match self.presence.as_deref() {
            Some("lists") => PresenceForm::Lists,
            _ => PresenceForm::default(),
        }
    }
}

/// `GET /api/v1/stream`
pub(super) async fn open(
    State(app): State<App>,
    caller: Result<Caller, ErrorResponse>,
    asked: Result<Query<StreamQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Response {
    let caller = match caller {
        Ok(caller) => caller,
        Err(why) if why.status() == StatusCode::UNAUTHORIZED => return why.into_response(),
        Err(why) => return sorry(&app, &why).await,
    };
    let asked = asked.map(|Query(asked)| asked);
    let presence = asked.as_ref().map(StreamQuery::presence).unwrap_or_default();
    let (boards, cursor) = wanted(asked, &headers);
    let Some(place) = app.places().take(caller.key) else {
        return sorry(&app, &ErrorResponse::too_many_streams()).await;
    };
    let asked = app.ask(caller, |reply| SessionRequest::Stream { boards, cursor, presence, reply });
    match asked.await {
        Ok(feed) => live(&app, feed, place),
        Err(why) if why.status() == StatusCode::UNAUTHORIZED => why.into_response(),
        Err(why) => sorry(&app, &why).await,
    }
}

/// Returns the boards and the cursor that a request asks for. `Err` stands for a cursor that does
/// not parse.
fn wanted(
    asked: Result<StreamQuery, QueryRejection>,
    headers: &HeaderMap,
) -> (Vec<BoardName>, Result<Option<Cursor>, ()>) {
    let malformed = asked.is_err();
    let asked = asked.unwrap_or_default();
    let last = headers.get("last-event-id").map(|value| value.to_str().unwrap_or("?"));
    // Browsers send an empty id before the first event came.
    let parse = |text: Option<&str>| match text.filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) => text.parse::<Cursor>().map(Some).map_err(|_| ()),
    };
    let cursor = match (parse(last), parse(asked.cursor.as_deref())) {
        // The URL stays the same at every reconnect, so its faults were answered before.
        (Ok(Some(last)), query) => Ok(Some(merge(last, query.ok().flatten()))),
        _ if malformed => Err(()),
        (Err(()), _) => Err(()),
        (Ok(None), query) => query,
    };
    let named = asked.boards.as_deref().unwrap_or_default().split(',');
    let mut boards: Vec<BoardName> = Vec::new();
    for board in named.filter_map(|name| name.trim().parse().ok()) {
        if boards.len() < Cursor::BOARDS_MAX && !boards.contains(&board) {
            boards.push(board);
        }
    }
    if asked.boards.is_none() {
        boards = match &cursor {
            Ok(Some(cursor)) => cursor.boards.keys().cloned().collect(),
            _ => vec![BoardName::lobby()],
        };
    }
    (boards, cursor)
}

/// Merges two cursors: for each board the last event's position wins. A position of another epoch
/// says nothing: the last event's cursor names all boards that its stream followed.
fn merge(last: Cursor, query: Option<Cursor>) -> Cursor {
    let of_epoch = query.filter(|query| query.epoch == last.epoch);
    let mut boards: BTreeMap<_, _> = of_epoch.map(|query| query.boards).unwrap_or_default();
    boards.extend(last.boards);
    Cursor { epoch: last.epoch, boards }
}

fn event_stream(body: Body) -> Response {
    let mut response = typed(StatusCode::OK, "text/event-stream", body);
    // A proxy that gathers or compresses would hold beats back.
    for (name, value) in [("x-accel-buffering", "no"), ("cache-control", "no-store, no-transform")]
    {
        let name = HeaderName::from_static(name);
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Returns a stream of one `bye`: it says when to come back and which other masters there are.
async fn sorry(app: &App, why: &ErrorResponse) -> Response {
    let to = app.bounded(app.handle().masters()).await.unwrap_or_default();
    let reason = match why.status() {
        StatusCode::TOO_MANY_REQUESTS => ByeReason::Overloaded,
        _ => ByeReason::Unavailable,
    };
    let mut chunk = Chunk::default();
    chunk.bye(reason, to, why.retry_ms().unwrap_or(RETRY_MS));
    event_stream(Body::from(chunk.0))
}

fn live(app: &App, feed: StreamHandle, place: Place) -> Response {
    let StreamHandle { hello, reset, deliveries, guard } = feed;
    let mut chunk = Chunk::default();
    let at = hello.cursor.to_string();
    match reset {
        None => chunk.event(Some(&at), &StreamEvent::Hello(hello.clone())),
        Some(FirstReset { reason, asked }) => {
            // A stream that breaks before its reset was told is asked for again at the old place.
            let before =
                asked.map_or_else(|| at.clone(), |asked| place_before(asked, &hello.cursor));
            chunk.event(Some(&before), &StreamEvent::Hello(hello.clone()));
            chunk.event(Some(&at), &StreamEvent::Reset(ResetEvent { reason }));
        }
    }
    let beat = Duration::from_millis(hello.beat_ms.max(1));
    let reader = Reader {
        env: app.env().clone(),
        closing: app.closing(),
        cursor: hello.cursor,
        next_beat: app.env().now() + beat,
        beat,
        deliveries,
        ended: false,
        _guard: guard,
        _place: place,
    };
    let rest = stream::unfold(reader, |mut reader| async move {
        let chunk = reader.next().await?;
        Some((Bytes::from(chunk.0), reader))
    });
    long_answer(Bytes::from(chunk.0), rest, event_stream)
}

/// Returns the cursor between a `hello` and the reset that follows it: the one that was asked with, but
/// for boards that are not followed. Places of another epoch are all kept: none of its boards need be here.
fn place_before(mut asked: Cursor, followed: &Cursor) -> String {
    if asked.epoch == followed.epoch {
        asked.boards.retain(|board, _| followed.boards.contains_key(board));
    }
    asked.to_string()
}

/// Open stream, polled only while its connection has room.
struct Reader {
    env: Env,
    deliveries: mpsc::Receiver<Delivery>,
    closing: broadcast::Receiver<()>,
    /// Cursor after the last event of this reader.
    cursor: Cursor,
    beat: Duration,
    next_beat: Mono,
    ended: bool,
    _guard: StreamGuard,
    _place: Place,
}

impl Reader {
    async fn next(&mut self) -> Option<Chunk> {
        if self.ended {
            return None;
        }
        let mut chunk = Chunk::default();
        tokio::select! {
            biased;
            _ = self.closing.recv() => return None,
            // Before events: a busy stream beats too.
            () = self.env.sleep_until(self.next_beat) => {
                self.next_beat = self.env.now() + self.beat;
                chunk.event(None, &StreamEvent::Beat);
            }
            event = self.deliveries.recv() => self.on_event(event, &mut chunk),
        }
        while !self.ended && chunk.0.len() < CHUNK_BYTES_MAX {
            match self.deliveries.try_recv() {
                Ok(event) => self.on_event(Some(event), &mut chunk),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => self.on_event(None, &mut chunk),
            }
        }
        Some(chunk)
    }

    fn on_event(&mut self, event: Option<Delivery>, chunk: &mut Chunk) {
        match event {
            Some(Delivery::Post(post)) => {
                self.cursor.boards.insert(post.board.clone(), post.seq);
                let id = self.cursor.to_string();
                let data = post.encoded(|post| data_lines(&StreamEvent::Post(post.clone())));
                chunk.encoded("post", Some(&id), data);
            }
            Some(Delivery::Presence(users)) => {
                let data = users.encoded(|users| {
                    let users = users.iter().map(User::from).collect();
                    data_lines(&StreamEvent::Presence(PresenceEvent::List { users }))
                });
                chunk.encoded("presence", None, data);
            }
            Some(Delivery::PresenceWindow { window, own }) => {
                chunk.encoded("presence", None, &window_lines(&window, own.as_ref()));
            }
            Some(Delivery::PresenceChange(change)) => {
                let data = change.encoded(|change| data_lines(&changed(change)));
                chunk.encoded("presence", None, data);
            }
            Some(Delivery::State(consistency)) => {
                chunk.event(None, &StreamEvent::State(StateEvent { consistency }));
            }
            Some(Delivery::Pending { id, state }) => {
                chunk.event(None, &StreamEvent::Pending(PendingEvent { id, state }));
            }
            Some(Delivery::Masters(masters)) => {
                chunk.event(None, &StreamEvent::Masters(MastersEvent { masters }));
            }
            Some(Delivery::Reset { reason, cursor }) => {
                let id = cursor.to_string();
                self.cursor = cursor;
                chunk.event(Some(&id), &StreamEvent::Reset(ResetEvent { reason }));
            }
            Some(Delivery::Bye { reason, to, retry_ms }) => {
                chunk.bye(reason, to, retry_ms);
                self.ended = true;
            }
            // The master gave up on this reader.
            None => {
                chunk.bye(ByeReason::Slow, Vec::new(), RETRY_MS);
                self.ended = true;
            }
        }
    }
}

/// Returns the end of an event: its data and the empty line after it, the same for all readers.
fn data_lines(event: &StreamEvent) -> Bytes {
    // JSON holds no line end, so one data line is enough.
    format!("data: {}\n\n", event.data()).into()
}

fn changed(change: &PresenceChange) -> StreamEvent {
    StreamEvent::Presence(PresenceEvent::Change {
        version: change.version,
        since: change.version.saturating_sub(1),
        total: change.count as u64,
        came: change.came.iter().map(User::from).collect(),
        left: change.left.clone(),
    })
}

/// Returns the end of a window's event. Readers share its people and differ in the last one, their
/// own, so it is put together from texts.
fn window_lines(window: &Shared<PresenceWindow>, own: Option<&ActiveUser>) -> Bytes {
    let json = |user: &ActiveUser| serde_json::to_string(&User::from(user)).unwrap_or_default();
    let users =
        window.encoded(|window| window.users.iter().map(json).collect::<Vec<_>>().join(",").into());
    let own = own.map(json).unwrap_or_default();
    let comma = if users.is_empty() || own.is_empty() { "" } else { "," };
    // Somebody who just came is shown before the list has them.
    let total = window.count.max(window.users.len() + usize::from(!own.is_empty()));
    let head = format!(r#"data: {{"version":{},"total":{total},"users":["#, window.version);
    [head.as_bytes(), users, comma.as_bytes(), own.as_bytes(), b"]}\n\n"].concat().into()
}

/// Events as text, gathered for one write.
#[derive(Debug, Default)]
struct Chunk(Vec<u8>);

impl Chunk {
    fn event(&mut self, id: Option<&str>, event: &StreamEvent) {
        self.encoded(event.name(), id, &data_lines(event));
    }

    /// Appends an event whose data lines are there already, shared with other readers.
    fn encoded(&mut self, name: &str, id: Option<&str>, data: &[u8]) {
        let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
        self.0.extend_from_slice(format!("event: {name}\n{id}").as_bytes());
        self.0.extend_from_slice(data);
    }

    fn bye(&mut self, reason: ByeReason, to: Vec<MasterInfo>, retry_ms: u64) {
        self.event(None, &StreamEvent::Bye(ByeEvent { reason, to, retry_ms }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(last: &'static str) -> HeaderMap {
        [(HeaderName::from_static("last-event-id"), HeaderValue::from_static(last))]
            .into_iter()
            .collect()
    }

    fn asked(boards: Option<&str>, cursor: Option<&str>) -> Result<StreamQuery, QueryRejection> {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Ok(StreamQuery { boards: owned(boards), cursor: owned(cursor), presence: None })
    }

    #[test]
    fn last_event_wins_for_each_board() {
        let (boards, cursor) =
            wanted(asked(Some("dev,lobby"), Some("7;dev:1,lobby:2")), &headers("7;lobby:9"));
        assert_eq!(boards.len(), 2);
        let text = cursor.map(|cursor| cursor.map(|cursor| cursor.to_string()));
        assert_eq!(text, Ok(Some("7;dev:1,lobby:9".to_owned())));
    }

    #[test]
    fn last_event_wins_over_a_cursor_of_another_epoch_or_none_at_all() {
        for query in ["9;dev:1", "3;dev:1,lobby:2", "x", "7;lobby:+1"] {
            let (_, cursor) = wanted(asked(None, Some(query)), &headers("7;lobby:9"));
            let text = cursor.map(|cursor| cursor.map(|cursor| cursor.to_string()));
            assert_eq!(text, Ok(Some("7;lobby:9".to_owned())), "{query}");
        }
    }

    #[test]
    fn malformed_cursor_differs_from_a_missing_one() {
        assert_eq!(wanted(asked(None, None), &HeaderMap::new()).1, Ok(None));
        assert_eq!(wanted(asked(None, Some("")), &headers("")).1, Ok(None));
        assert_eq!(wanted(asked(None, Some("x")), &HeaderMap::new()).1, Err(()));
        assert_eq!(wanted(asked(None, None), &headers("x")).1, Err(()));
    }

    #[test]
    fn boards_come_from_the_query_then_the_cursor_then_the_lobby() {
        let names = |read: (Vec<BoardName>, _)| {
            read.0.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        };
        let none = HeaderMap::new();
        assert_eq!(names(wanted(asked(Some("dev,NO,dev, a"), None), &none)), "dev,a");
        assert_eq!(names(wanted(asked(None, Some("7;b:1,c:2")), &none)), "b,c");
        assert_eq!(names(wanted(asked(None, None), &none)), "lobby");
        let many: Vec<_> = (0..40).map(|n| format!("b{n}")).collect();
        assert_eq!(wanted(asked(Some(&many.join(",")), None), &none).0.len(), 32);
    }
}

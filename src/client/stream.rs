//! A stream of one master: typed events until it ends or falls silent.

use std::{collections::VecDeque, fmt, time::Duration};

use http_body_util::BodyExt;
use hyper::Method;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    client::{
        Failure, Limits,
        exchange::{Answer, Asked, Exchange, Streaming},
        request::Request,
        shapes::{Consistency, MasterInfo, PostShape, UserShape},
        sse::{Parser, RawEvent},
    },
    env::{Env, TimedOut},
    model::ids::{BoardName, Cursor, PostId},
};

/// What a stream delivers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum StreamEvent {
    /// The first event.
    Hello {
        /// The master that serves it.
        node: MasterInfo,
        /// All masters.
        masters: Vec<MasterInfo>,
        /// From where each board is delivered.
        #[serde(with = "cursor_text")]
        cursor: Cursor,
        /// Between two beats.
        beat_ms: u64,
    },
    /// A post.
    Post(PostShape),
    /// The fate of a post of the reader's own.
    Pending {
        /// Which.
        id: PostId,
        /// `pending`, `committed`, `cancelled`, `rejected`, `dead-letter`.
        state: String,
    },
    /// Who is active.
    Presence {
        /// Active people across the system.
        users: Vec<UserShape>,
    },
    /// Whether the master reaches the store.
    State {
        /// Strong if it does.
        consistency: Consistency,
    },
    /// The list of masters changed.
    Masters {
        /// All of them.
        masters: Vec<MasterInfo>,
    },
    /// There is a hole: what was delivered so far may lack posts.
    Reset {
        /// Why.
        reason: String,
    },
    /// A sign of life.
    Beat,
    /// The last event.
    Bye {
        /// Why.
        reason: String,
        /// Masters to go to.
        to: Vec<MasterInfo>,
        /// When.
        retry_ms: u64,
    },
    /// Of a later version.
    Other {
        /// Its name.
        name: String,
    },
}

/// An event with the cursor after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// What came.
    pub event: StreamEvent,
    /// From where to resume; `hello`, `post` and `reset` carry one.
    pub cursor: Option<Cursor>,
}

/// A cursor travels as its text.
mod cursor_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::model::ids::Cursor;

    pub(super) fn serialize<S: Serializer>(cursor: &Cursor, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(cursor)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Cursor, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// Why a stream is over. Its cursor resumes on any master.
#[derive(Clone, Debug, Error, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamEnd {
    /// Its reader left.
    #[error("the reader left")]
    Left,
    /// The master ended it.
    #[error("the master ended the stream")]
    Ended,
    /// The connection broke.
    #[error("the stream broke: {why}")]
    Broken {
        /// What was seen.
        why: String,
    },
    /// Two beats were missed.
    #[error("nothing was heard for {ms} ms")]
    Silent {
        /// How long.
        ms: u64,
    },
    /// What came is not a stream of ours.
    #[error("the stream is not understood: {why}")]
    Garbled {
        /// What was seen.
        why: String,
    },
}

/// An open stream. Dropping it closes its connection.
pub struct EventStream {
    env: Env,
    source: Streaming,
    parser: Parser,
    ready: VecDeque<RawEvent>,
    /// Silence longer than this ends it.
    quiet_limit: Duration,
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EventStream")
    }
}

/// Until `hello` says how often the master beats.
const BEAT: Duration = Duration::from_secs(4);

/// Two missed, and what a beat may be late by.
const fn quiet_limit(beat: Duration) -> Duration {
    beat.saturating_mul(2).saturating_add(Duration::from_millis(500))
}

impl EventStream {
    pub(super) async fn open(
        env: &Env,
        exchange: &mut Exchange,
        token: Option<&str>,
        limits: &Limits,
        boards: &[BoardName],
        cursor: Option<&Cursor>,
    ) -> Result<Self, Failure> {
        let names: Vec<_> = boards.iter().map(BoardName::as_str).collect();
        let mut path = format!("/api/v1/stream?boards={}", names.join(","));
        if let Some(cursor) = cursor {
            path.push_str(&format!("&cursor={cursor}"));
        }
        let asked = Asked { method: Method::GET, path, body: None };
        let mut source = exchange.streaming(asked, token, limits.read).await?;
        if source.status.as_u16() != 200 {
            let status = source.status.as_u16();
            // A refusal is short, or not worth reading.
            let first = env.timeout(limits.read, source.body.frame()).await;
            let body = first.ok().flatten().and_then(Result::ok).and_then(|f| f.into_data().ok());
            let answer = Answer { status, retry_after: None, body: body.unwrap_or_default() };
            return Err(Request::Alive.read(&answer).err().unwrap_or_else(|| Failure::Unknown {
                status: Some(status),
                why: format!("want a stream, got status {status}"),
            }));
        }
        let (parser, ready) = (Parser::default(), VecDeque::new());
        Ok(Self { env: env.clone(), source, parser, ready, quiet_limit: quiet_limit(BEAT) })
    }

    /// The next event. Cancel-safe: what was read stays in the stream.
    ///
    /// # Errors
    /// [`StreamEnd`]: there is no next one.
    pub async fn next(&mut self) -> Result<Delivery, StreamEnd> {
        loop {
            if let Some(raw) = self.ready.pop_front() {
                let delivery = read(&raw)?;
                if let StreamEvent::Hello { beat_ms, .. } = delivery.event {
                    let beat = Duration::from_millis(beat_ms.clamp(100, 60_000));
                    self.quiet_limit = quiet_limit(beat);
                }
                return Ok(delivery);
            }
            let limit = self.quiet_limit;
            let silent = |TimedOut| StreamEnd::Silent {
                ms: limit.as_millis().try_into().unwrap_or(u64::MAX),
            };
            let frame = self.env.timeout(limit, self.source.body.frame()).await.map_err(silent)?;
            let frame = match frame {
                None => return Err(StreamEnd::Ended),
                Some(Err(why)) => return Err(StreamEnd::Broken { why: why.to_string() }),
                Some(Ok(frame)) => frame,
            };
            let Ok(bytes) = frame.into_data() else { continue };
            let mut events = Vec::new();
            self.parser
                .push(&bytes, &mut events)
                .map_err(|why| StreamEnd::Garbled { why: why.to_string() })?;
            self.ready.extend(events);
        }
    }
}

/// Gives a raw event its type.
fn read(raw: &RawEvent) -> Result<Delivery, StreamEnd> {
    let garbled = |why: String| StreamEnd::Garbled { why: format!("{}: {why}", raw.name) };
    let carries_id = matches!(raw.name.as_str(), "hello" | "post" | "reset");
    let cursor = match (&raw.id, carries_id) {
        (Some(id), true) => Some(id.parse::<Cursor>().map_err(|why| garbled(why.to_string()))?),
        _ => None,
    };
    let json = || {
        serde_json::from_str::<serde_json::Value>(&raw.data).map_err(|why| garbled(why.to_string()))
    };
    let event = match raw.name.as_str() {
        "beat" => StreamEvent::Beat,
        name @ ("hello" | "post" | "pending" | "presence" | "state" | "masters" | "reset"
        | "bye") => {
            let mut value = json()?;
            let object = value.as_object_mut().ok_or_else(|| garbled("no object".to_owned()))?;
            object.insert("event".to_owned(), name.into());
            serde_json::from_value(value).map_err(|why| garbled(why.to_string()))?
        }
        name => StreamEvent::Other { name: name.to_owned() },
    };
    Ok(Delivery { event, cursor })
}

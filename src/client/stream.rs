//! Stream of one master: typed events until it ends or falls silent.

use std::{collections::VecDeque, fmt, time::Duration};

use http_body_util::BodyExt;
use hyper::Method;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    api::StreamEvent,
    client::{
        Failure, Limits,
        exchange::{Exchange, RawAnswer, RawRequest, Streaming},
        request::Request,
        sse::{Parser, RawEvent},
    },
    env::{Env, TimedOut},
    model::ids::{BoardName, Cursor},
};

/// Event of a stream and the cursor after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// The event.
    pub event: StreamEvent,
    /// Cursor from which to resume; only `hello`, `post` and `reset` carry one.
    pub cursor: Option<Cursor>,
}

/// Reason why a stream ended. Its cursor resumes on any master.
#[derive(Clone, Debug, Error, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamEnd {
    /// The reader left.
    #[error("the reader left")]
    Left,
    /// The master ended the stream.
    #[error("the master ended the stream")]
    Ended,
    /// The connection broke.
    #[error("the stream broke: {why}")]
    Broken {
        /// Reason, for people.
        why: String,
    },
    /// Two beats in a row were missing.
    #[error("nothing was heard for {ms} ms")]
    Silent {
        /// Length of the silence, in milliseconds.
        ms: u64,
    },
    /// The bytes are not a stream of this contract.
    #[error("the stream is not understood: {why}")]
    Garbled {
        /// Reason, for people.
        why: String,
    },
}

/// Open stream of one master. Dropping it closes its connection.
pub struct EventStream {
    env: Env,
    source: Streaming,
    parser: Parser,
    ready: VecDeque<RawEvent>,
    /// Longest silence; the stream ends after it.
    quiet_limit: Duration,
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EventStream")
    }
}

/// Assumed time between two beats until `hello` says it.
const BEAT: Duration = Duration::from_secs(4);

/// Returns the longest silence: two beats, and what a beat may be late by.
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
        cursor: Option<&str>,
    ) -> Result<Self, Failure> {
        let names: Vec<_> = boards.iter().map(BoardName::as_str).collect();
        let mut path = format!("/api/v1/stream?boards={}", names.join(","));
        if let Some(cursor) = cursor {
            path.push_str(&format!("&cursor={cursor}"));
        }
        let asked = RawRequest { method: Method::GET, path, body: None };
        let mut source = exchange.streaming(asked, token, limits.read).await?;
        if source.status.as_u16() != 200 || !source.is_events {
            let status = source.status.as_u16();
            // A refusal is short, or not worth reading.
            let first = env.timeout(limits.read, source.body.frame()).await;
            let body = first.ok().flatten().and_then(Result::ok).and_then(|f| f.into_data().ok());
            let body = body.unwrap_or_default();
            let answer = RawAnswer { status, retry_after: None, cookie: None, body };
            return Err(Request::Alive.read(&answer).err().unwrap_or_else(|| Failure::Unknown {
                status: Some(status),
                why: format!("want a stream, got status {status}"),
            }));
        }
        let (parser, ready) = (Parser::default(), VecDeque::new());
        Ok(Self { env: env.clone(), source, parser, ready, quiet_limit: quiet_limit(BEAT) })
    }

    /// Waits for the next event. Cancel-safe: bytes that were read stay in the stream.
    ///
    /// # Errors
    /// [`StreamEnd`]: there is no next event.
    pub async fn next(&mut self) -> Result<Delivery, StreamEnd> {
        loop {
            if let Some(raw) = self.ready.pop_front() {
                let delivery = read(&raw)?;
                if let StreamEvent::Hello(hello) = &delivery.event {
                    let beat = Duration::from_millis(hello.beat_ms.clamp(100, 60_000));
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

/// Reads a raw event as a typed one.
fn read(raw: &RawEvent) -> Result<Delivery, StreamEnd> {
    let garbled = |why: String| StreamEnd::Garbled { why: format!("{}: {why}", raw.name) };
    let carries_id = matches!(raw.name.as_str(), "hello" | "post" | "reset");
    let cursor = match (&raw.id, carries_id) {
        (Some(id), true) => Some(id.parse::<Cursor>().map_err(|why| garbled(why.to_string()))?),
        _ => None,
    };
    let event = StreamEvent::read(&raw.name, &raw.data).map_err(|why| garbled(why.to_string()))?;
    Ok(Delivery { event, cursor })
}

//! The frames of a link: what one sealed record carries.
//!
//! ```text
//! kind u8 | what follows
//!  1      | id u64, deadline_ms u32, a request      called
//!  2      | id u64, a response                      answered
//!  3      | id u64                                  given up by the caller
//!  4      | a direct message                        not answered
//!  5      | an envelope, as it is                   published; relayed without decoding
//!  6      | a list of topics                        wanted from now on, instead of those before
//!  7      | a beat                                  said at every heartbeat
//! ```
//!
//! Numbers are little-endian. Requests, responses and so on are in the codec's form. A frame of
//! another kind is refused: which kinds a peer knows follows from the version agreed on in
//! the handshake.

use bytes::Bytes;
use serde::Serialize;
use thiserror::Error;

use super::{
    FRAME_LEN_MAX,
    codec::{self, CodecError},
};
use crate::model::message::{Beat, Direct, Request, Response, Topic};

/// The most topics that one [`Frame::Subscribe`] may name.
pub const TOPICS_MAX: usize = 64;

const REQUEST: u8 = 1;
const RESPONSE: u8 = 2;
const CANCEL: u8 = 3;
const DIRECT: u8 = 4;
const PUBLISH: u8 = 5;
const SUBSCRIBE: u8 = 6;
const BEAT: u8 = 7;

/// The number of a call among those of its caller on one link. Counted up from 1, never reused.
pub type CallId = u64;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A call that wants an answer.
    Request {
        /// Which call of the sender's.
        id: CallId,
        /// How long the caller waits, from when it sent this. A hint; it cancels in any case.
        deadline_ms: u32,
        /// What is asked.
        request: Request,
    },
    /// The answer to a call of the receiver's.
    Response {
        /// Which.
        id: CallId,
        /// The answer.
        response: Response,
    },
    /// The sender does not wait for this call's answer any more.
    Cancel {
        /// Which.
        id: CallId,
    },
    /// A message that is not answered.
    Direct(Direct),
    /// A sealed envelope. The bytes are shared with the record they came in.
    Publish(Bytes),
    /// The topics that the sender wants from now on.
    Subscribe(Vec<Topic>),
    /// A heartbeat.
    Beat(Beat),
}

/// Bytes that are no frame. The link that they came over is to be ended.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum FrameError {
    /// There is nothing, or the fixed fields are cut short.
    #[error("the frame is cut short")]
    Short,
    /// A frame kind that this version does not know.
    #[error("unknown frame kind {0}")]
    UnknownKind(u8),
    /// More topics than there may be.
    #[error("{0} topics in one frame")]
    TooManyTopics(usize),
    /// The body does not go with its kind, or is over the bound.
    #[error("{what}: {why}")]
    Body {
        /// Which kind of frame.
        what: &'static str,
        /// What is wrong.
        why: CodecError,
    },
}

/// Encodes a frame of its parts, so that a caller need not give them away.
fn build<T: Serialize>(
    kind: u8,
    what: &'static str,
    fixed: &[&[u8]],
    body: &T,
) -> Result<Vec<u8>, FrameError> {
    let mut out = Vec::with_capacity(128);
    out.push(kind);
    for field in fixed {
        out.extend_from_slice(field);
    }
    codec::encode_into(body, &mut out).map_err(|why| FrameError::Body { what, why })?;
    if out.len() > FRAME_LEN_MAX {
        let why = CodecError::TooLong { len: out.len(), max: FRAME_LEN_MAX };
        return Err(FrameError::Body { what, why });
    }
    Ok(out)
}

/// The bytes of a [`Frame::Request`].
///
/// # Errors
/// [`FrameError::Body`] when it is over [`FRAME_LEN_MAX`].
pub fn request(id: CallId, deadline_ms: u32, request: &Request) -> Result<Vec<u8>, FrameError> {
    build(REQUEST, "request", &[&id.to_le_bytes(), &deadline_ms.to_le_bytes()], request)
}

/// The bytes of a [`Frame::Response`].
///
/// # Errors
/// [`FrameError::Body`] when it is over [`FRAME_LEN_MAX`].
pub fn response(id: CallId, response: &Response) -> Result<Vec<u8>, FrameError> {
    build(RESPONSE, "response", &[&id.to_le_bytes()], response)
}

/// The bytes of a [`Frame::Cancel`].
#[must_use]
pub fn cancel(id: CallId) -> Vec<u8> {
    let mut out = vec![CANCEL];
    out.extend_from_slice(&id.to_le_bytes());
    out
}

/// The bytes of a [`Frame::Direct`].
///
/// # Errors
/// [`FrameError::Body`] when it is over [`FRAME_LEN_MAX`].
pub fn direct(direct: &Direct) -> Result<Vec<u8>, FrameError> {
    build(DIRECT, "direct message", &[], direct)
}

/// Writes the number of a call into the bytes of its [`request`].
pub fn set_call_id(request: &mut [u8], id: CallId) {
    if let Some(place) = request.get_mut(1..9) {
        place.copy_from_slice(&id.to_le_bytes());
    }
}

/// Holds an envelope against the bound of a frame.
///
/// # Errors
/// [`FrameError::Body`] when it does not fit.
pub fn check_envelope(envelope: &[u8]) -> Result<(), FrameError> {
    let len = envelope.len() + 1;
    if len > FRAME_LEN_MAX {
        let why = CodecError::TooLong { len, max: FRAME_LEN_MAX };
        return Err(FrameError::Body { what: "envelope", why });
    }
    Ok(())
}

/// Writes a [`Frame::Publish`] into `out`, which is emptied first and keeps its room.
pub fn publish_into(envelope: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.push(PUBLISH);
    out.extend_from_slice(envelope);
}

/// The bytes of a [`Frame::Subscribe`].
///
/// # Errors
/// [`FrameError::TooManyTopics`] over [`TOPICS_MAX`].
pub fn subscribe(topics: &[Topic]) -> Result<Vec<u8>, FrameError> {
    if topics.len() > TOPICS_MAX {
        return Err(FrameError::TooManyTopics(topics.len()));
    }
    build(SUBSCRIBE, "subscription", &[], &topics)
}

/// The bytes of a [`Frame::Beat`].
///
/// # Errors
/// None in practice: a beat is a few bytes.
pub fn beat(beat: &Beat) -> Result<Vec<u8>, FrameError> {
    build(BEAT, "beat", &[], beat)
}

impl Frame {
    /// The frame's bytes.
    ///
    /// # Errors
    /// [`FrameError::Body`] when it is over [`FRAME_LEN_MAX`].
    pub fn encode(&self) -> Result<Vec<u8>, FrameError> {
        match self {
            Self::Request { id, deadline_ms, request: asked } => request(*id, *deadline_ms, asked),
            Self::Response { id, response: answer } => response(*id, answer),
            Self::Cancel { id } => Ok(cancel(*id)),
            Self::Direct(message) => direct(message),
            Self::Publish(envelope) => {
                check_envelope(envelope)?;
                let mut out = Vec::with_capacity(envelope.len() + 1);
                publish_into(envelope, &mut out);
                Ok(out)
            }
            Self::Subscribe(topics) => subscribe(topics),
            Self::Beat(said) => beat(said),
        }
    }

    /// Reads a frame, all of these bytes. An envelope is a part of them, not a copy.
    ///
    /// # Errors
    /// Any [`FrameError`]; nothing is kept.
    pub fn decode(mut bytes: Bytes) -> Result<Self, FrameError> {
        if bytes.len() > FRAME_LEN_MAX {
            let why = CodecError::TooLong { len: bytes.len(), max: FRAME_LEN_MAX };
            return Err(FrameError::Body { what: "frame", why });
        }
        let body = |what, why| FrameError::Body { what, why };
        let [kind] = take::<1>(&mut bytes)?;
        Ok(match kind {
            REQUEST => Self::Request {
                id: CallId::from_le_bytes(take(&mut bytes)?),
                deadline_ms: u32::from_le_bytes(take(&mut bytes)?),
                request: codec::decode(&bytes).map_err(|why| body("request", why))?,
            },
            RESPONSE => Self::Response {
                id: CallId::from_le_bytes(take(&mut bytes)?),
                response: codec::decode(&bytes).map_err(|why| body("response", why))?,
            },
            CANCEL => {
                let id = CallId::from_le_bytes(take(&mut bytes)?);
                if !bytes.is_empty() {
                    return Err(body("cancel", CodecError::Trailing(bytes.len())));
                }
                Self::Cancel { id }
            }
            DIRECT => {
                Self::Direct(codec::decode(&bytes).map_err(|why| body("direct message", why))?)
            }
            PUBLISH => Self::Publish(bytes),
            SUBSCRIBE => {
                // A topic is a byte at least, and this bounds how many there can be.
                if bytes.len() > 5 * TOPICS_MAX {
                    return Err(FrameError::TooManyTopics(bytes.len()));
                }
                let topics: Vec<Topic> =
                    codec::decode(&bytes).map_err(|why| body("subscription", why))?;
                if topics.len() > TOPICS_MAX {
                    return Err(FrameError::TooManyTopics(topics.len()));
                }
                Self::Subscribe(topics)
            }
            BEAT => Self::Beat(codec::decode(&bytes).map_err(|why| body("beat", why))?),
            other => return Err(FrameError::UnknownKind(other)),
        })
    }
}

/// Takes a fixed field off the front.
fn take<const N: usize>(bytes: &mut Bytes) -> Result<[u8; N], FrameError> {
    let field = *bytes.first_chunk::<N>().ok_or(FrameError::Short)?;
    *bytes = bytes.slice(N..);
    Ok(field)
}

#[cfg(test)]
mod tests;

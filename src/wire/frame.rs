//! Frames of a link: each is the content of one sealed record.
//!
//! ```text
//! kind u8 | content                                meaning
//!  1      | id u64, deadline_ms u32, a request      call
//!  2      | id u64, a response                      answer to a call
//!  3      | id u64                                  call given up by the caller
//!  4      | a direct message                        message without an answer
//!  5      | an envelope, unchanged                  publish; relayed without decoding
//!  6      | a list of topics                        subscription; replaces the one before
//!  7      | a beat                                  heartbeat
//!  8      | a message of a handshake, unchanged     new handshake of this link
//! ```
//!
//! Numbers are little-endian. Requests, responses and so on are in the codec's form. A frame of
//! another kind is refused: the version agreed on in the handshake decides which kinds a peer
//! knows.

use bytes::Bytes;
use serde::Serialize;
use thiserror::Error;

use super::{
    FRAME_LEN_MAX, PLAIN_LEN_MAX,
    codec::{self, CodecError},
};
use crate::model::{
    message::{Beat, Direct, KeyInstall, Request, Response, Topic},
    variant_name,
};

/// Bound on the topics in one [`Frame::Subscribe`].
pub const TOPICS_MAX: usize = 64;

const REQUEST: u8 = 1;
const RESPONSE: u8 = 2;
const CANCEL: u8 = 3;
const DIRECT: u8 = 4;
const PUBLISH: u8 = 5;
const SUBSCRIBE: u8 = 6;
const BEAT: u8 = 7;
const HANDSHAKE: u8 = 8;

/// Number of a call among those of its caller on one link. Counted up from 1, never reused.
pub type CallId = u64;

/// Content of one record of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A call that wants an answer.
    Request {
        /// Number of the call, given by the sender.
        id: CallId,
        /// Time in milliseconds that the caller waits, from its sending. A hint; the caller
        /// cancels in any case.
        deadline_ms: u32,
        /// Request itself.
        request: Request,
    },
    /// Answer to a call of the receiver.
    Response {
        /// Number of the call.
        id: CallId,
        /// Answer itself.
        response: Response,
    },
    /// Notice that the sender no longer waits for the answer to its call.
    Cancel {
        /// Number of the call.
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
    /// A message of a new handshake of this link, at most [`PLAIN_LEN_MAX`] bytes.
    Handshake(Bytes),
}

impl Frame {
    /// Returns a name of the message for people, such as `Assign` or `answer to Assign`.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Request { request, .. } => variant_name(request),
            Self::Response { response, .. } => format!("answer to {}", variant_name(response)),
            Self::Direct(message) => variant_name(message),
            Self::Cancel { .. }
            | Self::Publish(_)
            | Self::Subscribe(_)
            | Self::Beat(_)
            | Self::Handshake(_) => variant_name(self),
        }
    }
}

/// Error of bytes that are not a valid frame. The receiver ends the link that they came over.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum FrameError {
    /// The frame is empty, or its fixed fields are incomplete.
    #[error("the frame is cut short")]
    Short,
    /// The frame kind is unknown to this version.
    #[error("unknown frame kind {0}")]
    UnknownKind(u8),
    /// There are more topics than [`TOPICS_MAX`].
    #[error("{0} topics in one frame")]
    TooManyTopics(usize),
    /// The body does not match its kind, or is over the bound.
    #[error("{what}: {why}")]
    Body {
        /// Kind of frame.
        what: &'static str,
        /// Fault of the body.
        why: CodecError,
    },
}

/// Encodes a frame from its parts, so that a caller can keep them.
fn build<T: Serialize>(
    kind: u8,
    what: &'static str,
    fixed: &[&[u8]],
    body: &T,
) -> Result<Vec<u8>, FrameError> {
    build_with(128, kind, what, fixed, body)
}

/// As [`build`], with a buffer that has room for so many bytes from the start.
fn build_with<T: Serialize>(
    room: usize,
    kind: u8,
    what: &'static str,
    fixed: &[&[u8]],
    body: &T,
) -> Result<Vec<u8>, FrameError> {
    let mut out = Vec::with_capacity(room);
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

/// Returns the bytes of a [`Frame::Request`].
///
/// # Errors
/// [`FrameError::Body`] over [`FRAME_LEN_MAX`].
pub fn request(id: CallId, deadline_ms: u32, request: &Request) -> Result<Vec<u8>, FrameError> {
    build(REQUEST, "request", &[&id.to_le_bytes(), &deadline_ms.to_le_bytes()], request)
}

/// Returns the bytes of a [`Frame::Response`].
///
/// # Errors
/// [`FrameError::Body`] over [`FRAME_LEN_MAX`].
pub fn response(id: CallId, response: &Response) -> Result<Vec<u8>, FrameError> {
    build(RESPONSE, "response", &[&id.to_le_bytes()], response)
}

/// Returns the bytes of a [`Frame::Cancel`].
#[must_use]
pub fn cancel(id: CallId) -> Vec<u8> {
    let mut out = vec![CANCEL];
    out.extend_from_slice(&id.to_le_bytes());
    out
}

/// Returns the bytes of a [`Frame::Direct`].
///
/// # Errors
/// [`FrameError::Body`] over [`FRAME_LEN_MAX`].
pub fn direct(direct: &Direct) -> Result<Vec<u8>, FrameError> {
    // A buffer that grows leaves copies of what it held, and here that may be a private key.
    let room = match direct {
        Direct::KeyInstall(KeyInstall { pkcs8, announcement }) => {
            128 + pkcs8.len() + announcement.len()
        }
        _ => 128,
    };
    build_with(room, DIRECT, "direct message", &[], direct)
}

/// Writes the number of a call into the bytes of its [`request`].
pub fn set_call_id(request: &mut [u8], id: CallId) {
    if let Some(place) = request.get_mut(1..9) {
        place.copy_from_slice(&id.to_le_bytes());
    }
}

/// Checks that an envelope fits into a frame.
///
/// # Errors
/// [`FrameError::Body`] when it does not.
pub fn check_envelope(envelope: &[u8]) -> Result<(), FrameError> {
    let len = envelope.len() + 1;
    if len > FRAME_LEN_MAX {
        let why = CodecError::TooLong { len, max: FRAME_LEN_MAX };
        return Err(FrameError::Body { what: "envelope", why });
    }
    Ok(())
}

/// Writes a [`Frame::Publish`] into `out`, which is emptied first and keeps its capacity.
pub fn publish_into(envelope: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.push(PUBLISH);
    out.extend_from_slice(envelope);
}

/// Returns the bytes of a [`Frame::Subscribe`].
///
/// # Errors
/// [`FrameError::TooManyTopics`] over [`TOPICS_MAX`].
pub fn subscribe(topics: &[Topic]) -> Result<Vec<u8>, FrameError> {
    if topics.len() > TOPICS_MAX {
        return Err(FrameError::TooManyTopics(topics.len()));
    }
    build(SUBSCRIBE, "subscription", &[], &topics)
}

/// Returns the bytes of a [`Frame::Beat`].
///
/// # Errors
/// None in practice: a beat is a few bytes.
pub fn beat(beat: &Beat) -> Result<Vec<u8>, FrameError> {
    build(BEAT, "beat", &[], beat)
}

/// Returns the bytes of a [`Frame::Handshake`].
///
/// # Errors
/// [`FrameError::Body`] over [`PLAIN_LEN_MAX`].
pub fn handshake(message: &[u8]) -> Result<Vec<u8>, FrameError> {
    check_handshake(message)?;
    let mut out = Vec::with_capacity(message.len() + 1);
    out.push(HANDSHAKE);
    out.extend_from_slice(message);
    Ok(out)
}

const fn check_handshake(message: &[u8]) -> Result<(), FrameError> {
    let len = message.len();
    if len > PLAIN_LEN_MAX {
        let why = CodecError::TooLong { len, max: PLAIN_LEN_MAX };
        return Err(FrameError::Body { what: "handshake", why });
    }
    Ok(())
}

impl Frame {
    /// Returns the frame's bytes.
    ///
    /// # Errors
    /// [`FrameError::Body`] over [`FRAME_LEN_MAX`].
    pub fn encode(&self) -> Result<Vec<u8>, FrameError> {
        match self {
            Self::Request { id, deadline_ms, request: body } => request(*id, *deadline_ms, body),
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
            Self::Beat(content) => beat(content),
            Self::Handshake(message) => handshake(message),
        }
    }

    /// Decodes a frame from all of these bytes. An envelope shares them instead of copying.
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
                // A topic takes at least one byte, so this bounds the allocation.
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
            HANDSHAKE => {
                check_handshake(&bytes)?;
                Self::Handshake(bytes)
            }
            other => return Err(FrameError::UnknownKind(other)),
        })
    }
}

/// Takes a fixed field from the front.
fn take<const N: usize>(bytes: &mut Bytes) -> Result<[u8; N], FrameError> {
    let field = *bytes.first_chunk::<N>().ok_or(FrameError::Short)?;
    *bytes = bytes.slice(N..);
    Ok(field)
}

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;

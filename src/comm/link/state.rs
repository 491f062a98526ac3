//! State of a link: the queues of what waits to be sent, and the calls under way. No I/O, no
//! clock.
//!
//! 1. Ids of calls are sent in ascending order and are never used twice.
//! 2. A call is in `calls` from its queueing until it is answered, is given up, or the link ends.
//! 3. At most `in_flight_max` calls are under way each way, those among them that were given up and
//!    whose handlers have not ended.
//! 4. The messages and envelopes that wait are within `frames_max` and `bytes_max`, the calls and
//!    short answers within as much again, and no call is taken while either is full. Batches and
//!    messages that overtake others may take twice the room of calls, answers to batches three times;
//!    cancels are at most one for each call that was sent. Pages have twice that room to themselves,
//!    and short answers that find none among the calls go with them. So no page keeps a call or a
//!    message out, and nothing of another kind a batch or its answer.
//! 5. Calls, cancels, short answers, answers to batches, messages about keys and numbers of held posts
//!    are sent in order, before other messages and envelopes, of which some go out in each burst. Pages
//!    come last: while others wait, a page goes out once as many bytes of others were sent as of pages
//!    before it, so that each has half of the line. A link's own new handshake goes before all of them:
//!    one message of it, or one change of keys, waits at most.

mod queue;

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;
use tokio::sync::oneshot;

pub(super) use self::queue::Outgoing;
use self::queue::Queue;
use super::{CallError, LinkLimits, SendError};
use crate::{
    model::message::{Beat, Close, Request, Response, Topic},
    wire::{
        FRAME_LEN_MAX,
        frame::{self, CallId},
    },
};

/// Approximate number of bytes that one [`LinkState::take`] returns.
const TAKE_BYTES: usize = 64 * 1024;

/// Room that a call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// The room of calls.
    Shared,
    /// That of calls, and the room that only batches and their answers may take.
    Batches,
}

impl Room {
    /// Returns the room that a call may take.
    pub(super) const fn of(request: &Request) -> Self {
        match request {
            Request::Assign(_) => Self::Batches,
            _ => Self::Shared,
        }
    }
}

/// Greatest length of an answer that goes with the calls.
const SHORT_MAX: usize = 4096;

/// Room that an answer may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AnswerRoom {
    /// The room of calls, or that of pages where calls leave none.
    Short,
    /// That of calls and batches, and the room that only answers to batches may take.
    Batches,
    /// The room of pages.
    Pages,
}

impl AnswerRoom {
    /// Returns the room that an answer of so many bytes may take.
    pub(super) const fn of(response: &Response, len: usize) -> Self {
        match response {
            Response::Assign(_) | Response::Forward(_) => Self::Batches,
            Response::Page(Some(_))
            | Response::CopyDigests(Some(_))
            | Response::CopySessions(Some(_))
            | Response::Echo(_) => Self::Pages,
            _ if len > SHORT_MAX => Self::Pages,
            _ => Self::Short,
        }
    }
}

/// Violation of the protocol by the peer.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(super) enum ProtocolViolation {
    #[error("call {id} after call {last}")]
    CallOutOfOrder { id: CallId, last: CallId },
    #[error("more than {max} calls at once")]
    TooManyCalls { max: usize },
    #[error("a response to call {id}, which was never made")]
    NeverCalled { id: CallId },
    #[error("a cancel of call {id}, which was never made")]
    NeverServed { id: CallId },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    Closing(Close),
    Ended,
}

/// Result of [`LinkState::take`] besides the frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// Content of the heartbeats; `None` until the node has set it.
    pub(super) beat: Option<Beat>,
    /// Close to send, once the queue is empty.
    pub(super) close: Option<Close>,
}

#[derive(Debug)]
pub(super) struct LinkState {
    phase: Phase,
    /// Calls, cancels, answers that hold no pages, and messages that overtake others, in order.
    urgent: Queue,
    /// Messages and envelopes, in order.
    bulk: Queue,
    /// Answers with pages, in order.
    pages: Queue,
    /// Bytes of others that go out before the next page, as far as so many wait.
    pages_ahead: usize,
    calls: BTreeMap<CallId, oneshot::Sender<Result<Response, CallError>>>,
    last_call: CallId,
    serving: BTreeSet<CallId>,
    /// Calls of the peer whose handlers have not ended; some may have been given up.
    begun: BTreeSet<CallId>,
    last_served: CallId,
    beat: Option<Beat>,
    topics: u64,
    frames_max: usize,
    bytes_max: usize,
    in_flight_max: usize,
    in_flight_batches: usize,
}

impl LinkState {
    pub(super) fn new(limits: &LinkLimits) -> Self {
        Self {
            phase: Phase::Open,
            urgent: Queue::default(),
            bulk: Queue::default(),
            pages: Queue::default(),
            pages_ahead: 0,
            calls: BTreeMap::new(),
            last_call: 0,
            serving: BTreeSet::new(),
            begun: BTreeSet::new(),
            last_served: 0,
            beat: None,
            topics: 0,
            frames_max: limits.outgoing_frames_max,
            bytes_max: limits.outgoing_bytes_max.max(FRAME_LEN_MAX),
            in_flight_max: limits.in_flight_max,
            in_flight_batches: limits.in_flight_batches,
        }
    }

    pub(super) const fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    pub(super) const fn closing(&self) -> Option<Close> {
        match self.phase {
            Phase::Closing(close) => Some(close),
            Phase::Open | Phase::Ended => None,
        }
    }

    /// Says whether a frame fits into so many times the bounds of a queue.
    fn has_room(&self, queue: &Queue, len: usize, times: usize) -> bool {
        queue.frames.len() < times * self.frames_max && queue.bytes + len <= times * self.bytes_max
    }

    /// Queues a message or an envelope.
    pub(super) fn push(&mut self, out: Outgoing) -> Result<(), SendError> {
        if !self.is_open() {
            return Err(SendError::Closed);
        }
        if !self.has_room(&self.bulk, out.len(), 1) {
            return Err(SendError::Full);
        }
        self.bulk.push(out);
        Ok(())
    }

    /// Queues a message before other messages and envelopes, in order with calls and answers.
    pub(super) fn push_urgent(&mut self, out: Outgoing) -> Result<(), SendError> {
        if !self.is_open() {
            return Err(SendError::Closed);
        }
        if !self.has_room(&self.urgent, out.len(), 2) {
            return Err(SendError::Full);
        }
        self.urgent.push(out);
        Ok(())
    }

    /// Queues a part of the link's own new handshake before all else. Says whether the link is open;
    /// else nothing was queued.
    pub(super) fn push_first(&mut self, out: Outgoing) -> bool {
        let is_open = self.is_open();
        if is_open {
            self.urgent.push_first(out);
        }
        is_open
    }

    /// Numbers a request's frame and queues it.
    pub(super) fn call(
        &mut self,
        mut bytes: Vec<u8>,
        room: Room,
        answer: oneshot::Sender<Result<Response, CallError>>,
    ) -> Result<CallId, CallError> {
        if !self.is_open() {
            return Err(CallError::Closed);
        }
        let len = bytes.len();
        let has_room = match room {
            Room::Shared => {
                self.calls.len() + self.in_flight_batches < self.in_flight_max
                    && self.has_room(&self.urgent, len, 1)
                    && self.has_room(&self.bulk, len, 1)
            }
            Room::Batches => {
                self.calls.len() < self.in_flight_max && self.has_room(&self.urgent, len, 2)
            }
        };
        if !has_room {
            return Err(CallError::Full);
        }
        self.last_call += 1;
        let id = self.last_call;
        frame::set_call_id(&mut bytes, id);
        self.urgent.push(Outgoing::Call(id, bytes));
        self.calls.insert(id, answer);
        Ok(id)
    }

    /// Gives up a call of this side. Says whether a cancel was queued.
    pub(super) fn give_up(&mut self, id: CallId) -> bool {
        if self.calls.remove(&id).is_none() {
            return false;
        }
        if self.urgent.remove_call(id) {
            return false;
        }
        if self.phase == Phase::Ended {
            return false;
        }
        self.urgent.push(Outgoing::Frame(frame::cancel(id)));
        true
    }

    /// Hands the peer's answer to the caller.
    pub(super) fn answer(
        &mut self,
        id: CallId,
        response: Response,
    ) -> Result<(), ProtocolViolation> {
        if id == 0 || id > self.last_call {
            return Err(ProtocolViolation::NeverCalled { id });
        }
        if let Some(answer) = self.calls.remove(&id) {
            // The caller may give up at the same moment.
            let _ = answer.send(Ok(response));
        }
        Ok(())
    }

    /// Takes note of a call of the peer, and says whether it may begin. It may not while what the peer
    /// gave up takes its place; then the caller's own deadline ends it.
    pub(super) fn serve(&mut self, id: CallId, room: Room) -> Result<bool, ProtocolViolation> {
        if id <= self.last_served {
            return Err(ProtocolViolation::CallOutOfOrder { id, last: self.last_served });
        }
        if self.serving.len() >= self.in_flight_max {
            return Err(ProtocolViolation::TooManyCalls { max: self.in_flight_max });
        }
        self.last_served = id;
        // As the caller counts them: without cancels there is always a place.
        let reserved = match room {
            Room::Shared => self.in_flight_batches,
            Room::Batches => 0,
        };
        let begins = self.begun.len() + reserved < self.in_flight_max;
        if begins {
            self.serving.insert(id);
            self.begun.insert(id);
        }
        Ok(begins)
    }

    /// Takes note that the peer gave up a call. Its place is free once its handler has ended.
    pub(super) fn cancel(&mut self, id: CallId) -> Result<(), ProtocolViolation> {
        if id == 0 || id > self.last_served {
            return Err(ProtocolViolation::NeverServed { id });
        }
        self.serving.remove(&id);
        // Nobody waits for it, and others want its room.
        self.pages.remove_page(id);
        Ok(())
    }

    /// Says whether the peer still waits for this answer.
    pub(super) fn is_serving(&self, id: CallId) -> bool {
        self.serving.contains(&id)
    }

    /// Queues the answer to a call of the peer. One for which there is no room leaves the call
    /// unanswered: a shorter one may follow.
    pub(super) fn respond(
        &mut self,
        id: CallId,
        bytes: Vec<u8>,
        room: AnswerRoom,
    ) -> Result<(), SendError> {
        if !self.is_open() {
            return Err(SendError::Closed);
        }
        if !self.serving.contains(&id) {
            return Err(SendError::Unwanted);
        }
        let len = bytes.len();
        // Cancels take no room of answers.
        let has_room_of_batches = self.urgent.frames.len()
            < 3 * self.frames_max + self.in_flight_max
            && self.urgent.bytes + len <= 3 * self.bytes_max;
        match room {
            AnswerRoom::Batches if has_room_of_batches => self.urgent.push(Outgoing::Frame(bytes)),
            AnswerRoom::Short if self.has_room(&self.urgent, len, 1) => {
                self.urgent.push(Outgoing::Frame(bytes));
            }
            AnswerRoom::Short | AnswerRoom::Pages if self.has_room(&self.pages, len, 2) => {
                self.pages.push(Outgoing::Page(id, bytes));
            }
            _ => return Err(SendError::Full),
        }
        self.serving.remove(&id);
        Ok(())
    }

    /// Takes note that the handler of a call of the peer has ended, with or without an answer.
    pub(super) fn end_serving(&mut self, id: CallId) {
        self.serving.remove(&id);
        self.begun.remove(&id);
    }

    /// Sets the content of the heartbeats. Says whether it changed.
    pub(super) fn set_beat(&mut self, beat: Beat) -> bool {
        self.beat.replace(beat) != Some(beat)
    }

    pub(super) fn set_topics(&mut self, topics: &[Topic]) {
        self.topics = topics.iter().fold(0, |bits, topic| bits | bit(*topic));
    }

    pub(super) const fn wants(&self, topic: Topic) -> bool {
        self.topics & bit(topic) != 0
    }

    /// Moves about [`TAKE_BYTES`] of the queues into `batch`: what is urgent, at least one frame of
    /// messages and envelopes, and then pages, unless it is the turn of others that wait.
    pub(super) fn take(&mut self, batch: &mut Vec<Outgoing>) -> Taken {
        let urgent = self.urgent.take(TAKE_BYTES, batch);
        let others = urgent + self.bulk.take(TAKE_BYTES.saturating_sub(urgent).max(1), batch);
        self.pages_ahead = self.pages_ahead.saturating_sub(others);
        if self.pages_ahead == 0 || !self.have_others_work() {
            let room = TAKE_BYTES.saturating_sub(others).max(1);
            self.pages_ahead = self.pages.take(room, batch);
        }
        Taken { beat: self.beat, close: self.closing().filter(|_| batch.is_empty()) }
    }

    /// Says whether something waits to be sent.
    pub(super) fn has_work(&self) -> bool {
        self.have_others_work() || !self.pages.frames.is_empty()
    }

    /// Says whether something besides pages waits to be sent.
    fn have_others_work(&self) -> bool {
        !(self.urgent.frames.is_empty() && self.bulk.frames.is_empty())
    }

    /// Begins to close the link: it takes nothing more. Says whether this is the first close.
    pub(super) const fn close(&mut self, close: Close) -> bool {
        let first = self.is_open();
        if first {
            self.phase = Phase::Closing(close);
        }
        first
    }

    /// Ends an open link. Says whether it was open.
    pub(super) fn cut(&mut self) -> bool {
        let was_open = self.is_open();
        if was_open {
            self.end();
        }
        was_open
    }

    /// Ends the link and all its calls: an unsent call as never made, a sent one as lost.
    pub(super) fn end(&mut self) {
        self.phase = Phase::Ended;
        (self.bulk, self.pages) = (Queue::default(), Queue::default());
        for out in std::mem::take(&mut self.urgent).frames {
            if let Outgoing::Call(id, _) = out
                && let Some(answer) = self.calls.remove(&id)
            {
                // The caller may be gone.
                let _ = answer.send(Err(CallError::Closed));
            }
        }
        // A dropped sender tells each remaining caller that its call is lost.
        self.calls.clear();
        self.serving.clear();
    }
}

const fn bit(topic: Topic) -> u64 {
    1 << topic as u64
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod threads;

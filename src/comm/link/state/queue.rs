//! Queue of what waits to be sent over a link.
//!
//! 1. `bytes` is the length of all frames in it.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::{
    comm::link::{KeyFrame, exchange::FreshSecret},
    wire::frame::CallId,
};

/// Item that waits to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::comm::link) enum Outgoing {
    /// Frame.
    Frame(Vec<u8>),
    /// Frame of a call; it is removed from the queue if the call is given up.
    Call(CallId, Vec<u8>),
    /// Frame of an answer with a page; it is removed from the queue if the peer gives the call up.
    Page(CallId, Vec<u8>),
    /// Sealed envelope, shared with other links.
    Envelope(Bytes),
    /// Frame of a message about keys, shared with other links.
    Secret(KeyFrame),
    /// Change to the keys of a new handshake.
    Switch(FreshSecret),
}

impl Outgoing {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Frame(bytes) | Self::Call(_, bytes) | Self::Page(_, bytes) => bytes.len(),
            Self::Envelope(bytes) => bytes.len(),
            Self::Secret(frame) => frame.bytes().len(),
            Self::Switch(_) => 0,
        }
    }
}

/// Frames that wait, in order.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) frames: VecDeque<Outgoing>,
    pub(super) bytes: usize,
}

impl Queue {
    pub(super) fn push(&mut self, out: Outgoing) {
        self.bytes += out.len();
        self.frames.push_back(out);
    }

    pub(super) fn push_first(&mut self, out: Outgoing) {
        self.bytes += out.len();
        self.frames.push_front(out);
    }

    /// Removes a call that was not sent. Says whether it was here.
    pub(super) fn remove_call(&mut self, id: CallId) -> bool {
        self.remove(|out| matches!(out, Outgoing::Call(call, _) if *call == id))
    }

    /// Removes the page that answers a call and was not sent. Says whether it was here.
    pub(super) fn remove_page(&mut self, id: CallId) -> bool {
        self.remove(|out| matches!(out, Outgoing::Page(call, _) if *call == id))
    }

    fn remove(&mut self, is_it: impl Fn(&Outgoing) -> bool) -> bool {
        let at = self.frames.iter().rposition(is_it);
        let unsent = at.and_then(|at| self.frames.remove(at));
        self.bytes -= unsent.as_ref().map_or(0, Outgoing::len);
        unsent.is_some()
    }

    /// Moves frames into `batch` until they have so many bytes. Returns how many they have.
    pub(super) fn take(&mut self, bytes_max: usize, batch: &mut Vec<Outgoing>) -> usize {
        let mut bytes = 0;
        while bytes < bytes_max
            && let Some(out) = self.frames.pop_front()
        {
            bytes += out.len();
            batch.push(out);
        }
        self.bytes -= bytes;
        bytes
    }
}

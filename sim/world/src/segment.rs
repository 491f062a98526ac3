//! Segments: the units that travel between two hosts.

use crate::ids::{HostId, SocketId};

/// One segment under way.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) from: SocketId,
    pub(crate) from_host: HostId,
    /// `None` in a SYN, whose sender does not know the other end yet.
    pub(crate) to: Option<SocketId>,
    pub(crate) to_host: HostId,
    pub(crate) body: Body,
}

/// Content of a segment.
#[derive(Debug)]
pub(crate) enum Body {
    /// Request for a connection to a port; its sender takes bytes up to `edge`.
    Syn { port: u16, from_port: u16, edge: u64 },
    /// Grant of a connection.
    SynAck { edge: u64 },
    /// Bytes at an offset, and whether they are the last.
    Data { offset: u64, bytes: Vec<u8>, fin: bool },
    /// Receipt of everything below `ack`; more is taken up to `edge`.
    Ack { ack: u64, edge: u64 },
    /// Refusal: there is no such connection, or not any more.
    Rst,
}

impl Body {
    /// Returns the payload.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Data { bytes, .. } => bytes,
            _ => &[],
        }
    }

    /// Returns the name that the log uses.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Syn { .. } => "syn",
            Self::SynAck { .. } => "syn_ack",
            Self::Data { fin: true, .. } => "fin",
            Self::Data { .. } => "data",
            Self::Ack { .. } => "ack",
            Self::Rst => "rst",
        }
    }

    /// Returns a number that differs where the segment differs, payload apart.
    pub(crate) const fn mark(&self) -> u64 {
        match self {
            Self::Syn { port, from_port, edge } => {
                1 ^ (*port as u64) << 8 ^ (*from_port as u64) << 24 ^ edge.rotate_left(40)
            }
            Self::SynAck { edge } => 2 ^ (*edge << 8),
            Self::Data { offset, fin, .. } => 3 ^ (*fin as u64) << 4 ^ (*offset << 8),
            Self::Ack { ack, edge } => 4 ^ (*ack << 8) ^ edge.rotate_left(40),
            Self::Rst => 5,
        }
    }
}

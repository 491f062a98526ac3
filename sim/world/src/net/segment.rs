//! What travels between two hosts.

use super::SocketId;
use crate::world::HostId;

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

/// What it says.
#[derive(Debug)]
pub(crate) enum Body {
    /// Wants a connection to a port; takes bytes up to `edge`.
    Syn { port: u16, from_port: u16, edge: u64 },
    /// Grants it.
    SynAck { edge: u64 },
    /// Bytes at an offset, and whether they are the last.
    Data { offset: u64, bytes: Vec<u8>, fin: bool },
    /// Everything below `ack` came; more is taken up to `edge`.
    Ack { ack: u64, edge: u64 },
    /// There is no such connection, or not any more.
    Rst,
}

impl Body {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Data { bytes, .. } => bytes,
            _ => &[],
        }
    }

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

    /// A number that differs where the segment differs, payload apart.
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

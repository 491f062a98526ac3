//! Ids of the world's parts.

/// Machine of the simulated world, numbered in the order in which they were added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub usize);

/// One life of a host: from a boot to a crash or exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Life {
    /// Machine that it runs on.
    pub(crate) host: HostId,
    /// Number of its boot, from 1.
    pub(crate) boot: u64,
}

/// One end of one connection. Ids are never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SocketId(pub(crate) u64);

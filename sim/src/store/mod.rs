//! The shared store on a host of its own: the SQLite core behind the simulated network.
//!
//! ```text
//!  node: Store -> RemoteStore =frames, three connections=> host `store`: one writer at a time, readers beside it -> SqliteCore
//! ```
//!
//! 1. Each connection is served as a process on a file is: writes in their order, those that wait
//!    together in one transaction, and two reads at a time beside them. One connection writes at a
//!    time. A write's time is the host's wall clock when it begins; it can be read when it ends.
//! 2. What was committed survives a crash of the host; its answer may never arrive. Troubles may
//!    keep the answer of a write from its caller, let it fail, have it repeated, or leave few connections, on
//!    purpose. After a promotion of a standby all that a caller was told of is there.
//! 3. A store in a file of this machine is backed up and restored by the product's own code, in one step;
//!    its connections stay.
//! 4. A caller that gets no reply in time is told that the store is away. A connection on which a call was
//!    under way for so long is not used again; one that is still being made is.

mod backup;
mod files;
mod frames;
mod host;
mod journal;
mod pool;
mod remote;
#[cfg(test)]
mod tests;
mod troubles;

pub use self::{files::RemovesFiles, host::StoreHost, remote::remote, troubles::Trouble};

//! The shared store on a host of its own: the SQLite core behind the simulated network.
//!
//! ```text
//!  node: Store -> RemoteStore =frames=> host `store`: one operation at a time -> SqliteCore
//! ```
//!
//! 1. Operations are carried out whole and in turn, at the host's wall clock.
//! 2. What was committed survives a crash of the host; its answer may never arrive.
//! 3. A caller that gets no reply in time is told that the store is away, and uses a new connection
//!    the next time.

mod frames;
mod host;
mod remote;
#[cfg(test)]
mod tests;

pub use self::{host::StoreHost, remote::remote};

//! Bounds on the sockets that a process holds, as `ulimit -n` sets them.

use std::{collections::BTreeMap, io};

use super::{FaultId, Net};
use crate::ids::HostId;

/// Number of the error that says that a process has no room for another file.
const EMFILE: i32 = 24;

/// One bound.
#[derive(Debug)]
pub(super) struct Bound {
    count: usize,
    /// Connects and accepts that it refused.
    touched: u64,
}

/// Bounds that stand, by host and fault.
pub(super) type Bounds = BTreeMap<(HostId, FaultId), Bound>;

impl Net {
    /// Lets a host's process hold no more than `count` sockets.
    pub(crate) fn bound_fds(&mut self, host: HostId, fault: FaultId, count: usize) {
        self.bounds.insert((host, fault), Bound { count, touched: 0 });
    }

    /// Ends that and returns how many connects and accepts were refused.
    pub(crate) fn unbound_fds(&mut self, host: HostId, fault: FaultId) -> u64 {
        self.bounds.remove(&(host, fault)).map_or(0, |bound| bound.touched)
    }

    /// Checks that a host's process has room for another socket.
    ///
    /// # Errors
    /// When a bound says that it has not.
    pub(crate) fn check_fds(&mut self, host: HostId) -> io::Result<()> {
        if self.bounds.is_empty() {
            return Ok(());
        }
        let of_host = self.sockets.ids(|socket| socket.host == host && !socket.orphan);
        let listened = self.ports.iter().filter(|((at, _), _)| *at == host);
        // What waits to be accepted is the kernel's.
        let waiting: usize = listened.map(|(_, port)| port.waiting.len()).sum();
        let held = of_host.len().saturating_sub(waiting);
        for ((at, _), bound) in &mut self.bounds {
            if *at == host && held >= bound.count {
                bound.touched += 1;
                return Err(io::Error::from_raw_os_error(EMFILE));
            }
        }
        Ok(())
    }
}

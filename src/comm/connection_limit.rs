//! Bound on the open connections of a listener, in total and per remote address, so that one
//! address cannot take every place.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Limit on open connections. Cheap to clone; all clones count together.
#[derive(Clone, Debug)]
pub struct ConnectionLimit {
    counts: Arc<Mutex<Counts>>,
    total_max: usize,
    per_host_max: usize,
}

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    by_host: BTreeMap<Arc<str>, usize>,
}

impl ConnectionLimit {
    /// Allows `total_max` connections at once, and `per_host_max` of one address.
    #[must_use]
    pub fn new(total_max: usize, per_host_max: usize) -> Self {
        Self { counts: Arc::default(), total_max, per_host_max }
    }

    /// Returns a permit for the peer at `HOST:PORT`; `None` when a bound is reached.
    #[must_use]
    pub fn take(&self, peer: &str) -> Option<ConnectionPermit> {
        let host: Arc<str> = peer.rsplit_once(':').map_or(peer, |(host, _)| host).into();
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let here = counts.by_host.get(&host).copied().unwrap_or(0);
        if counts.total >= self.total_max || here >= self.per_host_max {
            return None;
        }
        counts.total += 1;
        counts.by_host.insert(host.clone(), here + 1);
        drop(counts);
        Some(ConnectionPermit { counts: Arc::clone(&self.counts), host })
    }
}

/// Permission for one connection; dropping it frees the place.
#[derive(Debug)]
pub struct ConnectionPermit {
    counts: Arc<Mutex<Counts>>,
    host: Arc<str>,
}

impl ConnectionPermit {
    /// Returns the peer's address without its port.
    #[must_use]
    pub const fn host(&self) -> &Arc<str> {
        &self.host
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.total = counts.total.saturating_sub(1);
        if let Some(here) = counts.by_host.get_mut(&self.host) {
            *here = here.saturating_sub(1);
            if *here == 0 {
                counts.by_host.remove(&self.host);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_are_counted_in_total_and_by_address_and_return_on_drop() {
        let limit = ConnectionLimit::new(3, 2);
        let first = limit.take("10.0.0.1:5000").expect("room");
        let _second = limit.take("10.0.0.1:5001").expect("room");
        assert!(limit.take("10.0.0.1:5002").is_none(), "two of one address");
        let third = limit.take("10.0.0.2:5000").expect("room");
        assert_eq!(&**third.host(), "10.0.0.2");
        assert!(limit.take("10.0.0.3:5000").is_none(), "three in all");
        drop(first);
        assert!(limit.take("10.0.0.1:5003").is_some(), "given back");
    }
}

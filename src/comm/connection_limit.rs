//! Bound on the open connections of a listener, in total and per remote address, so that one
//! address cannot take every place.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

use crate::model::bounds::{MASTERS_MAX, WORKERS_MAX};

/// Limit on open connections. Cheap to clone; all clones count together.
#[derive(Clone)]
pub struct ConnectionLimit {
    counts: Arc<Mutex<Counts>>,
    total_max: usize,
    per_host_max: usize,
    spared: Arc<dyn Fn(&str) -> bool + Send + Sync>,
}

impl fmt::Debug for ConnectionLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionLimit").field("counts", &self.counts).finish_non_exhaustive()
    }
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
        Self { counts: Arc::default(), total_max, per_host_max, spared: Arc::new(|_| false) }
    }

    /// Returns the limit with addresses that only count in total.
    #[must_use]
    pub fn sparing(self, spared: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        Self { spared: Arc::new(spared), ..self }
    }

    /// Returns a permit for the peer at `HOST:PORT`; `None` when a bound is reached.
    #[must_use]
    pub fn take(&self, peer: &str) -> Option<ConnectionPermit> {
        let host = bare_host(peer);
        let spared = (self.spared)(host);
        let host: Arc<str> = if spared { host.into() } else { counted_host(host).into() };
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let here = counts.by_host.get(&host).copied().unwrap_or(0);
        if counts.total >= self.total_max || (here >= self.per_host_max && !spared) {
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
    /// Returns the address that the peer counts for.
    #[must_use]
    pub const fn host(&self) -> &Arc<str> {
        &self.host
    }
}

/// Places for the connections of nodes. Strangers share one limit; addresses from which a node came
/// before, or which the store lists, have a second one to themselves, so that no flood of strangers
/// keeps these nodes out.
#[derive(Clone, Debug)]
pub struct NodePlaces {
    for_all: ConnectionLimit,
    for_known: ConnectionLimit,
    /// Addresses of nodes, the latest last.
    known: Arc<Mutex<VecDeque<Arc<str>>>>,
}

impl NodePlaces {
    /// Addresses that are remembered; the one not met for longest is forgotten first.
    const KNOWN_MAX: usize = MASTERS_MAX + WORKERS_MAX;

    /// Returns places of which the second limit is for known addresses only.
    #[must_use]
    pub fn new(for_all: ConnectionLimit, for_known: ConnectionLimit) -> Self {
        Self { for_all, for_known, known: Arc::default() }
    }

    /// Returns the places with the addresses of nodes, as `HOST:PORT`, that have not come yet.
    #[must_use]
    pub fn knowing<'a>(self, nodes: impl IntoIterator<Item = &'a str>) -> Self {
        for node in nodes {
            self.met(&host_of(node).into());
        }
        self
    }

    /// Returns a permit for the peer at `HOST:PORT`; `None` when no place is left for it.
    #[must_use]
    pub fn take(&self, peer: &str) -> Option<ConnectionPermit> {
        self.for_all.take(peer).or_else(|| {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            let is_known = known.iter().any(|host| **host == *host_of(peer));
            drop(known);
            is_known.then(|| self.for_known.take(peer)).flatten()
        })
    }

    /// Notes that a node came from the address of this permit.
    pub fn met(&self, host: &Arc<str>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|old| old != host);
        if known.len() >= Self::KNOWN_MAX {
            known.pop_front();
        }
        known.push_back(Arc::clone(host));
    }
}

/// Returns the name under which the address in `HOST:PORT` is counted.
fn host_of(peer: &str) -> String {
    counted_host(bare_host(peer))
}

fn bare_host(peer: &str) -> &str {
    let host = peer.rsplit_once(':').map_or(peer, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

/// Returns the name under which a peer's address is counted: of IPv6 the network of 64 bits, as
/// each of its owners has all of them.
#[must_use]
pub fn counted_host(host: &str) -> String {
    match host.parse::<IpAddr>().map(|addr| addr.to_canonical()) {
        Ok(IpAddr::V6(addr)) if !addr.is_loopback() => {
            format!("{}/64", Ipv6Addr::from_bits(addr.to_bits() >> 64 << 64))
        }
        Ok(addr) => addr.to_string(),
        Err(_) => host.to_owned(),
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

    #[test]
    fn addresses_of_one_ipv6_network_count_together() {
        let limit = ConnectionLimit::new(9, 2);
        let _first = limit.take("[2001:db8:1:2:a::1]:5000").expect("room");
        let second = limit.take("[2001:db8:1:2:b::1]:5000").expect("room");
        assert_eq!(&**second.host(), "2001:db8:1:2::/64");
        assert!(limit.take("[2001:db8:1:2:c::1]:5000").is_none(), "two of one network");
        assert!(limit.take("[2001:db8:1:3::1]:5000").is_some(), "another network");
        let mapped = limit.take("[::ffff:10.0.0.1]:5000").expect("room");
        assert_eq!(&**mapped.host(), "10.0.0.1");
    }

    #[test]
    fn spared_address_counts_only_in_total() {
        let limit = ConnectionLimit::new(3, 1).sparing(|host| host == "10.0.0.9");
        let all: Vec<_> = (0..4).map(|port| limit.take(&format!("10.0.0.9:{port}"))).collect();
        assert_eq!(all.iter().flatten().count(), 3);
    }

    #[test]
    fn known_address_has_places_that_strangers_cannot_take() {
        let places = NodePlaces::new(ConnectionLimit::new(2, 1), ConnectionLimit::new(2, 1));
        let met = places.take("10.0.0.1:1").expect("room").host().clone();
        places.met(&met);
        let _flood: Vec<_> =
            ["192.0.2.1:1", "192.0.2.2:1"].map(|peer| places.take(peer).expect("room")).into();
        assert!(places.take("192.0.2.3:1").is_none(), "strangers have had theirs");
        let back = places.take("10.0.0.1:2");
        assert!(back.is_some(), "a node comes back");
        assert!(places.take("10.0.0.1:3").is_none(), "one of its address");
    }

    #[test]
    fn address_that_is_known_from_the_start_has_such_a_place_before_a_node_came_from_it() {
        let places = NodePlaces::new(ConnectionLimit::new(2, 1), ConnectionLimit::new(2, 1))
            .knowing(["10.0.0.1:8180", "[2001:db8:1:2::1]:8180"]);
        let _flood: Vec<_> =
            ["192.0.2.1:1", "192.0.2.2:1"].map(|peer| places.take(peer).expect("room")).into();
        assert!(places.take("192.0.2.3:1").is_none(), "strangers have had theirs");
        let nodes = ["10.0.0.1:2", "[2001:db8:1:2::7]:2"].map(|peer| places.take(peer));
        assert_eq!(nodes.iter().flatten().count(), 2);
    }
}

//! Links: what happens to a segment on its way from one host to another.
//!
//! A link is one direction between two hosts. It is consulted for each segment, so a fault
//! begins and ends between two segments of one connection.

use std::collections::BTreeMap;

use crate::{
    seed::{Draws, Seed},
    world::HostId,
};

/// One direction between two hosts, as faults set it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Segments vanish; TCP sends them again until it gives up.
    pub cut: bool,
    /// Added to the latency of each segment, ns.
    pub delay_ns: u64,
    /// Up to so much more, drawn per segment, ns.
    pub jitter_ns: u64,
    /// How many of a million segments are lost.
    pub loss_ppm: u64,
    /// What the line carries, `None` without a limit.
    pub bytes_per_second: Option<u64>,
    /// SYNs are lost, all else passes.
    pub connect_hang: bool,
}

#[derive(Debug)]
struct Line {
    set: Link,
    base_ns: u64,
    busy_until: u64,
    /// Segments that a fault touched.
    touched: u64,
    draws: Draws,
}

/// All links, made when first used.
#[derive(Debug)]
pub(crate) struct Links {
    seed: Seed,
    lines: BTreeMap<(HostId, HostId), Line>,
}

impl Links {
    pub(crate) const fn new(seed: Seed) -> Self {
        Self { seed, lines: BTreeMap::new() }
    }

    fn line(&mut self, from: HostId, to: HostId) -> &mut Line {
        let seed = self.seed;
        self.lines.entry((from, to)).or_insert_with(|| {
            let mut draws = seed.stream(&format!("network/link/{}/{}", from.0, to.0));
            // Loopback, or a switch or two.
            let base_ns = if from == to {
                draws.between(10_000, 30_000)
            } else {
                draws.between(100_000, 400_000)
            };
            Line { set: Link::default(), base_ns, busy_until: 0, touched: 0, draws }
        })
    }

    pub(crate) fn set(&mut self, from: HostId, to: HostId, change: impl FnOnce(&mut Link)) {
        change(&mut self.line(from, to).set);
    }

    pub(crate) fn touched(&self, from: HostId, to: HostId) -> u64 {
        self.lines.get(&(from, to)).map_or(0, |line| line.touched)
    }

    /// How long a segment of `len` bytes that leaves at `now` is under way; `None` when it is lost.
    pub(crate) fn carry(
        &mut self,
        now: u64,
        from: HostId,
        to: HostId,
        len: usize,
        is_syn: bool,
    ) -> Option<u64> {
        let line = self.line(from, to);
        let set = line.set;
        if set.cut || (set.connect_hang && is_syn) {
            line.touched += 1;
            return None;
        }
        // Each draw is made whether a fault stands or not, so that a fault moves no later draw.
        let lost = line.draws.below(1_000_000) < set.loss_ppm;
        let spread = line.draws.below(1 << 20);
        if lost {
            line.touched += 1;
            return None;
        }
        if set.delay_ns > 0 || set.jitter_ns > 0 || set.bytes_per_second.is_some() {
            line.touched += 1;
        }
        let share = |of: u64| {
            u64::try_from((u128::from(of) * u128::from(spread)) >> 20).expect("a share of a word")
        };
        let mut under_way =
            line.base_ns + share(line.base_ns) + set.delay_ns + share(set.jitter_ns);
        if let Some(rate) = set.bytes_per_second {
            let takes = (len as u64 + 40).saturating_mul(1_000_000_000) / rate.max(1);
            line.busy_until = line.busy_until.max(now).saturating_add(takes);
            under_way += line.busy_until - now;
        }
        Some(under_way)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_touches_one_direction_only() {
        let mut links = Links::new(Seed(1));
        let (a, b) = (HostId(0), HostId(1));
        links.set(a, b, |link| link.cut = true);
        assert_eq!(links.carry(0, a, b, 10, false), None);
        assert!(links.carry(0, b, a, 10, false).is_some());
        assert_eq!((links.touched(a, b), links.touched(b, a)), (1, 0));
    }

    #[test]
    fn a_narrow_line_queues_what_it_carries() {
        let mut links = Links::new(Seed(1));
        let (a, b) = (HostId(0), HostId(1));
        links.set(a, b, |link| link.bytes_per_second = Some(1_040));
        let first = links.carry(0, a, b, 1_000, false).expect("carried");
        let second = links.carry(0, a, b, 1_000, false).expect("carried");
        assert!(first >= 1_000_000_000 && second >= 2_000_000_000, "{first} {second}");
    }
}

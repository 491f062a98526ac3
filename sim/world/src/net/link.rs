//! Links: latency and faults on the way from one host to another.
//!
//! A link is one direction between two hosts. It is consulted for each segment, so a fault
//! begins and ends between two segments of one connection.

use std::collections::BTreeMap;

use dst_env::rng::{Rng, Seed};

use crate::ids::HostId;

/// Effect of one fault on one direction between two hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Segments vanish; TCP sends them again until it gives up.
    pub cut: bool,
    /// Added to the latency of each segment, ns.
    pub delay_ns: u64,
    /// Most that is added besides, drawn per segment, ns.
    pub jitter_ns: u64,
    /// Segments lost, of a million.
    pub loss_ppm: u64,
    /// SYNs lost besides, of a million.
    pub syn_loss_ppm: u64,
    /// Capacity of the line; `None` without a limit.
    pub bytes_per_second: Option<u64>,
}

impl Link {
    /// Effect of a cut: no segment passes.
    pub const CUT: Self = Self {
        cut: true,
        delay_ns: 0,
        jitter_ns: 0,
        loss_ppm: 0,
        syn_loss_ppm: 0,
        bytes_per_second: None,
    };
}

/// Number of a fault. Several may stand on one link and end apart from each other.
pub type FaultId = usize;

/// One fault on a line.
#[derive(Debug)]
struct Layer {
    fault: FaultId,
    link: Link,
    /// Segments that it touched.
    touched: u64,
}

/// One direction between two hosts.
#[derive(Debug)]
struct Line {
    layers: Vec<Layer>,
    base_ns: u64,
    busy_until: u64,
    rng: Rng,
    /// Sockets made so far for this direction.
    sockets: u64,
}

impl Line {
    /// Returns how long a segment that leaves at `now` is under way, ns; `None` when it is lost.
    fn carry(&mut self, now: u64, len: usize, is_syn: bool) -> Option<u64> {
        // Each draw is made whether a fault stands or not, so that a fault moves no later draw.
        let luck = self.rng.below(1_000_000);
        let spread = self.rng.below(1 << 20);
        let share = |of: u64| {
            u64::try_from((u128::from(of) * u128::from(spread)) >> 20).expect("a share of a word")
        };
        let mut under_way = self.base_ns + share(self.base_ns);
        for layer in &mut self.layers {
            let link = layer.link;
            let syn_loss_ppm = if is_syn { link.syn_loss_ppm } else { 0 };
            if link.cut || luck < link.loss_ppm.max(syn_loss_ppm) {
                layer.touched += 1;
                return None;
            }
            let mut later = link.delay_ns + share(link.jitter_ns);
            if let Some(rate) = link.bytes_per_second {
                let takes = (len as u64 + 40).saturating_mul(1_000_000_000) / rate.max(1);
                self.busy_until = self.busy_until.max(now).saturating_add(takes);
                later += self.busy_until - now;
            }
            layer.touched += u64::from(later > 0);
            under_way = under_way.saturating_add(later);
        }
        Some(under_way)
    }
}

/// Number of a line.
#[derive(Clone, Copy, Debug, Default)]
pub struct LineId(usize);

/// All links, made when first used: how long each segment is under way, and which is lost. The world asks
/// it for its own network; a harness of real machines can ask it for theirs.
#[derive(Debug)]
pub struct Links {
    seed: Seed,
    /// Names of the hosts, by their numbers: labels of draws.
    names: Vec<String>,
    lines: Vec<Line>,
    by_ends: BTreeMap<(HostId, HostId), LineId>,
}

impl Links {
    /// Returns the links of a seed, of which all draws come.
    #[must_use]
    pub const fn new(seed: Seed) -> Self {
        Self { seed, names: Vec::new(), lines: Vec::new(), by_ends: BTreeMap::new() }
    }

    /// Adds the next host by its name.
    pub fn add_host(&mut self, name: &str) {
        self.names.push(name.to_owned());
    }

    /// Returns the names of the hosts of a direction as they stand in labels: a draw belongs to
    /// names, so that a host more or less moves no draw of another.
    pub(crate) fn label(&self, from: HostId, to: HostId) -> String {
        format!("{}/{}", self.names[from.0], self.names[to.0])
    }

    /// Returns the generator of the next socket of a direction.
    pub(crate) fn socket_rng(&mut self, from: HostId, to: HostId) -> Rng {
        let LineId(line) = self.line(from, to);
        let nth = self.lines[line].sockets;
        self.lines[line].sockets += 1;
        self.seed.stream(&format!("network/socket/{}/{nth}", self.label(from, to)))
    }

    /// Returns the number of the line of one direction between two hosts, which were added.
    pub fn line(&mut self, from: HostId, to: HostId) -> LineId {
        let (seed, names, lines) = (self.seed, &self.names, &mut self.lines);
        *self.by_ends.entry((from, to)).or_insert_with(|| {
            let (from_name, to_name) = (&names[from.0], &names[to.0]);
            let mut rng = seed.stream(&format!("network/link/{from_name}/{to_name}"));
            // Loopback, or a switch or two.
            let base_ns = if from == to {
                rng.between(10_000, 30_000)
            } else {
                rng.between(100_000, 400_000)
            };
            lines.push(Line { layers: Vec::new(), base_ns, busy_until: 0, rng, sockets: 0 });
            LineId(lines.len() - 1)
        })
    }

    fn layers(&mut self, from: HostId, to: HostId) -> &mut Vec<Layer> {
        let line = self.line(from, to);
        &mut self.lines[line.0].layers
    }

    /// Begins a fault on one direction.
    pub fn add(&mut self, from: HostId, to: HostId, fault: FaultId, link: Link) {
        self.layers(from, to).push(Layer { fault, link, touched: 0 });
    }

    /// Ends a fault on one direction and returns how many segments it touched there.
    pub fn remove(&mut self, from: HostId, to: HostId, fault: FaultId) -> u64 {
        let layers = self.layers(from, to);
        let touched = layers.iter().filter(|layer| layer.fault == fault).map(|l| l.touched).sum();
        layers.retain(|layer| layer.fault != fault);
        if layers.iter().all(|layer| layer.link.bytes_per_second.is_none()) {
            let line = self.line(from, to);
            self.lines[line.0].busy_until = 0;
        }
        touched
    }

    /// Returns how many faults stand on one direction.
    #[must_use]
    pub fn standing(&self, from: HostId, to: HostId) -> usize {
        self.by_ends.get(&(from, to)).map_or(0, |line| self.lines[line.0].layers.len())
    }

    /// Returns how long a segment of `len` bytes, headers not counted, that leaves at `now` is under way, ns;
    /// `None` when it is lost.
    pub fn carry(&mut self, now: u64, line: LineId, len: usize, is_syn: bool) -> Option<u64> {
        self.lines[line.0].carry(now, len, is_syn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: HostId = HostId(0);
    const B: HostId = HostId(1);

    fn carry(
        links: &mut Links,
        (from, to): (HostId, HostId),
        len: usize,
        is_syn: bool,
    ) -> Option<u64> {
        let line = links.line(from, to);
        links.carry(0, line, len, is_syn)
    }

    fn links() -> Links {
        let mut links = Links::new(Seed(1));
        links.add_host("a");
        links.add_host("b");
        links
    }

    #[test]
    fn cut_touches_one_direction_and_overlapping_cuts_end_apart() {
        let mut links = links();
        let cut = Link { cut: true, ..Link::default() };
        links.add(A, B, 0, cut);
        links.add(A, B, 1, cut);
        assert_eq!(carry(&mut links, (A, B), 10, false), None);
        assert!(carry(&mut links, (B, A), 10, false).is_some());
        assert_eq!(links.remove(A, B, 0), 1);
        assert_eq!(carry(&mut links, (A, B), 10, false), None, "the other one stands");
        assert_eq!(links.remove(A, B, 1), 1);
        assert!(carry(&mut links, (A, B), 10, false).is_some());
    }

    #[test]
    fn narrow_line_queues_segments() {
        let mut links = links();
        links.add(A, B, 0, Link { bytes_per_second: Some(1_040), ..Link::default() });
        let first = carry(&mut links, (A, B), 1_000, false).expect("carried");
        let second = carry(&mut links, (A, B), 1_000, false).expect("carried");
        assert!(first >= 1_000_000_000 && second >= 2_000_000_000, "{first} {second}");
    }

    #[test]
    fn narrow_line_leaves_no_debt_to_the_next_one() {
        let mut links = links();
        let narrow = Link { bytes_per_second: Some(1_040), ..Link::default() };
        links.add(A, B, 0, narrow);
        for _ in 0..10 {
            carry(&mut links, (A, B), 1_000, false);
        }
        links.remove(A, B, 0);
        links.add(A, B, 1, narrow);
        let first = carry(&mut links, (A, B), 1_000, false).expect("carried");
        assert!(first < 2_000_000_000, "{first}");
    }

    #[test]
    fn syn_loss_spares_other_segments() {
        let mut links = links();
        links.add(A, B, 0, Link { syn_loss_ppm: 1_000_000, ..Link::default() });
        assert_eq!(carry(&mut links, (A, B), 0, true), None);
        assert!(carry(&mut links, (A, B), 10, false).is_some());
    }

    #[test]
    fn fault_moves_no_later_draw() {
        let after = |fault: Option<Link>| {
            let mut links = links();
            if let Some(link) = fault {
                links.add(A, B, 0, link);
            }
            for _ in 0..10 {
                carry(&mut links, (A, B), 10, false);
            }
            links.remove(A, B, 0);
            carry(&mut links, (A, B), 10, false)
        };
        assert_eq!(after(None), after(Some(Link { loss_ppm: 500_000, ..Link::default() })));
    }
    #[test]
    fn host_added_before_others_moves_no_draw_of_theirs() {
        let draws = |hosts: &[&str]| {
            let mut links = Links::new(Seed(1));
            hosts.iter().for_each(|name| links.add_host(name));
            let at = |name| HostId(hosts.iter().position(|it| *it == name).expect("added"));
            let (a, b) = (at("a"), at("b"));
            for other in (0..hosts.len()).map(HostId).filter(|it| *it != a && *it != b) {
                links.socket_rng(other, b);
                carry(&mut links, (other, b), 10, false);
            }
            let word = links.socket_rng(a, b).word();
            (word, links.socket_rng(a, b).word(), carry(&mut links, (a, b), 10, false))
        };
        assert_eq!(draws(&["a", "b"]), draws(&["c", "b", "a"]));
        let (first, second, _) = draws(&["a", "b"]);
        assert_ne!(first, second, "each socket draws for itself");
    }
}

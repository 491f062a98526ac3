//! Detour for packets whose line is slow, narrow or lossy: a port of the bridge at which this program reads
//! frames, and sends each on when its time has come.
//!
//! How long a packet is under way, and which is lost, [`Links`] says, which the simulated world asks as well.
//! Packets of one direction keep their order, as those of a connection do on a line, but for those that wait
//! when the last fault ends.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chatchat::{env::Env, model::time::Mono};
use dst_world::{FaultId, HostId, Link, Links, Seed};
use tokio::sync::Notify;
use tun_rs::{AsyncDevice, DeviceBuilder, Layer, SyncDevice};

use super::frame::{self, Frame};
use crate::units::ns;

/// Device that the kernel makes tunnels of.
pub(super) const DEVICE: &str = "/dev/net/tun";
/// Name of the port.
pub(super) const PORT: &str = "detour";
/// Most frames of one direction that wait, as many as a network card keeps. More are lost.
const WAITING_MAX: usize = 1000;
/// Longest frame: an Ethernet header, and what a device without offloading takes.
const FRAME_MAX: usize = 14 + 1500;

/// Port of the bridge for packets of lines with a fault.
pub(super) struct Detour {
    /// Device of the port, until `carry` takes it.
    device: Mutex<Option<SyncDevice>>,
    traffic: Mutex<Traffic>,
    /// Told when packets wait for a shorter time.
    ended: Notify,
}

impl Detour {
    /// Makes the port, in the namespace of this thread. `names` are those of the nodes, in the order of
    /// their addresses.
    ///
    /// # Errors
    /// The system's. Nothing is left behind.
    pub(super) fn new(seed: Seed, names: impl IntoIterator<Item = String>) -> io::Result<Self> {
        // Its own address is not that of the detour, whose frames the bridge would keep for itself then.
        let device = DeviceBuilder::new().name(PORT).layer(Layer::L2).build_sync()?;
        let traffic = Mutex::new(Traffic::new(seed, names));
        Ok(Self { device: Mutex::new(Some(device)), traffic, ended: Notify::new() })
    }

    fn traffic(&self) -> MutexGuard<'_, Traffic> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a fault on one direction between two nodes. Its packets have to be sent here.
    pub(super) fn begin(&self, (from, to): (usize, usize), fault: FaultId, link: Link) {
        self.traffic().links.add(HostId(from), HostId(to), fault, link);
    }

    /// Ends a fault on one direction, and returns how many packets it touched there. Those that wait go on at
    /// once, unless another fault stands.
    pub(super) fn end(&self, (from, to): (usize, usize), fault: FaultId) -> u64 {
        let touched = self.traffic().end((from, to), fault);
        self.ended.notify_one();
        touched
    }

    /// Returns whether a fault stands on a direction.
    pub(super) fn stands(&self, (from, to): (usize, usize)) -> bool {
        self.traffic().links.standing(HostId(from), HostId(to)) > 0
    }

    /// Carries packets for as long as it is polled.
    ///
    /// # Errors
    /// The system's, after which no packet is carried; `NotConnected` for a second call.
    pub(super) async fn carry(&self, env: &Env) -> io::Result<()> {
        let device = self.device.lock().unwrap_or_else(PoisonError::into_inner).take();
        let device = AsyncDevice::new(device.ok_or(io::ErrorKind::NotConnected)?)?;
        let mut bytes = [0; FRAME_MAX];
        loop {
            let next = self.traffic().next();
            let rest = next.map_or(Duration::ZERO, |next| next.since(env.now()));
            tokio::select! {
                biased;
                () = env.sleep(rest), if next.is_some() => {}
                () = self.ended.notified() => {}
                read = device.recv(&mut bytes) => self.traffic().take(env.now(), &bytes[..read?]),
            }
            while let Some(frame) = self.traffic().due(env.now()) {
                match device.try_send(&frame) {
                    // A full port loses it, as that of a switch does.
                    Err(why) if why.kind() != io::ErrorKind::WouldBlock => return Err(why),
                    _ => {}
                }
            }
        }
    }
}

/// Packets that are under way, and the faults of each direction.
struct Traffic {
    /// Number of nodes.
    nodes: usize,
    links: Links,
    /// Frames of each direction, in order.
    waiting: BTreeMap<(usize, usize), VecDeque<Waiting>>,
}

/// Frame that waits, and the time when it goes on.
struct Waiting {
    until: Mono,
    frame: Vec<u8>,
}

impl Traffic {
    fn new(seed: Seed, names: impl IntoIterator<Item = String>) -> Self {
        let (mut links, mut nodes) = (Links::new(seed), 0);
        for name in names {
            links.add_host(&name);
            nodes += 1;
        }
        Self { nodes, links, waiting: BTreeMap::new() }
    }

    fn end(&mut self, (from, to): (usize, usize), fault: FaultId) -> u64 {
        let touched = self.links.remove(HostId(from), HostId(to), fault);
        if self.links.standing(HostId(from), HostId(to)) == 0 {
            let waiting = self.waiting.get_mut(&(from, to)).into_iter().flatten();
            waiting.for_each(|waiting| waiting.until = Mono::ZERO);
        }
        touched
    }

    /// Takes a frame, unless it is lost or of none of the nodes.
    fn take(&mut self, now: Mono, frame: &[u8]) {
        let Some(Frame { from, to, len, is_syn }) = frame::read(frame, self.nodes) else { return };
        if self.waiting.get(&(from, to)).is_some_and(|waiting| waiting.len() >= WAITING_MAX) {
            return;
        }
        let line = self.links.line(HostId(from), HostId(to));
        let now_ns = ns(now.since(Mono::ZERO));
        let Some(under_way) = self.links.carry(now_ns, line, len, is_syn) else { return };
        let waiting = self.waiting.entry((from, to)).or_default();
        let last = waiting.back().map_or(Mono::ZERO, |last| last.until);
        let until = (now + Duration::from_nanos(under_way)).max(last);
        waiting.push_back(Waiting { until, frame: frame::for_node(frame, to) });
    }

    /// Returns when the next frame goes on.
    fn next(&self) -> Option<Mono> {
        self.waiting.values().filter_map(|waiting| Some(waiting.front()?.until)).min()
    }

    /// Returns a frame whose time has come.
    fn due(&mut self, now: Mono) -> Option<Vec<u8>> {
        let is_due = |first: &Waiting| first.until <= now;
        let mut lines = self.waiting.values_mut();
        let line = lines.find(|waiting| waiting.front().is_some_and(is_due))?;
        Some(line.pop_front()?.frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::real::frame::tests::segment;

    const MS: u64 = 1_000_000;

    fn traffic(link: Link) -> Traffic {
        let mut line = Traffic::new(Seed(1), ["master:0", "master:1"].map(str::to_owned));
        line.links.add(HostId(0), HostId(1), 0, link);
        line
    }

    fn at(ms: u64) -> Mono {
        Mono::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn packet_goes_on_after_its_delay_and_never_before_one_that_came_first() {
        let link = Link { delay_ns: 100 * MS, jitter_ns: 50 * MS, ..Link::default() };
        let mut line = traffic(link);
        let count = 40;
        for nth in 0..count {
            line.take(at(nth), &segment(0, 1, 0, &[nth as u8]));
        }
        line.take(at(0), &segment(1, 0, 0, b"back"));
        assert!(line.due(at(0)).is_none());
        let back = line.due(at(5)).expect("the other direction is whole");
        assert!(back.ends_with(b"back"));
        assert!(line.due(at(99)).is_none(), "{:?}", line.next());
        let mut last = Vec::new();
        while let Some(next) = line.next() {
            assert!(next <= at(count + 150), "{next:?}");
            last.push(line.due(next).expect("due").last().copied());
        }
        assert_eq!(last, (0..count).map(|nth| Some(nth as u8)).collect::<Vec<_>>());
        assert_eq!(line.links.remove(HostId(0), HostId(1), 0), count);
    }

    #[test]
    fn lost_packet_is_counted_and_a_full_line_loses_the_rest() {
        let mut lossy = traffic(Link { loss_ppm: 1_000_000, ..Link::default() });
        lossy.take(at(0), &segment(0, 1, 0, b""));
        assert_eq!((lossy.next(), lossy.links.remove(HostId(0), HostId(1), 0)), (None, 1));

        let mut narrow = traffic(Link { bytes_per_second: Some(1000), ..Link::default() });
        for _ in 0..2 * WAITING_MAX {
            narrow.take(at(0), &segment(0, 1, 0, b""));
        }
        assert_eq!(narrow.waiting.values().map(VecDeque::len).sum::<usize>(), WAITING_MAX);
    }

    #[test]
    fn packets_that_wait_go_on_with_the_end_of_the_last_fault_and_delay_none_of_the_next() {
        let mut line = traffic(Link { bytes_per_second: Some(1000), ..Link::default() });
        let delay = Link { delay_ns: 100 * MS, ..Link::default() };
        line.links.add(HostId(0), HostId(1), 1, delay);
        for _ in 0..100 {
            line.take(at(0), &segment(0, 1, 0, b""));
        }
        line.end((0, 1), 1);
        assert!(line.due(at(0)).is_none(), "it is narrow still");
        line.end((0, 1), 0);
        let went_on = std::iter::from_fn(|| line.due(at(0))).count();
        assert_eq!(went_on, 100);

        line.links.add(HostId(0), HostId(1), 2, delay);
        line.take(at(1), &segment(0, 1, 0, b""));
        let next = line.next().expect("it waits");
        assert!(next >= at(101) && next < at(110), "{next:?}");
    }
}

//! Effects of faults: what each kind does to the world, and what undoes it.

use std::{sync::atomic::Ordering, time::Duration};

use chatchat_scenarios::{
    fault::{Action, Dose, Links},
    target::{Place, Target},
};
use dst_world::{DiskFault, HostId, Link};

use super::{Faults, steps::Step};
use crate::store::Trouble;

/// Time that a machine is off whose disk is rolled back.
const BACK_AFTER: Duration = Duration::from_secs(1);

/// Undoes a fault, and returns whether it bit meanwhile.
pub(super) type Undo = Box<dyn FnOnce(&Faults) -> bool + Send>;

/// Begun fault: what undoes it, and whether it has bitten yet.
pub(super) struct Begun {
    pub(super) undo: Undo,
    pub(super) bit: bool,
}

impl Begun {
    /// A fault of which only its end tells whether it bit.
    fn until(undo: impl FnOnce(&Faults) -> bool + Send + 'static) -> Self {
        Self { undo: Box::new(undo), bit: false }
    }

    /// A fault whose effect is there at once.
    fn at_once(bit: bool, undo: impl FnOnce(&Faults) + Send + 'static) -> Self {
        let undo = move |faults: &Faults| {
            undo(faults);
            false
        };
        Self { undo: Box::new(undo), bit }
    }

    /// A fault that has nothing to undo.
    fn instant(bit: bool) -> Self {
        Self::at_once(bit, |_| {})
    }
}

pub(super) fn ppm(rate: f64) -> u64 {
    // A rate is within 0 to 1.
    (rate * 1_000_000.0).round() as u64
}

fn ns(by: Duration) -> u64 {
    u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)
}

impl Faults {
    /// Begins a fault.
    pub(super) fn act(&self, nth: usize, action: &Action) -> Begun {
        let clear = Link::default();
        let disk = DiskFault::default();
        match action {
            Action::Crash { target } => {
                self.ended(target, |it, place| it.cluster.world().crash(it.cluster.host(place)))
            }
            Action::Exit { target } => {
                self.ended(target, |it, place| it.cluster.world().exit(it.cluster.host(place)))
            }
            Action::Wipe { target } => self.ended(target, |it, place| it.cluster.wipe(place)),
            Action::Stop { target } => self.ended(target, |it, place| it.cluster.stop(place)),
            Action::Pause { target } => self.paused(target),
            Action::Slow { target, factor } => self.slowed(nth, target, *factor),
            Action::Partition { links } => self.on_lines(nth, links, Link { cut: true, ..clear }),
            Action::Delay { links, by, jitter } => {
                let link = Link { delay_ns: ns(*by), jitter_ns: ns(*jitter), ..clear };
                self.on_lines(nth, links, link)
            }
            Action::Bandwidth { links, bytes_per_second } => {
                let link = Link { bytes_per_second: Some(*bytes_per_second), ..clear };
                self.on_lines(nth, links, link)
            }
            Action::Loss { links, rate } => {
                self.on_lines(nth, links, Link { loss_ppm: ppm(*rate), ..clear })
            }
            Action::ConnectHang { links, rate } => {
                self.on_lines(nth, links, Link { syn_loss_ppm: ppm(*rate), ..clear })
            }
            Action::Corrupt { links, rate } => self.corrupted(nth, links, ppm(*rate)),
            Action::Reset { links } => {
                let world = self.cluster.world();
                self.broken(links, |from, to| world.reset_between(from, to))
            }
            Action::HalfOpen { links } => {
                let world = self.cluster.world();
                self.broken(links, |from, to| world.half_open(from, to))
            }
            Action::Swizzle { targets } => self.swizzled(nth, targets),
            Action::Torn { target, rate } => {
                self.on_disks(nth, target, DiskFault { torn_ppm: ppm(*rate), ..disk })
            }
            Action::BitRot { target, rate } => {
                self.on_disks(nth, target, DiskFault { rot_ppm: ppm(*rate), ..disk })
            }
            Action::SyncSlow { target, by } => {
                self.on_disks(nth, target, DiskFault { sync_takes_ns: ns(*by), ..disk })
            }
            Action::SyncError { target, rate } => {
                self.on_disks(nth, target, DiskFault { sync_error_ppm: ppm(*rate), ..disk })
            }
            Action::DiskFull { target } => {
                self.on_disks(nth, target, DiskFault { is_full: true, ..disk })
            }
            Action::ClockOffset { target, by } => {
                let by_ns = by.ms.saturating_mul(1_000_000);
                let step = move |it: &Self, host, by_ns| it.cluster.world().step_wall(host, by_ns);
                self.on_clocks(
                    target,
                    move |it, host| step(it, host, by_ns),
                    move |it, host| {
                        step(it, host, by_ns.saturating_neg());
                    },
                )
            }
            Action::ClockDrift { target, rate } => {
                let ppb = (rate * 1e9).round() as i64;
                let set = |it: &Self, host, ppb| it.cluster.world().set_drift(host, ppb);
                self.on_clocks(
                    target,
                    move |it, host| set(it, host, ppb),
                    move |it, host| {
                        set(it, host, 0);
                    },
                )
            }
            Action::ClockJump { target, by } => {
                let by_ns = by.ms.saturating_mul(1_000_000);
                let jump = move |it: &Self, host| it.cluster.world().jump_clock(host, by_ns);
                self.on_clocks(target, jump, |_, _| {})
            }
            Action::LostAck { dose } => self.on_store(nth, Trouble::LostAck, *dose),
            Action::StoreError { dose } => self.on_store(nth, Trouble::Error, *dose),
            Action::Restart { targets } => self.restarted(nth, targets),
            Action::FdLimit { target, count } => self.bounded(nth, target, *count),
            Action::Clone { target } => self.cloned(target),
            Action::Rollback { target, .. } => self.rolled_back(nth, target),
            Action::Stranger { to } => {
                let heard = self.cluster.let_stranger_in(nth, &self.places(to));
                Begun::until(move |it| {
                    it.cluster.end_stranger();
                    heard.load(Ordering::Relaxed) > 0
                })
            }
        }
    }

    /// Ends the processes of a target in some way; they are started again.
    fn ended(&self, target: &Target, end: impl Fn(&Self, Place) -> bool) -> Begun {
        let mut places = self.places(std::slice::from_ref(target));
        places.retain(|place| end(self, *place));
        Begun::at_once(!places.is_empty(), move |it| {
            for place in places {
                it.cluster.start_again(place);
            }
        })
    }

    fn hosts(&self, target: &Target) -> Vec<HostId> {
        let places = self.places(std::slice::from_ref(target));
        places.into_iter().map(|place| self.cluster.host(place)).collect()
    }

    fn paused(&self, target: &Target) -> Begun {
        let mut hosts = self.hosts(target);
        hosts.retain(|host| self.cluster.world().pause(*host));
        Begun::at_once(!hosts.is_empty(), move |it| {
            for host in hosts {
                it.cluster.world().resume(host);
            }
        })
    }

    fn slowed(&self, nth: usize, target: &Target, factor: f64) -> Begun {
        let hosts = self.hosts(target);
        // Factors are a few digits long.
        let thousandths = (factor * 1000.0).round() as u64;
        for host in &hosts {
            self.cluster.world().slow_down(*host, nth, thousandths);
        }
        Begun::until(move |it| {
            let touched = hosts.iter().map(|host| it.cluster.world().speed_up(*host, nth));
            touched.sum::<u64>() > 0
        })
    }

    fn on_lines(&self, nth: usize, links: &Links, link: Link) -> Begun {
        let directions = self.directions(links);
        for (from, to) in &directions {
            self.cluster.world().add_fault(*from, *to, nth, link);
        }
        Begun::until(move |it| {
            let end = |(from, to): &(_, _)| it.cluster.world().remove_fault(*from, *to, nth);
            directions.iter().map(end).sum::<u64>() > 0
        })
    }

    fn corrupted(&self, nth: usize, links: &Links, ppm: u64) -> Begun {
        let directions = self.directions(links);
        for (from, to) in &directions {
            self.cluster.world().begin_corruption(*from, *to, nth, ppm);
        }
        Begun::until(move |it| {
            let end = |(from, to): &(_, _)| it.cluster.world().end_corruption(*from, *to, nth);
            directions.iter().map(end).sum::<u64>() > 0
        })
    }

    fn broken(&self, links: &Links, end: impl Fn(HostId, HostId) -> usize) -> Begun {
        let directions = self.directions(links);
        let ends: usize = directions.iter().map(|(from, to)| end(*from, *to)).sum();
        Begun::instant(ends > 0)
    }

    fn on_disks(&self, nth: usize, target: &Target, effect: DiskFault) -> Begun {
        let hosts = self.hosts(target);
        for host in &hosts {
            self.cluster.world().add_disk_fault(*host, nth, effect);
        }
        Begun::until(move |it| {
            let end = |host: &HostId| it.cluster.world().remove_disk_fault(*host, nth);
            hosts.iter().map(end).sum::<u64>() > 0
        })
    }

    /// Sets clocks, also on machines that are off; nobody sees it there before a boot.
    fn on_clocks(
        &self,
        target: &Target,
        set: impl Fn(&Self, HostId),
        set_back: impl Fn(&Self, HostId) + Send + 'static,
    ) -> Begun {
        let hosts = self.hosts(target);
        for host in &hosts {
            set(self, *host);
        }
        let bit = self.any_runs(&hosts);
        let undo: Undo = Box::new(move |it| {
            for host in &hosts {
                set_back(it, *host);
            }
            it.any_runs(&hosts)
        });
        Begun { undo, bit }
    }

    fn any_runs(&self, hosts: &[HostId]) -> bool {
        hosts.iter().any(|host| self.cluster.world().is_running(*host))
    }

    fn on_store(&self, nth: usize, trouble: Trouble, dose: Dose) -> Begun {
        let seed = self.cluster.world().seed();
        self.cluster.store().begin_trouble(seed, nth, trouble, dose);
        Begun::until(move |it| it.cluster.store().end_trouble(nth) > 0)
    }

    fn bounded(&self, nth: usize, target: &Target, count: u32) -> Begun {
        let hosts = self.hosts(target);
        for host in &hosts {
            self.cluster.world().bound_fds(*host, nth, count as usize);
        }
        Begun::until(move |it| {
            let end = |host: &HostId| it.cluster.world().unbound_fds(*host, nth);
            hosts.iter().map(end).sum::<u64>() > 0
        })
    }

    fn cloned(&self, target: &Target) -> Begun {
        let mut places = self.places(std::slice::from_ref(target));
        places.retain(|place| self.cluster.clone_node(*place));
        Begun::at_once(!places.is_empty(), move |it| {
            for place in places {
                it.cluster.end_clone(place);
            }
        })
    }

    /// Cuts the power of places and puts the copies that were kept on their disks. The store gets
    /// the right content back when the fault ends; nodes go on with what they have.
    fn rolled_back(&self, nth: usize, target: &Target) -> Begun {
        let (world, store) = (self.cluster.world(), self.cluster.store());
        let kept = self.state().kept.remove(&nth).unwrap_or_default();
        let mut right = None;
        let mut places = self.places(std::slice::from_ref(target));
        places.retain(|place| *place == Place::Store || kept.images.contains_key(place));
        for place in &places {
            match kept.images.get(place) {
                Some(image) => {
                    world.roll_back(self.cluster.host(*place), image);
                }
                None => {
                    world.crash(self.cluster.host(Place::Store));
                    let old = store.as_it_was(kept.writes).expect("SQLite works in memory");
                    right = Some(store.replace(old));
                }
            }
            self.later(BACK_AFTER, nth, Step::Start(*place));
        }
        Begun::at_once(!places.is_empty(), move |it| {
            if let Some(right) = right {
                it.cluster.world().crash(it.cluster.host(Place::Store));
                drop(it.cluster.store().replace(right));
            }
            for place in places {
                it.cluster.start_again(place);
            }
        })
    }

    /// Cuts places off one by one in the first half of the fault's time, and lets them back in
    /// another order in the second half.
    fn swizzled(&self, nth: usize, targets: &[Target]) -> Begun {
        let mut places = self.places(targets);
        let mut rng = self.cluster.world().seed().stream(&format!("faults/{nth}/order"));
        let half = self.lasts(nth) / 2;
        let turns = u32::try_from(places.len().max(1)).unwrap_or(u32::MAX);
        for (begins, step) in [
            (Duration::ZERO, Step::Cut as fn(Place) -> Step),
            (half, Step::Mend as fn(Place) -> Step),
        ] {
            for turn in (1..places.len()).rev() {
                places.swap(turn, rng.index(turn + 1));
            }
            for (turn, place) in (0..turns).zip(&places) {
                self.later(begins + half * turn / turns, nth, step(*place));
            }
        }
        Begun::until(move |it| {
            let mended = places.iter().filter(|place| it.carry_out(nth, Step::Mend(**place)));
            mended.count() > 0
        })
    }

    /// Stops places one after another, and starts each before the next one's turn.
    fn restarted(&self, nth: usize, targets: &[Target]) -> Begun {
        let places = self.places(targets);
        let turns = u32::try_from(places.len().max(1)).unwrap_or(u32::MAX);
        let turn_lasts = self.lasts(nth) / turns;
        for (turn, place) in (0..turns).zip(&places) {
            self.later(turn_lasts * turn, nth, Step::Stop(*place));
            self.later(turn_lasts * turn + turn_lasts / 2, nth, Step::Start(*place));
        }
        Begun::until(move |it| {
            for place in places {
                it.carry_out(nth, Step::Start(place));
            }
            false
        })
    }
}

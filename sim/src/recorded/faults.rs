//! Faults of a recorded history, as the oracles ask for them.

use std::time::Duration;

use chatchat::config::Config;
use chatchat_scenarios::{
    cluster::Cluster,
    fault::{Action, Fault, Kind, Start},
    plan::Incident,
    target::{Place, Target},
};

/// Most masters or workers of a recorded cluster.
const NODES_MAX: usize = 256;

/// Fault that was carried out, once.
#[derive(Clone, Debug)]
pub(super) struct Done {
    pub(super) fault: Fault,
    /// When, as if it were the only fault.
    pub(super) incident: Incident,
}

impl Done {
    /// Reads a fault that was carried out at a place of the cluster.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub(super) fn read(
        cluster: &Cluster,
        kind: Kind,
        place: &str,
        from: Duration,
        until: Option<Duration>,
    ) -> Result<Self, String> {
        let target: Target = place.parse()?;
        let is_there = match &target {
            Target::One(Place::Master(nth)) => *nth < cluster.masters,
            Target::One(Place::Worker(nth)) => *nth < cluster.workers,
            Target::One(Place::Store) => true,
            _ => return Err(format!("{place}: a fault was at a node or at the store")),
        };
        if !is_there {
            return Err(format!("{place} is not in the cluster"));
        }
        if until.is_some_and(|until| until < from) {
            return Err("the fault ends before it begins".to_owned());
        }
        let action = match kind {
            Kind::Crash => Action::Crash { target },
            Kind::Exit => Action::Exit { target },
            Kind::Wipe => Action::Wipe { target },
            Kind::Stop => Action::Stop { target },
            Kind::Pause => Action::Pause { target },
            Kind::DiskFull => Action::DiskFull { target },
            _ => {
                let name = kind.name();
                return Err(format!(
                    "{name}: a recorded fault is crash, exit, wipe, stop, pause or disk_full"
                ));
            }
        };
        let lasts = until.map(|until| until - from);
        let fault = Fault { start: Start::At(from), lasts, action };
        Ok(Self { fault, incident: Incident { fault: 0, from, until, bit: true } })
    }
}

/// Returns a cluster of this size, with the usual settings.
///
/// # Errors
/// A sentence that says what is wrong.
pub(super) fn cluster(masters: usize, workers: usize) -> Result<Cluster, String> {
    if [masters, workers].iter().any(|count| !(1..=NODES_MAX).contains(count)) {
        return Err(format!("a cluster has 1 to {NODES_MAX} masters, and as many workers"));
    }
    Ok(Cluster { masters, workers, upgrade: false, step_us: 0, config: Config::default() })
}

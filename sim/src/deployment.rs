//! Deployment: the cluster that a story runs on, with its machines and the lines between them.
//!
//! ```text
//!  run of a story (play) ──> agenda of faults (faults) ──> Deployment
//!                                                      simulated: cluster    real: processes
//! ```
//!
//! The agenda, the people, the last reading and the oracles are the same code over both. A
//! deployment says who plays a role, ends and starts processes, breaks lines, and carries out the
//! kinds of fault that are its own.

use std::{sync::Arc, time::Duration};

use chatchat::{
    env::{BoxFuture, Env},
    model::ids::NodeId,
    store::Store,
};
use chatchat_scenarios::{
    cluster::Cluster,
    fault::{Action, Direction, Links},
    oracle::{EpochChange, PageTaken},
    target::{Place, Target},
    workload::Admin,
};
use dst_world::Link;
use serde_json::Value;

/// Number of a fault, or of a cut that belongs to one.
pub type FaultId = usize;

/// Receives each fault point that a node reaches, with a way to learn the node's place.
pub type OnFaultPoint = Box<dyn Fn(&'static str, &dyn Fn() -> Option<Place>) + Send + Sync>;

/// Step of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The fault begins.
    Begin,
    /// The disks of its target are copied, to be put back later.
    Keep,
    /// The fault is undone.
    Undo,
    /// A place is cut off from all others.
    Cut(Place),
    /// It is let back.
    Mend(Place),
    /// A process is asked to stop.
    Stop(Place),
    /// A process dies.
    Exit(Place),
    /// It is started again.
    Start(Place),
}

/// Undoes a fault, and returns whether it bit meanwhile.
pub type Undo<D> = Box<dyn FnOnce(&Arc<D>) -> bool + Send>;

/// Begun fault: what undoes it, whether it has bitten yet, and its later steps.
pub struct Begun<D> {
    /// Undoes the fault.
    pub undo: Undo<D>,
    /// Whether it has bitten already.
    pub bit: bool,
    /// Steps that follow, each so long after the beginning.
    pub steps: Vec<(Duration, Step)>,
}

impl<D> Begun<D> {
    /// A fault of which only its end tells whether it bit.
    pub fn until(undo: impl FnOnce(&Arc<D>) -> bool + Send + 'static) -> Self {
        Self { undo: Box::new(undo), bit: false, steps: Vec::new() }
    }

    /// A fault whose effect is there at once.
    pub fn at_once(bit: bool, undo: impl FnOnce(&Arc<D>) + Send + 'static) -> Self {
        let undo = move |on: &Arc<D>| {
            undo(on);
            false
        };
        Self { undo: Box::new(undo), bit, steps: Vec::new() }
    }

    /// A fault that has nothing to undo.
    #[must_use]
    pub fn instant(bit: bool) -> Self {
        Self::at_once(bit, |_| {})
    }

    /// The same fault with these steps to follow.
    #[must_use]
    pub fn then(self, steps: Vec<(Duration, Step)>) -> Self {
        Self { steps, ..self }
    }
}

/// Cluster that a story runs on, simulated or of real processes.
pub trait Deployment: Send + Sync + Sized + 'static {
    /// Time since a start that stays the same. Never goes back.
    fn elapsed(&self) -> Duration;

    /// Waits this long by the same clock.
    fn sleep(&self, by: Duration) -> BoxFuture<'static, ()>;

    /// Runs a task of the harness beside everything else.
    fn supervise(&self, task: BoxFuture<'static, ()>);

    /// Writes a line of the harness into the log, with these JSON members.
    fn note(&self, kind: &str, members: &[(&str, Value)]);

    /// Size and settings of the cluster.
    fn shape(&self) -> &Cluster;

    /// `http://host:port` of each master's front end.
    fn front_ends(&self) -> Vec<String>;

    /// Returns the environment in which a person lives.
    fn person(&self, nth: usize) -> BoxFuture<'_, Env>;

    /// Returns the environment in which an operator works, which no fault touches.
    fn operator(&self) -> BoxFuture<'_, Env>;

    /// Returns the listeners for operators of all masters that can be asked; none in a story without
    /// operators.
    fn admins(&self) -> Vec<Admin>;

    /// Returns the identity of the node at a place, once it has one.
    fn node_at(&self, place: Place) -> Option<NodeId>;

    /// Gives a worker's machine a join token that no node ever had.
    fn invite(&self, place: Place);

    /// Returns the store without faults between, for judging.
    fn direct_store(&self) -> Store;

    /// Returns the places that a target stands for now; none when nobody plays the role.
    fn places(&self, target: &Target) -> Vec<Place>;

    /// Returns whether a process runs at a place and is not stopped.
    fn is_at_work(&self, place: Place) -> bool;

    /// Returns the ends of nodes' processes so far, whatever ended them, by `elapsed`.
    fn ends(&self) -> Vec<(Place, Duration)>;

    /// Returns the changes of the store's epoch by restores so far, by `elapsed`.
    fn epoch_changes(&self) -> Vec<EpochChange>;

    /// Returns the pages of posts that workers took from the store so far, by `elapsed`; none where nobody
    /// sees them.
    fn pages_taken(&self) -> Vec<PageTaken>;

    /// Starts the store and all nodes that do not run.
    fn start(self: &Arc<Self>);

    /// Prepares places whose processes are about to end, so that they end at one moment.
    fn hold(&self, places: &[Place]);

    /// Ends a process as a loss of power does, as far as the deployment can. False when none ran.
    fn crash(&self, place: Place) -> bool;

    /// Ends a process; its kernel closes its connections. False when none ran.
    fn exit(&self, place: Place) -> bool;

    /// Ends a process and takes its files. False when none ran.
    fn wipe(&self, place: Place) -> bool;

    /// Asks a process to stop, as SIGTERM does. False when there is none to ask.
    fn stop(&self, place: Place) -> bool;

    /// Stops a process in the middle of whatever it does. False when none runs or it is stopped.
    fn pause(&self, place: Place) -> bool;

    /// Lets a stopped process go on. False when none is stopped.
    fn resume(&self, place: Place) -> bool;

    /// Starts a process again. One that was asked to stop and did not is killed first.
    fn start_again(self: &Arc<Self>, place: Place);

    /// Breaks one direction between two places: cuts it, or makes it slow, narrow or lossy.
    fn break_line(&self, fault: FaultId, from: Place, to: Place, link: Link);

    /// Ends the fault on one direction, and returns how many segments or packets it touched there.
    fn mend(&self, fault: FaultId, from: Place, to: Place) -> u64;

    /// Copies what a later roll-back puts back.
    fn keep(&self, fault: FaultId, action: &Action);

    /// Begins a fault of a kind that is carried out differently by each deployment. `label` is that of
    /// its random draws.
    fn act(self: &Arc<Self>, fault: FaultId, label: &str, action: &Action) -> Begun<Self>;

    /// Calls `act` at each fault point that a node reaches, from now on.
    fn on_fault_point(&self, act: OnFaultPoint);

    /// Returns the places that targets stand for now, each once, in order.
    fn places_of(&self, targets: &[Target]) -> Vec<Place> {
        let mut places: Vec<_> = targets.iter().flat_map(|target| self.places(target)).collect();
        places.sort_unstable();
        places.dedup();
        places
    }

    /// Returns the directions that `links` stands for now.
    fn directions(&self, links: &Links) -> Vec<(Place, Place)> {
        let (from, to) = (self.places_of(&links.from), self.places_of(&links.to));
        let mut directions = Vec::new();
        for from in &from {
            for to in to.iter().filter(|to| *to != from) {
                if links.direction != Direction::Back {
                    directions.push((*from, *to));
                }
                if links.direction != Direction::Forward {
                    directions.push((*to, *from));
                }
            }
        }
        directions.sort_unstable();
        directions.dedup();
        directions
    }

    /// Returns the nodes and the store, in order.
    fn everything(&self) -> Vec<Place> {
        Target::Everything.places(self.shape(), 0).unwrap_or_default()
    }
}

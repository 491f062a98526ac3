//! Roles of what faults hit, as the nodes' own lines tell them: recovery differs by them.
//!
//! 1. A coordinator is the master that gave out the last batch of some board.
//! 2. A worker is busy for a second after it was given a batch.
//! 3. A fault with targets of several roles has none of them: it counts as several.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use chatchat::model::{
    event::{Event, FaultPoint},
    ids::{NodeId, Resource},
};
use chatchat_scenarios::{
    fault::Start,
    oracle::{EventLine, Evidence},
    plan::Incident,
    target::{Place, Target},
};
use serde::{Deserialize, Serialize};

/// Time for which a worker counts as busy after it was given a batch.
const BUSY_FOR: Duration = Duration::from_secs(1);

/// Role of what a fault hit, when it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hit {
    /// A master that coordinated a board.
    Coordinator,
    /// A master that coordinated none.
    Master,
    /// A worker that was given a batch a moment before.
    BusyWorker,
    /// A worker that was not.
    Worker,
    /// The host of the shared store.
    Store,
    /// A person's machine.
    Person,
    /// Places of several roles.
    Several,
}

impl Hit {
    /// Returns the name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Coordinator => "coordinator",
            Self::Master => "other master",
            Self::BusyWorker => "busy worker",
            Self::Worker => "other worker",
            Self::Store => "store",
            Self::Person => "person",
            Self::Several => "several",
        }
    }
}

/// Returns the role of what each incident hit; `None` for one that is no fault of the plan.
#[must_use]
pub fn hits(evidence: &Evidence<'_>) -> Vec<Option<Hit>> {
    let places = places(evidence.events);
    let of = |incident| hit(evidence, &places, incident);
    evidence.incidents.iter().map(of).collect()
}

/// Returns the places of the nodes, by their identities.
fn places(events: &[EventLine]) -> BTreeMap<NodeId, String> {
    let own = events.iter().filter_map(|said| match &said.event {
        Event::Join { master, .. } if said.node.starts_with("master:") => {
            Some((*master, said.node.clone()))
        }
        Event::Join { node, .. } => Some((*node, said.node.clone())),
        _ => None,
    });
    own.collect()
}

fn hit(
    evidence: &Evidence<'_>,
    places: &BTreeMap<NodeId, String>,
    incident: &Incident,
) -> Option<Hit> {
    let fault = evidence.plan.faults.get(incident.fault)?;
    let targets = fault.action.targets();
    if targets.is_empty() {
        // Acks are lost, and errors made, at the store.
        return Some(Hit::Store);
    }
    let now = Now::read(evidence.events, places, incident.from);
    let (cluster, people) = (&evidence.plan.cluster, evidence.plan.workload.people);
    let mut all = BTreeSet::new();
    for target in targets {
        match target.places(cluster, people) {
            Some(of_target) => all.extend(of_target.into_iter().map(|place| now.role_of(place))),
            None => {
                all.insert(match (target, &fault.start) {
                    (Target::Coordinator(_), _) => Hit::Coordinator,
                    (Target::Assigned(_), _) => Hit::BusyWorker,
                    (Target::MasterOf(nth), _) => now.role_of_master_of(*nth),
                    (Target::Announcer, Start::When { point, .. }) => announcer(*point),
                    _ => Hit::Several,
                });
            }
        }
    }
    let one = all.first().copied();
    if all.len() > 1 { Some(Hit::Several) } else { one }
}

/// Returns the role of the node that announces a fault point.
const fn announcer(point: FaultPoint) -> Hit {
    match point {
        FaultPoint::AssignSent | FaultPoint::LeaseGranted | FaultPoint::TokenRaised => {
            Hit::Coordinator
        }
        FaultPoint::AckSent | FaultPoint::KeyInstallSent => Hit::Master,
        FaultPoint::PendingHeld | FaultPoint::WorkerMigrating => Hit::Worker,
        FaultPoint::AppendCommitted => Hit::Store,
    }
}

/// Roles at a time.
struct Now<'a> {
    coordinators: BTreeSet<&'a str>,
    busy: BTreeSet<&'a str>,
    /// Masters of the workers.
    masters: BTreeMap<&'a str, &'a str>,
}

impl<'a> Now<'a> {
    fn read(events: &'a [EventLine], places: &'a BTreeMap<NodeId, String>, now: Duration) -> Self {
        let (mut last, mut busy) = (BTreeMap::new(), BTreeSet::new());
        let mut masters = BTreeMap::new();
        for said in events.iter().take_while(|said| said.at <= now) {
            match &said.event {
                Event::Assign { worker, resource, .. } => {
                    if matches!(resource, Resource::Board(_)) {
                        last.insert(resource, said.node.as_str());
                    }
                    let worker = places.get(worker).filter(|_| said.at + BUSY_FOR >= now);
                    busy.extend(worker.map(String::as_str));
                }
                Event::Join { master, .. } if said.node.starts_with("worker:") => {
                    masters.extend(
                        places.get(master).map(|place| (said.node.as_str(), place.as_str())),
                    );
                }
                _ => {}
            }
        }
        Self { coordinators: last.into_values().collect(), busy, masters }
    }

    fn role_of(&self, place: Place) -> Hit {
        let name = place.to_string();
        match place {
            Place::Master(_) => self.role_of_master(&name),
            Place::Worker(_) if self.busy.contains(name.as_str()) => Hit::BusyWorker,
            Place::Worker(_) => Hit::Worker,
            Place::Store => Hit::Store,
            Place::Person(_) => Hit::Person,
        }
    }

    fn role_of_master_of(&self, worker: usize) -> Hit {
        let name = Place::Worker(worker).to_string();
        self.role_of_master(self.masters.get(name.as_str()).copied().unwrap_or_default())
    }

    fn role_of_master(&self, name: &str) -> Hit {
        if self.coordinators.contains(name) { Hit::Coordinator } else { Hit::Master }
    }
}

#[cfg(test)]
mod tests {
    use chatchat::model::ids::{BoardName, Registration, StoreEpoch, Token};
    use chatchat_scenarios::{history::History, oracle::StoreDump, plan::Plan, story::Story};

    use super::*;

    const HEAD: &str =
        "about = \"a test\"\nduration = \"60s\"\n[cluster]\nmasters = 2\nworkers = 2\n";

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn said(at: u64, node: &str, event: Event) -> EventLine {
        EventLine { at: ms(at), node: node.to_owned(), event, number: 0 }
    }

    fn join(worker: u8, master: u8) -> Event {
        let (node, master) = (NodeId([worker; 16]), NodeId([master; 16]));
        Event::Join { node, registration: Registration(1), master }
    }

    fn assign(worker: u8) -> Event {
        Event::Assign {
            worker: NodeId([worker; 16]),
            registration: Registration(1),
            resource: Resource::Board(BoardName::lobby()),
            token: Token { epoch: StoreEpoch(5), lease: 1, n: 1 },
            after: None,
            posts: Vec::new(),
            attempt: 1,
        }
    }

    /// Returns what a fault hits at 20 s. The lobby's coordinator was `master:0`, then `master:1`, whose
    /// worker is `worker:1`; that was given a batch at 19.5 s.
    fn of(fault: &str) -> Option<Hit> {
        let text = format!("{HEAD}[[fault]]\nat = \"5s\"\n{fault}\n");
        let plan = Plan::expand(&Story::parse("test", &text).expect("a story"), 7);
        let incidents = [Incident { fault: 0, from: ms(20_000), until: None, bit: true }];
        let events = [
            said(1000, "master:0", join(1, 8)),
            said(1000, "worker:0", join(1, 8)),
            said(1000, "master:1", join(2, 9)),
            said(1000, "worker:1", join(2, 9)),
            said(10_000, "master:0", assign(1)),
            said(19_500, "master:1", assign(2)),
            said(20_500, "master:0", assign(1)),
        ];
        let (history, store) = (History::default(), StoreDump::default());
        let found = hits(&Evidence {
            plan: &plan,
            incidents: &incidents,
            history: &history,
            store: &store,
            events: &events,
            ends: &[],
            ended: ms(60_000),
            calm_limit: ms(1000),
        });
        found[0]
    }

    #[test]
    fn role_is_that_of_the_moment_at_which_the_fault_began() {
        for (target, role) in [
            ("master:0", Hit::Master),
            ("master:1", Hit::Coordinator),
            ("worker:0", Hit::Worker),
            ("worker:1", Hit::BusyWorker),
            ("store", Hit::Store),
            ("person:1", Hit::Person),
            ("coordinator(board:lobby)", Hit::Coordinator),
            ("assigned(board:lobby)", Hit::BusyWorker),
            ("master_of(worker:0)", Hit::Master),
            ("master_of(worker:1)", Hit::Coordinator),
            ("master:*", Hit::Several),
        ] {
            let found = of(&format!("kind = \"crash\"\ntarget = \"{target}\""));
            assert_eq!(found, Some(role), "{target}");
        }
        let cut = "kind = \"partition\"\nfrom = \"master:0\"\nto = \"store\"";
        assert_eq!(of(cut), Some(Hit::Several));
        assert_eq!(of("kind = \"lost_ack\"\nrate = 0.5"), Some(Hit::Store));
    }
}

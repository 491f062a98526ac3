//! Targets of faults, as stories write them.
//!
//! A target names places of the cluster (`master:0`), all of a kind (`worker:*`), a draw of the
//! seed (`random`), or the node that plays a role at that time (`coordinator(board:lobby)`).
//! Only the world can resolve a role.

use std::{fmt, str::FromStr};

use chatchat::model::ids::{BoardName, Role};
use dst_env::rng::Rng;

use crate::{
    cluster::Cluster,
    nearest::{did_you_mean, nearest},
};

/// A process or host of the story, numbered from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// A master.
    Master(usize),
    /// A worker.
    Worker(usize),
    /// The host of the shared store.
    Store,
    /// A person's machine.
    Person(usize),
}

impl Place {
    /// Returns whether it is a master or a worker.
    #[must_use]
    pub const fn is_node(self) -> bool {
        matches!(self, Self::Master(_) | Self::Worker(_))
    }
}

/// Resource as a story can name it: before the run no node has an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResourceRef {
    /// `board:NAME`.
    Board(BoardName),
    /// `sessions:N`: all else that people served by master N write.
    Sessions(usize),
}

/// Target of a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `master:0`, `worker:2`, `store`, `person:7`.
    One(Place),
    /// `master:*`, `worker:*`: all nodes of a role.
    Role(Role),
    /// `person:*`: all people's machines.
    People,
    /// `*`: masters, workers and the store.
    Everything,
    /// `random`: a master or worker; the seed chooses which.
    Random,
    /// `coordinator(RESOURCE)`: the master that holds its lease at that moment.
    Coordinator(ResourceRef),
    /// `assigned(RESOURCE)`: the worker that was last given a batch of it.
    Assigned(ResourceRef),
    /// `master_of(worker:N)`: the master that this worker is registered with.
    MasterOf(usize),
    /// `announcer`: the node that announced the fault point which the fault waits for.
    Announcer,
}

/// Forms that are allowed, for every refusal.
const WANT: &str = "want master:N, worker:N, master:*, worker:*, person:N, person:*, store, *, \
     random, announcer, coordinator(RESOURCE), assigned(RESOURCE) or master_of(worker:N), where \
     RESOURCE is board:NAME or sessions:N";

impl Target {
    /// Returns the places that the target stands for in this cluster, in order; `None` when that
    /// depends on the state of the run.
    #[must_use]
    pub fn places(&self, cluster: &Cluster, people: usize) -> Option<Vec<Place>> {
        let masters = || (0..cluster.masters).map(Place::Master);
        let workers = || (0..cluster.workers).map(Place::Worker);
        Some(match self {
            Self::One(place) => vec![*place],
            Self::Role(Role::Master) => masters().collect(),
            Self::Role(Role::Worker) => workers().collect(),
            Self::People => (0..people).map(Place::Person).collect(),
            Self::Everything => masters().chain(workers()).chain([Place::Store]).collect(),
            Self::Random
            | Self::Coordinator(_)
            | Self::Assigned(_)
            | Self::MasterOf(_)
            | Self::Announcer => return None,
        })
    }

    /// Returns the same target with `random` drawn.
    #[must_use]
    pub fn drawn(&self, rng: &mut Rng, cluster: &Cluster) -> Self {
        if *self != Self::Random {
            return self.clone();
        }
        let nth = rng.index(cluster.masters + cluster.workers);
        Self::One(match nth.checked_sub(cluster.masters) {
            None => Place::Master(nth),
            Some(nth) => Place::Worker(nth),
        })
    }

    /// Checks that the cluster has the places that the target names, and its people the board.
    pub(crate) fn check(
        &self,
        cluster: &Cluster,
        people: usize,
        boards: &[BoardName],
    ) -> Result<(), String> {
        let within = |what: &str, nth: usize, have: usize| {
            (nth < have)
                .then_some(())
                .ok_or_else(|| format!("{self}: there are {have} {what}, numbered from 0"))
        };
        match self {
            Self::One(Place::Master(nth))
            | Self::Coordinator(ResourceRef::Sessions(nth))
            | Self::Assigned(ResourceRef::Sessions(nth)) => {
                within("masters", *nth, cluster.masters)
            }
            Self::One(Place::Worker(nth)) | Self::MasterOf(nth) => {
                within("workers", *nth, cluster.workers)
            }
            Self::One(Place::Person(nth)) => within("people", *nth, people),
            Self::Coordinator(ResourceRef::Board(name))
            | Self::Assigned(ResourceRef::Board(name))
                if !boards.contains(name) =>
            {
                let boards: Vec<_> = boards.iter().map(ToString::to_string).collect();
                let there_are = boards.join(", ");
                let near = nearest(&name.to_string(), boards.iter().map(String::as_str));
                let hint = near.map_or_else(String::new, did_you_mean);
                Err(format!("{self}: people use no such board, but {there_are}{hint}"))
            }
            _ => Ok(()),
        }
    }
}

fn numbered(text: &str) -> Option<usize> {
    text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()))
}

impl FromStr for ResourceRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = match text.split_once(':') {
            Some(("board", name)) => name.parse().ok().map(Self::Board),
            Some(("sessions", nth)) => numbered(nth).map(Self::Sessions),
            _ => None,
        };
        read.ok_or_else(|| {
            let hint = hint(text, &["board", "sessions"]);
            format!("{text:?} is not a resource: want board:NAME or sessions:N{hint}")
        })
    }
}

/// Returns the end of a refusal that names the form which was meant: one of `words` with the rest
/// of the text, or nothing.
fn hint(text: &str, words: &[&str]) -> String {
    let (word, rest) = text.split_at(text.find([':', '(']).unwrap_or(text.len()));
    let near = nearest(word, words.iter().copied());
    near.map_or_else(String::new, |near| did_you_mean(&format!("{near}{rest}")))
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            let words: &[&str] = match text.find([':', '(']).map(|at| &text[at..=at]) {
                Some(":") => &["master", "worker", "person"],
                Some(_) => &["coordinator", "assigned", "master_of"],
                None => &["store", "random", "announcer"],
            };
            format!("{text:?} is not a target: {WANT}{}", hint(text, words))
        };
        if let Some((role, inner)) = text.strip_suffix(')').and_then(|text| text.split_once('(')) {
            return match role {
                "coordinator" => Ok(Self::Coordinator(inner.parse()?)),
                "assigned" => Ok(Self::Assigned(inner.parse()?)),
                "master_of" => inner
                    .strip_prefix("worker:")
                    .and_then(numbered)
                    .map(Self::MasterOf)
                    .ok_or_else(wrong),
                _ => Err(wrong()),
            };
        }
        match (text, text.split_once(':')) {
            ("*", _) => Ok(Self::Everything),
            ("random", _) => Ok(Self::Random),
            ("announcer", _) => Ok(Self::Announcer),
            ("store", _) => Ok(Self::One(Place::Store)),
            (_, Some(("master", "*"))) => Ok(Self::Role(Role::Master)),
            (_, Some(("worker", "*"))) => Ok(Self::Role(Role::Worker)),
            (_, Some(("person", "*"))) => Ok(Self::People),
            (_, Some((sort, nth))) => {
                let nth = numbered(nth).ok_or_else(wrong)?;
                match sort {
                    "master" => Ok(Self::One(Place::Master(nth))),
                    "worker" => Ok(Self::One(Place::Worker(nth))),
                    "person" => Ok(Self::One(Place::Person(nth))),
                    _ => Err(wrong()),
                }
            }
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Master(nth) => write!(f, "master:{nth}"),
            Self::Worker(nth) => write!(f, "worker:{nth}"),
            Self::Store => f.write_str("store"),
            Self::Person(nth) => write!(f, "person:{nth}"),
        }
    }
}

impl fmt::Display for ResourceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Board(name) => write!(f, "board:{name}"),
            Self::Sessions(nth) => write!(f, "sessions:{nth}"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(place) => place.fmt(f),
            Self::Role(role) => write!(f, "{role}:*"),
            Self::People => f.write_str("person:*"),
            Self::Everything => f.write_str("*"),
            Self::Random => f.write_str("random"),
            Self::Coordinator(resource) => write!(f, "coordinator({resource})"),
            Self::Assigned(resource) => write!(f, "assigned({resource})"),
            Self::MasterOf(nth) => write!(f, "master_of(worker:{nth})"),
            Self::Announcer => f.write_str("announcer"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_reads_back_as_it_was_written() {
        for text in [
            "master:0",
            "worker:12",
            "person:3",
            "store",
            "*",
            "random",
            "announcer",
            "master:*",
            "worker:*",
            "person:*",
            "coordinator(board:lobby)",
            "assigned(sessions:1)",
            "master_of(worker:2)",
        ] {
            assert_eq!(text.parse::<Target>().map(|t| t.to_string()).as_deref(), Ok(text));
        }
        for bad in
            ["", "master", "master:", "master:+1", "master:x", "host:1", "coordinator(lobby)"]
        {
            assert!(bad.parse::<Target>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn misspelt_target_finds_its_neighbour_and_a_foreign_one_finds_none() {
        for (wrong, meant) in [
            ("wroker:1", Some("worker:1")),
            ("mastre:*", Some("master:*")),
            ("persons:2", Some("person:2")),
            ("stroe", Some("store")),
            ("anouncer", Some("announcer")),
            ("cordinator(board:lobby)", Some("coordinator(board:lobby)")),
            ("master-of(worker:0)", Some("master_of(worker:0)")),
            ("assigned(bord:lobby)", Some("board:lobby")),
            ("coordinator(session:1)", Some("sessions:1")),
            ("worker:x", None),
            ("lighthouse:1", None),
            ("", None),
        ] {
            let said = wrong.parse::<Target>().expect_err(wrong);
            let says = meant.map(|meant| format!("; did you mean `{meant}`?"));
            match says {
                Some(says) => assert!(said.ends_with(&says), "{said}"),
                None => assert!(!said.contains("did you mean"), "{said}"),
            }
        }
    }
}

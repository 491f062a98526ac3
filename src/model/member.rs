//! Members of the cluster, as nodes tell each other of them.

use serde::{Deserialize, Serialize};

use crate::model::ids::{NodeId, Registration, Role};

/// State of a member. Ordered: of two facts of one registration the greater wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberState {
    /// Registered with a master.
    In,
    /// Lost by its master.
    Failed,
    /// Left on purpose.
    Left,
}

/// Fact about a member. The higher `(registration, state)` of one node wins everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// Subject of the fact.
    pub node: NodeId,
    /// Its role.
    pub role: Role,
    /// Registration of a worker, incarnation of a master as a number.
    pub registration: Registration,
    /// Its state.
    pub state: MemberState,
    /// Master that a worker is registered with; the master itself for a master.
    pub master: NodeId,
}

/// Node as the directory lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Newest fact about it.
    pub fact: Fact,
    /// Name for people.
    pub name: String,
    /// `host:port` for links; workers have none, they dial.
    pub link: Option<String>,
    /// `http://host:port`; masters only.
    pub http: Option<String>,
    /// Public key of its identity, SPKI DER.
    pub spki: Vec<u8>,
}

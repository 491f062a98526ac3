//! Kinds of what strangers and faulty or hostile nodes are refused on a node's port, for metrics.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Kind of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// Too many handshakes were under way.
    Crowded,
    /// A handshake broke off or took too long.
    Unfinished,
    /// A message of a handshake was malformed.
    Malformed,
    /// There is no common version of the protocol.
    Version,
    /// The guard is unknown, another node's, or its proof is wrong.
    Guard,
    /// A Hello came a second time.
    Replayed,
    /// A key, a signature or a sealed message of a handshake was wrong.
    Proof,
    /// The node is in the deny list.
    Denied,
    /// The node is of another cluster, or its token or key does not let it in.
    NotAdmitted,
    /// A linked node broke the protocol, and its link ended.
    Violation,
    /// A linked node published what is not its own or was not sealed as it must be.
    Envelope,
}

impl Refusal {
    /// All kinds.
    pub const ALL: [Self; 11] = [
        Self::Crowded,
        Self::Unfinished,
        Self::Malformed,
        Self::Version,
        Self::Guard,
        Self::Replayed,
        Self::Proof,
        Self::Denied,
        Self::NotAdmitted,
        Self::Violation,
        Self::Envelope,
    ];

    /// Returns the name of the kind, as in JSON and in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Crowded => "crowded",
            Self::Unfinished => "unfinished",
            Self::Malformed => "malformed",
            Self::Version => "version",
            Self::Guard => "guard",
            Self::Replayed => "replayed",
            Self::Proof => "proof",
            Self::Denied => "denied",
            Self::NotAdmitted => "not-admitted",
            Self::Violation => "violation",
            Self::Envelope => "envelope",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn kinds_have_different_names_which_are_those_of_json() {
        let names: BTreeSet<_> = Refusal::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(names.len(), Refusal::ALL.len());
        for kind in Refusal::ALL {
            assert_eq!(serde_json::to_string(&kind).expect("JSON"), format!("\"{kind}\""));
        }
    }
}

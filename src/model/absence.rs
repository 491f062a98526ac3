//! Reasons why the shared store is away, for logs, `status` and metrics.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Reason why the shared store is away.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum AwayReason {
    /// It did not answer in time, and nothing says why.
    #[default]
    NoAnswer,
    /// Its host is not reached, or the connection broke.
    Unreachable,
    /// Another process holds its lock.
    Locked,
    /// Its disk is full.
    Full,
    /// Its file or file system cannot be written.
    ReadOnly,
    /// The system reports another error for its file.
    Failing,
    /// Its file is not there: moved, removed, or its disk is not mounted.
    Gone,
    /// It is another one: empty, of another cluster or of another program, or it wants a newer release.
    Replaced,
    /// It is an older copy: it lacks what was written in this epoch before.
    RolledBack,
    /// Its file is damaged.
    Damaged,
    /// No master has given this worker a login for it yet.
    NoLogin,
}

impl AwayReason {
    /// All reasons.
    pub const ALL: [Self; 11] = [
        Self::NoAnswer,
        Self::Unreachable,
        Self::Locked,
        Self::Full,
        Self::ReadOnly,
        Self::Failing,
        Self::Gone,
        Self::Replaced,
        Self::RolledBack,
        Self::Damaged,
        Self::NoLogin,
    ];

    /// Returns the name of the reason, as in JSON and in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoAnswer => "no-answer",
            Self::Unreachable => "unreachable",
            Self::Locked => "locked",
            Self::Full => "full",
            Self::ReadOnly => "read-only",
            Self::Failing => "failing",
            Self::Gone => "gone",
            Self::Replaced => "replaced",
            Self::RolledBack => "rolled-back",
            Self::Damaged => "damaged",
            Self::NoLogin => "no-login",
        }
    }
}

impl fmt::Display for AwayReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_of_a_reason_is_the_same_in_json_and_in_text() {
        for reason in AwayReason::ALL {
            let json = serde_json::to_value(reason).expect("a text");
            assert_eq!(json, serde_json::json!(reason.name()));
        }
    }
}

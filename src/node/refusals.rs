//! Counter of what a node refused on its port, by kind.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::{
    comm::handshake::HandshakeError, crypto::handshake::HandshakeFault, model::refusal::Refusal,
};

/// Counts refusals. Cheap to clone; all clones count together.
#[derive(Clone, Debug, Default)]
pub(super) struct Refusals(Arc<[AtomicU64; Refusal::ALL.len()]>);

impl Refusals {
    /// Counts one.
    pub(super) fn add(&self, kind: Refusal) {
        self.0[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the kinds that occurred, each with its number.
    pub(super) fn counts(&self) -> Vec<(Refusal, u64)> {
        let count = |kind: Refusal| (kind, self.0[kind as usize].load(Ordering::Relaxed));
        Refusal::ALL.into_iter().map(count).filter(|(_, times)| *times > 0).collect()
    }
}

/// Returns the kind of a handshake that did not come about.
pub(super) fn kind_of(error: &HandshakeError) -> Refusal {
    match error {
        HandshakeError::Fault(fault) => match fault {
            HandshakeFault::Malformed { .. } => Refusal::Malformed,
            HandshakeFault::NoCommonVersion { .. } => Refusal::Version,
            HandshakeFault::BadGuard | HandshakeFault::GuardOfAnother => Refusal::Guard,
            HandshakeFault::NotPinned { .. }
            | HandshakeFault::Key { .. }
            | HandshakeFault::Record { .. }
            | HandshakeFault::Epoch(_)
            | HandshakeFault::NotForUs => Refusal::Proof,
            HandshakeFault::OtherCluster | HandshakeFault::Itself | HandshakeFault::Rejected(_) => {
                Refusal::NotAdmitted
            }
        },
        HandshakeError::UnknownGuard { .. } => Refusal::Guard,
        HandshakeError::Replayed => Refusal::Replayed,
        HandshakeError::Denied { .. } => Refusal::Denied,
        HandshakeError::OtherCluster { .. } | HandshakeError::NotAdmitted { .. } => {
            Refusal::NotAdmitted
        }
        HandshakeError::Ended
        | HandshakeError::Unanswered
        | HandshakeError::Broken(_)
        | HandshakeError::TimedOut { .. }
        | HandshakeError::Key(_)
        | HandshakeError::GivenUp
        | HandshakeError::Cancelled => Refusal::Unfinished,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::NodeId;

    #[test]
    fn clones_count_together_and_each_kind_by_itself() {
        let refusals = Refusals::default();
        assert_eq!(refusals.counts(), []);
        let clone = refusals.clone();
        for kind in Refusal::ALL {
            for _ in 0..=kind as usize {
                clone.add(kind);
            }
        }
        let counts = refusals.counts();
        let wanted: Vec<_> = Refusal::ALL.into_iter().zip(1..).collect();
        assert_eq!(counts, wanted);
    }

    #[test]
    fn handshakes_are_counted_by_what_was_wrong() {
        let denied = HandshakeError::Denied { node: NodeId([1; 16]) };
        assert_eq!(kind_of(&denied), Refusal::Denied);
        assert_eq!(kind_of(&HandshakeFault::BadGuard.into()), Refusal::Guard);
        assert_eq!(kind_of(&HandshakeError::Ended), Refusal::Unfinished);
    }
}

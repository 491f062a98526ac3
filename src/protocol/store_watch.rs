//! Watch over the store's absence: since when, why, and what is to be said of it.
//!
//! 1. An absence is told once when it begins and once when it ends; its reason may become known, or
//!    change, in between.
//! 2. Absences are counted by the reason that was known when they began.

use std::collections::BTreeMap;

use crate::model::{absence::AwayReason, rows::StoreError, time::Mono};

/// Absence of the store, as this node knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Absence {
    /// Latest reason.
    pub reason: AwayReason,
    /// Symptom.
    pub why: String,
}

/// Change that is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreChange {
    /// The store went.
    Away(Absence),
    /// The store is back, after this absence since that time.
    Back(Absence, Mono),
}

/// State of the store as one node sees it.
#[derive(Clone, Debug, Default)]
pub struct StoreWatch {
    /// Last failure since the store answered.
    failure: Option<Absence>,
    away: Option<(Absence, Mono)>,
    times: BTreeMap<AwayReason, u64>,
}

impl StoreWatch {
    /// Takes the answer to an operation in. Errors that say nothing of the store are ignored.
    pub fn on_answer<T>(&mut self, answer: &Result<T, StoreError>) {
        match answer {
            Ok(_) => self.failure = None,
            Err(error) => {
                if let Some(reason) = error.away_reason() {
                    let why = match error {
                        StoreError::Away { why, .. } | StoreError::Broken { why } => why.clone(),
                        other => other.to_string(),
                    };
                    self.failure = Some(Absence { reason, why });
                }
            }
        }
        if let (Some((away, _)), Some(failure)) = (&mut self.away, &self.failure) {
            away.clone_from(failure);
        }
    }

    /// Takes in whether the store counts as being here. Returns what is to be told of it.
    pub fn on_state(&mut self, now: Mono, is_here: bool) -> Option<StoreChange> {
        match (is_here, self.away.take()) {
            (true, Some((absence, since))) => Some(StoreChange::Back(absence, since)),
            (true, None) => None,
            (false, Some(away)) => {
                self.away = Some(away);
                None
            }
            (false, None) => {
                let absence = self.failure.clone().unwrap_or_default();
                *self.times.entry(absence.reason).or_default() += 1;
                self.away = Some((absence.clone(), now));
                Some(StoreChange::Away(absence))
            }
        }
    }

    /// Returns the absence that lasts now.
    #[must_use]
    pub fn absence(&self) -> Option<&Absence> {
        self.away.as_ref().map(|(absence, _)| absence)
    }

    /// Returns how often the store went, by reason.
    #[must_use]
    pub const fn times(&self) -> &BTreeMap<AwayReason, u64> {
        &self.times
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn failed(reason: AwayReason) -> Result<(), StoreError> {
        Err(StoreError::away(reason, "symptom"))
    }

    fn absence(reason: AwayReason) -> Absence {
        Absence { reason, why: "symptom".to_owned() }
    }

    #[test]
    fn absence_is_told_once_when_it_begins_and_once_when_it_ends() {
        let mut watch = StoreWatch::default();
        let at = |s| Mono::ZERO + Duration::from_secs(s);
        assert_eq!(watch.on_state(at(0), true), None);
        watch.on_answer(&failed(AwayReason::Full));
        assert_eq!(watch.on_state(at(1), true), None, "one failure is no absence yet");
        let full = absence(AwayReason::Full);
        assert_eq!(watch.on_state(at(2), false), Some(StoreChange::Away(full.clone())));
        watch.on_answer(&failed(AwayReason::Full));
        assert_eq!(watch.on_state(at(3), false), None);
        assert_eq!(watch.absence(), Some(&full));
        watch.on_answer(&Ok(()));
        assert_eq!(watch.on_state(at(4), true), Some(StoreChange::Back(full, at(2))));
        assert_eq!(watch.absence(), None);
        assert_eq!(watch.times().get(&AwayReason::Full), Some(&1));
    }

    #[test]
    fn reason_follows_the_latest_failure_and_other_errors_say_nothing() {
        let mut watch = StoreWatch::default();
        assert_eq!(
            watch.on_state(Mono::ZERO, false),
            Some(StoreChange::Away(Absence::default())),
            "nothing answered and nothing failed"
        );
        for (answer, reason) in [
            (failed(AwayReason::Locked), AwayReason::Locked),
            (Err(StoreError::Busy), AwayReason::Locked),
            (Err(StoreError::Broken { why: String::new() }), AwayReason::Damaged),
        ] {
            watch.on_answer(&answer);
            assert_eq!(watch.absence().map(|absence| absence.reason), Some(reason));
        }
    }
}

//! Terms of a join token, as an operator asks for them.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::model::bounds::{JOIN_LIFE_MAX_MS, JOIN_LIFE_MIN_MS, JOIN_USES_MAX};

/// Body of `POST /api/v1/admin/tokens`, which may be left out: how many workers a join token
/// enrols, and for how long. A missing field has its default: one worker, 24 h. Unlike other
/// bodies it has no unknown fields: a term that is misspelt must not become a default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawTerms")]
pub struct JoinTerms {
    uses: u32,
    #[serde(rename = "for_ms")]
    life_ms: u64,
}

/// Error of terms that are out of bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TermsError {
    /// Number of uses.
    #[error("a join token has 1 to {} uses", JOIN_USES_MAX)]
    Uses,
    /// Life.
    #[error(
        "a join token lasts {} min to {} h ({} to {} ms)",
        JOIN_LIFE_MIN_MS / 60_000, JOIN_LIFE_MAX_MS / 3_600_000, JOIN_LIFE_MIN_MS, JOIN_LIFE_MAX_MS
    )]
    Life,
}

impl JoinTerms {
    /// Number of uses unless another is asked for.
    pub const USES: u32 = 1;

    /// Life unless another is asked for.
    pub const LIFE: Duration = Duration::from_secs(24 * 3600);

    /// Returns the terms of a token with 1 to [`JOIN_USES_MAX`] uses that lasts
    /// [`JOIN_LIFE_MIN_MS`] to [`JOIN_LIFE_MAX_MS`].
    ///
    /// # Errors
    /// [`TermsError`].
    pub fn new(uses: u32, life: Duration) -> Result<Self, TermsError> {
        let life_ms = u64::try_from(life.as_millis()).map_err(|_| TermsError::Life)?;
        RawTerms { uses, for_ms: life_ms }.try_into()
    }

    /// Returns how many workers the token enrols.
    #[must_use]
    pub const fn uses(&self) -> u32 {
        self.uses
    }

    /// Returns how long the token lasts, ms.
    #[must_use]
    pub const fn life_ms(&self) -> u64 {
        self.life_ms
    }
}

impl Default for JoinTerms {
    fn default() -> Self {
        let RawTerms { uses, for_ms: life_ms } = RawTerms::default();
        Self { uses, life_ms }
    }
}

/// Terms before they are checked.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawTerms {
    uses: u32,
    for_ms: u64,
}

impl Default for RawTerms {
    fn default() -> Self {
        Self { uses: JoinTerms::USES, for_ms: JoinTerms::LIFE.as_secs() * 1000 }
    }
}

impl TryFrom<RawTerms> for JoinTerms {
    type Error = TermsError;

    fn try_from(raw: RawTerms) -> Result<Self, TermsError> {
        let RawTerms { uses, for_ms: life_ms } = raw;
        if !(1..=JOIN_USES_MAX).contains(&uses) {
            return Err(TermsError::Uses);
        }
        if !(JOIN_LIFE_MIN_MS..=JOIN_LIFE_MAX_MS).contains(&life_ms) {
            return Err(TermsError::Life);
        }
        Ok(Self { uses, life_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);

    #[test]
    fn terms_are_taken_up_to_their_bounds_and_not_beyond() {
        let ms = Duration::from_millis(1);
        assert_eq!(JoinTerms::new(JoinTerms::USES, JoinTerms::LIFE), Ok(JoinTerms::default()));
        for (uses, life) in [(1, MINUTE), (JOIN_USES_MAX, MONTH)] {
            let terms = JoinTerms::new(uses, life).expect("within the bounds");
            let life_ms = u64::try_from(life.as_millis()).expect("small");
            assert_eq!((terms.uses(), terms.life_ms()), (uses, life_ms));
        }
        for uses in [0, JOIN_USES_MAX + 1, u32::MAX] {
            assert_eq!(JoinTerms::new(uses, MINUTE), Err(TermsError::Uses), "{uses}");
        }
        for life in [Duration::ZERO, MINUTE - ms, MONTH + ms, Duration::MAX] {
            assert_eq!(JoinTerms::new(1, life), Err(TermsError::Life), "{life:?}");
        }
        let said = TermsError::Life.to_string();
        assert_eq!(said, "a join token lasts 1 min to 720 h (60000 to 2592000000 ms)");
    }

    #[test]
    fn terms_are_written_and_read_as_json() {
        let read = serde_json::from_str::<JoinTerms>;
        let terms = JoinTerms::new(3, 2 * MINUTE).expect("within the bounds");
        let text = serde_json::to_string(&terms).expect("JSON");
        assert_eq!(text, r#"{"uses":3,"for_ms":120000}"#);
        assert_eq!(read(&text).expect("its own form"), terms);
        assert_eq!(read("{}").expect("defaults"), JoinTerms::default());
        let three = read(r#"{"uses":3}"#).expect("a default life");
        assert_eq!((three.uses(), three.life_ms()), (3, 24 * 3600 * 1000));
        for bad in [r#"{"uses":0}"#, r#"{"for_ms":59999}"#, r#"{"use":2}"#, r#"{"uses":-1}"#] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}

//! Places for open streams: so many for each session, so that one person's cannot take all.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::model::ids::SessionKey;

/// Streams of one session that are open at once: a few browsers and shells, and those of them that
/// vanished and are not found out yet.
const PER_SESSION_MAX: usize = 32;

/// Places that are taken. Cheap to clone; all clones count together.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(Arc<Mutex<BTreeMap<SessionKey, usize>>>);

impl Places {
    /// Takes a place; `None` when the session has all of its own.
    pub(super) fn take(&self, key: SessionKey) -> Option<Place> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let here = taken.entry(key).or_default();
        if *here >= PER_SESSION_MAX {
            return None;
        }
        *here += 1;
        drop(taken);
        Some(Place { of: self.clone(), key })
    }
}

/// Place of one stream; dropping it frees the place.
#[derive(Debug)]
pub(super) struct Place {
    of: Places,
    key: SessionKey,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.of.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(here) = taken.get_mut(&self.key) {
            *here = here.saturating_sub(1);
            if *here == 0 {
                taken.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_has_its_own_places_and_gets_them_back() {
        let places = Places::default();
        let (one, other) = (SessionKey([1; 32]), SessionKey([2; 32]));
        let mut held: Vec<_> = (0..PER_SESSION_MAX).map(|_| places.take(one)).collect();
        assert!(held.iter().all(Option::is_some));
        assert!(places.take(one).is_none());
        assert!(places.take(other).is_some(), "another session has its own");
        held.pop();
        assert!(places.take(one).is_some(), "given back");
        held.clear();
        assert!(places.0.lock().expect("no panic").is_empty());
    }
}

//! Masters that a client knows, and the one that it uses.
//!
//! 1. There is always a current master. When it fails, the one that failed the longest ago, or never,
//!    takes its place: of three, one that is silent and one that refuses do not take turns.
//! 2. A configured master is never forgotten; one that a master named is, when a later list lacks it.
//! 3. A current master is in doubt once a call to it failed, and when it has just taken another's
//!    place, until it answers.

use std::collections::BTreeMap;

/// Most masters that a client keeps; more are left out.
const KNOWN_MAX: usize = 64;

/// List of masters with a current one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MasterList {
    /// Addresses, `http://host:port` each, in the order in which they are tried.
    known: Vec<String>,
    configured: Vec<String>,
    current: usize,
    /// Failures so far, and the last one of each master.
    failures: u64,
    failed: BTreeMap<String, u64>,
    is_doubted: bool,
}

impl MasterList {
    /// Returns a list of these whose current one is number `first`, counted round. Returns `None`
    /// when there are none.
    #[must_use]
    pub fn new(masters: &[String], first: usize) -> Option<Self> {
        if masters.is_empty() {
            return None;
        }
        let known: Vec<_> =
            masters.iter().take(KNOWN_MAX).map(|m| m.trim_end_matches('/').to_owned()).collect();
        Some(Self {
            current: first % known.len(),
            configured: known.clone(),
            known,
            failures: 0,
            failed: BTreeMap::new(),
            is_doubted: false,
        })
    }

    /// Returns the current master.
    #[must_use]
    pub fn current(&self) -> &str {
        &self.known[self.current]
    }

    /// Returns all masters, in the order in which they are tried.
    #[must_use]
    pub fn all(&self) -> &[String] {
        &self.known
    }

    /// Whether the current master should be asked if it is ready before it gets a call. Without
    /// another one to turn to there is no use in asking.
    #[must_use]
    pub fn is_doubted(&self) -> bool {
        self.is_doubted && self.known.len() > 1
    }

    /// Takes over the list that a master sent. The current one stays.
    pub fn on_list(&mut self, told: impl IntoIterator<Item = String>) {
        let current = self.current().to_owned();
        let mut known: Vec<String> = Vec::new();
        for master in told.into_iter().chain(self.configured.iter().cloned()) {
            let master = master.trim_end_matches('/').to_owned();
            if known.len() < KNOWN_MAX && !known.contains(&master) {
                known.push(master);
            }
        }
        self.current = known.iter().position(|m| *m == current).unwrap_or_else(|| {
            known.insert(0, current);
            0
        });
        self.failed.retain(|master, _| known.contains(master));
        self.known = known;
    }

    /// Moves on to the master that failed the longest ago, or never, and of those to the next one,
    /// unless the one that failed is not the current one any more.
    pub fn on_failed(&mut self, master: &str) {
        if self.current() != master {
            return;
        }
        self.is_doubted = true;
        self.failures += 1;
        self.failed.insert(master.to_owned(), self.failures);
        let places = self.known.len();
        let last = |place: &usize| self.known.get(*place).and_then(|it| self.failed.get(it));
        let others = (1..=places).map(|by| (self.current + by) % places);
        self.current = others.min_by_key(last).unwrap_or(self.current);
    }

    /// Doubts this master if it is the current one.
    pub fn on_doubt(&mut self, master: &str) {
        self.is_doubted |= self.current() == master;
    }

    /// Trusts this master again if it is the current one.
    pub fn on_answer(&mut self, master: &str) {
        self.is_doubted &= self.current() != master;
    }

    /// Makes this master the current one if it is known.
    pub fn move_to(&mut self, master: &str) {
        if let Some(nth) = self.known.iter().position(|m| m == master) {
            self.is_doubted |= self.current != nth;
            self.current = nth;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|m| (*m).to_owned()).collect()
    }

    #[test]
    fn failure_seen_twice_moves_on_once() {
        let mut master_list = MasterList::new(&names(&["a", "b", "c"]), 4).unwrap();
        assert_eq!(master_list.current(), "b");
        master_list.on_failed("b");
        master_list.on_failed("b");
        assert_eq!(master_list.current(), "c");
        master_list.on_failed("c");
        assert_eq!(master_list.current(), "a", "round");
    }

    #[test]
    fn master_that_failed_the_longest_ago_is_the_next_one() {
        let mut masters = MasterList::new(&names(&["a", "b", "c"]), 2).unwrap();
        masters.on_failed("c");
        assert_eq!(masters.current(), "a");
        masters.move_to("b");
        masters.on_failed("b");
        assert_eq!(masters.current(), "a", "c was silent a moment ago");
        masters.on_failed("a");
        assert_eq!(masters.current(), "c");
        let mut alone = MasterList::new(&names(&["a"]), 0).unwrap();
        alone.on_failed("a");
        assert_eq!(alone.current(), "a");
    }

    #[test]
    fn doubt_belongs_to_the_current_master() {
        let mut masters = MasterList::new(&names(&["a", "b"]), 0).unwrap();
        assert!(!masters.is_doubted(), "it is as good as any other");
        masters.on_doubt("b");
        assert!(!masters.is_doubted());
        masters.on_doubt("a");
        masters.on_answer("b");
        assert!(masters.is_doubted());
        masters.on_answer("a");
        assert!(!masters.is_doubted());
        masters.on_failed("a");
        assert!(masters.is_doubted(), "b has not been asked yet");
        masters.on_answer("a");
        assert!(masters.is_doubted(), "a late answer of the one that was left");
        masters.on_answer("b");
        masters.move_to("b");
        assert!(!masters.is_doubted());
        masters.move_to("a");
        assert!(masters.is_doubted());
        let mut alone = MasterList::new(&names(&["a"]), 0).unwrap();
        alone.on_failed("a");
        assert!(!alone.is_doubted(), "there is no other one");
    }

    #[test]
    fn received_list_adds_and_removes_but_keeps_the_current_master() {
        let mut master_list = MasterList::new(&names(&["a", "b"]), 0).unwrap();
        master_list.on_list(names(&["c/", "b"]));
        assert_eq!(master_list.all(), names(&["c", "b", "a"]));
        assert_eq!(master_list.current(), "a");
        master_list.move_to("c");
        master_list.on_list(names(&["b"]));
        assert_eq!(master_list.current(), "c", "still served by it");
        master_list.on_failed("c");
        master_list.on_list(names(&["b"]));
        assert_eq!(master_list.all(), names(&["b", "a"]));
        assert_eq!(MasterList::new(&[], 0), None);
    }
}

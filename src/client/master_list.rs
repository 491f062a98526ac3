//! The masters that a client knows, and which one it is with.
//!
//! 1. There is always a current one.
//! 2. A master that was configured is never forgotten; told ones are, when the told list changes.

/// The most masters that a client keeps; more are left out.
const KNOWN_MAX: usize = 64;

/// Pure: who tells and who fails is the caller's to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MasterList {
    /// `http://host:port` each, in the order in which they are tried.
    known: Vec<String>,
    configured: Vec<String>,
    current: usize,
}

impl MasterList {
    /// Begins with the `first`-th of these, counted round; `None` when there are none.
    #[must_use]
    pub fn new(masters: &[String], first: usize) -> Option<Self> {
        if masters.is_empty() {
            return None;
        }
        let known: Vec<_> =
            masters.iter().take(KNOWN_MAX).map(|m| m.trim_end_matches('/').to_owned()).collect();
        Some(Self { current: first % known.len(), configured: known.clone(), known })
    }

    /// The one to talk to.
    #[must_use]
    pub fn current(&self) -> &str {
        &self.known[self.current]
    }

    /// All of them, in the order in which they are tried.
    #[must_use]
    pub fn all(&self) -> &[String] {
        &self.known
    }

    /// Takes the list that a master told. The current one stays.
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
        self.known = known;
    }

    /// Moves on from a master that failed, unless the client is elsewhere already.
    pub fn on_failed(&mut self, master: &str) {
        if self.current() == master {
            self.current = (self.current + 1) % self.known.len();
        }
    }

    /// Moves to this master if it is known.
    pub fn move_to(&mut self, master: &str) {
        if let Some(nth) = self.known.iter().position(|m| m == master) {
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
    fn two_who_see_the_same_failure_move_once() {
        let mut master_list = MasterList::new(&names(&["a", "b", "c"]), 4).unwrap();
        assert_eq!(master_list.current(), "b");
        master_list.on_failed("b");
        master_list.on_failed("b");
        assert_eq!(master_list.current(), "c");
        master_list.on_failed("c");
        assert_eq!(master_list.current(), "a", "round");
    }

    #[test]
    fn a_told_list_adds_and_forgets_but_moves_nobody() {
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

//! Sessions that were seen here, so that not every request asks the store who it is.
//!
//! A session that was closed never opens again: what is told of it later is late.

use std::collections::{BTreeMap, VecDeque};

use crate::model::{
    ids::{BoardName, Seq, SessionKey},
    recent::Recent,
    rows::SessionRow,
};

/// A bounded memory of open sessions; the oldest in goes first.
#[derive(Debug)]
pub(super) struct Sessions {
    rows: BTreeMap<SessionKey, SessionRow>,
    order: VecDeque<SessionKey>,
    closed: Recent<SessionKey>,
    max: usize,
}

impl Sessions {
    pub(super) const fn new(max: usize) -> Self {
        Self { rows: BTreeMap::new(), order: VecDeque::new(), closed: Recent::new(max), max }
    }

    pub(super) fn get(&self, key: &SessionKey) -> Option<&SessionRow> {
        self.rows.get(key)
    }

    pub(super) fn put(&mut self, row: SessionRow) {
        if self.closed.contains(&row.key) {
            return;
        }
        if self.rows.insert(row.key, row.clone()).is_none() {
            self.order.push_back(row.key);
        }
        while self.rows.len() > self.max {
            let Some(oldest) = self.order.pop_front() else { break };
            self.rows.remove(&oldest);
        }
        // Removed sessions leave their keys in the order until these surface.
        if self.order.len() > 2 * self.max {
            self.order.retain(|key| self.rows.contains_key(key));
        }
    }

    pub(super) fn close(&mut self, key: &SessionKey) {
        self.rows.remove(key);
        self.closed.insert(*key);
    }

    pub(super) fn raise_mark(&mut self, key: &SessionKey, board: BoardName, seq: Seq) {
        let Some(row) = self.rows.get_mut(key) else { return };
        match row.read_marks.binary_search_by(|(name, _)| name.cmp(&board)) {
            Ok(at) => row.read_marks[at].1 = row.read_marks[at].1.max(seq),
            Err(at) => row.read_marks.insert(at, (board, seq)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::{Author, UserId};

    fn row(n: u8) -> SessionRow {
        let user = Author { id: UserId([n; 16]), name: "Ada".parse().expect("a name") };
        SessionRow { key: SessionKey([n; 32]), user, read_marks: Vec::new() }
    }

    #[test]
    fn what_is_told_late_of_a_closed_session_does_not_open_it() {
        let mut sessions = Sessions::new(2);
        sessions.put(row(1));
        sessions.close(&row(1).key);
        sessions.put(row(1));
        assert_eq!(sessions.get(&row(1).key), None);
        sessions.put(row(2));
        assert_eq!(sessions.get(&row(2).key), Some(&row(2)));
    }

    #[test]
    fn open_and_closed_ones_are_bounded() {
        let mut sessions = Sessions::new(2);
        for n in 0..9 {
            sessions.put(row(n));
            sessions.close(&row(n + 10).key);
        }
        assert_eq!((sessions.rows.len(), sessions.closed.lens()), (2, (2, 2)));
    }
}

//! Sessions that were seen here, so that not every request asks the store who it is.

use std::collections::{BTreeMap, VecDeque};

use crate::{
    store::SessionRow,
    types::{BoardName, Seq, SessionKey},
};

/// A bounded memory of open sessions; the oldest in goes first.
#[derive(Debug)]
pub(super) struct Sessions {
    rows: BTreeMap<SessionKey, SessionRow>,
    order: VecDeque<SessionKey>,
    max: usize,
}

impl Sessions {
    pub(super) const fn new(max: usize) -> Self {
        Self { rows: BTreeMap::new(), order: VecDeque::new(), max }
    }

    pub(super) fn get(&self, key: &SessionKey) -> Option<&SessionRow> {
        self.rows.get(key)
    }

    pub(super) fn put(&mut self, row: SessionRow) {
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

    pub(super) fn remove(&mut self, key: &SessionKey) {
        self.rows.remove(key);
    }

    pub(super) fn raise_mark(&mut self, key: &SessionKey, board: BoardName, seq: Seq) {
        let Some(row) = self.rows.get_mut(key) else { return };
        match row.read_marks.binary_search_by(|(name, _)| name.cmp(&board)) {
            Ok(at) => row.read_marks[at].1 = row.read_marks[at].1.max(seq),
            Err(at) => row.read_marks.insert(at, (board, seq)),
        }
    }
}

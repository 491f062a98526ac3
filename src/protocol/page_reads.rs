//! Reads of posts that streams share: who is behind by about as much waits for the same page.
//!
//! ```text
//!   place of a stream ──rounded down to a multiple of STEP──► page
//!   add ──► waits for the page ──end──► each takes what comes after its own place
//! ```
//!
//! 1. At most one read of a page is under way; whoever asks for the page meanwhile waits for it.
//! 2. A page holds the post after the place of each who waits for it, unless the store lacked that
//!    post when the read began: whoever waits gets further, or asks again.
//! 3. Whoever waits for a page is named once when its read ends.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use crate::{
    model::{
        bounds::{PAGE_BYTES_MAX, POST_LEN_MAX},
        ids::Seq,
    },
    protocol::streams::{PAGE_POSTS_MAX, StoreRead},
};

/// Distance between the beginnings of two pages. Half a page, so that a page reaches at least as far
/// beyond the places of those who wait for it.
pub const STEP: u32 = PAGE_POSTS_MAX / 2;

// The posts up to the last place of a step, and one more, fit into a page however long they are.
const _: () = assert!(STEP as usize * POST_LEN_MAX <= PAGE_BYTES_MAX);

/// Pages that are being read from the store, and the streams that wait for each. `S` names a stream.
#[derive(Debug)]
pub struct PageReads<S> {
    running: BTreeMap<StoreRead, BTreeSet<S>>,
}

impl<S> Default for PageReads<S> {
    fn default() -> Self {
        Self { running: BTreeMap::new() }
    }
}

impl<S: Copy + Ord> PageReads<S> {
    /// Makes a stream wait for the page that holds what it needs. Returns the read that is to be
    /// made, of [`PAGE_POSTS_MAX`] posts; `None` if it is under way. Answer with [`PageReads::end`].
    #[must_use]
    pub fn add(&mut self, id: S, needed: StoreRead) -> Option<StoreRead> {
        let StoreRead { board, after } = needed;
        let page = StoreRead { board, after: Seq(after.0 - after.0 % u64::from(STEP)) };
        match self.running.entry(page.clone()) {
            Entry::Occupied(mut waiting) => {
                waiting.get_mut().insert(id);
                None
            }
            Entry::Vacant(running) => {
                running.insert(BTreeSet::from([id]));
                Some(page)
            }
        }
    }

    /// Ends the read of a page, whatever the store answered, and returns who waited for it.
    #[must_use]
    pub fn end(&mut self, page: &StoreRead) -> BTreeSet<S> {
        self.running.remove(page).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;

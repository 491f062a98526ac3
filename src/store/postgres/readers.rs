//! Readers of the ends that other processes wrote.

use std::sync::{Mutex, PoisonError};

use crate::store::{NewEnds, new_ends::Ends};

/// Most readers of one store, such as the nodes of a test in one process.
const READERS_MAX: usize = 64;

/// Readers of what the listener hears.
#[derive(Default)]
pub(super) struct Readers(Mutex<Vec<NewEnds>>);

impl Readers {
    /// Adds a reader; one that finds no room hears of nothing.
    pub(super) fn add(&self, reader: NewEnds) {
        let mut readers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        readers.retain(|reader| !reader.is_forsaken());
        if readers.len() < READERS_MAX {
            readers.push(reader);
        }
    }

    /// Gives what was heard to all readers that are still there.
    pub(super) fn tell(&self, ends: &Ends) {
        let mut readers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        readers.retain(|reader| !reader.is_forsaken());
        for reader in readers.iter() {
            reader.add(ends.clone());
        }
    }
}

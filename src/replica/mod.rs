//! A worker's node database.

//! Everything that nodes talk about, as plain values: ids and names, time, messages, the
//! store's rows and errors, events.
//!
//! The lowest layer of the product: it uses nothing else of it, decides nothing and waits for
//! nothing.

pub mod absence;
pub mod bounds;
pub mod copies;
pub mod event;
pub mod ids;
pub mod message;
pub mod names;
pub mod outcome;
pub mod recent;
pub mod rows;
pub mod shared;
pub mod stream;
pub mod time;

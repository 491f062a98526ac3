//! Everything that nodes talk about, as plain values: ids and names, time, messages, the
//! store's rows and errors, events.
//!
//! The lowest layer of the product: it uses nothing else of it, decides nothing and waits for
//! nothing.

pub mod absence;
pub mod bounds;
pub mod copies;
pub mod event;
pub mod held;
pub mod ids;
pub(crate) mod lists;
pub mod login;
pub mod member;
pub mod message;
pub mod names;
pub mod outcome;
pub mod read_order;
pub mod recent;
pub mod refusal;
pub mod rows;
pub mod shared;
pub mod stream;
pub mod time;
pub mod update;

/// Returns the name of an enum's variant, from its `Debug` text.
pub(crate) fn variant_name(it: &impl std::fmt::Debug) -> String {
    let text = format!("{it:?}");
    text.split(['(', ' ', '{']).next().unwrap_or_default().to_owned()
}

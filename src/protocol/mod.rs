//! Decisions of a node: pure tables and two small aggregates, one for each role.
//!
//! Nothing here is `async`, does I/O, reads a clock or draws a random number. A method that
//! depends on time takes `now` first.

pub mod active_list;
pub mod admission;
pub mod assignment;
pub mod board;
pub mod calls;
pub mod dead_letters;
pub mod failed_list;
pub mod gossip;
pub mod hand_in;
pub mod jitter;
pub mod key_refresh;
pub mod master;
pub mod master_watch;
pub mod page_reads;
pub mod permission;
pub mod presence;
pub mod read_marks;
pub mod reads;
pub mod registrations;
pub mod registry;

pub mod search;
pub mod selection;
pub mod session_repair;
pub mod sessions;
pub mod store_clock;
pub mod store_watch;
pub mod streams;
pub mod task_queue;
pub mod tries;
pub mod turns;
pub mod worker;

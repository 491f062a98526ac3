//! What decides: pure tables and two small aggregates. No `async`, no I/O, no clock, no global
//! randomness. A method that depends on time takes `now` first.

pub mod assignment;
pub mod permission;
pub mod task_queue;

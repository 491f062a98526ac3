//! What decides: pure tables and two small aggregates. No `async`, no I/O, no clock, no global
//! randomness. A method that depends on time takes `now` first.

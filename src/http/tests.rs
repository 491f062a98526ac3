//! The front end from outside: real requests on in-memory connections, a paused clock, and a
//! master that keeps its promises in memory.

mod access;
mod admin;
mod api;
mod bad_input;
mod contract;
mod limits;
mod long_answers;
mod server;
mod slow_readers;
mod stream;
mod tls;

//! The front end from outside: real requests on in-memory connections, a paused clock, and a
//! master that keeps its promises in memory.

mod access;
mod admin;
mod api;
mod bad_input;
mod contract;
mod long_answers;
mod server;
mod stream;
mod tls;

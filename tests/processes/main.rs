//! Tests of whole clusters as an operator starts them: real processes, real signals.
#![expect(clippy::disallowed_methods, reason = "this watches processes from outside, in real time")]

mod dead_letters;
mod drain;
mod harness;
mod life;
mod logins;
mod operators;
mod refusals;
mod restore;
mod tls;
mod wire;

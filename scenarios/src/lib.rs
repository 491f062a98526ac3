//! Fault stories, the people who live through them, and the oracles that judge what they saw.
#![forbid(unsafe_code)]

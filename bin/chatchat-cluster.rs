//! Stands for what is built next.
fn main() {}

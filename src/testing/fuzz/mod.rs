//! Bodies of fuzz targets. Each takes any bytes, as a stranger or a hostile node would send them,
//! and panics if a promise about such bytes is broken.
//!
//! The ordinary tests run them on random bytes and on changed valid ones; `examples/fuzz.rs` runs
//! them for as long as one likes, and `fuzz/` gives them to a fuzzer that follows the code.
//!
//! 1. A body depends on its bytes alone, so that an input fails each time or never.
//! 2. An input that failed once stays in `fuzz/corpus/TARGET/`, and a test runs all of these.

mod codec;
mod crypto;
mod handshake;
mod invalid;
mod link;
mod mutate;
mod people;
mod renewal;
#[cfg(test)]
mod tests;
mod world;

pub use self::mutate::mutated;

/// Body with inputs to begin from.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Name, which is also that of its folder of inputs.
    pub name: &'static str,
    /// Runs one input, and returns whether it was taken for a valid one.
    pub run: fn(&[u8]) -> bool,
    /// Returns valid inputs, the same ones each time.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Returns invalid inputs, each with the name of its fault, the same ones each time.
    pub invalid: fn() -> Vec<(&'static str, Vec<u8>)>,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target {
        name: "frames",
        run: codec::frames,
        seeds: codec::frame_seeds,
        invalid: invalid::frames,
    },
    Target {
        name: "codec",
        run: codec::values,
        seeds: codec::value_seeds,
        invalid: invalid::values,
    },
    Target { name: "keys", run: crypto::keys, seeds: crypto::key_seeds, invalid: invalid::keys },
    Target {
        name: "records",
        run: crypto::records,
        seeds: crypto::record_seeds,
        invalid: invalid::records,
    },
    Target {
        name: "envelopes",
        run: crypto::envelopes,
        seeds: crypto::envelope_seeds,
        invalid: invalid::envelopes,
    },
    Target {
        name: "handshake",
        run: handshake::run,
        seeds: handshake::seeds,
        invalid: invalid::handshakes,
    },
    Target {
        name: "renewal",
        run: renewal::run,
        seeds: renewal::seeds,
        invalid: invalid::renewals,
    },
    Target { name: "link", run: link::run, seeds: link::seeds, invalid: invalid::links },
    Target {
        name: "bodies",
        run: people::bodies,
        seeds: people::body_seeds,
        invalid: invalid::bodies,
    },
    Target {
        name: "cursors",
        run: people::cursors,
        seeds: people::cursor_seeds,
        invalid: invalid::cursors,
    },
];

/// Returns the target of this name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

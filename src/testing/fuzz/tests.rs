use std::{fs, path::PathBuf};

use dst_env::rng::Seed;

use super::*;

/// Inputs of each target in the ordinary tests, in proportion to what one costs.
const RUNS: [(&str, usize); 10] = [
    ("frames", 20_000),
    ("codec", 20_000),
    ("keys", 1_000),
    ("records", 10_000),
    ("envelopes", 5_000),
    ("handshake", 600),
    ("renewal", 300),
    ("link", 2_000),
    ("bodies", 20_000),
    ("cursors", 20_000),
];

fn corpus(target: &Target) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "fuzz", "corpus", target.name].iter().collect()
}

#[test]
fn random_and_changed_inputs_break_no_promise() {
    assert_eq!(RUNS.len(), TARGETS.len());
    for (name, runs) in RUNS {
        let target = target(name).expect("a target");
        let (mut rng, mut seeds) = (Seed(1).stream(name), (target.seeds)());
        seeds.extend((target.invalid)().into_iter().map(|(_, input)| input));
        let taken = (0..runs).filter(|_| (target.run)(&mutated(&mut rng, &seeds))).count();
        // Some inputs are unchanged seeds; most are not valid any more.
        assert!(taken > 0 && taken < runs, "{name}: {taken} of {runs} were taken for valid");
    }
}

#[test]
fn every_valid_input_is_taken() {
    for target in TARGETS {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{}", target.name);
        for (nth, seed) in seeds.iter().enumerate() {
            assert!((target.run)(seed), "{} {nth}", target.name);
        }
    }
}

#[test]
fn every_invalid_input_is_refused() {
    for target in TARGETS {
        let invalid = (target.invalid)();
        assert!(invalid.len() > 4, "{}", target.name);
        for (fault, input) in invalid {
            assert!(!(target.run)(&input), "{} {fault}", target.name);
        }
    }
}

#[test]
fn kept_inputs_hold_and_the_written_ones_are_among_them() {
    for target in TARGETS {
        let folder = corpus(target);
        let mut kept = Vec::new();
        for entry in fs::read_dir(&folder).expect("a folder of inputs") {
            let bytes = fs::read(entry.expect("readable").path()).expect("readable");
            (target.run)(&bytes);
            kept.push(bytes);
        }
        let invalid = (target.invalid)().into_iter().map(|(_, input)| input);
        let all = (target.seeds)().into_iter().chain(invalid).all(|seed| kept.contains(&seed));
        let again = "cargo run --example fuzz -- --write-corpus fuzz/corpus";
        assert!(all, "{} lacks inputs; {again} adds them", folder.display());
    }
}

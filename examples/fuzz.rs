//! Runs the bodies of the fuzz targets on random and changed inputs, and counts.
//!
//! ```text
//! cargo run --release --example fuzz -- [TARGET] [SECONDS] [SEED]
//! cargo run --example fuzz -- --write-corpus fuzz/corpus
//! ```
//!
//! An input that breaks a promise panics; it is written to a file first, whose name is printed.
#![expect(clippy::disallowed_methods, reason = "it measures real time")]

use std::{
    env, fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use chatchat::testing::fuzz::{TARGETS, Target, mutated, target};
use dst_env::rng::Seed;

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    if let [flag, folder] = &args[..]
        && flag == "--write-corpus"
    {
        return match write_corpus(Path::new(folder)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                eprintln!("{folder}: {why}");
                ExitCode::FAILURE
            }
        };
    }
    let number = |at: usize, or: u64| args.get(at).map_or(Some(or), |text| text.parse().ok());
    let named = args.first().filter(|name| *name != "all");
    let targets: Vec<&Target> = match named {
        None => TARGETS.iter().collect(),
        Some(name) => target(name).into_iter().collect(),
    };
    let (Some(seconds), Some(seed), false) = (number(1, 10), number(2, 1), targets.is_empty())
    else {
        let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!("want [TARGET] [SECONDS] [SEED]; the targets are all {}", names.join(" "));
        return ExitCode::from(2);
    };
    let mut total = 0;
    for target in targets {
        match run(target, Duration::from_secs(seconds), seed) {
            Ok(runs) => total += runs,
            Err(input) => {
                let file = env::temp_dir().join(format!("fuzz-{}-{seed}", target.name));
                let kept = fs::write(&file, input).map(|()| file.display().to_string());
                eprintln!("{}: the input is in {kept:?}", target.name);
                return ExitCode::FAILURE;
            }
        }
    }
    println!("{total} inputs in all");
    ExitCode::SUCCESS
}

/// Runs inputs for so long and returns their number, or the input that broke a promise.
fn run(target: &Target, length: Duration, seed: u64) -> Result<u64, Vec<u8>> {
    let (mut rng, seeds) = (Seed(seed).stream(target.name), (target.seeds)());
    let (begun, mut runs, mut taken) = (Instant::now(), 0_u64, 0_u64);
    while begun.elapsed() < length {
        for _ in 0..64 {
            let input = mutated(&mut rng, &seeds);
            match catch_unwind(AssertUnwindSafe(|| (target.run)(&input))) {
                Ok(valid) => (runs, taken) = (runs + 1, taken + u64::from(valid)),
                Err(_) => return Err(input),
            }
        }
    }
    let per_s = runs as f64 / begun.elapsed().as_secs_f64();
    println!("{:10} {runs:10} inputs, {taken:8} valid, {per_s:9.0} per second", target.name);
    Ok(runs)
}

/// Writes the valid and the invalid inputs of each target to its folder.
fn write_corpus(folder: &Path) -> io::Result<()> {
    for target in TARGETS {
        let folder = folder.join(target.name);
        fs::create_dir_all(&folder)?;
        for (nth, seed) in (target.seeds)().iter().enumerate() {
            fs::write(folder.join(format!("valid-{nth:02}")), seed)?;
        }
        for (fault, input) in (target.invalid)() {
            fs::write(folder.join(format!("invalid-{fault}")), input)?;
        }
    }
    Ok(())
}

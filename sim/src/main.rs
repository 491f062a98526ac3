//! `chatchat-sim`: runs stories in the simulated world.
#[cfg(madsim)]
mod cli;

#[cfg(madsim)]
fn main() -> std::process::ExitCode {
    cli::run()
}

#[cfg(not(madsim))]
fn main() {}

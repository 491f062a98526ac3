//! `chatchat-sim`: runs stories in the simulated world.
#[cfg(madsim)]
mod cli;

/// A run is many small allocations on a thread of its own, for which it is made.
#[cfg(madsim)]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[cfg(madsim)]
fn main() -> std::process::ExitCode {
    cli::run()
}

#[cfg(not(madsim))]
fn main() {}

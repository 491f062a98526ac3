//! One worker in one process; see `chatchat::programs::worker`.

use std::process::ExitCode;

use chatchat::programs;

fn main() -> ExitCode {
    programs::exit("chatchat-worker", programs::worker::main(std::env::args_os()))
}

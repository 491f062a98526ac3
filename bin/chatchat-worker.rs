//! One worker; see `chatchat::programs`.

use std::process::ExitCode;

use chatchat::programs;

fn main() -> ExitCode {
    programs::exit("chatchat-worker", programs::node::worker_main(std::env::args_os()))
}

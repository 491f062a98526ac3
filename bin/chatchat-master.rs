//! One master in one process; see `chatchat::programs::master`.

use std::process::ExitCode;

use chatchat::programs;

fn main() -> ExitCode {
    programs::exit("chatchat-master", programs::master::main(std::env::args_os()))
}

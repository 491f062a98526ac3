//! A whole cluster on this machine; see `chatchat::programs::cluster`.

use std::process::ExitCode;

use chatchat::programs;

fn main() -> ExitCode {
    programs::exit("chatchat-cluster", programs::cluster::main(std::env::args_os()))
}

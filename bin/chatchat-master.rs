//! One master; see `chatchat::programs`.

use std::process::ExitCode;

use chatchat::programs;

fn main() -> ExitCode {
    programs::exit("chatchat-master", programs::node::master_main(std::env::args_os()))
}

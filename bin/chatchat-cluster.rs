//! A whole cluster on this machine; see `chatchat::launch`.

use std::process::ExitCode;

use chatchat::launch;

fn main() -> ExitCode {
    launch::exit("chatchat-cluster", launch::cluster::main(std::env::args_os()))
}

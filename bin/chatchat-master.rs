//! One master; see `chatchat::launch`.

use std::process::ExitCode;

use chatchat::launch;

fn main() -> ExitCode {
    launch::exit("chatchat-master", launch::node::master_main(std::env::args_os()))
}

//! One worker; see `chatchat::launch`.

use std::process::ExitCode;

use chatchat::launch;

fn main() -> ExitCode {
    launch::exit("chatchat-worker", launch::node::worker_main(std::env::args_os()))
}

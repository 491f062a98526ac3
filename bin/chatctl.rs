//! Chat with a cluster from a shell, and show its state; see `chatchat::programs::ctl`.

use std::process::ExitCode;

fn main() -> ExitCode {
    chatchat::programs::ctl::main(std::env::args_os())
}

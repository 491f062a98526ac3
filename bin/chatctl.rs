//! `chatctl`: chat with a cluster from a shell, and see how it is.

use std::process::ExitCode;

fn main() -> ExitCode {
    chatchat::programs::ctl::main(std::env::args_os())
}

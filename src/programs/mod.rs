//! Programs: a cluster of processes, one master, one worker, and `chatctl`.
//!
//! ```text
//! chatchat-cluster ──> cluster ──> itself again as a master or worker, once per node
//! chatchat-master  ──> master  ──> process ──> run_master ─┐
//! chatchat-worker  ──> worker  ──> process ──> run_worker ─┴─> node
//! chatctl          ──> ctl     ──> client
//! ```
//!
//! [`run_master`] and [`run_worker`] are the only ways to start a node. The programs, the
//! simulation, the tests and the benches share them; what differs is the [`Env`](crate::env::Env).
//!
//! 1. A setting has the same name as a flag, a variable and a key of the file. The flag wins over
//!    the variable, the variable over the file.
//! 2. A wrong call is reported before anything is started: one line on stderr that says what to
//!    do, and exit code 2.

pub mod cluster;
pub mod ctl;
pub mod master;
mod node_store;
mod output;
mod process;
mod service_manager;
pub mod settings;
#[cfg(test)]
mod tests;
mod tls;
pub mod worker;

use std::process::ExitCode;

use thiserror::Error;

pub use self::{
    master::{MasterError, MasterParams, run_master},
    process::{OF_ONE_PEER, Stop},
    worker::{WorkerError, WorkerParams, run_worker},
};

/// Error that ends a program.
#[derive(Debug, Error)]
pub enum ProgramError {
    /// The arguments do not parse, or ask for help. Nothing was started.
    #[error(transparent)]
    Arguments(#[from] clap::Error),
    /// The program was called in a way that cannot work. Nothing was started.
    #[error("{0}")]
    Usage(String),
    /// The program started and could not go on.
    #[error("{0}")]
    Failed(String),
}

impl ProgramError {
    /// Prints the error on stderr, or help on stdout, and returns the exit code.
    #[must_use]
    pub fn report(&self, program: &str) -> ExitCode {
        match self {
            Self::Arguments(e) => {
                // A closed stderr cannot be reported anywhere.
                let _ = e.print();
                ExitCode::from(u8::try_from(e.exit_code()).unwrap_or(2))
            }
            Self::Usage(_) | Self::Failed(_) => {
                output::complain(program, &self.to_string().replace('\n', " "));
                ExitCode::from(if matches!(self, Self::Usage(_)) { 2 } else { 1 })
            }
        }
    }
}

/// Reports a program's error, if there is one, and returns the exit code for `main`.
#[must_use]
pub fn exit(program: &str, ended: Result<(), ProgramError>) -> ExitCode {
    ended.map_or_else(|e| e.report(program), |()| ExitCode::SUCCESS)
}

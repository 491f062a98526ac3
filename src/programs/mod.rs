//! The programs that start nodes: settings, one node in one process, a cluster of processes.
//!
//! ```text
//! chatchat-master, chatchat-worker ──> settings ──> node ──> run_master, run_worker
//! chatchat-cluster ──> settings ──> cluster ──> itself again, once per node ──> node
//! ```
//!
//! 1. A flag, a variable and a key of the file that say the same thing have the same name, and
//!    the flag wins over the variable, the variable over the file.
//! 2. What is wrong with how a program was called is said before anything is started, in one
//!    line on stderr with the way out, and the exit code is 2.

pub mod cluster;
pub mod ctl;
pub mod node;
pub mod run;
pub mod settings;

use std::{
    fs::{File, OpenOptions, TryLockError},
    net::TcpListener,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    process::ExitCode,
};

use thiserror::Error;

use crate::env::real::make_private_dir;

/// Why a program did not start, or ended.
#[derive(Debug, Error)]
pub enum LaunchError {
    /// The arguments do not parse, or ask for help. Nothing was started.
    #[error(transparent)]
    Arguments(#[from] clap::Error),
    /// It was called in a way that cannot work. Nothing was started.
    #[error("{0}")]
    Usage(String),
    /// It started and could not go on.
    #[error("{0}")]
    Failed(String),
}

impl LaunchError {
    /// Says it on stderr, or on stdout where help was asked for, and gives the exit code.
    #[must_use]
    pub fn report(&self, program: &str) -> ExitCode {
        match self {
            Self::Arguments(e) => {
                // A closed stderr is nothing that could be said anywhere.
                let _ = e.print();
                ExitCode::from(u8::try_from(e.exit_code()).unwrap_or(2))
            }
            Self::Usage(_) | Self::Failed(_) => {
                let line = self.to_string().replace('\n', " ");
                eprintln!("{program}: {line}");
                ExitCode::from(if matches!(self, Self::Usage(_)) { 2 } else { 1 })
            }
        }
    }
}

/// What a program's `main` returns.
#[must_use]
pub fn exit(program: &str, ended: Result<(), LaunchError>) -> ExitCode {
    ended.map_or_else(|e| e.report(program), |()| ExitCode::SUCCESS)
}

/// Holds a directory for one program; it is free again when this is dropped, or with the
/// process however it ends.
#[derive(Debug)]
pub struct DirLock(#[expect(dead_code, reason = "held, not read")] File);

impl DirLock {
    /// Makes the directory if it is not there, and takes it.
    ///
    /// # Errors
    /// [`LaunchError::Usage`] when it cannot be made or another program has it.
    pub fn take(dir: &Path) -> Result<Self, LaunchError> {
        let refuse = |why: &dyn std::fmt::Display| {
            let dir = dir.display();
            LaunchError::Usage(format!("the data directory {dir} cannot be used: {why}"))
        };
        make_private_dir(dir).map_err(|e| refuse(&e))?;
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(dir.join("lock"))
            .map_err(|e| refuse(&e))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(refuse(
                &"another chatchat runs on it; stop that one, or choose another with --data-dir",
            )),
            Err(TryLockError::Error(e)) => Err(refuse(&e)),
        }
    }
}

/// Sees whether one can listen on `addr`; `flag` is what chooses another.
///
/// # Errors
/// [`LaunchError::Usage`] with the way out.
pub fn check_port(addr: &str, flag: &str) -> Result<(), LaunchError> {
    match TcpListener::bind(addr) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => Err(LaunchError::Usage(format!(
            "{addr} is taken; stop what listens there, or choose another with {flag}"
        ))),
        Err(e) => Err(LaunchError::Usage(format!(
            "cannot listen on {addr}: {e}; choose another with {flag}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::real::TempDir;

    #[test]
    fn a_directory_is_one_programs_at_a_time() {
        let temp = TempDir::new().expect("a directory");
        let lock = DirLock::take(temp.path()).expect("free");
        let refused = DirLock::take(temp.path()).expect_err("taken");
        assert!(refused.to_string().contains("another chatchat runs on it"), "{refused}");
        drop(lock);
        assert!(DirLock::take(temp.path()).is_ok());
    }

    #[test]
    fn a_taken_port_is_said_with_the_way_out() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = taken.local_addr().expect("bound").to_string();
        let refused = check_port(&addr, "--http").expect_err("taken");
        assert_eq!(
            refused.to_string(),
            format!("{addr} is taken; stop what listens there, or choose another with --http")
        );
        drop(taken);
        assert!(check_port(&addr, "--http").is_ok());
    }
}

//! Limits and standard streams of the process.

use std::{fs::File, io};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

/// Raises the number of files that this process may open to the most that the system allows it, and
/// returns that number. A limit that cannot be raised stays as it is.
#[must_use]
pub fn raise_files_max() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // Some systems allow fewer than the hard limit says.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Sends what this process writes to stderr from now on to this file.
///
/// # Errors
/// The system's; stderr is as it was.
pub fn redirect_stderr(file: &File) -> io::Result<()> {
    Ok(rustix::stdio::dup2_stderr(file)?)
}

/// Asks another process to open its logs anew, by SIGHUP.
///
/// # Errors
/// The system's, such as for a process that has ended.
pub fn hang_up(pid: u32) -> io::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    Ok(kill_process(pid.ok_or(io::ErrorKind::InvalidInput)?, Signal::HUP)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_of_open_files_is_raised_to_the_hard_one() {
        let files_max = raise_files_max();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
        assert_eq!(limit.current.unwrap_or(u64::MAX), files_max);
    }
}

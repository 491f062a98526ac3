//! Output of a program: its answer on stdout, its complaints and its log on stderr.
//!
//! 1. An answer that cannot be written is an error: its reader waits for it.
//! 2. A complaint or a log line that cannot be written ends nothing. Lost log lines are counted,
//!    and the count is written as soon as the log can be written again.

use std::{
    io::{self, Write},
    sync::atomic::{AtomicU64, Ordering},
};

use super::ProgramError;

/// Writes a program's answer to stdout.
///
/// # Errors
/// [`ProgramError::Failed`]: a part of it may be written.
pub(super) fn answer(text: &str) -> Result<(), ProgramError> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|e| ProgramError::Failed(format!("stdout cannot be written: {e}")))
}

/// Writes a line to stderr, if it can be written.
pub(super) fn complain(program: &str, line: &dyn std::fmt::Display) {
    // There is no other place that would know of it.
    let _ = writeln!(io::stderr(), "{program}: {line}");
}

/// Writer of log lines, which drops and counts those that cannot be written.
pub(super) struct LogWriter<'a, W> {
    to: W,
    lost: &'a AtomicU64,
}

impl LogWriter<'static, io::Stderr> {
    /// Returns a writer to stderr. All of them count together.
    pub(super) fn to_stderr() -> Self {
        static LOST: AtomicU64 = AtomicU64::new(0);
        Self { to: io::stderr(), lost: &LOST }
    }
}

impl<W: Write> Write for LogWriter<'_, W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let lost = self.lost.load(Ordering::Relaxed);
        if lost > 0 {
            // A line feed first: the last line may be cut.
            if writeln!(self.to, "\n{lost} log lines could not be written and are lost").is_ok() {
                self.lost.fetch_sub(lost, Ordering::Relaxed);
            }
        }
        if self.to.write_all(line).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// File on a disk that can be full.
    #[derive(Default)]
    struct Disk {
        is_full: bool,
        text: Vec<u8>,
    }

    impl Write for &mut Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.is_full {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.text.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn log_lines_lost_on_a_full_disk_are_counted_and_reported_later() {
        let (mut disk, lost) = (Disk::default(), AtomicU64::new(0));
        for (line, is_full) in [("a\n", false), ("b\n", true), ("c\n", true), ("d\n", false)] {
            disk.is_full = is_full;
            let mut log = LogWriter { to: &mut disk, lost: &lost };
            log.write_all(line.as_bytes()).expect("a lost line is no error");
        }
        let want = "a\n\n2 log lines could not be written and are lost\nd\n";
        assert_eq!(String::from_utf8_lossy(&disk.text), want);
    }
}

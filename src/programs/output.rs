//! Output of a program: its answer on stdout, its complaints and its log on stderr.
//!
//! 1. An answer that cannot be written is an error: its reader waits for it.
//! 2. A complaint or a log line that cannot be written ends nothing, and delays nothing. Lost log
//!    lines are counted, and the count is written as soon as the log can be written again.

use std::io::{self, Write};

use super::ProgramError;
use crate::env::real::{FLUSH_MAX, LineQueue};

/// Writes a program's answer to stdout.
///
/// # Errors
/// [`ProgramError::Failed`]: a part of it may be written.
pub(super) fn answer(text: &str) -> Result<(), ProgramError> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|e| ProgramError::Failed(format!("stdout cannot be written: {e}")))
}

/// Writes a line to stderr, if it takes one within a second.
pub(super) fn complain(program: &str, line: &dyn std::fmt::Display) {
    if let Ok(lines) = LineQueue::start("complaint", sink(io::stderr())) {
        lines.push(format!("{program}: {line}\n").into_bytes());
        // Its end waits for the line. There is no other place that would know of a failure.
    }
}

/// Starts the queue of the log on stderr.
///
/// # Errors
/// There is no thread for it.
pub(super) fn log_to_stderr() -> io::Result<LineQueue> {
    LineQueue::start("log", sink(io::stderr()))
}

/// Returns what writes log lines, and how many were lost before one.
fn sink(mut to: impl Write) -> impl FnMut(&[u8], u64) -> bool {
    move |line, lost| {
        // A line feed first: the last line may be cut.
        let said = lost == 0
            || writeln!(to, "\n{lost} log lines could not be written and are lost").is_ok();
        said && to.write_all(line).is_ok()
    }
}

/// Writer of log lines, one in each call.
pub(super) struct LogWriter(pub(super) LineQueue);

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Queues that are flushed when this is dropped, so also when a panic ends the program.
pub(super) struct Flushed(pub(super) Vec<LineQueue>);

impl Drop for Flushed {
    fn drop(&mut self) {
        for lines in &self.0 {
            lines.flush(FLUSH_MAX);
        }
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
        let (mut disk, mut lost) = (Disk::default(), 0);
        for (line, is_full) in [("a\n", false), ("b\n", true), ("c\n", true), ("d\n", false)] {
            disk.is_full = is_full;
            lost += u64::from(!sink(&mut disk)(line.as_bytes(), lost));
        }
        let want = "a\n\n2 log lines could not be written and are lost\nd\n";
        assert_eq!(String::from_utf8_lossy(&disk.text), want);
    }
}

//! Log lines of a test's own thread, kept for it to look at.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use tracing::{
    Dispatch,
    subscriber::{DefaultGuard, NoSubscriber, set_default},
};

/// Lines that this thread logs as long as this lives.
pub(crate) struct Logged {
    lines: Lines,
    /// With one subscriber alone, a place in the code that another thread comes to first counts as of no
    /// interest to anybody, for good.
    _second: Dispatch,
    _listens: DefaultGuard,
}

impl Logged {
    pub(crate) fn here() -> Self {
        let lines = Lines::default();
        let writer = lines.clone();
        let second = Dispatch::new(NoSubscriber::default());
        let log = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
        Self { lines, _second: second, _listens: set_default(log.finish()) }
    }

    /// Counts how often a text was logged so far.
    pub(crate) fn count(&self, text: &str) -> usize {
        let lines = self.lines.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&lines).matches(text).count()
    }
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

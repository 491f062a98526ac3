//! Lines on their way to a sink that may block, such as a pipe that nobody reads: a bounded queue and
//! a thread of its own.
//!
//! 1. [`LineQueue::push`] never waits. A line beyond the bounds is dropped and counted.
//! 2. Lines arrive in order. What was lost is said to the sink with the next line that goes out.
//! 3. The last handle that is dropped waits at most [`FLUSH_MAX`] for what is queued.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Maximum number of lines that wait.
const LINES_MAX: usize = 8192;
/// Maximum bytes of the lines that wait.
const BYTES_MAX: usize = 4 * 1024 * 1024;
/// Time that the end of a queue waits for its sink.
pub const FLUSH_MAX: Duration = Duration::from_secs(1);

/// Handle on a queue of lines.
#[derive(Clone, Debug)]
pub struct LineQueue(Arc<Handle>);

#[derive(Debug)]
struct Handle(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Whether the thread has a line that is not written yet.
    is_writing: bool,
    has_ended: bool,
    /// Lines lost in all.
    lost: u64,
    /// Lines lost that the sink was not told of.
    unsaid: u64,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what comes until the queue has ended and is empty.
    fn run(&self, mut sink: impl FnMut(&[u8], u64) -> bool) {
        loop {
            let is_idle = |state: &mut State| state.lines.is_empty() && !state.has_ended;
            let waited = self.changed.wait_while(self.state(), is_idle);
            let mut state = waited.unwrap_or_else(PoisonError::into_inner);
            let Some(line) = state.lines.pop_front() else { return };
            state.bytes -= line.len();
            state.is_writing = true;
            let said = state.unsaid;
            drop(state);
            let written = sink(&line, said);
            let mut state = self.state();
            state.is_writing = false;
            if written {
                state.unsaid -= said;
            } else {
                state.lost += 1;
                state.unsaid += 1;
            }
            drop(state);
            self.changed.notify_all();
        }
    }
}

impl LineQueue {
    /// Starts a queue whose thread has this name. `sink` gets a line and the number of lines that
    /// were lost before it and not said yet, and returns whether it wrote both.
    ///
    /// # Errors
    /// There is no thread for it.
    pub fn start(
        name: &str,
        sink: impl FnMut(&[u8], u64) -> bool + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let thread = Arc::clone(&shared);
        std::thread::Builder::new().name(name.to_owned()).spawn(move || thread.run(sink))?;
        Ok(Self(Arc::new(Handle(shared))))
    }

    /// Queues a line, or drops and counts it.
    pub fn push(&self, line: Vec<u8>) {
        let mut state = self.0.0.state();
        if state.lines.len() >= LINES_MAX || state.bytes + line.len() > BYTES_MAX {
            state.lost += 1;
            state.unsaid += 1;
            return;
        }
        state.bytes += line.len();
        state.lines.push_back(line);
        drop(state);
        self.0.0.changed.notify_all();
    }

    /// Returns the number of lines that were lost.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.0.0.state().lost
    }

    /// Waits until all that is queued was written, at most for `limit`. Blocks: for the end of a
    /// program. Returns whether it was.
    pub fn flush(&self, limit: Duration) -> bool {
        self.0.flush(limit)
    }
}

impl Handle {
    fn flush(&self, limit: Duration) -> bool {
        let is_busy = |state: &mut State| state.is_writing || !state.lines.is_empty();
        let waited = self.0.changed.wait_timeout_while(self.0.state(), limit, is_busy);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.flush(FLUSH_MAX);
        self.0.state().has_ended = true;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn blocked_sink_delays_nobody_and_is_told_what_was_lost() {
        let (open, gate) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        let queue = LineQueue::start("lines", move |line, lost| {
            // Blocks until the test lets it go.
            let _ = gate.recv();
            tell.send((line.to_vec(), lost)).is_ok()
        })
        .expect("a thread");
        let extra = 100;
        for n in 0..LINES_MAX + 1 + extra {
            queue.push(n.to_string().into_bytes());
        }
        let lost = queue.lost();
        assert!((extra as u64..=extra as u64 + 1).contains(&lost), "{lost}");
        assert!(!queue.flush(Duration::from_millis(10)));
        drop(open);
        assert!(queue.flush(Duration::from_secs(30)));
        let lines: Vec<_> = told.try_iter().collect();
        assert_eq!(lines.len() as u64, LINES_MAX as u64 + 1 + extra as u64 - lost);
        assert_eq!(lines.iter().map(|(_, lost)| lost).sum::<u64>(), lost, "said once");
        assert_eq!(lines[0].0, b"0");
    }
}

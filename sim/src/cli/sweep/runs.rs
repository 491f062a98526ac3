//! Processes of a campaign, several side by side.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, sync_channel},
    },
    thread,
    time::Duration,
};

use chatchat_sim::summary::Summary;

use crate::cli::child::{self, Job, Program};

/// Starts the runs, `at_a_time` of them side by side; they end in any order.
///
/// # Errors
/// A sentence for the person who asked: this program cannot be found or no thread started.
pub(super) fn start(
    jobs: Vec<Job>,
    at_a_time: usize,
    limit: Duration,
    is_over: &Arc<AtomicBool>,
) -> Result<Receiver<(Job, Summary)>, String> {
    let program = Program::this()?;
    let jobs = Arc::new(Mutex::new(VecDeque::from(jobs)));
    let (send, receive) = sync_channel(at_a_time);
    for nth in 0..at_a_time {
        let (jobs, is_over, send) = (Arc::clone(&jobs), Arc::clone(is_over), send.clone());
        let program = program.clone();
        let worker = move || {
            while !is_over.load(Ordering::Relaxed) {
                let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                let Some(job) = next else { break };
                let Some(summary) = child::run_unless_interrupted(&program, &job, limit) else {
                    // A terminal interrupts all processes, and the runs may end of it before this
                    // one hears of it.
                    is_over.store(true, Ordering::Relaxed);
                    break;
                };
                // A run that was under way at an interrupt shows nothing.
                if is_over.load(Ordering::Relaxed) || send.send((job, summary)).is_err() {
                    break;
                }
            }
        };
        let named = thread::Builder::new().name(format!("runs-{nth}"));
        named.spawn(worker).map_err(|why| format!("a thread cannot be started: {why}"))?;
    }
    Ok(receive)
}

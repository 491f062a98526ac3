//! The table of a link under the orders in which threads can take its lock and its signal: what is
//! queued is written once, and nobody waits for what will never come.

use std::sync::Arc;

use loom::{
    sync::{Mutex, Notify},
    thread,
};

use super::{tests::frame_of, *};
use crate::{
    model::{
        ids::KeyEpoch,
        message::{CloseReason, Direct, Request},
    },
    wire::frame::Frame,
};

const LEAVES: Close = Close { reason: CloseReason::Leaving, retry_ms: 0 };

/// State that a link's task and its handles share, with `loom`'s lock and signal.
struct Table {
    state: Mutex<LinkState>,
    work: Notify,
}

impl Table {
    fn new() -> Arc<Self> {
        let state = Mutex::new(LinkState::new(&LinkLimits::default()));
        Arc::new(Self { state, work: Notify::new() })
    }

    /// Runs a thread beside this one.
    fn beside<T: 'static>(
        self: &Arc<Self>,
        act: impl FnOnce(&Self) -> T + 'static,
    ) -> thread::JoinHandle<T> {
        let table = Arc::clone(self);
        thread::spawn(move || act(&table))
    }

    fn with<T>(&self, act: impl FnOnce(&mut LinkState) -> T) -> T {
        act(&mut self.state.lock().expect("nobody panicked"))
    }

    fn call(&self) -> (Result<CallId, CallError>, oneshot::Receiver<Result<Response, CallError>>) {
        let (answer, answered) = oneshot::channel();
        let bytes = frame::request(0, 1, &Request::Echo(vec![])).expect("short");
        (self.with(|state| state.call(bytes, Room::Shared, answer)), answered)
    }

    /// Writes as a link's task does, until it has to send the close.
    fn write_until_closed(&self) -> Vec<Frame> {
        let (mut wrote, mut batch) = (Vec::new(), Vec::new());
        loop {
            let taken = self.with(|state| state.take(&mut batch));
            if batch.is_empty() {
                if taken.close.is_some() {
                    return wrote;
                }
                self.work.wait();
            }
            wrote.extend(batch.drain(..).map(frame_of));
        }
    }
}

/// Runs every order with at most so many preemptions of a thread: all orders of three threads take
/// minutes.
fn each_order(run: impl Fn() + Sync + Send + 'static) {
    let mut orders = loom::model::Builder::new();
    orders.preemption_bound = Some(2);
    orders.check(run);
}

#[test]
fn what_is_queued_before_the_close_is_written_once_and_a_call_before_its_cancel() {
    each_order(|| {
        let table = Table::new();
        let sender = table.beside(|table| {
            let bytes = frame::direct(&Direct::KeyHeld(KeyEpoch(1))).expect("short");
            let queued = table.with(|state| state.push(Outgoing::Frame(bytes)));
            table.work.notify();
            queued.is_ok()
        });
        let caller = table.beside(|table| {
            let id = table.call().0.expect("there is room");
            table.work.notify();
            let is_cancelled = table.with(|state| state.give_up(id));
            table.with(|state| state.close(LEAVES));
            table.work.notify();
            is_cancelled
        });
        let wrote = table.write_until_closed();
        let (is_queued, is_cancelled) =
            (sender.join().expect("sends"), caller.join().expect("calls"));
        let place = |is_it: fn(&Frame) -> bool| {
            let found: Vec<_> = (0..wrote.len()).filter(|nth| is_it(&wrote[*nth])).collect();
            assert!(found.len() <= 1, "written once: {wrote:?}");
            found.first().copied()
        };
        assert_eq!(place(|it| matches!(it, Frame::Direct(_))).is_some(), is_queued);
        let call = place(|it| matches!(it, Frame::Request { .. }));
        let cancel = place(|it| matches!(it, Frame::Cancel { .. }));
        assert_eq!((call.is_some(), cancel.is_some()), (is_cancelled, is_cancelled), "{wrote:?}");
        assert!(call <= cancel, "{wrote:?}");
    });
}

#[test]
fn caller_is_told_whenever_the_link_ends() {
    each_order(|| {
        let table = Table::new();
        let ends = table.beside(|table| {
            table.with(LinkState::cut);
        });
        let writes = table.beside(|table| {
            let mut batch = Vec::new();
            table.with(|state| state.take(&mut batch));
            !batch.is_empty()
        });
        let (called, mut answered) = table.call();
        ends.join().expect("ends");
        let is_sent = writes.join().expect("writes");
        let told = answered.try_recv();
        match called {
            Err(refused) => assert_eq!(refused, CallError::Closed),
            // Whether it was sent decides whether it may have been done.
            Ok(_) if is_sent => assert_eq!(told, Err(oneshot::error::TryRecvError::Closed)),
            Ok(_) => assert_eq!(told, Ok(Err(CallError::Closed))),
        }
    });
}

#[test]
fn call_is_answered_once_or_its_answer_is_unwanted() {
    each_order(|| {
        let table = Table::new();
        assert_eq!(table.with(|state| state.serve(1, Room::Shared)), Ok(true));
        let cancels =
            table.beside(|table| table.with(|state| state.cancel(1)).expect("it was served"));
        let response = frame::response(1, &Response::Echo(vec![])).expect("short");
        let answered = table.with(|state| state.respond(1, response, AnswerRoom::Short));
        cancels.join().expect("cancels");
        let mut batch = Vec::new();
        table.with(|state| state.take(&mut batch));
        match answered {
            Ok(()) => assert_eq!(batch.len(), 1),
            Err(refused) => assert_eq!((refused, batch.len()), (SendError::Unwanted, 0)),
        }
        assert!(!table.with(|state| state.is_serving(1)));
    });
}

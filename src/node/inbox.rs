//! Inbox of a driver: the lanes that its task reads, what its node lives by first.
//!
//! ```text
//!   own tasks ──urgent──┐
//!   links ──────────────┤► next()
//!   own tasks ──bulk────┤
//!   front end ──────────┘
//! ```
//!
//! 1. Answers to leases, touches, batches and polls wait behind no request, read or reader.
//! 2. No lane starves: each is taken at the latest after
//!    [`PASSED_MAX`](crate::env::lanes::PASSED_MAX) others.

use std::{future::poll_fn, task::Poll};

use tokio::sync::mpsc;

use crate::{
    comm::Incoming,
    env::lanes::{LaneOrder, LaneReceiver, LaneSender, lanes},
    model::ids::LinkId,
};

/// The most results of tasks that wait for the driver, of each lane.
const INPUTS_MAX: usize = 1024;
/// The most events of all links that wait for the driver.
const LINK_EVENTS_MAX: usize = 1024;

/// The most events that a driver handles between two looks at what is due.
pub(super) const EVENTS_MAX: usize = 32;

/// Result of a task of the driver.
pub(super) trait DriverInput {
    /// Says whether the node lives by it: it waits behind no bulk.
    fn is_urgent(&self) -> bool;
}

/// Way back for the tasks that a driver spawns.
#[derive(Debug)]
pub(super) struct Inputs<T>(LaneSender<T, 2>);

impl<T> Clone for Inputs<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: DriverInput> Inputs<T> {
    /// Brings a result to the driver. Returns whether the driver is there.
    pub(super) async fn send(&self, input: T) -> bool {
        let lane = usize::from(!input.is_urgent());
        self.0.send(lane, input).await.is_ok()
    }
}

/// Event of any lane.
pub(super) enum Next<T, C> {
    Input(T),
    Link(LinkId, Incoming),
    Command(C),
}

/// Receiving ends of a driver's lanes.
pub(super) struct Inbox<T> {
    inputs: LaneReceiver<T, 2>,
    pub(super) links: mpsc::Receiver<(LinkId, Incoming)>,
    order: LaneOrder<4>,
}

impl<T> Inbox<T> {
    /// Returns an inbox, and the ways of tasks and of links into it.
    pub(super) fn new() -> (Inputs<T>, mpsc::Sender<(LinkId, Incoming)>, Self) {
        let (sender, inputs) = lanes([INPUTS_MAX; 2]);
        let (events, links) = mpsc::channel(LINK_EVENTS_MAX);
        (Inputs(sender), events, Self { inputs, links, order: LaneOrder::default() })
    }

    /// Waits for the next event; `None` once a lane has ended. Cancel-safe.
    pub(super) async fn next<C>(
        &mut self,
        mut commands: Option<&mut mpsc::Receiver<C>>,
    ) -> Option<Next<T, C>> {
        poll_fn(|cx| {
            self.order.poll(|lane| match lane {
                0 => self.inputs.poll_recv_of(0, cx).map(|input| input.map(Next::Input)),
                1 => self.links.poll_recv(cx).map(|e| e.map(|(id, event)| Next::Link(id, event))),
                2 => self.inputs.poll_recv_of(1, cx).map(|input| input.map(Next::Input)),
                _ => commands.as_mut().map_or(Poll::Pending, |commands| {
                    commands.poll_recv(cx).map(|command| command.map(Next::Command))
                }),
            })
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::model::message::Beat;

    #[derive(Debug, PartialEq, Eq)]
    enum Result {
        Lease,
        Reader(u32),
    }

    impl DriverInput for Result {
        fn is_urgent(&self) -> bool {
            *self == Self::Lease
        }
    }

    fn next(
        inbox: &mut Inbox<Result>,
        commands: &mut mpsc::Receiver<u32>,
    ) -> Option<Next<Result, u32>> {
        inbox.next(Some(commands)).now_or_never().flatten()
    }

    #[test]
    fn lease_answer_is_next_whatever_waits() {
        let (inputs, events, mut inbox) = Inbox::new();
        let (requests, mut commands) = mpsc::channel(10_000);
        let beat = || (LinkId(1), Incoming::Beat(Beat { reaches_store: true }));
        while events.try_send(beat()).is_ok() {}
        for n in 0..10_000 {
            requests.try_send(n).expect("a place");
        }
        let mut readers = 0;
        while inputs.send(Result::Reader(readers)).now_or_never().is_some() {
            readers += 1;
        }
        assert_eq!(readers as usize, INPUTS_MAX);
        assert_eq!(inputs.send(Result::Lease).now_or_never(), Some(true), "a place of its own");
        assert!(matches!(next(&mut inbox, &mut commands), Some(Next::Input(Result::Lease))));
        let mut of_each = [0; 3];
        for _ in 0..1000 {
            match next(&mut inbox, &mut commands).expect("more waits") {
                Next::Link(..) => of_each[0] += 1,
                Next::Input(_) => of_each[1] += 1,
                Next::Command(_) => of_each[2] += 1,
            }
        }
        assert!(of_each.iter().all(|taken| *taken >= 25), "one starves: {of_each:?}");
    }
}

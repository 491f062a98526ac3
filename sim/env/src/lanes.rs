//! Bounded channel with lanes: what a node lives by is taken before bulk.
//!
//! ```text
//!   send(0, ..) ──places──┐
//!   send(1, ..) ──places──┤► receiver: the first lane that has something
//!   send(2, ..) ──places──┘
//! ```
//!
//! 1. Each lane has places of its own: a full lane keeps nothing out of the others.
//! 2. The first lane that has something is taken next; within a lane, what came first.
//! 3. A lane that was passed over [`PASSED_MAX`] times is taken next: none starves.

use std::{
    future::poll_fn,
    task::{Context, Poll},
};

use tokio::sync::mpsc;
pub use tokio::sync::mpsc::error::{SendError, TrySendError};

/// Times that a lane may be passed over in a row while it has something.
pub const PASSED_MAX: u32 = 32;

/// Order in which `N` lanes are polled.
#[derive(Clone, Debug)]
pub struct LaneOrder<const N: usize> {
    /// Times that each lane was passed over since it was last polled.
    passed: [u32; N],
}

impl<const N: usize> Default for LaneOrder<N> {
    fn default() -> Self {
        Self { passed: [0; N] }
    }
}

impl<const N: usize> LaneOrder<N> {
    /// Polls the lanes, in their order, until one is ready.
    pub fn poll<T>(&mut self, mut poll: impl FnMut(usize) -> Poll<T>) -> Poll<T> {
        let late = self.passed.map(|passed| passed >= PASSED_MAX);
        for pass in [true, false] {
            for lane in (0..N).filter(|lane| late[*lane] == pass) {
                let polled = poll(lane);
                self.passed[lane] = 0;
                if polled.is_ready() {
                    self.pass_others(lane);
                    return polled;
                }
            }
        }
        Poll::Pending
    }

    fn pass_others(&mut self, taken: usize) {
        for (lane, passed) in self.passed.iter_mut().enumerate() {
            *passed = if lane == taken { 0 } else { passed.saturating_add(1) };
        }
    }
}

/// Returns a channel whose lanes have so many places each.
///
/// # Panics
/// If a lane has no place.
#[must_use]
pub fn lanes<T, const N: usize>(places: [usize; N]) -> (LaneSender<T, N>, LaneReceiver<T, N>) {
    let mut receivers = Vec::with_capacity(N);
    let senders = places.map(|places| {
        let (sender, receiver) = mpsc::channel(places);
        receivers.push(receiver);
        sender
    });
    (LaneSender { lanes: senders }, LaneReceiver { lanes: receivers, order: LaneOrder::default() })
}

/// Sending end of a channel with lanes.
#[derive(Debug)]
pub struct LaneSender<T, const N: usize> {
    lanes: [mpsc::Sender<T>; N],
}

impl<T, const N: usize> Clone for LaneSender<T, N> {
    fn clone(&self) -> Self {
        Self { lanes: self.lanes.clone() }
    }
}

impl<T, const N: usize> LaneSender<T, N> {
    /// Sends on a lane; waits for a place on it.
    ///
    /// # Errors
    /// The item, if the receiver is gone.
    pub async fn send(&self, lane: usize, item: T) -> Result<(), SendError<T>> {
        self.lanes[lane].send(item).await
    }

    /// Sends on a lane if it has a place now.
    ///
    /// # Errors
    /// The item, if the lane is full or the receiver is gone.
    pub fn try_send(&self, lane: usize, item: T) -> Result<(), TrySendError<T>> {
        self.lanes[lane].try_send(item)
    }
}

/// Receiving end of a channel with lanes.
#[derive(Debug)]
pub struct LaneReceiver<T, const N: usize> {
    lanes: Vec<mpsc::Receiver<T>>,
    order: LaneOrder<N>,
}

impl<T, const N: usize> LaneReceiver<T, N> {
    /// Polls for the next item; `None` once all senders are gone and nothing is left.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut ended = 0;
        let next = self.order.poll(|lane| match self.lanes[lane].poll_recv(cx) {
            Poll::Ready(None) => {
                ended += 1;
                Poll::Pending
            }
            polled => polled,
        });
        if next.is_pending() && ended == N { Poll::Ready(None) } else { next }
    }

    /// Polls for the next item of one lane, for those who have a [`LaneOrder`] of more lanes.
    pub fn poll_recv_of(&mut self, lane: usize, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.lanes[lane].poll_recv(cx)
    }

    /// Waits for the next item; `None` once all senders are gone and nothing is left. Cancel-safe.
    pub async fn recv(&mut self) -> Option<T> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// Returns the next item of one lane, if it has one now.
    pub fn try_recv_of(&mut self, lane: usize) -> Option<T> {
        self.lanes[lane].try_recv().ok()
    }

    /// Returns the next item of the lanes before this one, if one has something now and this one
    /// was not passed over for too long.
    pub fn try_recv_before(&mut self, lane: usize) -> Option<T> {
        if self.order.passed[lane] >= PASSED_MAX {
            return None;
        }
        let (before, item) =
            (0..lane).find_map(|before| Some((before, self.try_recv_of(before)?)))?;
        self.order.pass_others(before);
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn now<const N: usize>(receiver: &mut LaneReceiver<u32, N>) -> Poll<Option<u32>> {
        receiver.poll_recv(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn first_lane_is_taken_first_and_no_lane_starves() {
        let (sender, mut receiver) = lanes([100, 100]);
        for n in 0..100 {
            sender.try_send(1, 1000 + n).expect("a place");
            sender.try_send(0, n).expect("a place");
        }
        assert!(sender.try_send(1, 0).is_err(), "the bound holds");
        let order: Vec<_> = (0..200).map(|_| now(&mut receiver)).collect();
        let is_bulk = |got: &Poll<Option<u32>>| matches!(got, Poll::Ready(Some(n)) if *n >= 1000);
        assert_eq!(order.iter().position(is_bulk), Some(PASSED_MAX as usize));
        assert_eq!(order.iter().filter(|got| is_bulk(got)).count(), 100);
        assert_eq!(order.iter().take(103).filter(|got| is_bulk(got)).count(), 3);
        assert_eq!(now(&mut receiver), Poll::Pending);
    }

    #[test]
    fn receiver_ends_once_the_senders_are_gone_and_all_was_taken() {
        let (sender, mut receiver) = lanes([1, 1]);
        sender.try_send(1, 7).expect("a place");
        drop(sender);
        assert_eq!(now(&mut receiver), Poll::Ready(Some(7)));
        assert_eq!(now(&mut receiver), Poll::Ready(None));
    }

    #[test]
    fn item_that_overtakes_counts_as_passing() {
        let (sender, mut receiver) = lanes([100, 1]);
        for n in 0..100 {
            sender.try_send(0, n).expect("a place");
        }
        let overtook = (0..100).map_while(|_| receiver.try_recv_before(1)).count();
        assert_eq!(overtook, PASSED_MAX as usize);
    }
}

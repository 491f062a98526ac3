//! End of a worker: nothing new is taken, what was taken is answered, held posts go to two others, then
//! it says goodbye.
//!
//! 1. Posts are handed over once all that were taken are on the disk. What comes there later, because the
//!    disk is slow, is not said to be held: nobody else gets it before the next life.
//! 2. The link stays until what crossed with the heartbeat that says to give out no more has come, unless
//!    the master itself asked for the end and so gave out nothing more: a batch that meets the end of a
//!    link counts a try.
//! 3. It takes at most [`Driver::end_max`].

use std::time::Duration;

use tokio::sync::mpsc;

use super::{driver::Driver, input::Input, leaving::CROSSING};
use crate::{
    comm::{Incoming, LinkId},
    model::{
        message::{Close, CloseReason},
        time::Mono,
    },
    node::inbox::Inbox,
};

/// Maximum time for a goodbye.
const GOODBYE: Duration = Duration::from_secs(1);
/// Maximum time that a worker that ends takes to hand its held posts over.
pub(super) const HAND_OVER_MAX: Duration = Duration::from_millis(1500);

impl Driver {
    /// Returns whether this worker ends: it finishes what it has, and takes no post to hold any more.
    pub(super) const fn is_ending(&self) -> bool {
        self.ends_since.is_some()
    }

    /// Returns the longest time that the end takes.
    pub(super) fn end_max(&self) -> Duration {
        self.parts.config.store_timeout + HAND_OVER_MAX + GOODBYE
    }

    /// Ends: has held posts handed over and what is in flight answered, then says goodbye.
    pub(super) async fn end(mut self, mut inbox: Inbox<Input>) {
        let (env, patience) = (self.parts.env.clone(), self.parts.config.store_timeout);
        let now = env.now();
        // One that leaves its master has said so before.
        self.ends_since = Some(self.leaves_since.unwrap_or(now));
        // Its master gives it nothing more from now on.
        self.send_beat();
        self.on_opening();
        let slow = env.sleep(patience);
        self.serve_until(&mut inbox, slow, |it| it.held_tasks == 0 || it.link.is_none()).await;
        self.hands_over = true;
        let handed_over = self.hand_over();
        self.serve_until(&mut inbox, handed_over, |_| false).await;
        // A master that gets no answer to a batch counts a try, and gives it to another worker too.
        let late = env.sleep_until(now + patience + HAND_OVER_MAX);
        self.serve_until(&mut inbox, late, Self::has_answered_all).await;
        self.driver.clear();
        self.say_goodbye(&mut inbox.links).await;
    }

    /// Returns when all has come that crossed with the word that this worker ends, if that is to come.
    pub(super) fn crossed_next(&self, now: Mono) -> Option<Mono> {
        let crossed = self.ends_since? + CROSSING;
        (now < crossed).then_some(crossed)
    }

    /// Returns whether no batch is here, and none is on its way.
    fn has_answered_all(&self) -> bool {
        let has_crossed = || self.crossed_next(self.parts.env.now()).is_none();
        let none_comes = self.is_drained || self.link.is_none() || has_crossed();
        none_comes && self.batches.len() == 0
    }

    /// Tells the master that this registration leaves, and closes the node database.
    async fn say_goodbye(&mut self, links: &mut mpsc::Receiver<(LinkId, Incoming)>) {
        self.dialing = None;
        self.drop_keys();
        if let Some(link) = self.link.take() {
            link.close(Close { reason: CloseReason::Leaving, retry_ms: 0 });
            let gone = async {
                while let Some((id, incoming)) = links.recv().await {
                    if id == link.id() && matches!(incoming, Incoming::Closed(_)) {
                        break;
                    }
                }
            };
            let _ = self.parts.env.timeout(GOODBYE, gone).await;
        }
        self.parts.database.close().await;
    }
}

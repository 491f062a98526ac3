//! Leaving of a master that lives: nothing new is taken, what was taken is answered, then the link
//! is closed. A master whose link ends in the middle of a batch counts a try, and has another worker
//! do it again.

use std::time::Duration;

use super::driver::Driver;
use crate::model::time::Mono;

/// Time in which batches come that crossed with the heartbeat that says to give out no more.
pub(super) const CROSSING: Duration = Duration::from_millis(300);

impl Driver {
    /// Tells the master to give out no more batches to this worker.
    pub(super) fn finish_batches(&mut self) {
        self.leaves_since = Some(self.parts.env.now());
        self.send_beat();
    }

    /// Returns whether what the master gave out before it heard has come.
    pub(super) fn has_all_batches(&self, now: Mono) -> bool {
        self.leaves_since.is_some_and(|since| now >= since + CROSSING)
    }

    /// Returns the time of the next [`Driver::leave_if_done`], while this worker leaves.
    pub(super) fn leaves_next(&self, now: Mono) -> Option<Mono> {
        let crossed = self.leaves_since? + CROSSING;
        let next = if now < crossed { crossed } else { crossed + self.parts.config.store_timeout };
        (!self.is_ending()).then_some(next)
    }

    /// Leaves when all batches are answered, at the latest when the store's time-out has passed.
    pub(super) fn leave_if_done(&mut self, now: Mono) {
        let Some(since) = self.leaves_since else { return };
        let is_answered = self.has_all_batches(now) && self.batches.len() == 0;
        if !is_answered && now < since + CROSSING + self.parts.config.store_timeout {
            return;
        }
        self.leaves_since = None;
        self.parts.worker.on_batches_answered(now, &mut self.out);
        self.carry();
        // If it stayed, it may be given batches again.
        self.send_beat();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::{
        comm::{Incoming, LinkEnd},
        config::Config,
        env::real::TempDir,
        model::{
            ids::{Incarnation, NodeId},
            message::{AssignReply, Close, CloseReason},
            rows::{Holder, MasterRow},
        },
        store::Store,
        testing::worker::{TestMaster, batch, config, env, lobby, post, store, worker_with},
    };

    const MS: Duration = Duration::from_millis(1);

    /// Lists a master in the store.
    async fn list(store: &Store, node: NodeId, link: &str) -> Holder {
        let row = MasterRow {
            node,
            incarnation: Incarnation(1),
            beat: 0,
            http: "http://127.0.0.1:1".to_owned(),
            link: link.to_owned(),
            spki: vec![1],
            name: "m".to_owned(),
            draining: false,
            guard: [node.0[0]; 32],
        };
        let incarnation = store.register_master(row).await.expect("listed");
        Holder { node, incarnation }
    }

    #[tokio::test]
    async fn batch_that_crosses_with_the_wish_to_move_is_answered_before_the_link_ends() {
        let (store, held) = store();
        let dir = TempDir::new().expect("a directory");
        let config = Config { master_out_after: 500 * MS, ..config() };
        let mut master = TestMaster::start(&config).await;
        let _worker = worker_with(config, &master, &store, &dir, true);
        let mut taken = master.take().await;
        let lease = lobby(&store, &master).await;
        // Its own master does not write to the store, another one does.
        list(&store, master.domain.master, &master.addr).await;
        let other = list(&store, NodeId([200; 16]), "127.0.0.1:1").await;
        let writes = async {
            loop {
                store.touch_master(other, false).await.expect("touched");
                env().sleep(100 * MS).await;
            }
        };
        let crosses = async {
            let says = Cell::new(None);
            taken
                .hear(|incoming| match incoming {
                    Incoming::Beat(beat) => {
                        let before = says.replace(Some(beat.reaches_store));
                        (before == Some(true) && !beat.reaches_store).then_some(())
                    }
                    _ => None,
                })
                .await;
            held.gate.forget_permits(1000);
            let batch = batch(&taken, lease, 1, vec![post(1)]);
            let goes_on = async {
                env().sleep(3 * CROSSING).await;
                held.gate.add_permits(1000);
            };
            let (reply, ()) = tokio::join!(taken.assign(batch), goes_on);
            assert!(matches!(reply, AssignReply::Done(_)), "{reply:?}");
            let end = taken.hear(|incoming| match incoming {
                Incoming::Closed(end) => Some(end),
                _ => None,
            });
            let leaving = Close { reason: CloseReason::Leaving, retry_ms: 0 };
            assert_eq!(end.await, LinkEnd::ClosedByPeer(leaving));
        };
        tokio::select! {
            biased;
            () = crosses => {}
            () = writes => {}
        }
    }
}

//! A store that is as it was a while ago, and the newer one again.

use chatchat::{
    model::{
        ids::Seq,
        rows::{Boards, StoreError},
    },
    store::{OpReply, OwnEnds},
};
use tokio::sync::{mpsc, oneshot};

use super::*;

type Answer = Result<OpReply, StoreError>;

/// Returns the nodes that are denied, by the answer to [`Op::Admission`].
fn denied(answer: Answer) -> Result<Vec<u8>, StoreError> {
    answer.map(|reply| match reply {
        OpReply::Admission(lists) => lists.denied.iter().map(|node| node.0[0]).collect(),
        other => panic!("{other:?}"),
    })
}

fn is_older(error: StoreError) -> bool {
    error.away_reason() == Some(AwayReason::RolledBack)
}

/// Message to the node that calls the store.
enum Order {
    Call(Box<Op>, oneshot::Sender<Answer>),
    /// A read of the boards, of the first epoch and as of this time, lacked nothing.
    Confirm(u64),
    /// A read of the boards lacked something.
    Doubt,
    /// The node has posts of the lobby up to this place, in the first epoch.
    Have(u64),
}

/// Store, its host, and a node that calls it, which stays while the host is started again.
struct Lab {
    world: World,
    store: StoreHost,
    at: HostId,
    orders: mpsc::Sender<Order>,
}

impl Lab {
    fn new(world: &World) -> Self {
        let (store, at) = stored(world);
        store.keep_journal();
        let (orders, mut taken) = mpsc::channel(1);
        world.boot(world.add_host("asker"), |env| async move {
            let (store, ends) = (remote(&env, ADDR, TIMEOUT), OwnEnds::default());
            store.compare(ends.clone());
            while let Some(order) = taken.recv().await {
                match order {
                    // The test waits for it.
                    Order::Call(op, reply) => drop(reply.send(store.call(*op).await)),
                    Order::Confirm(as_of_ms) => store.confirm(StoreEpoch(1), as_of_ms),
                    Order::Doubt => store.doubt(),
                    Order::Have(last) => ends.set(Boards {
                        boards: vec![(BoardName::lobby(), Seq(last))],
                        epoch: StoreEpoch(1),
                        as_of_ms: 0,
                    }),
                }
            }
        });
        Self { world: world.clone(), store, at, orders }
    }

    async fn order(&self, order: Order) {
        self.orders.send(order).await.expect("the asker lives");
    }

    async fn call(&self, op: Op) -> Answer {
        let (reply, answer) = oneshot::channel();
        self.order(Order::Call(Box::new(op), reply)).await;
        answer.await.expect("answered")
    }

    /// Starts the host again.
    async fn start_again(&self) {
        self.world.crash(self.at);
        boot(&self.world, &self.store, self.at);
        self.world.sleep(SECOND).await;
        for op in [deny(2), Op::Admission, Op::Admission] {
            // It may find that a connection broke.
            let _ = self.call(op).await;
        }
    }

    /// Carries an operation out for somebody else, at the host's time.
    fn by_another(&self, op: &Op) -> Answer {
        self.store.apply(op, self.world.wall(self.at).ms)
    }
}

#[test]
fn connection_to_an_older_copy_than_was_seen_is_refused_until_the_newer_store_is_back() {
    simulate(Setup::new(3), async |world| {
        let lab = Lab::new(&world);
        for node in [1, 2] {
            world.sleep(SECOND).await;
            lab.call(deny(node)).await.expect("the store is there");
        }
        let right = lab.store.roll_back(1).expect("SQLite works");
        lab.start_again().await;
        assert!(lab.call(deny(3)).await.is_err_and(is_older));
        assert!(lab.call(Op::Admission).await.is_err_and(is_older));
        assert_eq!(denied(lab.by_another(&Op::Admission)), Ok(vec![1]), "nothing was written");
        lab.store.put_back(right);
        lab.start_again().await;
        assert_eq!(denied(lab.call(Op::Admission).await), Ok(vec![1, 2]));
        lab.call(deny(3)).await.expect("the newer store is there");
    });
}

#[test]
fn newer_store_is_taken_back_once_the_copy_that_another_wrote_to_is_in_doubt() {
    simulate(Setup::new(3), async |world| {
        let lab = Lab::new(&world);
        for node in [1, 2] {
            world.sleep(SECOND).await;
            lab.call(deny(node)).await.expect("the store is there");
        }
        let Ok(OpReply::Boards(boards)) = lab.call(Op::Boards).await else { panic!("no boards") };
        lab.order(Order::Confirm(boards.as_of_ms)).await;
        let right = lab.store.roll_back(1).expect("SQLite works");
        world.sleep(SECOND).await;
        lab.by_another(&deny(4)).expect("SQLite works");
        lab.start_again().await;
        let copy = denied(lab.call(Op::Admission).await);
        assert_eq!(copy, Ok(vec![1, 4]), "its clock is the newest");
        lab.store.put_back(right);
        lab.start_again().await;
        assert!(lab.call(Op::Admission).await.is_err_and(is_older), "nobody knows better");
        lab.order(Order::Doubt).await;
        assert_eq!(denied(lab.call(Op::Admission).await), Ok(vec![1, 2]));
    });
}

#[test]
fn older_copy_with_a_newer_clock_answers_nothing_where_a_node_has_posts_that_it_lacks() {
    simulate(Setup::new(3), async |world| {
        let lab = Lab::new(&world);
        lab.call(deny(1)).await.expect("the store is there");
        lab.order(Order::Have(1)).await;
        lab.call(deny(2)).await.expect("what is known of it later does not end a connection");
        world.sleep(SECOND).await;
        lab.start_again().await;
        assert!(lab.call(deny(3)).await.is_err_and(is_older), "a write");
        assert!(lab.call(Op::Admission).await.is_err_and(is_older), "a read");
        assert_eq!(denied(lab.by_another(&Op::Admission)), Ok(vec![1, 2]), "nothing was written");
    });
}

#[test]
fn write_to_an_older_copy_is_gone_once_the_newer_store_is_back() {
    let new = NewCluster { cluster: [7; 16], epoch: StoreEpoch(1), now_ms: 1000 };
    let store = StoreHost::new(&new).expect("SQLite works");
    store.keep_journal();
    let denied_at = |at_ms| denied(store.apply(&Op::Admission, at_ms));
    for (node, at_ms) in [(1, 2000), (2, 3000)] {
        store.apply(&deny(node), at_ms).expect("written");
    }
    let right = store.roll_back(1).expect("SQLite works");
    for (node, at_ms) in [(3, 4000), (4, 4001)] {
        store.apply(&deny(node), at_ms).expect("written");
    }
    assert_eq!(denied_at(4002), Ok(vec![1, 3, 4]));
    store.put_back(right);
    assert_eq!(denied_at(4003), Ok(vec![1, 2]));
    store.apply(&deny(5), 5000).expect("written");
    // A second roll-back begins from what the newer store took alone.
    store.roll_back(3).map(drop).expect("SQLite works");
    assert_eq!(denied_at(6000), Ok(vec![1, 2, 5]));
}

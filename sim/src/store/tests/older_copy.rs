//! A store that is as it was a while ago, and the newer one again.

use chatchat::{model::rows::StoreError, store::OpReply};
use tokio::sync::{mpsc, oneshot};

use super::*;

type Answer = Result<OpReply, StoreError>;

#[test]
fn older_copy_takes_no_connection_of_who_saw_the_newer_one_and_leaves_nothing_behind() {
    simulate(Setup::new(3), async |world| {
        let (store, at) = stored(&world);
        store.keep_journal();
        let asker = world.add_host("asker");
        let (orders, mut taken) = mpsc::channel::<(Op, oneshot::Sender<Answer>)>(1);
        world.boot(asker, |env| async move {
            let store = remote(&env, ADDR, TIMEOUT);
            while let Some((op, reply)) = taken.recv().await {
                // The test waits for it.
                let _ = reply.send(store.call(op).await);
            }
        });
        let call = async |op: Op| {
            let (reply, answer) = oneshot::channel();
            orders.send((op, reply)).await.expect("the asker lives");
            answer.await.expect("answered")
        };
        let denied = async || {
            call(Op::Admission).await.map(|reply| match reply {
                OpReply::Admission(lists) => lists.denied.len(),
                other => panic!("{other:?}"),
            })
        };
        let deny = |node: u8| Op::Deny(NodeId([node; 16]));
        let start_again = async || {
            world.crash(at);
            boot(&world, &store, at);
            world.sleep(SECOND).await;
            // These find that their connections broke.
            let _ = (call(deny(2)).await, denied().await, denied().await);
        };
        world.sleep(SECOND).await;
        call(deny(1)).await.expect("the store is there");
        world.sleep(SECOND).await;
        call(deny(2)).await.expect("the store is there");

        let right = store.roll_back(1).expect("SQLite works");
        start_again().await;
        let older = |error: StoreError| error.away_reason() == Some(AwayReason::RolledBack);
        assert!(call(deny(3)).await.is_err_and(older));
        assert!(denied().await.is_err_and(older));
        store.apply(&deny(4), world.wall(at).ms).expect("by somebody else");
        assert_eq!(store.writes(), 3);

        store.put_back(right);
        start_again().await;
        assert_eq!(denied().await, Ok(2));
        let writes = store.writes();
        call(deny(5)).await.expect("the newer store is there");
        let right = store.roll_back(writes).expect("SQLite works");
        let found = store.apply(&Op::Admission, world.wall(at).ms);
        let Ok(OpReply::Admission(lists)) = found else { panic!("{found:?}") };
        assert_eq!(lists.denied.len(), 2, "without what the older copy took");
        store.put_back(right);
        start_again().await;
        assert_eq!(denied().await, Ok(3));
    });
}

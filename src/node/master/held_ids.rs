//! Questions for a person's posts that wait on workers' disks.
//!
//! 1. At most [`HELD_ASKS_MAX`] are under way over one link, however many people come at once. The others
//!    wait their turn, within the time that there is for an answer.
//! 2. One for which a link had no room is no answer: it is asked again within that time.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::sync::Semaphore;

use super::asking::hear_in_groups;
use crate::{
    comm::{CallError, Link},
    env::Env,
    model::{
        bounds::{HELD_ANSWERS_MAX, HELD_ASKS_MAX, HELD_MAX},
        ids::{PostId, UserId},
        message::{Request, Response},
    },
};

/// Most ids of held posts in one answer: it fits into a frame.
const IDS_MAX: usize = HELD_ANSWERS_MAX * HELD_MAX;

/// Pause before a question is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(20);

/// Node that may be asked, with the places of questions over its link.
pub(super) struct Asked {
    pub(super) link: Link,
    pub(super) places: Arc<Semaphore>,
}

/// Returns the places of questions over a new link.
pub(super) fn places() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(HELD_ASKS_MAX))
}

/// Asks all these nodes for a person's posts, in this order.
pub(super) async fn ids_at(
    env: &Env,
    nodes: Vec<Asked>,
    user: UserId,
    limit: Duration,
) -> Vec<PostId> {
    let ask = move |Asked { link, places }: Asked, limit: Duration| async move {
        let call = |limit: Duration| link.call(Request::HeldOf(user), limit);
        ask_in_turn(env, &places, limit, call).await
    };
    gather(env, nodes, limit, ask).await
}

/// Asks a node once there is a place for the question, and again while there is no room for it or for its
/// answer. Returns the ids that the node tells; `None` if it does not within `limit`.
async fn ask_in_turn<F>(
    env: &Env,
    places: &Semaphore,
    limit: Duration,
    call: impl Fn(Duration) -> F,
) -> Option<Vec<PostId>>
where
    F: Future<Output = Result<Response, CallError>>,
{
    let end = env.now() + limit;
    let _place = env.timeout(limit, places.acquire()).await.ok()?.ok()?;
    loop {
        match call(end.since(env.now())).await {
            Ok(Response::HeldOf(ids)) => return Some(ids),
            Err(CallError::Full) | Ok(Response::NotServed) => {}
            _ => return None,
        }
        if env.now() + ASK_AGAIN >= end {
            return None;
        }
        env.sleep(ASK_AGAIN).await;
    }
}

/// Gathers the ids that all these nodes tell, [`IDS_MAX`] at most.
async fn gather<N, F>(
    env: &Env,
    nodes: Vec<N>,
    limit: Duration,
    ask: impl Fn(N, Duration) -> F,
) -> Vec<PostId>
where
    F: Future<Output = Option<Vec<PostId>>>,
{
    let mut all = Vec::new();
    let take = |mut ids: Vec<PostId>| {
        ids.truncate(HELD_MAX.min(IDS_MAX - all.len()));
        all.append(&mut ids);
        all.len() >= IDS_MAX
    };
    hear_in_groups(env, nodes, HELD_ANSWERS_MAX, limit, ask, take).await;
    all
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures_util::future::join_all;

    use super::*;
    use crate::testing::stepped_world::{SECOND, run};

    const POST: PostId = PostId([7; 16]);

    #[test]
    fn crowd_that_asks_at_once_takes_some_places_of_a_link_and_is_told_all() {
        run(|env| async move {
            let (places, under_way, most) = (places(), Cell::new(0), Cell::new(0));
            let call = |_: Duration| async {
                under_way.set(under_way.get() + 1);
                most.set(under_way.get().max(most.get()));
                env.sleep(SECOND / 100).await;
                under_way.set(under_way.get() - 1);
                Ok::<_, CallError>(Response::HeldOf(vec![POST]))
            };
            let all = (0..1000).map(|_| ask_in_turn(&env, &places, SECOND, call));
            let told = join_all(all).await;
            assert!(told.iter().all(|ids| *ids == Some(vec![POST])), "{told:?}");
            assert_eq!(most.get(), HELD_ASKS_MAX);
        });
    }

    #[test]
    fn question_without_room_is_asked_again_within_its_time() {
        /// Asks a node that has no room so many times. Returns what it told, how often it was asked, and
        /// the time that it took.
        fn ask(refusals: usize) -> (Option<Vec<PostId>>, usize, Duration) {
            run(|env| async move {
                let (begin, asked) = (env.now(), Cell::new(0));
                let call = |_: Duration| async {
                    asked.set(asked.get() + 1);
                    match asked.get() {
                        nth if nth > refusals => Ok(Response::HeldOf(vec![POST])),
                        nth if nth % 2 == 0 => Ok(Response::NotServed),
                        _ => Err(CallError::Full),
                    }
                };
                let told = ask_in_turn(&env, &places(), SECOND, call).await;
                (told, asked.get(), env.now().since(begin))
            })
        }
        let (told, asked, took) = ask(3);
        assert_eq!((told, asked), (Some(vec![POST]), 4));
        assert!((3 * ASK_AGAIN..4 * ASK_AGAIN).contains(&took), "{took:?}");
        let (told, asked, took) = ask(usize::MAX);
        assert!(told.is_none() && asked > 40 && took <= SECOND, "{asked} times in {took:?}");
    }

    #[test]
    fn silent_node_is_waited_for_no_longer_than_the_limit() {
        run(|env| async move {
            let (begin, places) = (env.now(), Semaphore::new(1));
            let call = |limit: Duration| {
                let env = &env;
                async move {
                    env.sleep(limit).await;
                    Err::<Response, _>(CallError::TimedOut)
                }
            };
            let both = (0..2).map(|_| ask_in_turn(&env, &places, SECOND, call));
            assert_eq!(join_all(both).await, [None, None]);
            assert_eq!(env.now().since(begin), SECOND);
        });
    }

    /// Gathers what nodes tell: each tells these ids, at once.
    fn gathered(nodes: Vec<Vec<PostId>>) -> Vec<PostId> {
        let ask = |ids: Vec<PostId>, _: Duration| async move { Some(ids) };
        run(|env| async move { gather(&env, nodes, SECOND, ask).await })
    }

    #[test]
    fn post_at_the_last_of_more_holders_than_are_asked_at_a_time_is_found() {
        let mut nodes = vec![Vec::new(); HELD_ANSWERS_MAX + 8];
        nodes[HELD_ANSWERS_MAX + 7].push(POST);
        assert_eq!(gathered(nodes), [POST]);
    }

    #[test]
    fn ids_are_bounded_of_each_node_and_of_all_together() {
        let id = |n: usize| PostId(u128::try_from(n).expect("small").to_le_bytes());
        let told = gathered(vec![(0..2 * HELD_MAX).map(id).collect(), vec![id(9000)]]);
        assert_eq!(told.len(), HELD_MAX + 1);
        assert!(told.contains(&id(9000)));
        let all = gathered(vec![(0..HELD_MAX).map(id).collect(); HELD_ANSWERS_MAX + 2]);
        assert_eq!(all.len(), IDS_MAX);
    }
}

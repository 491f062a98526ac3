//! Questions to several nodes, of which one that knows is enough.

use std::{future::Future, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};

use crate::env::Env;

/// Returns the time limit for asking nodes on behalf of another node, which waits for `left` and no longer.
/// It is three quarters of that, or of `whole` if that is shorter: the rest is for the answer's way back.
pub(super) fn limit_to_pass_on(whole: Duration, left: Duration) -> Duration {
    whole.min(left) * 3 / 4
}

/// Asks `size` nodes at a time, all of them within `limit`, and returns the first answer of one that knows.
pub(super) async fn ask_in_groups<N, T, F>(
    env: &Env,
    nodes: Vec<N>,
    size: usize,
    limit: Duration,
    ask: impl Fn(N, Duration) -> F,
) -> Option<T>
where
    F: Future<Output = Option<T>>,
{
    let mut first = None;
    let take = |told: T| {
        first = Some(told);
        true
    };
    hear_in_groups(env, nodes, size, limit, ask, take).await;
    first
}

/// Asks `size` nodes at a time, all of them within `limit`, and hands over the answer of each one that knows,
/// until `take` says that it was enough.
///
/// The next ones are asked when the last ones have answered. Those that are silent hold them up for an equal
/// share of the time, and are listened to all the same until the end.
pub(super) async fn hear_in_groups<N, T, F>(
    env: &Env,
    nodes: Vec<N>,
    size: usize,
    limit: Duration,
    ask: impl Fn(N, Duration) -> F,
    mut take: impl FnMut(T) -> bool,
) where
    F: Future<Output = Option<T>>,
{
    let size = size.max(1);
    let groups = u32::try_from(nodes.len().div_ceil(size)).unwrap_or(u32::MAX).max(1);
    let end = env.now() + limit;
    let (mut nodes, mut asked) = (nodes.into_iter(), FuturesUnordered::new());
    for group in 1..=groups {
        let left = end.since(env.now());
        let mut missing = 0_usize;
        for node in nodes.by_ref().take(size) {
            let answer = ask(node, left);
            asked.push(async move { (group, answer.await) });
            missing += 1;
        }
        let is_last = group == groups;
        let hearing = async {
            while is_last || missing > 0 {
                let Some((of, told)) = asked.next().await else { return false };
                if told.is_some_and(&mut take) {
                    return true;
                }
                missing -= usize::from(of == group);
            }
            false
        };
        let share = if is_last { left } else { limit / groups };
        if let Ok(true) = env.timeout(share, hearing).await {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;
    use crate::testing::stepped_world::run;

    const LIMIT: Duration = Duration::from_millis(800);
    /// Time in which a node answers that is not silent.
    const SOON: Duration = Duration::from_millis(10);

    /// Node that answers after this time, and whether it knows.
    type Node = (Duration, bool);

    const MISSES: Node = (SOON, false);
    const KNOWS: Node = (SOON, true);
    const SILENT: Node = (Duration::from_secs(3600), true);

    /// Asks three nodes at a time. Returns the number of the one that told, those that were asked, and the
    /// time that it took.
    fn ask(nodes: &[Node]) -> (Option<usize>, Vec<usize>, Duration) {
        let nodes: Vec<_> = nodes.iter().copied().enumerate().collect();
        run(|env| async move {
            let asked = RefCell::new(Vec::new());
            let begin = env.now();
            let ask_one = |(nth, (after, knows)): (usize, Node), limit: Duration| {
                asked.borrow_mut().push(nth);
                let env = env.clone();
                async move {
                    env.sleep(after.min(limit)).await;
                    (knows && after <= limit).then_some(nth)
                }
            };
            let told = ask_in_groups(&env, nodes, 3, LIMIT, ask_one).await;
            (told, asked.into_inner(), env.now().since(begin))
        })
    }

    /// Returns eight of these nodes, of which the last one is another.
    fn eight(others: Node, last: Node) -> [Node; 8] {
        let mut nodes = [others; 8];
        nodes[7] = last;
        nodes
    }

    #[test]
    fn last_of_eight_nodes_is_asked_when_the_others_do_not_know() {
        let (told, asked, took) = ask(&eight(MISSES, KNOWS));
        assert_eq!((told, asked), (Some(7), (0..8).collect()));
        assert!(took < 4 * SOON, "{took:?} for three groups");
    }

    #[test]
    fn silent_nodes_take_their_own_share_of_the_time_and_not_that_of_the_others() {
        let (told, _, took) = ask(&eight(SILENT, KNOWS));
        assert_eq!(told, Some(7));
        assert!(took < LIMIT, "{took:?}");
        let mut nodes = eight(MISSES, KNOWS);
        nodes[1] = SILENT;
        let (told, asked, took) = ask(&nodes);
        assert_eq!((told, asked), (Some(7), (0..8).collect()));
        assert!(took < LIMIT / 3 + 4 * SOON, "{took:?}: one of the first three is silent");
    }

    #[test]
    fn node_that_is_slower_than_its_share_is_heard_all_the_same() {
        let late = LIMIT / 2;
        let mut nodes = eight(SILENT, SILENT);
        nodes[0] = (late, true);
        let (told, _, took) = ask(&nodes);
        assert_eq!(told, Some(0));
        assert!((late..late + SOON).contains(&took), "{took:?}");
    }

    #[test]
    fn nobody_who_knows_is_found_out_within_the_limit_and_at_once_where_all_answer() {
        let (told, asked, took) = ask(&eight(SILENT, SILENT));
        assert_eq!((told, asked), (None, (0..8).collect()));
        assert!(took <= LIMIT + SOON, "{took:?}");
        let (told, _, took) = ask(&eight(MISSES, MISSES));
        assert!(told.is_none() && took < 4 * SOON, "{took:?}");
        assert_eq!(ask(&[]), (None, Vec::new(), Duration::ZERO));
    }

    /// Asks three nodes at a time until so many told. Returns the numbers of these, the number of those that
    /// were asked, and the time that it took.
    fn hear(nodes: &[Node], enough: usize) -> (Vec<usize>, usize, Duration) {
        let nodes: Vec<_> = nodes.iter().copied().enumerate().collect();
        run(|env| async move {
            let (asked, mut heard) = (Cell::new(0), Vec::new());
            let begin = env.now();
            let ask_one = |(nth, (after, knows)): (usize, Node), limit: Duration| {
                asked.set(asked.get() + 1);
                let env = env.clone();
                async move {
                    env.sleep(after.min(limit)).await;
                    (knows && after <= limit).then_some(nth)
                }
            };
            let take = |nth| {
                heard.push(nth);
                heard.len() >= enough
            };
            hear_in_groups(&env, nodes, 3, LIMIT, ask_one, take).await;
            heard.sort_unstable();
            (heard, asked.get(), env.now().since(begin))
        })
    }

    #[test]
    fn all_who_know_are_heard_whatever_their_group_within_the_limit() {
        let (heard, _, took) = hear(&eight(KNOWS, KNOWS), usize::MAX);
        assert_eq!(heard, (0..8).collect::<Vec<_>>());
        assert!(took < 4 * SOON, "{took:?} for three groups");
        let mut nodes = eight(KNOWS, KNOWS);
        nodes[1] = SILENT;
        nodes[4] = (LIMIT / 2, true);
        let (heard, _, took) = hear(&nodes, usize::MAX);
        assert_eq!(heard, [0, 2, 3, 4, 5, 6, 7]);
        assert!(took <= LIMIT + SOON, "{took:?}");
    }

    #[test]
    fn what_was_heard_is_passed_on_before_an_asker_with_little_time_left_gives_up() {
        assert_eq!(limit_to_pass_on(LIMIT, 2 * LIMIT), LIMIT * 3 / 4);
        assert_eq!(limit_to_pass_on(LIMIT, Duration::ZERO), Duration::ZERO);
        run(|env| async move {
            let (left, mut heard) = (LIMIT / 4, 0);
            let limit = limit_to_pass_on(LIMIT, left);
            let ask_one = |(after, knows): Node, limit: Duration| {
                let env = env.clone();
                async move {
                    env.sleep(after.min(limit)).await;
                    (knows && after <= limit).then_some(())
                }
            };
            let take = |()| {
                heard += 1;
                false
            };
            let answer = hear_in_groups(&env, vec![SILENT, KNOWS], 3, limit, ask_one, take);
            assert!(env.timeout(left, answer).await.is_ok(), "the asker gave up");
            assert_eq!(heard, 1);
        });
    }

    #[test]
    fn nobody_is_asked_after_enough_was_heard() {
        assert_eq!(hear(&eight(MISSES, KNOWS), 1).1, 8);
        let (heard, asked, _) = hear(&eight(KNOWS, KNOWS), 3);
        assert_eq!((heard.len(), asked), (3, 3));
    }

    #[test]
    fn nobody_is_asked_after_one_knew() {
        let mut nodes = eight(MISSES, MISSES);
        nodes[1] = KNOWS;
        let (told, asked, _) = ask(&nodes);
        assert_eq!((told, asked), (Some(1), vec![0, 1, 2]));
    }
}

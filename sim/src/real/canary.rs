//! Canary of a real run: its own evidence with one acknowledged post taken out of the store's
//! content, which the oracles must refuse.
//!
//! Bugs that are planted into the product show that the oracles see what goes wrong in the
//! simulated world. Of a real run that holds, this shows that its evidence was looked at.

use chatchat_scenarios::{
    oracle::{self, Evidence},
    property::Property,
};

/// Judges the evidence of a run without its newest acknowledged post, and returns in words what was
/// refused.
///
/// # Errors
/// A sentence that says why the run shows nothing.
pub(crate) fn judge(evidence: &Evidence<'_>) -> Result<String, String> {
    let acks = evidence.history.operations.iter().rev().filter_map(|operation| {
        let (_, post) = operation.committed()?;
        let board = evidence.store.boards.iter().find(|(_, posts)| posts.contains(post))?.0;
        Some((board, post))
    });
    let Some((board, post)) = acks.into_iter().next() else {
        return Err("nothing was shown: no acknowledged post stands in the store".to_owned());
    };
    let mut store = evidence.store.clone();
    if let Some(posts) = store.boards.get_mut(board) {
        posts.retain(|other| other != post);
    }
    let mut plan = evidence.plan.clone();
    plan.expect.properties = vec![Property::G1];
    let found = oracle::judge(&Evidence { plan: &plan, store: &store, ..*evidence });
    let text = format!("{board} {} taken out of the store", post.seq);
    match found.first() {
        Some(violation) => Ok(format!("{text} is refused: {}", violation.property())),
        None => Err(format!("nothing was shown: {text} is not refused")),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use chatchat::{
        client::{Answer, Request},
        model::ids::{Author, BoardName, Post, PostId, Seq, UserId},
    };
    use chatchat_scenarios::{
        history::{End, History, Operation, Who},
        oracle::StoreDump,
        plan::Plan,
        story::Story,
    };

    use super::*;

    /// Judges a run in which a post was acknowledged, or none was.
    fn judged(acked: bool) -> Result<String, String> {
        let story = "about = \"a test\"\nduration = \"5s\"\n[cluster]\nmasters = 1\nworkers = 1\n";
        let plan = Plan::expand(&Story::parse("test", story).expect("a story"), 7);
        let author =
            Author { id: UserId([1; 16]), name: "Person 0".parse().expect("a plain name") };
        let post = Post {
            id: PostId([7; 16]),
            board: BoardName::lobby(),
            seq: Seq(1),
            author,
            text: "a text".parse().expect("plain"),
            posted_at_ms: 5,
        };
        let (mut history, mut store) = (History::default(), StoreDump::default());
        store.boards = BTreeMap::from([(BoardName::lobby(), vec![post.clone()])]);
        if acked {
            let (board, text) = (BoardName::lobby(), post.text.clone());
            history.operations.push(Operation {
                number: 0,
                who: Who { person: 0, life: 0 },
                master: "http://m".to_owned(),
                request: Request::Post { board, id: post.id, text },
                invoked: Duration::from_secs(1),
                end: Some((Duration::from_secs(2), End::Answered(Ok(Answer::Posted(post))))),
            });
        }
        judge(&Evidence {
            plan: &plan,
            incidents: &[],
            history: &history,
            store: &store,
            events: &[],
            ends: &[],
            ended: Duration::from_secs(9),
            calm_limit: Duration::from_secs(5),
        })
    }

    #[test]
    fn acknowledged_post_that_the_store_has_lost_is_refused() {
        let refused = judged(true).expect("refused");
        assert_eq!(refused, "lobby 1 taken out of the store is refused: G1 durable ack");
    }

    #[test]
    fn run_without_an_acknowledged_post_shows_nothing() {
        let why = judged(false).expect_err("nothing to take out");
        assert!(why.contains("no acknowledged post"), "{why}");
    }
}

//! Watch over a post while the store is away.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{
    client::{Answer, Failure, Observer},
    programs::output,
};

/// Observer that remembers whether the client's post is held on workers' disks.
#[derive(Debug, Default)]
pub(super) struct HeldWatch(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    /// Number of disks, while the last answer about the post said that it is held.
    copies: Option<u32>,
    is_told: bool,
}

impl HeldWatch {
    fn held(&self) -> MutexGuard<'_, Held> {
        // Nothing panics while it holds the lock; if it did, what it left is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of disks that hold the post, if the last answer about it said that it is
    /// held.
    pub(super) fn copies(&self) -> Option<u32> {
        self.held().copies
    }

    /// Returns whether the writer was told that the post is held.
    #[cfg(test)]
    pub(super) fn is_told(&self) -> bool {
        self.held().is_told
    }

    /// Takes in how a try ended. Returns a line for the writer, when the post is held for the first
    /// time.
    fn hear(&self, answer: &Result<Answer, Failure>) -> Option<&'static str> {
        let mut held = self.held();
        match answer {
            Ok(Answer::Pending { copies }) => held.copies = Some(*copies),
            // What says nothing about the post leaves it where it was.
            Ok(_)
            | Err(
                Failure::Busy { .. }
                | Failure::Unreached { .. }
                | Failure::Unknown { status: None, .. },
            ) => return None,
            Err(_) => held.copies = None,
        }
        let is_news = held.copies.is_some() && !std::mem::replace(&mut held.is_told, true);
        is_news.then_some("the store is away; the post is held on workers' disks and waits for it")
    }
}

impl Observer for HeldWatch {
    fn on_answer(&self, _: u64, answer: &Result<Answer, Failure>) {
        if let Some(line) = self.hear(answer) {
            output::complain("chatctl", &line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Problem, ProblemType};

    #[test]
    fn post_counts_as_held_until_an_answer_about_it_says_otherwise() {
        let watch = HeldWatch::default();
        let unknown = |status| Err(Failure::Unknown { status, why: "why".to_owned() });
        let problem = Problem::new(ProblemType::Unavailable, "why");
        let busy = Err(Failure::Busy { status: 503, problem, retry_after: None });
        assert!(watch.hear(&unknown(Some(504))).is_none());
        assert!(watch.hear(&Ok(Answer::Pending { copies: 1 })).is_some());
        assert!(watch.hear(&Ok(Answer::Pending { copies: 2 })).is_none(), "it was said");
        for answer in [&busy, &unknown(None), &Ok(Answer::Done)] {
            assert!(watch.hear(answer).is_none());
            assert_eq!(watch.copies(), Some(2), "{answer:?}");
        }
        assert!(watch.hear(&unknown(Some(504))).is_none());
        assert_eq!(watch.copies(), None, "it may be a dead letter");
    }
}

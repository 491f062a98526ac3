//! Calls of a peer that ask for several things at once, and are answered once all of them have an
//! answer.

use std::collections::BTreeMap;

use crate::comm::Responder;

/// Part of a call that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Part {
    call: u64,
    at: usize,
}

/// Call with the answers that its parts have so far.
#[derive(Debug)]
struct Call<T> {
    reply: Responder,
    answers: Vec<Option<T>>,
    missing: usize,
}

/// Calls that wait for parts. There are no more than the links let their peers have under way.
#[derive(Debug)]
pub(super) struct PartedCalls<T> {
    calls: BTreeMap<u64, Call<T>>,
    next: u64,
}

impl<T> Default for PartedCalls<T> {
    fn default() -> Self {
        Self { calls: BTreeMap::new(), next: 0 }
    }
}

impl<T> PartedCalls<T> {
    /// Adds a call with so many parts, at least one. Each is to be answered by [`Self::answer`].
    pub(super) fn open(
        &mut self,
        reply: Responder,
        parts: usize,
    ) -> impl Iterator<Item = Part> + use<T> {
        self.next += 1;
        let call = self.next;
        let answers = std::iter::repeat_with(|| None).take(parts).collect();
        self.calls.insert(call, Call { reply, answers, missing: parts });
        (0..parts).map(move |at| Part { call, at })
    }

    /// Takes the answer to a part. Returns the call with all its answers, in order, if this was the
    /// last one.
    pub(super) fn answer(&mut self, part: Part, answer: T) -> Option<(Responder, Vec<T>)> {
        let call = self.calls.get_mut(&part.call)?;
        if call.answers.get_mut(part.at)?.replace(answer).is_none() {
            call.missing -= 1;
        }
        if call.missing > 0 {
            return None;
        }
        let Call { reply, answers, .. } = self.calls.remove(&part.call)?;
        Some((reply, answers.into_iter().flatten().collect()))
    }

    /// Returns whether nobody waits for the answer to a part any more.
    pub(super) fn is_cancelled(&self, part: Part) -> bool {
        self.calls.get(&part.call).is_none_or(|call| call.reply.is_cancelled())
    }
}

//! Calls of a peer that ask for several things at once, and are answered once all of them have an
//! answer.

use std::collections::BTreeMap;

/// Part of a call that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Part {
    call: u64,
    at: usize,
}

/// Call with the answers that its parts have so far.
#[derive(Debug)]
struct Call<R, T> {
    reply: R,
    answers: Vec<Option<T>>,
    missing: usize,
}

/// Calls that wait for parts, each with its way back `R`, those that their peers gave up meanwhile among them. Whoever answers the
/// parts answers each in a bounded time, so that each call ends.
#[derive(Debug)]
pub(super) struct PartedCalls<R, T> {
    calls: BTreeMap<u64, Call<R, T>>,
    next: u64,
}

impl<R, T> Default for PartedCalls<R, T> {
    fn default() -> Self {
        Self { calls: BTreeMap::new(), next: 0 }
    }
}

impl<R, T> PartedCalls<R, T> {
    /// Adds a call with so many parts, at least one. Each is to be answered by [`Self::answer`].
    pub(super) fn open(
        &mut self,
        reply: R,
        parts: usize,
    ) -> impl Iterator<Item = Part> + use<R, T> {
        self.next += 1;
        let call = self.next;
        let answers = std::iter::repeat_with(|| None).take(parts).collect();
        self.calls.insert(call, Call { reply, answers, missing: parts });
        (0..parts).map(move |at| Part { call, at })
    }

    /// Takes the answer to a part. Returns the call with all its answers, in order, if this was the
    /// last one.
    pub(super) fn answer(&mut self, part: Part, answer: T) -> Option<(R, Vec<T>)> {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn call_is_answered_once_with_its_last_part_in_the_order_of_its_parts() {
        let mut calls = PartedCalls::default();
        let [one, two]: [Part; 2] =
            calls.open("first", 2).collect::<Vec<_>>().try_into().expect("two");
        let [other]: [Part; 1] =
            calls.open("second", 1).collect::<Vec<_>>().try_into().expect("one");
        assert_eq!(calls.answer(two, 'b'), None);
        assert_eq!(calls.answer(two, 'c'), None, "it has an answer already");
        assert_eq!(calls.answer(other, 'x'), Some(("second", vec!['x'])));
        assert_eq!(calls.answer(one, 'a'), Some(("first", vec!['a', 'c'])));
        assert_eq!(calls.answer(one, 'd'), None, "it is over");
        assert!(calls.calls.is_empty());
    }
}

//! Times of each session, read from the history once: oracles ask for them at every operation.

use std::{collections::BTreeMap, time::Duration};

use chatchat::client::Request;

use crate::history::{History, Who};

/// Times of every session that did something.
pub(super) struct Sessions(BTreeMap<Who, Times>);

/// Times of one session.
#[derive(Clone, Copy, Default)]
pub(super) struct Times {
    /// First good answer to the request that opened it.
    pub(super) opened: Option<Duration>,
    /// First request to log out that does not certainly have done nothing.
    pub(super) leaves: Option<Duration>,
    /// First good answer to a request to log out.
    pub(super) left: Option<Duration>,
    /// Last thing that it sent or heard.
    pub(super) last: Duration,
}

impl Sessions {
    /// Reads the times of all sessions.
    pub(super) fn read(history: &History) -> Self {
        let mut sessions: BTreeMap<Who, Times> = BTreeMap::new();
        for operation in &history.operations {
            let times = sessions.entry(operation.who).or_default();
            let end = operation.end.as_ref().map_or(operation.invoked, |(at, _)| *at);
            times.last = times.last.max(end);
            let first = match &operation.request {
                Request::OpenSession { .. } => &mut times.opened,
                Request::Leave => {
                    if times.leaves.is_none() && !operation.did_nothing() {
                        times.leaves = Some(operation.invoked);
                    }
                    &mut times.left
                }
                _ => continue,
            };
            if let Some((at, _)) = operation.reply() {
                *first = Some(first.map_or(at, |first| first.min(at)));
            }
        }
        for stream in &history.streams {
            let times = sessions.entry(stream.who).or_default();
            let heard = stream.deliveries.last().map_or(stream.asked, |(at, _)| *at);
            let end = stream.end.as_ref().map_or(heard, |(at, _)| *at);
            times.last = times.last.max(end);
        }
        Self(sessions)
    }

    /// Returns the times of a session, if it did something.
    pub(super) fn get(&self, who: Who) -> Option<Times> {
        self.0.get(&who).copied()
    }

    /// Returns when a session's log-out was first asked for, unless it certainly did nothing.
    pub(super) fn leaves(&self, who: Who) -> Option<Duration> {
        self.get(who)?.leaves
    }

    /// Returns when a session's log-out was first acknowledged.
    pub(super) fn left(&self, who: Who) -> Option<Duration> {
        self.get(who)?.left
    }
}

#[cfg(test)]
mod tests {
    use chatchat::{api::StreamEvent, client::Answer};

    use super::*;
    use crate::oracle::fixtures::{Fixture, busy, ms};

    #[test]
    fn log_out_counts_from_its_first_request_that_may_have_done_something() {
        let mut made = Fixture::new();
        made.did(0, 10, 20, Request::Leave, busy(503));
        made.did(0, 30, 90, Request::Leave, Ok(Answer::Done));
        made.did(0, 40, 60, Request::Leave, Ok(Answer::Done));
        made.stream(1, 50, vec![(70, StreamEvent::Beat)]);
        let sessions = Sessions::read(&made.history);
        let (first, second) = (Who { person: 0, life: 0 }, Who { person: 1, life: 0 });
        assert_eq!(sessions.leaves(first), Some(ms(30)));
        assert_eq!(sessions.left(first), Some(ms(60)));
        assert_eq!(sessions.get(first).map(|times| times.last), Some(ms(90)));
        assert_eq!(sessions.get(second).map(|times| times.last), Some(ms(70)));
        assert_eq!(sessions.leaves(second), None);
        assert!(sessions.get(Who { person: 2, life: 0 }).is_none());
    }
}

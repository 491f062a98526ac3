//! Calls of an operator about dead letters, as the history holds them.

use std::{fmt, time::Duration};

use chatchat::{
    api::{DeadLetter, DeadLetterList},
    client::{Answer, Failure, Request},
    model::ids::{PostId, UserId},
};

use super::{History, Recorder, Who};

/// One try of one call of an operator about dead letters, at one master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorCall {
    /// Listener for operators that was asked: `http://host:port`.
    pub master: String,
    /// Request that was made.
    pub request: Request,
    /// Letter that is to be retried or dropped, as it was listed; none for a list.
    pub letter: Option<DeadLetter>,
    /// Time just before the request left.
    pub invoked: Duration,
    /// Time and kind of the answer; `None` when the run ended first.
    pub end: Option<(Duration, Result<Answer, Failure>)>,
}

impl OperatorCall {
    /// Returns the good answer and its time, if there was one.
    #[must_use]
    pub fn reply(&self) -> Option<(Duration, &Answer)> {
        match &self.end {
            Some((at, Ok(answer))) => Some((*at, answer)),
            _ => None,
        }
    }

    /// Returns whether it is certain that the call did nothing: a refusal and a delay mean so (G16).
    #[must_use]
    pub const fn did_nothing(&self) -> bool {
        matches!(&self.end, Some((_, Err(failure))) if failure.did_nothing())
    }

    /// Returns author and id of the post whose letter the call retries or drops.
    #[must_use]
    pub fn post(&self) -> Option<(UserId, PostId)> {
        self.letter.as_ref().and_then(post_of)
    }
}

impl fmt::Display for OperatorCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = self.invoked.as_secs_f64();
        write!(f, "{from:.3}s operator at {}: {:?}", self.master, self.request)?;
        if let Some((_, id)) = self.post() {
            write!(f, " of post {id}")?;
        }
        match &self.end {
            None => write!(f, " -> never ended"),
            Some((at, answer)) => {
                let answer: String = format!("{answer:?}").chars().take(300).collect();
                write!(f, " -> {:.3}s {answer}", at.as_secs_f64())
            }
        }
    }
}

/// Returns author and id of the post of a letter, if it is one of a post.
#[must_use]
pub fn post_of(letter: &DeadLetter) -> Option<(UserId, PostId)> {
    letter.post.as_ref().map(|post| (post.author.id, post.id))
}

impl Recorder {
    /// Notes that an operator asks a master, about this letter unless it asks for a list. Returns the
    /// number of the call.
    pub(crate) fn operator_asks(
        &self,
        master: &str,
        request: &Request,
        letter: Option<&DeadLetter>,
    ) -> usize {
        let invoked = self.clock().now();
        let mut history = self.history();
        history.operator.push(OperatorCall {
            master: master.to_owned(),
            request: request.clone(),
            letter: letter.cloned(),
            invoked,
            end: None,
        });
        history.operator.len() - 1
    }

    /// Notes the answer to a call of an operator.
    pub(crate) fn operator_is_told(&self, call: usize, answer: &Result<Answer, Failure>) {
        let at = self.clock().now();
        if let Some(call) = self.history().operator.get_mut(call) {
            call.end = Some((at, answer.clone()));
        }
    }
}

impl History {
    /// Every list of dead letters that an operator was given, with its call.
    pub fn letter_lists(&self) -> impl Iterator<Item = (&OperatorCall, &DeadLetterList)> {
        self.operator.iter().filter_map(|call| match call.reply() {
            Some((_, Answer::DeadLetters(list))) => Some((call, list)),
            _ => None,
        })
    }

    /// Every drop of a dead letter that may have cancelled its post, with author and id of the post.
    pub fn drops(&self) -> impl Iterator<Item = (&OperatorCall, (UserId, PostId))> {
        let is_drop = |call: &&OperatorCall| {
            matches!(call.request, Request::DropDeadLetter { .. }) && !call.did_nothing()
        };
        self.operator.iter().filter(is_drop).filter_map(|call| Some((call, call.post()?)))
    }

    /// Returns whether an operator may have cancelled a post of a session's user by a time.
    #[must_use]
    pub fn may_be_dropped(&self, author: Who, id: PostId, by: Duration) -> bool {
        let Some(user) = self.users.get(&author) else { return false };
        self.drops().any(|(call, post)| post == (*user, id) && call.invoked <= by)
    }
}

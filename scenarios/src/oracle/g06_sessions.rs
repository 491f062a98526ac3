//! G6 sessions survive: a session id is valid on every master until log-out, and restores who
//! one is.

use chatchat::client::{Answer, Failure};

use super::{Evidence, Violation, broken, line};
use crate::property::Property;

pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Violation> {
    let history = evidence.history;
    let mut found = Vec::new();
    for operation in &history.operations {
        let left = history.left(operation.who);
        if let Some((at, Failure::Refused { status: 401, .. })) = operation.failure()
            && left.is_none_or(|left| at < left)
        {
            found.push(broken(Property::G6, "a session was forgotten", [line(operation)]));
        }
        if let Some((_, Answer::Restored(restored))) = operation.reply()
            && history.users.get(&operation.who).is_some_and(|user| *user != restored.user.id)
        {
            found.push(broken(Property::G6, "a session is somebody else's", [line(operation)]));
        }
    }
    for stream in &history.streams {
        if let Some((at, Failure::Refused { status: 401, .. })) = &stream.refused
            && history.left(stream.who).is_none_or(|left| *at < left)
        {
            let place = format!("a stream of {} at {}", stream.who, stream.master);
            found.push(broken(Property::G6, "a session was forgotten", [place]));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use chatchat::client::Request;

    use super::*;
    use crate::oracle::fixtures::{Fixture, refused};

    #[test]
    fn refusal_after_log_out_is_accepted_and_earlier_one_reported() {
        let mut made = Fixture::new();
        made.did(0, 100, 200, Request::Leave, Ok(Answer::Done));
        made.did(0, 90, 210, Request::Users, refused(401));
        assert_eq!(made.judge(judge), []);
        made.did(1, 90, 210, Request::Users, refused(401));
        assert_eq!(made.judge(judge).len(), 1);
    }
}

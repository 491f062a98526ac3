//! Recovery times: how long people waited because of a fault, for an acknowledgement or for their
//! streams.
//!
//! 1. The wait of a post lasts from its first try to its first acknowledgement.
//! 2. The recovery time of a fault is the longest wait of a post that was under way while the
//!    fault stood, or began in the second after it.
//! 3. A fault that stays on around a core counts until the core begins: from then on people wait
//!    because of all that is broken.
//! 4. The wait for a stream lasts from the death of a master, killed or silent, to the first event of
//!    the next stream of a client that read there.

use std::time::Duration;

use chatchat_scenarios::{
    history::History,
    oracle::{Evidence, times_to_stream_again},
    plan::Incident,
};

/// Effects of a fault outlive it a little.
const AFTER: Duration = Duration::from_secs(1);

/// Recovery time: of an incident, or of a client that a dead master left without a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// The longest wait.
    Took(Duration),
    /// A post was never acknowledged, or a client never streamed again.
    Never,
}

/// Returns the recovery time of each incident that bit; `None` for the others, and for those in
/// whose time nobody posted. Incidents from the number `core` on say when only a core was whole.
#[must_use]
pub fn recoveries(history: &History, incidents: &[Incident], core: usize) -> Vec<Option<Recovery>> {
    let waits = history.waits();
    let of_core = incidents.iter().filter(|incident| incident.fault >= core);
    let core_from = of_core.map(|incident| incident.from).min().unwrap_or(Duration::MAX);
    let of = |incident: &Incident| {
        if !incident.bit {
            return None;
        }
        let bound = if incident.fault < core { core_from } else { Duration::MAX };
        let until = incident.until.unwrap_or(Duration::MAX).min(bound);
        let end = until.saturating_add(AFTER);
        let concerned = waits.values().filter(|wait| {
            wait.first.operation.invoked <= end
                && wait.until.is_none_or(|until| until >= incident.from)
        });
        let all = concerned.map(|wait| match wait.until {
            None => Recovery::Never,
            Some(until) => Recovery::Took(until.saturating_sub(wait.first.operation.invoked)),
        });
        all.reduce(Recovery::longer)
    };
    incidents.iter().map(of).collect()
}

/// Returns the waits for streams after each incident that ended a master, one for each client that read
/// there; none for the other incidents.
#[must_use]
pub fn stream_recoveries(evidence: &Evidence<'_>) -> Vec<Vec<Recovery>> {
    let of = |incident| {
        let times = times_to_stream_again(evidence, incident).into_iter();
        times.map(|time| time.map_or(Recovery::Never, Recovery::Took)).collect()
    };
    evidence.incidents.iter().map(of).collect()
}

impl Recovery {
    const fn longer(self, other: Self) -> Self {
        match (self, other) {
            (Self::Took(one), Self::Took(two)) => {
                Self::Took(if one.as_nanos() < two.as_nanos() { two } else { one })
            }
            _ => Self::Never,
        }
    }
}

#[cfg(test)]
mod tests {
    use chatchat::{
        api::StreamEvent,
        client::{Answer, Delivery, Request, StreamEnd},
        model::ids::{Author, BoardName, Post, PostId, Seq, UserId},
    };
    use chatchat_scenarios::{
        history::{End, Operation, Reader, ReaderKind, StreamLog, Who},
        oracle::StoreDump,
        plan::Plan,
        story::Story,
        target::Place,
    };

    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A try to send post `id` that is acknowledged at `end`, or never.
    fn attempt(id: u8, invoked: u64, end: Option<u64>) -> Operation {
        let (id, board) = (PostId([id; 16]), BoardName::lobby());
        let text = "a text".parse().expect("short");
        let post = |seq| Post {
            id,
            board: BoardName::lobby(),
            seq: Seq(seq),
            author: Author { id: UserId([1; 16]), name: "ann".parse().expect("a name") },
            text: "a text".parse().expect("short"),
            posted_at_ms: 0,
        };
        Operation {
            number: 0,
            who: Who { person: 0, life: 0 },
            master: "http://master0:80".to_owned(),
            request: Request::Post { board, id, text },
            invoked: ms(invoked),
            end: end.map(|at| (ms(at), End::Answered(Ok(Answer::Posted(post(1)))))),
        }
    }

    fn recovery(operations: Vec<Operation>, bit: bool) -> Option<Recovery> {
        let history = History { operations, ..History::default() };
        let incident = Incident { fault: 0, from: ms(10_000), until: Some(ms(12_000)), bit };
        recoveries(&history, &[incident], 1)[0]
    }

    #[test]
    fn fault_that_stays_on_around_a_core_counts_until_the_core_begins() {
        let operations = vec![
            attempt(1, 10_500, Some(11_700)),
            attempt(2, 12_500, Some(14_000)),
            attempt(3, 14_000, Some(29_000)),
        ];
        let history = History { operations, ..History::default() };
        let fault = Incident { fault: 0, from: ms(10_000), until: Some(ms(30_000)), bit: true };
        let core = Incident { fault: 1, from: ms(12_000), ..fault.clone() };
        let found = recoveries(&history, &[fault, core], 1);
        let longest = [1_500, 15_000].map(|took| Some(Recovery::Took(ms(took))));
        assert_eq!(found, longest);
    }

    #[test]
    fn longest_wait_during_a_fault_counts_from_the_first_try() {
        let posts = vec![
            attempt(1, 1_000, Some(1_050)),
            attempt(2, 9_900, None),
            attempt(2, 11_000, Some(12_400)),
            attempt(3, 10_500, Some(10_600)),
            attempt(4, 20_000, Some(29_000)),
        ];
        assert_eq!(recovery(posts.clone(), true), Some(Recovery::Took(ms(2_500))));
        assert_eq!(recovery(posts, false), None, "a fault that touched nothing has no recovery");
    }

    #[test]
    fn post_without_an_acknowledgement_never_recovers() {
        let posts = vec![attempt(1, 10_500, Some(10_600)), attempt(2, 11_000, None)];
        assert_eq!(recovery(posts, true), Some(Recovery::Never));
    }

    #[test]
    fn fault_in_whose_time_nobody_posted_has_no_recovery() {
        assert_eq!(recovery(vec![attempt(1, 1_000, Some(1_050))], true), None);
    }

    /// A stream of a person at a master that delivers once, and ends at a time.
    fn stream(person: usize, master: usize, delivers: u64, end: Option<u64>) -> StreamLog {
        let delivery = Delivery { event: StreamEvent::Beat, cursor: None };
        StreamLog {
            number: 0,
            who: Who { person, life: 0 },
            master: format!("http://master{master}:80"),
            boards: vec![BoardName::lobby()],
            cursor: None,
            asked: ms(delivers),
            deliveries: vec![(ms(delivers), delivery)],
            end: end.map(|at| (ms(at), StreamEnd::Ended)),
            refused: None,
            looked_away: false,
            is_slow: false,
            reader: Some(0),
        }
    }

    /// Returns the waits for streams after the coordinator is killed at 20 s. Two people read from
    /// `master1`: one streams again at 20.4 s, the other never; a third one reads elsewhere all the time.
    fn waits(ends: &[(Place, Duration)]) -> Vec<Vec<Recovery>> {
        let text = "about = \"\"\nduration = \"60s\"\n[cluster]\nmasters = 2\nworkers = 1\n\
                    [[fault]]\nat = \"20s\"\nkind = \"exit\"\n\
                    target = \"coordinator(board:lobby)\"\nfor = \"10s\"\n";
        let plan = Plan::expand(&Story::parse("made", text).expect("a story"), 1);
        let mut streams = vec![
            stream(0, 1, 15_000, Some(20_050)),
            stream(1, 1, 15_000, Some(20_050)),
            stream(2, 0, 15_000, None),
            stream(0, 0, 20_400, None),
        ];
        for (number, stream) in streams.iter_mut().enumerate() {
            stream.number = number;
        }
        let reader = Reader { who: Who { person: 0, life: 0 }, from: None, kind: ReaderKind::Page };
        let history = History {
            streams,
            readers: vec![reader],
            masters: (0..2).map(|nth| format!("http://master{nth}:80")).collect(),
            living: vec![0, 1, 2],
            ..History::default()
        };
        let killed = Incident { fault: 0, from: ms(20_000), until: Some(ms(30_000)), bit: true };
        let core = Incident { fault: 1, ..killed.clone() };
        stream_recoveries(&Evidence {
            plan: &plan,
            incidents: &[killed, core],
            history: &history,
            store: &StoreDump::default(),
            events: &[],
            ends,
            ended: ms(67_000),
            calm_limit: Duration::ZERO,
        })
    }

    #[test]
    fn clients_of_a_master_that_is_named_by_its_role_are_found_by_the_ends_of_processes() {
        let (both, none) = (vec![Recovery::Took(ms(400)), Recovery::Never], Vec::new());
        let exit = (Place::Master(1), ms(20_000));
        let other = (Place::Worker(0), ms(37_000));
        assert_eq!(waits(&[exit, other]), [both, none.clone()]);
        assert_eq!(waits(&[other]), [none.clone(), none.clone()], "nobody knows which");
        assert_eq!(waits(&[]), [none.clone(), none], "a second process, which is no place's");
    }
}

//! History that another program recorded of a real cluster, read from a file and judged.
//!
//! The scripts under `tests/` let people use real processes and write down what they saw. A line is
//! one JSON value: who a person is, a call with its answer, a stream, an event of it, a board as it
//! stood at the end, what the cluster is made of and what was done to it. The last line closes the file.
//!
//! 1. A damaged line is refused with its number, and so is a file without its last line.
//! 2. Judged is only what people's own evidence shows: no event line of a node is known, and the
//!    store's content is what a master read at the end.
//! 3. Each judgement proves that the evidence is looked at: without one acknowledged post it is
//!    refused.
//! 4. What a fault may excuse is judged only if the file names the cluster: then it tells of all faults.

mod faults;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
    time::Duration,
};

use chatchat::{
    api::{Problem, StreamEvent},
    client::{Answer, Delivery, Failure, Request, StreamEnd},
    model::ids::{BoardName, Cursor, Post, StoreEpoch, UserId},
};
use chatchat_scenarios::{
    cluster::Cluster,
    fault::Kind,
    history::{End, History, Operation, Reader, ReaderKind, StreamLog, Who},
    oracle::{Evidence, StoreDump, shown_weak_service},
    plan::{Incident, Plan},
    property::Property,
    story::Story,
};
use serde::Deserialize;
use thiserror::Error;

use self::faults::Done;
use crate::{
    judge::judge,
    real::{CALM_LIMIT, canary},
    verdict::{Report, Verdict},
};

/// Properties that what people saw is enough for.
const JUDGED: [Property; 4] = [Property::G1, Property::G2, Property::G4, Property::G5];
/// Properties that hold but for faults, so that these have to be known.
const WITH_FAULTS: [Property; 3] = [Property::G3, Property::G15, Property::G16];
const FAULTLESS: &str = "G3, G6, G15, G16: the file has no line `cluster`, and so not all faults";
const SESSIONLESS: &str = "G6: nobody restored or left a session";
const HELDLESS: &str = "G15: no post was held on disks that were kept, and no call ended while the store alone was away";
const UNJUDGED: &str = "what nodes did: the file holds only what people saw";
/// Longest line, in bytes: a board of some ten thousand posts fits.
const LINE_LEN_MAX: u64 = 64 * 1024 * 1024;
/// Story of a plan without faults.
const STORY: &str =
    "about = \"recorded\"\nduration = \"1s\"\n[cluster]\nmasters = 1\nworkers = 1\n";

/// A file that holds no history. Nothing was judged.
#[derive(Debug, Error)]
pub enum RecordError {
    /// The file cannot be read.
    #[error("{path}: {why}")]
    Unreadable {
        /// The file.
        path: String,
        /// Reason of the system.
        why: io::Error,
    },
    /// A line is damaged, or does not fit those before it.
    #[error("{path}:{line}: {why}")]
    Damaged {
        /// The file.
        path: String,
        /// Number of the line, from 1.
        line: usize,
        /// Problem with it.
        why: String,
    },
}

/// One line of the file. Times are milliseconds on one clock, from any start.
#[derive(Debug, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case", deny_unknown_fields)]
enum Line {
    /// A person who opened a session.
    Person { person: usize, user: UserId },
    /// A call; without an end and an answer it is not known what became of it.
    Call {
        person: usize,
        master: String,
        request: Request,
        sent_ms: f64,
        ended_ms: Option<f64>,
        answer: Option<Answer>,
        failure: Option<Failed>,
    },
    /// A stream that was asked for, by a reader that goes on from stream to stream; it may say how it
    /// failed to begin, at its end.
    Stream {
        stream: usize,
        person: usize,
        reader: usize,
        master: String,
        boards: Vec<BoardName>,
        cursor: String,
        asked_ms: f64,
        ended_ms: Option<f64>,
        failure: Option<Failed>,
    },
    /// An event of a stream, as it arrived.
    Event { stream: usize, at_ms: f64, event: String, id: Option<String>, data: String },
    /// Parts of the cluster: masters by address, in the order of their places' numbers, and the
    /// number of workers. A file that says so tells of all that was done to them.
    Cluster { masters: Vec<String>, workers: usize },
    /// A fault that was carried out at a place; without an end it stood until that of the file.
    Fault { kind: Kind, place: String, from_ms: f64, until_ms: Option<f64> },
    /// All posts of a board at the end.
    Board { board: BoardName, posts: Vec<Post> },
    /// The end of the file.
    End { lines: usize, epoch: StoreEpoch, reading_ms: f64, ended_ms: f64 },
}

/// Failure of a call. Only an unknown one may have done something.
#[derive(Debug, Deserialize)]
#[serde(tag = "failure", rename_all = "snake_case", deny_unknown_fields)]
enum Failed {
    /// It was refused for good.
    Refused { status: u16 },
    /// It was put off, with the wait that the master asked for.
    Busy { status: u16, retry_after_s: Option<f64> },
    /// It never left.
    Unreached { why: String },
    /// It is not known what became of it.
    Unknown { status: Option<u16>, why: String },
}

impl Failed {
    fn read(self, master: &str) -> Result<Failure, String> {
        let problem = Problem::default();
        Ok(match self {
            Self::Refused { status } => Failure::Refused { status, problem },
            Self::Busy { status, retry_after_s } => {
                let retry_after = retry_after_s.map(|wait| time(wait * 1e3)).transpose()?;
                Failure::Busy { status, problem, retry_after }
            }
            Self::Unreached { why } => Failure::Unreached { master: master.to_owned(), why },
            Self::Unknown { status, why } => Failure::Unknown { status, why },
        })
    }
}

/// History of a file, with the content of the store at its end.
#[derive(Debug, Default)]
pub struct Recorded {
    history: History,
    store: StoreDump,
    ended: Duration,
    /// Parts of the cluster, if the file tells them.
    cluster: Option<Cluster>,
    faults: Vec<Done>,
    /// Index of each reader's number.
    readers: BTreeMap<usize, usize>,
    has_ended: bool,
}

impl Recorded {
    /// Reads a file.
    ///
    /// # Errors
    /// [`RecordError`]
    pub fn load(path: &Path) -> Result<Self, RecordError> {
        let shown = || path.display().to_string();
        let unreadable = |why| RecordError::Unreadable { path: shown(), why };
        let mut file = BufReader::new(File::open(path).map_err(unreadable)?);
        let (mut recorded, mut number) = (Self::default(), 0);
        let damaged = |line, why| RecordError::Damaged { path: shown(), line, why };
        loop {
            let mut text = Vec::new();
            let mut room = file.by_ref().take(LINE_LEN_MAX);
            if room.read_until(b'\n', &mut text).map_err(unreadable)? == 0 {
                break;
            }
            number += 1;
            let text = text.strip_suffix(b"\n").unwrap_or(&text);
            // The parser's own line is always the first: there is no other in the text.
            let parsed = serde_json::from_slice(text)
                .map_err(|why| why.to_string().replace(" at line 1 column", " at column"));
            parsed
                .and_then(|line| recorded.add(number, line))
                .map_err(|why| damaged(number, why))?;
        }
        if !recorded.has_ended {
            return Err(damaged(number + 1, "the file ends before its line `end`".to_owned()));
        }
        recorded.history.operations.sort_by_key(|operation| operation.invoked);
        for (number, operation) in recorded.history.operations.iter_mut().enumerate() {
            operation.number = number;
        }
        Ok(recorded)
    }

    fn add(&mut self, number: usize, line: Line) -> Result<(), String> {
        if self.has_ended {
            return Err("a line follows `end`".to_owned());
        }
        match line {
            Line::Person { person, user } => {
                if self.history.users.insert(who(person), user).is_some() {
                    return Err(format!("person {person} is there twice"));
                }
            }
            Line::Call { person, master, request, sent_ms, ended_ms, answer, failure } => {
                let answered = match (answer, failure) {
                    (None, None) => None,
                    (Some(answer), None) => Some(Ok(answer)),
                    (None, Some(failure)) => Some(Err(failure.read(&master)?)),
                    _ => return Err("a call is answered, or fails".to_owned()),
                };
                let end = match (ended_ms, answered) {
                    (None, None) => None,
                    (Some(at), Some(answered)) => Some((time(at)?, End::Answered(answered))),
                    _ => return Err("an answer has a time, and a time an answer".to_owned()),
                };
                self.history.operations.push(Operation {
                    number: 0,
                    who: self.known(person)?,
                    master,
                    request,
                    invoked: time(sent_ms)?,
                    end,
                });
            }
            Line::Stream {
                stream,
                person,
                reader,
                master,
                boards,
                cursor,
                asked_ms,
                ended_ms,
                failure,
            } => {
                if stream != self.history.streams.len() {
                    return Err(format!("stream {stream} is not the next one"));
                }
                let cursor: Cursor = cursor.parse().map_err(|why| format!("cursor: {why}"))?;
                let who = self.known(person)?;
                let readers = &mut self.history.readers;
                let reader = *self.readers.entry(reader).or_insert_with(|| {
                    readers.push(Reader {
                        who,
                        from: Some(cursor.clone()),
                        kind: ReaderKind::Page,
                    });
                    readers.len() - 1
                });
                let ended = ended_ms.map(time).transpose()?;
                let failure = failure.map(|failed| failed.read(&master)).transpose()?;
                let (end, refused) = match (ended, failure) {
                    (ended, None) => (ended.map(|at| (at, StreamEnd::Ended)), None),
                    (Some(at), Some(failure)) => (None, Some((at, failure))),
                    (None, Some(_)) => return Err("a stream that failed has an end".to_owned()),
                };
                self.history.streams.push(StreamLog {
                    number: stream,
                    who,
                    master,
                    boards,
                    cursor: Some(cursor),
                    asked: time(asked_ms)?,
                    deliveries: Vec::new(),
                    end,
                    refused,
                    looked_away: false,
                    is_slow: false,
                    reader: Some(reader),
                });
            }
            Line::Event { stream, at_ms, event, id, data } => {
                let log = self.history.streams.get_mut(stream);
                let log = log.ok_or_else(|| format!("stream {stream} is not there"))?;
                let cursor = id.map(|id| id.parse::<Cursor>()).transpose();
                let cursor = cursor.map_err(|why| format!("id: {why}"))?;
                let event =
                    StreamEvent::read(&event, &data).map_err(|why| format!("data: {why}"))?;
                log.deliveries.push((time(at_ms)?, Delivery { event, cursor }));
            }
            Line::Cluster { masters, workers } => {
                if self.cluster.is_some() {
                    return Err("the cluster is there twice".to_owned());
                }
                self.cluster = Some(faults::cluster(masters.len(), workers)?);
                self.history.masters = masters;
            }
            Line::Fault { kind, place, from_ms, until_ms } => {
                let cluster = self.cluster.as_ref();
                let cluster = cluster.ok_or("a fault follows the line `cluster`")?;
                let until = until_ms.map(time).transpose()?;
                self.faults.push(Done::read(cluster, kind, &place, time(from_ms)?, until)?);
            }
            Line::Board { board, posts } => {
                if self.store.boards.insert(board.clone(), posts).is_some() {
                    return Err(format!("board {board} is there twice"));
                }
            }
            Line::End { lines, epoch, reading_ms, ended_ms } => {
                if lines != number {
                    return Err(format!("the file had {lines} lines, {number} are there"));
                }
                self.store.epoch = epoch;
                self.history.reading_from = Some(time(reading_ms)?);
                self.ended = time(ended_ms)?;
                self.has_ended = true;
            }
        }
        Ok(())
    }

    fn known(&self, person: usize) -> Result<Who, String> {
        let who = who(person);
        let is_known = self.history.users.contains_key(&who);
        is_known.then_some(who).ok_or_else(|| format!("person {person} is not there"))
    }

    /// Says in the plan what is judged, and what the cluster is made of. Returns what is not judged.
    fn scope(&self, plan: &mut Plan) -> Vec<String> {
        let mut unjudged = vec![UNJUDGED.to_owned()];
        let mut judged = JUDGED.to_vec();
        match &self.cluster {
            None => unjudged.push(FAULTLESS.to_owned()),
            Some(cluster) => {
                plan.cluster = cluster.clone();
                judged.extend(WITH_FAULTS);
                let tells = |operation: &Operation| {
                    matches!(operation.request, Request::Restore | Request::Leave)
                        && operation.reply().is_some()
                };
                if self.history.operations.iter().any(tells) {
                    judged.push(Property::G6);
                } else {
                    unjudged.push(SESSIONLESS.to_owned());
                }
            }
        }
        judged.sort_unstable();
        plan.expect.properties = judged;
        unjudged
    }

    /// Judges the history. Returns the plan that stands for it, and the report.
    #[must_use]
    pub fn judge(self, name: &str) -> (Plan, Report) {
        let mut plan = Plan::expand(&Story::parse(name, STORY).expect("a story"), 0);
        plan.workload.people = 0;
        let mut unjudged = self.scope(&mut plan);
        let mut incidents = Vec::new();
        for done in &self.faults {
            incidents.push(Incident { fault: plan.faults.len(), ..done.incident.clone() });
            plan.faults.push(done.fault.clone());
        }
        plan.named = plan.faults.len();
        let evidence = Evidence {
            plan: &plan,
            incidents: &incidents,
            history: &self.history,
            store: &self.store,
            events: &[],
            ends: &[],
            ended: self.ended,
            calm_limit: CALM_LIMIT,
        };
        if self.cluster.is_some() && !shown_weak_service(&evidence) {
            unjudged.push(HELDLESS.to_owned());
        }
        let streams = &self.history.streams;
        let events: usize = streams.iter().map(|stream| stream.deliveries.len()).sum();
        let base = Report {
            virtual_time: self.ended,
            real: Some(format!("recorded: {} streams, {events} events", streams.len())),
            unjudged,
            ..Report::default()
        };
        let canary = canary::judge(&evidence);
        let mut report = judge(&evidence, Vec::new(), |_| true, &[], base);
        match canary {
            Ok(refused) => report.canary = Some(refused),
            Err(why) => {
                report.verdict = report.verdict.max(Verdict::Toothless);
                report.complaints.push(why);
            }
        }
        (plan, report)
    }
}

const fn who(person: usize) -> Who {
    Who { person, life: 0 }
}

fn time(ms: f64) -> Result<Duration, String> {
    Duration::try_from_secs_f64(ms / 1e3).map_err(|why| format!("{ms} ms: {why}"))
}

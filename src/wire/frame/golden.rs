//! Bytes of one message of each kind.
//!
//! A difference is a change of the wire: a node of the release before does not understand it. Append
//! a variant, and send it only over links whose version knows it (ARCHITECTURE, "Upgrades").

use std::{fmt::Write as _, sync::Arc};

use super::*;
use crate::{
    model::{
        absence::AwayReason,
        copies::{CopyDigests, SessionDigests, SessionEntry, SessionPage},
        held::{HandInReply, HeldPost, HoldReply},
        ids::{
            Author, BoardName, Incarnation, KeyEpoch, NodeId, Post, PostId, Registration, Resource,
            Role, Seq, SessionKey, StoreEpoch, Token, UserId,
        },
        message::{
            Assign, AssignReply, Close, CloseReason, Fact, ForwardReply, Member, MemberState, Task,
            Update, Updates, WorkerStatus,
        },
        outcome::{Outcome, TaskResult},
        rows::{Boards, Holder, NewPost, Page, Permission, Range, SessionRow, StoreError},
        stream::HeldState,
    },
    testing::snapshots,
};

const KEY: SessionKey = SessionKey([2; 32]);
const NODE: NodeId = NodeId([6; 16]);
const USER: UserId = UserId([4; 16]);
const POST: PostId = PostId([5; 16]);

fn board() -> BoardName {
    BoardName::lobby()
}

fn author() -> Author {
    Author { id: USER, name: "Ann".parse().expect("a name") }
}

fn new_post() -> NewPost {
    NewPost { id: POST, author: author(), text: "hello".parse().expect("a text") }
}

fn post() -> Post {
    let NewPost { id, author, text } = new_post();
    Post { id, board: board(), seq: Seq(300), author, text, posted_at_ms: 70_000 }
}

fn row() -> SessionRow {
    SessionRow { key: KEY, user: author(), read_marks: vec![(board(), Seq(9))] }
}

fn token() -> Token {
    Token { epoch: StoreEpoch(1), lease: 2, n: 4 }
}

fn assign(tasks: Vec<Task>) -> Assign {
    let (resource, after) = (Resource::Sessions(NODE), Some(3));
    let permission = Permission { resource, token: token(), after, worker: NODE };
    Assign { registration: Registration(8), permission, tasks: Arc::new(tasks) }
}

fn member() -> Member {
    let (role, state) = (Role::Master, MemberState::Failed);
    Member {
        fact: Fact { node: NODE, role, registration: Registration(1), state, master: NODE },
        name: "north".to_owned(),
        link: Some("a:1".to_owned()),
        http: None,
        spki: vec![7; 4],
    }
}

fn tasks() -> Vec<Task> {
    let (key, ticket_sha256) = (KEY, [3; 32]);
    vec![
        Task::Post { board: board(), post: new_post() },
        Task::CreateBoard { board: board() },
        Task::CancelPost { user: USER, id: POST },
        Task::OpenSession { key, user: author() },
        Task::CloseSession { key },
        Task::SetReadMark { key, board: board(), seq: Seq(9) },
        Task::PutTicket { key, ticket_sha256 },
        Task::RedeemTicket { ticket_sha256, key },
    ]
}

fn refusals() -> Vec<StoreError> {
    let mut errors: Vec<_> =
        AwayReason::ALL.into_iter().map(|reason| StoreError::away(reason, "x")).collect();
    let text = || "x".to_owned();
    errors.extend([
        StoreError::Fenced { token: token(), seen: token() },
        StoreError::NotNext { after: 3, seen: token() },
        StoreError::Stale,
        StoreError::InUse { at: text() },
        StoreError::Unknown { what: text() },
        StoreError::Refused { why: text() },
        StoreError::Broken { why: text() },
        StoreError::Busy,
    ]);
    errors
}

fn results() -> Vec<TaskResult> {
    let (seq, posted_at_ms) = (Seq(300), 70_000);
    let mut results = vec![
        TaskResult::Committed { seq, posted_at_ms },
        TaskResult::Duplicate { seq, posted_at_ms },
        TaskResult::Conflict,
        TaskResult::Cancelled,
        TaskResult::AlreadyCommitted(Box::new(post())),
        TaskResult::Session(Box::new(row())),
        TaskResult::Done,
    ];
    results.extend(refusals().into_iter().map(|why| TaskResult::Refused(Box::new(why))));
    results
}

fn requests() -> Vec<Request> {
    let held = || HeldPost { board: board(), post: new_post() };
    let read = |range| Request::Read { board: board(), range, limit: 50 };
    vec![
        Request::Assign(vec![assign(tasks())]),
        Request::Forward(tasks()),
        read(Range::After(Seq(7))),
        read(Range::Before(Seq(7))),
        read(Range::Last),
        Request::Session(KEY),
        Request::Echo(vec![1, 2]),
        Request::CopyDigests { turn: 1 },
        Request::CopySessions { turn: 1, bucket: 2, after: Some(KEY) },
        Request::Hold { held: held(), copy: 1 },
        Request::HandIn { held: held(), age_ms: 5 },
        Request::HeldOf(USER),
    ]
}

fn requests_of_version_2() -> Vec<Request> {
    let held = HeldPost { board: board(), post: new_post() };
    vec![Request::HandOver { held, copy: 1, age_ms: 5 }, Request::Drain]
}

fn responses() -> Vec<Response> {
    let (epoch, as_of_ms) = (StoreEpoch(1), 2);
    let why = || "x".to_owned();
    let page = Page { posts: vec![post()], last_seq: Seq(300), epoch, as_of_ms };
    let boards = Boards { boards: vec![(board(), Seq(300))], epoch, as_of_ms };
    let sessions = SessionDigests { epoch, open: vec![1], closed: vec![2] };
    let entries = vec![SessionEntry::Open(row()), SessionEntry::Closed(KEY)];
    let outcomes = [
        Outcome::Settled(TaskResult::Done),
        Outcome::Overloaded { retry_ms: 7 },
        Outcome::Unavailable { retry_ms: 7 },
        Outcome::DeadLetter,
        Outcome::Unknown,
        Outcome::Pending { copies: 2 },
    ];
    let mut ended: Vec<_> = outcomes.into_iter().map(ForwardReply::Ended).collect();
    ended.push(ForwardReply::HeldBy(Some(Holder { node: NODE, incarnation: Incarnation(3) })));
    let held = [
        HoldReply::Held,
        HoldReply::Full,
        HoldReply::Conflict,
        HoldReply::Failed,
        HoldReply::Unknown,
    ];
    let handed = [HandInReply::Ended, HandInReply::DeadLetter, HandInReply::Later];
    let mut all = vec![
        Response::Assign(vec![
            AssignReply::Done(results()),
            AssignReply::StoreAway { why: why() },
            AssignReply::Fenced,
            AssignReply::Broken { why: why() },
            AssignReply::StaleRegistration,
            AssignReply::Busy,
            AssignReply::NotNext,
        ]),
        Response::Forward(ended),
        Response::Page(Some(page)),
        Response::Session(Some(row())),
        Response::Echo(vec![1, 2]),
        Response::NotServed,
        Response::CopyDigests(Some(CopyDigests { boards, sessions })),
        Response::CopySessions(Some(SessionPage { entries, next: Some(KEY) })),
        Response::HeldOf(vec![POST]),
    ];
    all.extend(held.map(Response::Hold));
    all.extend(handed.map(Response::HandIn));
    all
}

fn responses_of_version_2() -> Vec<Response> {
    vec![Response::HandOver { copies: 2 }, Response::Draining { within_ms: 300 }]
}

fn updates() -> Vec<Update> {
    let states = [
        HeldState::Pending,
        HeldState::Committed,
        HeldState::Cancelled,
        HeldState::DeadLetter,
        HeldState::Refused,
    ];
    let posts = vec![post()];
    let mut all = vec![
        Update::Members(vec![member()]),
        Update::Posts { epoch: StoreEpoch(1), board: board(), posts, as_of_ms: 2 },
        Update::BoardCreated(board()),
        Update::Session(row()),
        Update::SessionClosed(KEY),
        Update::PresenceChanged,
        Update::ReadMark { key: KEY, board: board(), seq: Seq(9) },
    ];
    all.extend(states.map(|state| Update::Pending { user: USER, id: POST, state }));
    all
}

fn directs() -> Vec<Direct> {
    let status = WorkerStatus {
        boards: vec![(board(), Seq(300))],
        sessions: 1,
        in_flight: 2,
        resident_bytes: 70_000,
    };
    let mut all = vec![
        Direct::Digest { digest: [5; 16] },
        Direct::Members(vec![member()]),
        Direct::WorkerStatus(status),
        Direct::KeyInstall(KeyInstall { pkcs8: vec![8; 3], announcement: vec![9; 2] }),
        Direct::KeyHeld(KeyEpoch(300)),
        Direct::KeyUse(KeyEpoch(300)),
        Direct::KeyAlarm(KeyEpoch(300)),
        Direct::Holds(2),
    ];
    all.extend(updates().into_iter().map(|update| Direct::Updates(Updates::from(update))));
    all
}

/// Returns frames with these calls and these answers.
fn calls(requests: Vec<Request>, responses: Vec<Response>) -> Vec<Frame> {
    let call = |request| Frame::Request { id: 1, deadline_ms: 5000, request };
    let answer = |response| Frame::Response { id: 1, response };
    requests.into_iter().map(call).chain(responses.into_iter().map(answer)).collect()
}

/// Returns the name and the bytes of each frame.
fn written(frames: Vec<Frame>) -> String {
    let mut seen = String::new();
    for frame in frames {
        let bytes = frame.encode().expect("short");
        writeln!(seen, "{}\n{}\n", frame.name(), in_lines(&bytes)).expect("a string");
        assert_eq!(Frame::decode(bytes.into()), Ok(frame));
    }
    seen
}

#[test]
fn message_of_each_kind_is_the_same_byte_for_byte() {
    let mut frames = calls(requests(), responses());
    frames.extend(directs().into_iter().map(Frame::Direct));
    frames.extend([
        Frame::Cancel { id: 2 },
        Frame::Publish(Bytes::from_static(b"envelope")),
        Frame::Subscribe(Topic::ALL.to_vec()),
        Frame::Beat(Beat { reaches_store: true }),
        Frame::Handshake(Bytes::from_static(b"message")),
    ]);
    let mut seen = written(frames);
    let reasons = [
        CloseReason::Leaving,
        CloseReason::Listed,
        CloseReason::Replaced,
        CloseReason::Violation,
        CloseReason::Full,
        CloseReason::Draining,
        CloseReason::Expelled,
    ];
    for reason in reasons {
        let bytes = codec::encode(&Close { reason, retry_ms: 7 }).expect("short");
        writeln!(seen, "Close {reason:?}\n{}\n", in_lines(&bytes)).expect("a string");
    }
    snapshots().bind(|| insta::assert_snapshot!("wire_version_1", seen));
}

#[test]
fn message_that_came_with_version_2_is_the_same_byte_for_byte() {
    let seen = written(calls(requests_of_version_2(), responses_of_version_2()));
    snapshots().bind(|| insta::assert_snapshot!("wire_version_2", seen));
}

fn in_lines(bytes: &[u8]) -> String {
    bytes.chunks(48).map(hex::encode).collect::<Vec<_>>().join("\n")
}

/// Fails to compile for a variant that is new: add a message of it above, to those of the
/// version that brings it.
#[expect(dead_code, reason = "it only has to compile")]
const fn all_are_listed(request: &Request, response: &Response, direct: &Direct, update: &Update) {
    match request {
        Request::Assign(_)
        | Request::Forward(_)
        | Request::Read { .. }
        | Request::Session(_)
        | Request::Echo(_)
        | Request::CopyDigests { .. }
        | Request::CopySessions { .. }
        | Request::Hold { .. }
        | Request::HandIn { .. }
        | Request::HeldOf(_)
        | Request::HandOver { .. }
        | Request::Drain => {}
    }
    match response {
        Response::Assign(_)
        | Response::Forward(_)
        | Response::Page(_)
        | Response::Session(_)
        | Response::Echo(_)
        | Response::NotServed
        | Response::CopyDigests(_)
        | Response::CopySessions(_)
        | Response::Hold(_)
        | Response::HandIn(_)
        | Response::HeldOf(_)
        | Response::HandOver { .. }
        | Response::Draining { .. } => {}
    }
    match direct {
        Direct::Digest { .. }
        | Direct::Members(_)
        | Direct::Updates(_)
        | Direct::WorkerStatus(_)
        | Direct::KeyInstall(_)
        | Direct::KeyHeld(_)
        | Direct::KeyUse(_)
        | Direct::KeyAlarm(_)
        | Direct::Holds(_) => {}
    }
    match update {
        Update::Members(_)
        | Update::Posts { .. }
        | Update::BoardCreated(_)
        | Update::Session(_)
        | Update::SessionClosed(_)
        | Update::PresenceChanged
        | Update::ReadMark { .. }
        | Update::Pending { .. } => {}
    }
}

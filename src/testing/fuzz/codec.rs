//! Frames of a link, and each type that the codec reads.

use std::{fmt::Debug, sync::Arc};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    crypto::handshake::{Ready, Rejection},
    model::{
        ids::{
            Author, BoardName, Domain, Incarnation, KeyEpoch, NodeId, Post, PostId, Registration,
            Resource, Role, Seq, SessionKey, StoreEpoch, Token, UserId,
        },
        message::{
            Assign, AssignReply, Beat, Close, CloseReason, Direct, Fact, KeyInstall, Member,
            MemberState, Request, Response, Task, Topic, Update, Welcome, WorkerStatus,
        },
        outcome::TaskResult,
        rows::{NewPost, Page, Permission, Range},
    },
    store::{Op, OpReply},
    wire::{codec, frame::Frame},
};

/// Reads a frame. One that is read is written and read again as the same.
pub(super) fn frames(bytes: &[u8]) -> bool {
    let Ok(frame) = Frame::decode(Bytes::copy_from_slice(bytes)) else { return false };
    let again = frame.encode().expect("it was read, so it fits");
    assert!(again.len() <= bytes.len(), "the written form is the shortest");
    assert_eq!(Frame::decode(again.into()), Ok(frame));
    true
}

pub(super) fn frame_seeds() -> Vec<Vec<u8>> {
    let [request, task] = requests();
    let frames = [
        Frame::Request { id: 1, deadline_ms: 5000, request },
        Frame::Request { id: u64::MAX, deadline_ms: 0, request: task },
        Frame::Response { id: 1, response: Response::Echo(vec![7; 40]) },
        Frame::Cancel { id: 2 },
        Frame::Direct(Direct::Members(vec![member()])),
        Frame::Publish(Bytes::from_static(b"an envelope is passed on as it is")),
        Frame::Subscribe(Topic::ALL.to_vec()),
        Frame::Beat(Beat { reaches_store: true }),
        Frame::Handshake(Bytes::from_static(b"message")),
        Frame::Request { id: 2, deadline_ms: 700, request: Request::Assign(vec![assignment()]) },
        Frame::Response { id: 2, response: Response::Assign(vec![AssignReply::NotNext]) },
    ];
    frames.iter().map(|frame| frame.encode().expect("short")).collect()
}

/// Reads the value of the type that the first byte names. One that is read is written and read
/// again as the same.
pub(super) fn values(bytes: &[u8]) -> bool {
    let Some((kind, bytes)) = bytes.split_first() else { return false };
    TYPES.get(usize::from(*kind)).is_some_and(|read| read(bytes))
}

pub(super) fn value_seeds() -> Vec<Vec<u8>> {
    let domain = Domain { master: NodeId([1; 16]), incarnation: Incarnation(3) };
    let [request, task] = requests();
    let update =
        Update::ReadMark { key: SessionKey([2; 32]), board: BoardName::lobby(), seq: Seq(9) };
    let status = WorkerStatus { boards: vec![(BoardName::lobby(), Seq(5))], ..Default::default() };
    vec![
        seed(0, &request),
        seed(0, &task),
        seed(1, &Response::Echo(vec![1, 2, 3])),
        seed(1, &Response::CopyDigests(None)),
        seed(1, &Response::Assign(vec![AssignReply::NotNext])),
        seed(1, &Response::Page(Some(page()))),
        seed(0, &Request::Assign(vec![assignment()])),
        seed(2, &Direct::WorkerStatus(status)),
        seed(2, &Direct::KeyHeld(KeyEpoch(300))),
        seed(2, &Direct::KeyInstall(KeyInstall { pkcs8: vec![8; 9], announcement: vec![9; 8] })),
        seed(3, &update),
        seed(3, &Update::Members(vec![member(); 2])),
        seed(4, &Welcome { domain, directory: vec![member()] }),
        seed(5, &post()),
        seed(6, &Close { reason: CloseReason::Full, retry_ms: 70_000 }),
        seed(7, &Op::Cluster),
        seed(8, &OpReply::Written(vec![TaskResult::Done, TaskResult::Conflict])),
        seed(9, &Ready { epoch: Some(KeyEpoch(1)), registration: Registration(7) }),
        seed(10, &Rejection::Token),
    ]
}

/// The types, by the number that stands before the bytes of each.
const TYPES: &[fn(&[u8]) -> bool] = &[
    reads_back::<Request>,
    reads_back::<Response>,
    reads_back::<Direct>,
    reads_back::<Update>,
    reads_back::<Welcome>,
    reads_back::<Task>,
    reads_back::<Close>,
    reads_back::<Op>,
    reads_back::<OpReply>,
    reads_back::<Ready>,
    reads_back::<Rejection>,
];

fn reads_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) -> bool {
    let Ok(value) = codec::decode::<T>(bytes) else { return false };
    let again = codec::encode(&value).expect("it was read, so it fits");
    assert!(again.len() <= bytes.len(), "the written form is the shortest");
    assert_eq!(codec::decode(&again), Ok(value));
    true
}

fn seed<T: Serialize>(kind: u8, value: &T) -> Vec<u8> {
    let mut bytes = vec![kind];
    codec::encode_into(value, &mut bytes).expect("short");
    bytes
}

fn requests() -> [Request; 2] {
    let read = Request::Read { board: BoardName::lobby(), range: Range::After(Seq(7)), limit: 50 };
    [read, Request::Forward(vec![post()])]
}

/// Batch that may only follow another one.
fn assignment() -> Assign {
    let token = Token { epoch: StoreEpoch(1), lease: 2, n: 4 };
    let (resource, worker) = (Resource::Board(BoardName::lobby()), NodeId([3; 16]));
    let permission = Permission { resource, token, after: Some(3), worker };
    Assign { registration: Registration(1), permission, tasks: Arc::new(vec![post()]) }
}

fn page() -> Page {
    let (id, board, seq) = (PostId([5; 16]), BoardName::lobby(), Seq(1));
    let text = "first".parse().expect("a text");
    let post = Post { id, board, seq, author: author(), text, posted_at_ms: 1 };
    Page { posts: vec![post], last_seq: seq, epoch: StoreEpoch(1), as_of_ms: 2 }
}

fn post() -> Task {
    let text = "hello \u{1f642}".parse().expect("a text");
    let post = NewPost { id: PostId([5; 16]), author: author(), text };
    Task::Post { board: BoardName::lobby(), post }
}

fn author() -> Author {
    Author { id: UserId([4; 16]), name: "Ann".parse().expect("a name") }
}

fn member() -> Member {
    let (node, role, state) = (NodeId([6; 16]), Role::Master, MemberState::In);
    Member {
        fact: Fact { node, role, registration: Registration(1), state, master: node },
        name: "north".to_owned(),
        link: Some("10.0.0.1:8180".to_owned()),
        http: Some("http://10.0.0.1:8080".to_owned()),
        spki: vec![7; 40],
    }
}

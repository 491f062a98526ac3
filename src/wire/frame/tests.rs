use proptest::prelude::*;

use super::*;
use crate::model::{
    bounds::{
        ADDRESS_LEN_MAX, ASSIGN_HEAD_MAX, BATCH_BYTES_MAX, BATCH_TASKS_MAX, BOARDS_MAX,
        FRAME_HEAD_MAX, LIST_BYTES_MAX, NODE_NAME_LEN_MAX, PAGE_MEMBERS, POST_HEAD_MAX,
        SPKI_LEN_MAX, UPDATES_MAX, WHY_LEN_MAX, WORKER_BATCHES_MAX, fitting, post_len,
    },
    ids::{
        Author, BoardName, NodeId, Post, PostId, PostText, Registration, Resource, Role, Seq,
        SessionKey, StoreEpoch, Token, UserId,
    },
    message::{
        Assign, AssignReply, Fact, ForwardReply, KeyInstall, Member, MemberState, Task, Update,
        Updates, WorkerStatus,
    },
    outcome::{Outcome, TaskResult},
    rows::{NewPost, Page, Permission, Range, SessionRow, StoreError},
};

fn a_post(text: &str) -> Task {
    Task::Post {
        board: BoardName::lobby(),
        post: NewPost {
            id: PostId([7; 16]),
            author: Author { id: UserId([3; 16]), name: "Ada".parse().expect("a name") },
            text: text.parse().expect("a text"),
        },
    }
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let text = "[a-z]{1,64}";
    prop_oneof![
        (any::<u64>(), any::<u32>(), text, 1..4usize).prop_map(|(id, deadline_ms, text, n)| {
            Frame::Request {
                id,
                deadline_ms,
                request: Request::Assign(vec![Assign {
                    registration: Registration(id),
                    permission: Permission {
                        resource: Resource::Board(BoardName::lobby()),
                        token: Token { lease: id, ..Token::default() },
                        after: None,
                        worker: NodeId([1; 16]),
                    },
                    tasks: vec![a_post(&text); n].into(),
                }]),
            }
        }),
        (any::<u64>(), any::<u64>()).prop_map(|(id, seq)| Frame::Request {
            id,
            deadline_ms: 0,
            request: Request::Read {
                board: BoardName::lobby(),
                range: Range::After(Seq(seq)),
                limit: 5
            },
        }),
        (any::<u64>(), any::<u64>()).prop_map(|(id, seq)| Frame::Response {
            id,
            response: Response::Assign(vec![
                AssignReply::Done(vec![
                    TaskResult::Committed { seq: Seq(seq), posted_at_ms: seq },
                    TaskResult::Cancelled,
                ]),
                AssignReply::Fenced,
            ]),
        }),
        any::<u64>().prop_map(|id| Frame::Response {
            id,
            response: Response::Forward(vec![ForwardReply::Ended(Outcome::Overloaded {
                retry_ms: id
            })]),
        }),
        any::<u64>().prop_map(|id| Frame::Cancel { id }),
        any::<[u8; 16]>().prop_map(|digest| Frame::Direct(Direct::Digest { digest })),
        Just(Frame::Direct(Direct::Updates(Update::PresenceChanged.into()))),
        proptest::collection::vec(any::<u8>(), 0..300)
            .prop_map(|bytes| Frame::Publish(Bytes::from(bytes))),
        proptest::sample::subsequence(&Topic::ALL, 0..=Topic::ALL.len()).prop_map(Frame::Subscribe),
        any::<bool>().prop_map(|reaches_store| Frame::Beat(Beat { reaches_store })),
        proptest::collection::vec(any::<u8>(), 0..300)
            .prop_map(|bytes| Frame::Handshake(Bytes::from(bytes))),
    ]
}

proptest! {
    #[test]
    fn frames_round_trip(frame in any_frame()) {
        let bytes = frame.encode().expect("below the bound");
        prop_assert_eq!(Frame::decode(bytes.into()), Ok(frame));
    }

    #[test]
    fn random_bytes_never_panic_the_decoder(kind in 0..10u8, body in proptest::collection::vec(any::<u8>(), 0..600)) {
        let mut bytes = vec![kind];
        bytes.extend(body);
        if let Ok(frame) = Frame::decode(bytes.into()) {
            prop_assert_eq!(Frame::decode(frame.encode().expect("decoded").into()), Ok(frame));
        }
    }

    #[test]
    fn flipped_or_cut_frame_decodes_or_is_an_error(frame in any_frame(), at in any::<prop::sample::Index>(), bit in 0..8u32, cut in any::<bool>()) {
        let mut bytes = frame.encode().expect("below the bound");
        let at = at.index(bytes.len());
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] ^= 1 << bit;
        }
        let _ = Frame::decode(bytes.into());
    }
}

#[test]
fn envelope_shares_the_bytes_of_its_frame() {
    let bytes = Bytes::from(Frame::Publish(Bytes::from_static(b"sealed")).encode().expect("short"));
    let Ok(Frame::Publish(envelope)) = Frame::decode(bytes.clone()) else { panic!("a publish") };
    assert_eq!(&envelope[..], b"sealed");
    assert_eq!(envelope.as_ptr(), bytes[1..].as_ptr());
}

#[test]
fn invalid_frame_is_refused_with_its_reason() {
    let decode = |bytes: &[u8]| Frame::decode(Bytes::copy_from_slice(bytes));
    assert_eq!(decode(&[]), Err(FrameError::Short));
    assert_eq!(decode(&[REQUEST, 1, 2]), Err(FrameError::Short));
    assert_eq!(decode(&[99]), Err(FrameError::UnknownKind(99)));
    assert_eq!(decode(&[0, 1]), Err(FrameError::UnknownKind(0)));
    let trailing = decode(&[CANCEL, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    assert!(matches!(trailing, Err(FrameError::Body { why: CodecError::Trailing(1), .. })));
    let mut topics = vec![SUBSCRIBE, TOPICS_MAX as u8 + 1];
    topics.extend([0; TOPICS_MAX + 1]);
    assert_eq!(decode(&topics), Err(FrameError::TooManyTopics(TOPICS_MAX + 1)));
}

#[test]
fn frame_over_the_bound_is_refused_by_sender_and_receiver() {
    let long = Request::Echo(vec![0; FRAME_LEN_MAX - 8]);
    assert!(matches!(request(1, 0, &long), Err(FrameError::Body { .. })));
    let envelope = Frame::Publish(Bytes::from(vec![0; FRAME_LEN_MAX]));
    assert!(matches!(envelope.encode(), Err(FrameError::Body { .. })));
    let mut bytes = vec![0; FRAME_LEN_MAX + 1];
    bytes[0] = PUBLISH;
    assert!(matches!(Frame::decode(bytes.into()), Err(FrameError::Body { .. })));
    let mut bytes = vec![0; PLAIN_LEN_MAX + 2];
    assert!(matches!(handshake(&bytes[1..]), Err(FrameError::Body { .. })));
    bytes[0] = HANDSHAKE;
    assert!(matches!(Frame::decode(bytes.into()), Err(FrameError::Body { .. })));
}

/// Layout that nodes have sent to each other: a change of it is a new version of the protocol.
#[test]
fn layout_is_unchanged() {
    let hex = |frame: Frame| hex::encode(frame.encode().expect("short"));
    assert_eq!(
        hex(Frame::Request { id: 1, deadline_ms: 1000, request: Request::Echo(vec![0xab]) }),
        "010100000000000000e80300000401ab"
    );
    assert_eq!(
        hex(Frame::Response { id: 1, response: Response::NotServed }),
        "02010000000000000005"
    );
    assert_eq!(hex(Frame::Cancel { id: 258 }), "030201000000000000");
    assert_eq!(hex(Frame::Direct(Direct::Updates(Update::PresenceChanged.into()))), "04020105");
    assert_eq!(hex(Frame::Publish(Bytes::from_static(&[0xff]))), "05ff");
    assert_eq!(hex(Frame::Subscribe(Topic::ALL.to_vec())), "06050001020304");
    assert_eq!(hex(Frame::Beat(Beat { reaches_store: true })), "0701");
    assert_eq!(hex(Frame::Handshake(Bytes::from_static(&[0xee]))), "08ee");
}

#[test]
fn greatest_value_of_each_kind_fits_into_its_frame() {
    let (most, epoch) = (Seq(u64::MAX), StoreEpoch(u64::MAX));
    let board: BoardName = "z".repeat(32).parse().expect("a name");
    let name = "\u{1f600}".repeat(40).parse().expect("a name");
    let author = Author { id: UserId([255; 16]), name };
    let post = |text: &PostText| Post {
        id: PostId([255; 16]),
        board: board.clone(),
        seq: most,
        author: author.clone(),
        text: text.clone(),
        posted_at_ms: u64::MAX,
    };
    let write = |text: &PostText| Task::Post {
        board: board.clone(),
        post: NewPost { id: PostId([255; 16]), author: author.clone(), text: text.clone() },
    };
    let tasks_max = |task: &Task| (BATCH_BYTES_MAX / task.weight()).min(BATCH_TASKS_MAX);
    let longest: PostText = "x".repeat(PostText::LEN_MAX).parse().expect("a text");
    let shortest: PostText = "x".parse().expect("a text");
    for text in [&longest, &shortest] {
        let task = write(text);
        let count = tasks_max(&task);
        let permission = Permission {
            resource: Resource::Board(board.clone()),
            token: Token { epoch, lease: u64::MAX, n: u64::MAX },
            after: None,
            worker: NodeId([255; 16]),
        };
        let registration = Registration(u64::MAX);
        let assign = Assign { registration, permission, tasks: vec![task; count].into() };
        request(u64::MAX, u32::MAX, &Request::Assign(vec![assign])).expect("a batch");
        let posts = vec![post(text); count];
        let (board, as_of_ms) = (board.clone(), u64::MAX);
        let update = Update::Posts { epoch, board, posts, as_of_ms };
        let update = Direct::Updates(update.into());
        let len = direct(&update).expect("an update").len();
        assert!(len <= LIST_BYTES_MAX + FRAME_HEAD_MAX / 2, "{len}: an envelope needs room");
        let count = fitting(std::iter::repeat(post_len(&post(text)))).min(1000);
        let page = Page { posts: vec![post(text); count], last_seq: most, epoch, as_of_ms };
        response(u64::MAX, &Response::Page(Some(page))).expect("a page");
    }
    let (key, id, user) = (SessionKey([255; 32]), PostId([255; 16]), author.id);
    let places = vec![(board.clone(), most); BOARDS_MAX];
    let session = SessionRow { key, user: author.clone(), read_marks: places.clone() };
    let refused = StoreError::Unknown { what: "x".repeat(200) };
    let results = [
        (Task::CancelPost { user, id }, TaskResult::AlreadyCommitted(Box::new(post(&longest)))),
        (
            Task::RedeemTicket { ticket_sha256: [255; 32], key },
            TaskResult::Session(Box::new(session.clone())),
        ),
        (write(&shortest), TaskResult::Duplicate { seq: most, posted_at_ms: u64::MAX }),
        (Task::CloseSession { key }, TaskResult::Refused(Box::new(refused))),
    ];
    for (task, result) in results {
        let done = AssignReply::Done(vec![result; tasks_max(&task)]);
        response(u64::MAX, &Response::Assign(vec![done])).expect("the results of a batch");
    }
    response(u64::MAX, &Response::Session(Some(session))).expect("a session");
    let status = WorkerStatus { boards: places, ..WorkerStatus::default() };
    direct(&Direct::WorkerStatus(status)).expect("a worker's state");
    let node = NodeId([255; 16]);
    let member = Member {
        fact: Fact {
            node,
            role: Role::Master,
            registration: Registration(u64::MAX),
            state: MemberState::Left,
            master: node,
        },
        name: "n".repeat(NODE_NAME_LEN_MAX),
        link: Some("l".repeat(ADDRESS_LEN_MAX)),
        http: Some("h".repeat(ADDRESS_LEN_MAX)),
        spki: vec![255; SPKI_LEN_MAX],
    };
    direct(&Direct::Members(vec![member; PAGE_MEMBERS])).expect("members");
}

#[test]
fn call_of_as_many_batches_as_may_be_fits_into_a_frame_with_its_answer() {
    let board: BoardName = "z".repeat(32).parse().expect("a name");
    let token = Token { epoch: StoreEpoch(u64::MAX), lease: u64::MAX, n: u64::MAX };
    let permission = Permission {
        resource: Resource::Board(board.clone()),
        token,
        after: Some(u64::MAX),
        worker: NodeId([255; 16]),
    };
    let text = BATCH_BYTES_MAX / WORKER_BATCHES_MAX - POST_HEAD_MAX - ASSIGN_HEAD_MAX;
    let text = text.min(PostText::LEN_MAX);
    let task = match a_post(&"x".repeat(text)) {
        Task::Post { post, .. } => Task::Post { board, post },
        other => other,
    };
    let registration = Registration(u64::MAX);
    let one = |tasks: usize| Assign {
        registration,
        permission: permission.clone(),
        tasks: vec![task.clone(); tasks].into(),
    };
    let full = Request::Assign(vec![one(1); WORKER_BATCHES_MAX]);
    let bytes = request(u64::MAX, u32::MAX, &full).expect("it fits");
    assert!(Frame::decode(bytes.into()).is_ok(), "and is taken");
    let why = "w".repeat(WHY_LEN_MAX);
    let answer = vec![AssignReply::Broken { why }; WORKER_BATCHES_MAX];
    let bytes = response(u64::MAX, &Response::Assign(answer)).expect("it fits");
    assert!(Frame::decode(bytes.into()).is_ok(), "and is taken");
}

#[test]
fn call_with_more_batches_or_tasks_than_it_may_have_is_refused() {
    let task = Task::CreateBoard { board: BoardName::lobby() };
    let permission = Permission {
        resource: Resource::Board(BoardName::lobby()),
        token: Token::default(),
        after: None,
        worker: NodeId([1; 16]),
    };
    let batches = |count: usize, tasks: usize| {
        let tasks = vec![task.clone(); tasks].into();
        let registration = Registration(1);
        let one = Assign { registration, permission: permission.clone(), tasks };
        let bytes = request(1, 1, &Request::Assign(vec![one; count])).expect("short");
        Frame::decode(bytes.into()).is_ok()
    };
    let half = BATCH_TASKS_MAX / 2;
    assert!(batches(WORKER_BATCHES_MAX, 1) && batches(2, half));
    assert!(!batches(WORKER_BATCHES_MAX + 1, 1) && !batches(2, half + 1));
    let results = |count: usize, results: usize| {
        let done = AssignReply::Done(vec![TaskResult::Done; results]);
        let bytes = response(1, &Response::Assign(vec![done; count])).expect("short");
        Frame::decode(bytes.into()).is_ok()
    };
    assert!(results(WORKER_BATCHES_MAX, 1) && results(2, half));
    assert!(!results(WORKER_BATCHES_MAX + 1, 1) && !results(2, half + 1));
}

#[test]
fn key_that_is_written_at_once_has_the_form_of_a_list() {
    for len in [0, 1, 250, 251, 1200] {
        let (pkcs8, announcement) = (vec![0xfe; len], vec![7; 900]);
        let listed = codec::encode(&(&pkcs8, &announcement)).expect("short");
        let install = KeyInstall { pkcs8, announcement };
        assert_eq!(codec::encode(&install), Ok(listed.clone()));
        assert_eq!(codec::decode(&listed), Ok(install));
    }
}

#[test]
fn frame_of_a_key_never_grows_and_leaves_no_copy() {
    let install = KeyInstall { pkcs8: vec![1; 1300], announcement: vec![2; 1100] };
    let frame = direct(&Direct::KeyInstall(install)).expect("short");
    assert_eq!(frame.capacity(), 128 + 1300 + 1100, "its first buffer");
}

#[test]
fn received_updates_of_several_topics_none_or_too_many_are_refused() {
    let closed = |n| Update::SessionClosed(SessionKey([n; 32]));
    let read = |list: &[Update]| {
        codec::decode::<Updates>(&codec::encode(&list).expect("short")).map(|got| {
            assert!(got.into_iter().eq(list.iter().cloned()), "in their order");
        })
    };
    assert!(read(&[closed(1), closed(2)]).is_ok() && read(&vec![closed(1); UPDATES_MAX]).is_ok());
    assert!(read(&[]).is_err() && read(&[closed(1), Update::PresenceChanged]).is_err());
    assert!(read(&vec![closed(1); UPDATES_MAX + 1]).is_err());
}

use proptest::prelude::*;

use super::*;
use crate::model::{
    ids::{Author, BoardName, NodeId, PostId, Registration, Resource, Seq, Token, UserId},
    message::{Assign, AssignReply, ForwardReply, Task, Update},
    outcome::{Outcome, TaskResult},
    rows::{NewPost, Permission, Range},
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
                request: Request::Assign(Assign {
                    registration: Registration(id),
                    permission: Permission {
                        resource: Resource::Board(BoardName::lobby()),
                        token: Token { lease: id, ..Token::default() },
                        worker: NodeId([1; 16]),
                    },
                    tasks: vec![a_post(&text); n].into(),
                }),
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
            response: Response::Assign(AssignReply::Done(vec![
                TaskResult::Committed { seq: Seq(seq), posted_at_ms: seq },
                TaskResult::Cancelled,
            ])),
        }),
        any::<u64>().prop_map(|id| Frame::Response {
            id,
            response: Response::Forward(ForwardReply::Ended(Outcome::Overloaded { retry_ms: id })),
        }),
        any::<u64>().prop_map(|id| Frame::Cancel { id }),
        any::<[u8; 16]>().prop_map(|digest| Frame::Direct(Direct::Digest { digest })),
        Just(Frame::Direct(Direct::Update(Update::PresenceChanged))),
        proptest::collection::vec(any::<u8>(), 0..300)
            .prop_map(|bytes| Frame::Publish(Bytes::from(bytes))),
        proptest::sample::subsequence(&Topic::ALL, 0..=Topic::ALL.len()).prop_map(Frame::Subscribe),
        any::<bool>().prop_map(|reaches_store| Frame::Beat(Beat { reaches_store })),
    ]
}

proptest! {
    #[test]
    fn frames_round_trip(frame in any_frame()) {
        let bytes = frame.encode().expect("below the bound");
        prop_assert_eq!(Frame::decode(bytes.into()), Ok(frame));
    }

    #[test]
    fn random_bytes_never_panic_the_decoder(kind in 0..9u8, body in proptest::collection::vec(any::<u8>(), 0..600)) {
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
    assert_eq!(hex(Frame::Direct(Direct::Update(Update::PresenceChanged))), "040205");
    assert_eq!(hex(Frame::Publish(Bytes::from_static(&[0xff]))), "05ff");
    assert_eq!(hex(Frame::Subscribe(Topic::ALL.to_vec())), "06050001020304");
    assert_eq!(hex(Frame::Beat(Beat { reaches_store: true })), "0701");
}

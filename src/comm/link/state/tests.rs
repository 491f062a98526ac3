//! Two link states and the line between them: whatever both nodes do, and however slow the line
//! is, neither ever sees the other violate the protocol.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::{
    comm::link::KeyFrame,
    model::{
        held::HandInReply,
        ids::{KeyEpoch, PostId},
        message::{AssignReply, Direct, Request},
    },
    wire::frame::Frame,
};

const IN_FLIGHT: usize = 3;

fn limits() -> LinkLimits {
    let (outgoing_frames_max, in_flight_max, in_flight_batches) = (5, IN_FLIGHT, 1);
    LinkLimits { outgoing_frames_max, in_flight_max, in_flight_batches, ..LinkLimits::default() }
}

/// Returns what the peer reads.
pub(super) fn frame_of(out: Outgoing) -> Frame {
    let bytes = match out {
        Outgoing::Frame(bytes) | Outgoing::Call(_, bytes) | Outgoing::Page(_, bytes) => {
            bytes.into()
        }
        Outgoing::Envelope(bytes) => bytes,
        Outgoing::Secret(frame) => frame.bytes().to_vec().into(),
        Outgoing::Switch(_) => panic!("no frame"),
    };
    Frame::decode(bytes).expect("a frame")
}

type Answer = oneshot::Receiver<Result<Response, CallError>>;

/// One end: its state, the calls it waits for, those it serves, and the frames on their way from
/// it.
struct End {
    state: LinkState,
    calls: Vec<(CallId, Answer)>,
    serves: Vec<CallId>,
    line: VecDeque<Frame>,
}

impl End {
    fn new() -> Self {
        let state = LinkState::new(&limits());
        Self { state, calls: Vec::new(), serves: Vec::new(), line: VecDeque::new() }
    }

    fn call(&mut self, room: Room) {
        let (answer, answered) = oneshot::channel();
        let bytes = frame::request(0, 1, &Request::Echo(vec![])).expect("short");
        match self.state.call(bytes, room, answer) {
            Ok(id) => self.calls.push((id, answered)),
            Err(refused) => assert_eq!(refused, CallError::Full),
        }
    }

    /// Moves the queue onto the line.
    fn write(&mut self) {
        let mut batch = Vec::new();
        self.state.take(&mut batch);
        self.line.extend(batch.into_iter().map(frame_of));
        let LinkState { urgent, bulk, pages, .. } = &self.state;
        assert_eq!((urgent.bytes, bulk.bytes, pages.bytes), (0, 0, 0));
    }

    /// Takes one frame from the other end's line.
    fn read(&mut self, other: &mut Self) -> Result<(), ProtocolViolation> {
        match other.line.pop_front() {
            Some(Frame::Request { id, .. }) => {
                if self.state.serve(id, Room::Batches)? {
                    self.serves.push(id);
                }
                Ok(())
            }
            Some(Frame::Response { id, response }) => self.state.answer(id, response),
            Some(Frame::Cancel { id }) => self.state.cancel(id),
            Some(Frame::Direct(_)) | None => Ok(()),
            Some(frame) => panic!("nobody sent {frame:?}"),
        }
    }

    fn check(&self) {
        assert!(self.state.calls.len() <= IN_FLIGHT);
        assert!(self.state.begun.len() <= IN_FLIGHT);
        assert!(self.state.serving.is_subset(&self.state.begun));
        assert_eq!(self.state.begun.len(), self.serves.len());
        let LinkState { urgent, bulk, pages, .. } = &self.state;
        for queue in [urgent, bulk, pages] {
            let size: usize = queue.frames.iter().map(Outgoing::len).sum();
            assert_eq!(queue.bytes, size);
        }
        // Invariant 4: the rest is at most a response and a cancel for each call that left.
        assert!(urgent.frames.len() <= 3 * 5 + 2 * IN_FLIGHT);
        assert!(bulk.frames.len() <= 5 && pages.frames.len() <= 2 * 5);
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Call(Room),
    GiveUp(prop::sample::Index),
    Respond(prop::sample::Index, AnswerRoom),
    Abandon(prop::sample::Index),
    Send,
    Write,
    Read,
}

fn steps() -> impl Strategy<Value = Vec<(bool, Step)>> {
    let step = prop_oneof![
        1 => Just(Step::Call(Room::Shared)),
        3 => Just(Step::Call(Room::Batches)),
        2 => any::<prop::sample::Index>().prop_map(Step::GiveUp),
        1 => any::<prop::sample::Index>().prop_map(|which| Step::Respond(which, AnswerRoom::Short)),
        1 => any::<prop::sample::Index>().prop_map(|which| Step::Respond(which, AnswerRoom::Pages)),
        2 => any::<prop::sample::Index>().prop_map(|which| Step::Respond(which, AnswerRoom::Batches)),
        1 => any::<prop::sample::Index>().prop_map(Step::Abandon),
        1 => Just(Step::Send),
        3 => Just(Step::Write),
        6 => Just(Step::Read),
    ];
    prop::collection::vec((any::<bool>(), step), 0..300)
}

#[test]
fn batch_and_its_answer_leave_before_fanout_that_waits() {
    let mut end = End::new();
    assert_eq!(end.state.serve(1, Room::Batches), Ok(true));
    let digest = || frame::direct(&Direct::Digest { digest: [0; 16] }).expect("short");
    while end.state.push(Outgoing::Frame(digest())).is_ok() {}
    end.call(Room::Batches);
    let answer = Response::Assign(vec![AssignReply::Fenced]);
    let bytes = frame::response(1, &answer).expect("short");
    end.state.respond(1, bytes, AnswerRoom::Batches).expect("room of its own");
    end.write();
    let mut first = end.line.iter().take(2);
    assert!(matches!(first.next(), Some(Frame::Request { .. })), "{:?}", end.line);
    assert!(matches!(first.next(), Some(Frame::Response { id: 1, .. })), "{:?}", end.line);
    assert_eq!(end.line.len(), 2 + limits().outgoing_frames_max);
}

#[test]
fn calls_that_were_given_up_leave_the_places_of_batches_free() {
    let mut end = End::new();
    for id in 1..=2 {
        assert_eq!(end.state.serve(id, Room::Shared), Ok(true));
        end.state.cancel(id).expect("it was served");
    }
    assert_eq!(end.state.serve(3, Room::Shared), Ok(false));
    end.state.cancel(3).expect("it was made");
    assert_eq!(end.state.serve(4, Room::Batches), Ok(true));
    assert_eq!(end.state.serve(5, Room::Batches), Ok(false), "its other places are taken");
    end.state.end_serving(1);
    assert_eq!(end.state.serve(6, Room::Batches), Ok(true));
}

#[test]
fn messages_about_keys_leave_in_order_before_fanout_that_waits() {
    let mut end = End::new();
    let of_epoch = |epoch| Direct::KeyUse(KeyEpoch(epoch));
    while end.state.push(Outgoing::Frame(vec![1])).is_ok() {}
    for epoch in [1, 2] {
        let frame = KeyFrame::new(&of_epoch(epoch)).expect("short");
        end.state.push_urgent(Outgoing::Secret(frame)).expect("room of its own");
    }
    let mut batch = Vec::new();
    end.state.take(&mut batch);
    for (epoch, out) in [1, 2].into_iter().zip(batch) {
        let Outgoing::Secret(frame) = out else { panic!("{out:?}") };
        let frame = Frame::decode(frame.bytes().to_vec().into()).expect("a frame");
        assert_eq!(frame, Frame::Direct(of_epoch(epoch)));
    }
}

#[test]
fn messages_go_out_in_each_burst_of_urgent_frames() {
    let mut state = LinkState::new(&LinkLimits::default());
    let long = || frame::request(0, 1, &Request::Echo(vec![0; TAKE_BYTES])).expect("fits");
    state.push(Outgoing::Frame(vec![1])).expect("room");
    for _ in 0..5 {
        let (answer, _) = oneshot::channel();
        state.call(long(), Room::Batches, answer).expect("room");
    }
    let mut batch = Vec::new();
    state.take(&mut batch);
    assert!(matches!(&batch[..], [Outgoing::Call(..), Outgoing::Frame(_)]), "{}", batch.len());
}

/// Queues answers to the calls from 1 on that take the greatest length of a frame each, until there is no
/// room for one more. Returns how many there are.
fn fill_with_pages(state: &mut LinkState, pages_max: u64) -> u64 {
    let page = vec![0; FRAME_LEN_MAX];
    for id in 1..=pages_max {
        assert_eq!(state.serve(id, Room::Shared), Ok(true));
        if state.respond(id, page.clone(), AnswerRoom::Pages) == Err(SendError::Full) {
            return id - 1;
        }
    }
    pages_max
}

#[test]
fn pages_that_wait_keep_no_call_no_message_and_no_short_answer_out() {
    let mut state = LinkState::new(&LinkLimits::default());
    assert_eq!(fill_with_pages(&mut state, 20), 8, "twice the bytes of messages");
    let (answer, _answered) = oneshot::channel();
    let request = frame::request(0, 1, &Request::Echo(vec![])).expect("short");
    assert_eq!(state.call(request, Room::Shared, answer), Ok(1));
    assert_eq!(state.push(Outgoing::Frame(vec![1])), Ok(()));
    let refusal = frame::response(9, &Response::NotServed).expect("short");
    assert_eq!(state.respond(9, refusal, AnswerRoom::Short), Ok(()), "in place of the ninth");
    let mut batch = Vec::new();
    state.take(&mut batch);
    assert!(matches!(&batch[..2], [Outgoing::Call(1, _), Outgoing::Frame(_)]));
    assert_eq!(batch[2..].iter().map(Outgoing::len).collect::<Vec<_>>(), [1, FRAME_LEN_MAX]);
}

#[test]
fn page_of_a_call_that_was_given_up_leaves_its_room_to_another_one() {
    let mut state = LinkState::new(&LinkLimits::default());
    let pages = fill_with_pages(&mut state, 20);
    for id in 1..=pages {
        assert_eq!(state.cancel(id), Ok(()));
    }
    assert!(!state.has_work(), "nobody waits for them");
    assert_eq!(state.respond(pages + 1, vec![0; FRAME_LEN_MAX], AnswerRoom::Pages), Ok(()));
}

#[test]
fn pages_have_half_of_the_line_while_messages_wait_and_all_of_it_else() {
    let mut state = LinkState::new(&LinkLimits::default());
    assert_eq!(fill_with_pages(&mut state, 4), 4);
    for _ in 0..20 {
        state.push(Outgoing::Frame(vec![0; TAKE_BYTES])).expect("room");
    }
    let (mut bursts, mut batch) = (Vec::new(), Vec::new());
    while state.has_work() {
        state.take(&mut batch);
        let is_page = |out: &Outgoing| out.len() == FRAME_LEN_MAX;
        let pages = batch.iter().filter(|out| is_page(out)).count();
        bursts.push((batch.len() - pages, pages));
        batch.clear();
    }
    let mut wanted = vec![(1, 0); 20];
    // A page is as long as sixteen of the messages, and the last of these leaves nobody waiting.
    for nth in [0, 16, 19] {
        wanted[nth].1 = 1;
    }
    wanted.push((0, 1));
    assert_eq!(bursts, wanted);
}

#[test]
fn answers_are_short_by_kind_and_by_length() {
    let room = |response: Response| {
        AnswerRoom::of(&response, frame::response(1, &response).expect("fits").len())
    };
    let ids = |count| Response::HeldOf(vec![PostId([7; 16]); count]);
    for short in [
        Response::NotServed,
        Response::HandIn(HandInReply::Ended),
        Response::Page(None),
        Response::Session(None),
        ids(200),
    ] {
        assert_eq!(room(short.clone()), AnswerRoom::Short, "{short:?}");
    }
    assert_eq!(room(ids(300)), AnswerRoom::Pages);
    assert_eq!(room(Response::Echo(vec![])), AnswerRoom::Pages);
    assert_eq!(room(Response::Assign(vec![AssignReply::Fenced])), AnswerRoom::Batches);
}

proptest! {
    #[test]
    fn ends_never_see_each_other_violate_the_protocol(steps in steps()) {
        let mut ends = [End::new(), End::new()];
        for (first, step) in steps {
            let [one, two] = &mut ends;
            let (end, other) = if first { (one, two) } else { (two, one) };
            match step {
                Step::Call(room) => end.call(room),
                Step::GiveUp(which) if !end.calls.is_empty() => {
                    let (id, mut answered) = end.calls.swap_remove(which.index(end.calls.len()));
                    let came = answered.try_recv().is_ok();
                    let cancels = end.state.give_up(id);
                    prop_assert!(!(came && cancels), "a call that was answered is not cancelled");
                }
                Step::Respond(which, room) if !end.serves.is_empty() => {
                    let id = end.serves.swap_remove(which.index(end.serves.len()));
                    let wanted = end.state.is_serving(id);
                    let bytes = frame::response(id, &Response::NotServed).expect("short");
                    let sent = end.state.respond(id, bytes, room);
                    end.state.end_serving(id);
                    prop_assert_eq!(sent == Err(SendError::Unwanted), !wanted);
                }
                Step::Abandon(which) if !end.serves.is_empty() => {
                    end.state.end_serving(end.serves.swap_remove(which.index(end.serves.len())));
                }
                Step::Send => {
                    let bytes = frame::direct(&Direct::Digest { digest: [0; 16] }).expect("short");
                    let sent = end.state.push(Outgoing::Frame(bytes));
                    prop_assert!(matches!(sent, Ok(()) | Err(SendError::Full)));
                }
                Step::Write => end.write(),
                Step::Read => prop_assert_eq!(end.read(other), Ok(())),
                Step::GiveUp(_) | Step::Respond(..) | Step::Abandon(_) => {}
            }
            ends[0].check();
            ends[1].check();
        }
        let [mut one, two] = ends;
        one.state.end();
        for (_, mut answered) in one.calls {
            prop_assert!(
                !matches!(answered.try_recv(), Err(oneshot::error::TryRecvError::Empty)),
                "every call ends with its link"
            );
        }
        drop(two);
    }
}

//! Whatever happens, each task ends at most once, no token is given out twice, the batches of a
//! resource that are in flight are at one worker and follow each other, and each worker's load is
//! what it has in flight.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

#[derive(Clone, Copy, Debug)]
enum Move {
    Submit,
    Grant,
    Refuse,
    /// End of one of the attempts in flight.
    Done(u8),
    Away(u8),
    Fenced(u8),
    NotNext(u8),
    TimedOut(u8),
    Gone(u8),
    Lost,
    Pass,
    Rejoin(u8),
    LinkOver(u8),
    Drain,
    Silence,
    Held(u32),
    HandIn,
}

/// Attempt in flight, as the effects told of it.
#[derive(Debug)]
struct InFlight {
    slot: Slot,
    attempt: AttemptId,
    after: Option<u64>,
    tasks: usize,
    who: (NodeId, Registration),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    use Move::*;
    let one = prop_oneof![
        6 => Just(Submit), 4 => Just(Grant), 1 => Just(Refuse), 4 => (0..3u8).prop_map(Done),
        1 => (0..3u8).prop_map(Away), 1 => (0..3u8).prop_map(Fenced),
        1 => (0..3u8).prop_map(NotNext), 2 => (0..3u8).prop_map(TimedOut),
        1 => (0..3u8).prop_map(Gone),
        1 => Just(Lost), 3 => Just(Pass), 2 => (1..4u8).prop_map(Rejoin),
        1 => (1..4u8).prop_map(LinkOver), 1 => Just(Drain),
        2 => Just(Silence), 3 => (0..3u32).prop_map(Held), 2 => Just(HandIn),
    ];
    prop::collection::vec(one, 1..120)
}

proptest! {
    #[test]
    fn every_task_ends_once_and_every_token_is_new(moves in moves()) {
        let mut lab = Lab::with_in_flight(3, 3);
        let mut registrations = [1_u64; 4];
        let (mut asks, mut holds) = (Vec::new(), Vec::new());
        let mut attempts: Vec<InFlight> = Vec::new();
        // Batch that the next one follows, written or in flight.
        let mut last_n = None;
        let mut named = BTreeMap::new();
        let (mut ended, mut tokens) = (BTreeSet::new(), BTreeSet::new());
        let (mut lease, mut submitted) = (0, 0_usize);
        for one in moves {
            match one {
                Move::Submit => {
                    // Refused at once when there was no worker for a while.
                    let taken = lab.master.on_submit(lab.now, post(1), &mut lab.out);
                    submitted += usize::from(taken.is_ok());
                }
                Move::Grant => if let Some(slot) = asks.pop() {
                    lease += 1;
                    let answer = Lease::Granted { epoch: StoreEpoch(1), lease, n: 0 };
                    lab.master.on_lease(lab.now, slot, lab.now, Some(answer), &mut lab.out);
                },
                Move::Refuse => if let Some(slot) = asks.pop() {
                    lab.master.on_lease(lab.now, slot, lab.now, None, &mut lab.out);
                },
                Move::Lost => {
                    let lobby = Resource::Board(BoardName::lobby());
                    let (asked, lost) = ([(lobby.clone(), lease)], [(lobby, Renewed::Lost)]);
                    lab.master.on_renewed(lab.now, lab.now, &asked, &lost, &mut lab.out);
                }
                // Later than the rest: there is no way back.
                Move::Drain => if submitted > 12 {
                    lab.master.drain(lab.now, &mut lab.out);
                },
                Move::Pass => lab.pass(1000),
                Move::Silence => {
                    lab.now = lab.now + Duration::from_millis(2500);
                    lab.wrote(false);
                    lab.master.on_time(lab.now, &mut lab.out);
                }
                Move::Held(copies) => if let Some(id) = holds.pop() {
                    let end = HoldEnd { copies, ..HoldEnd::default() };
                    lab.master.on_hold_end(id, end, &mut lab.out);
                },
                Move::HandIn => {
                    let Task::Post { board, post } = post(1) else { unreachable!("it is a post") };
                    let held = HeldPost { board, post };
                    let taken = lab.master.on_handed_in(lab.now, held, &mut lab.out);
                    submitted += usize::from(taken.is_ok());
                }
                Move::Rejoin(n) => {
                    registrations[n as usize] += 1;
                    lab.join(n, registrations[n as usize]);
                }
                Move::LinkOver(n) => {
                    let link = LinkId(u64::from(n) + 100 * (registrations[n as usize] - 1));
                    let over = LinkOver::Lost(String::new());
                    lab.master.on_link_over(lab.now, link, &over, &mut lab.out);
                }
                Move::Done(nth) | Move::Away(nth) | Move::Fenced(nth) | Move::NotNext(nth)
                | Move::TimedOut(nth) | Move::Gone(nth) => {
                    if attempts.is_empty() {
                        continue;
                    }
                    let at = usize::from(nth) % attempts.len();
                    let ended = attempts.remove(at);
                    let answer = match one {
                        Move::Done(_) => Ok(AssignReply::Done(vec![committed(1); ended.tasks])),
                        Move::Away(_) => Ok(AssignReply::StoreAway { why: String::new() }),
                        Move::Fenced(_) => Ok(AssignReply::Fenced),
                        Move::NotNext(_) => Ok(AssignReply::NotNext),
                        Move::TimedOut(_) => Err(CallFailed::TimedOut),
                        _ => Err(CallFailed::Gone),
                    };
                    if !matches!(one, Move::Done(_)) {
                        // The later ones fell with it: their answers are late.
                        attempts.truncate(at);
                        last_n = ended.after;
                    }
                    lab.answer(ended.slot, ended.attempt, answer);
                }
            }
            for effect in std::mem::take(&mut lab.out) {
                match effect {
                    Effect::AcquireLease { slot, .. } => asks.push(slot),
                    Effect::Hold { id, holders, .. } => {
                        prop_assert!(!holders.is_empty());
                        holds.push(id);
                    }
                    Effect::Assign { call, .. } => {
                        prop_assert_eq!(call.attempts.len(), 1, "{:?}", call);
                        let Some(Attempt { slot, number: attempt, assign, .. }) = call.attempts.into_iter().next()
                        else { unreachable!("one") };
                        lab.callees.insert(attempt, call.worker);
                        let Assign { registration, permission, tasks } = assign;
                        let who = (permission.worker, registration);
                        let after = permission.after;
                        // A batch that is tried again follows what it followed before.
                        let follows = if attempts.is_empty() { None } else { last_n };
                        let before = *named.entry(permission.token).or_insert(follows);
                        prop_assert_eq!(after, before);
                        prop_assert!(attempts.iter().all(|before| before.who == who));
                        last_n = Some(permission.token.n);
                        let tasks_len = tasks.len();
                        attempts.push(InFlight { slot, attempt, after, tasks: tasks_len, who });
                        tokens.insert((permission.token, who, Arc::as_ptr(&tasks).addr()));
                    }
                    Effect::Event(Event::Assign { attempt, .. }) => prop_assert!(attempt <= 4, "try {attempt}"),
                    Effect::End { id, .. } | Effect::SendBack { id, .. } => prop_assert!(ended.insert(id), "{id:?} ended twice"),
                    _ => {}
                }
            }
            // One token names one worker and one batch.
            let distinct: BTreeSet<_> = tokens.iter().map(|(token, ..)| *token).collect();
            prop_assert_eq!(distinct.len(), tokens.len());
            prop_assert!(ended.len() + lab.master.queue().total() == submitted);
            prop_assert!(attempts.len() <= 3, "batches in flight: {attempts:?}");
            for (node, registered) in lab.master.registrations().iter() {
                let here = (node, registered.registration);
                let busy = attempts.iter().filter(|attempt| attempt.who == here).count();
                prop_assert_eq!(lab.master.selection().in_flight(&node) as usize, busy);
            }
        }
    }
}

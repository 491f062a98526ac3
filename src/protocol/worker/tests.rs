mod turns;

use proptest::prelude::*;

use super::{replication::REPAIR_GRACE, *};
use crate::{
    model::{
        ids::Incarnation,
        message::{Close, Welcome},
        rows::MasterRow,
    },
    protocol::{master_watch, registry::tests::member, session_repair::RoundStart},
};

fn at(ms: u64) -> Mono {
    Mono::ZERO + Duration::from_millis(ms)
}

fn me(registration: u64, state: MemberState) -> Member {
    member(1, Role::Worker, registration, state)
}

fn worker(kept: u64) -> Worker {
    Worker::new(at(0), &Config::default(), start(kept))
}

fn start(kept: u64) -> Start {
    let own = me(kept, MemberState::In);
    Start {
        node: own.fact.node,
        name: own.name,
        spki: own.spki,
        registration: Registration(kept),
        masters: vec!["m9:1".to_owned()],
        kept: vec![],
        draw: 0,
    }
}

fn welcome(directory: Vec<Member>) -> Welcome {
    welcome_of(9, directory)
}

fn welcome_of(master: u8, directory: Vec<Member>) -> Welcome {
    let domain = Domain {
        master: member(master, Role::Master, 1, MemberState::In).fact.node,
        incarnation: Incarnation(1),
    };
    Welcome { domain, directory }
}

fn row(n: u8, life: u64, beat: u64) -> MasterRow {
    let member = member(n, Role::Master, life, MemberState::In);
    MasterRow {
        node: member.fact.node,
        incarnation: Incarnation(life),
        beat,
        http: format!("http://m{n}"),
        link: format!("m{n}:1"),
        spki: member.spki,
        name: member.name,
        draining: false,
        guard: [0; 32],
    }
}

fn dial(addr: &str) -> Effect {
    Effect::Dial(addr.to_owned())
}

/// Effects that a step emits.
fn effects(step: impl FnOnce(&mut Vec<Effect>)) -> Vec<Effect> {
    let mut out = Vec::new();
    step(&mut out);
    out
}

/// Dials, takes a Welcome with this directory, and registers. Returns the registration number.
fn register(worker: &mut Worker, now: Mono, directory: Vec<Member>) -> Registration {
    assert!(matches!(effects(|out| worker.on_timer(now, 0, out))[..], [Effect::Dial(_)]));
    let welcome = welcome(directory);
    let registration = worker.on_welcome(now, &welcome, &mut Vec::new());
    let joined = effects(|out| worker.on_registered(now, &welcome, out));
    assert!(matches!(joined[..], [Effect::Event(Event::Join { .. })]), "{joined:?}");
    registration.expect("a Welcome was awaited")
}

#[test]
fn worker_registers_above_all_numbers_known_of_it() {
    let mut worker = worker(3);
    assert_eq!(register(&mut worker, at(0), vec![]), Registration(4));
    worker.on_link_ended(at(10), None, &mut Vec::new());
    let known = vec![me(9, MemberState::Failed)];
    assert_eq!(register(&mut worker, at(10), known), Registration(10));
    assert_eq!(worker.registration(), Some(Registration(10)));
}

#[test]
fn lost_link_starts_a_migration_and_an_unexpected_welcome_is_ignored() {
    let mut worker = worker(0);
    register(&mut worker, at(0), vec![]);
    assert_eq!(worker.on_welcome(at(1), &welcome(vec![]), &mut Vec::new()), None);
    let close = Close { reason: CloseReason::Listed, retry_ms: 1000 };
    let lost = effects(|out| worker.on_link_ended(at(1), Some(&close), out));
    assert_eq!(lost, [Effect::FaultPoint(FaultPoint::WorkerMigrating)]);
    assert_eq!(worker.registration(), None);
    assert_eq!(effects(|out| worker.on_link_ended(at(2), None, out)), []);
    assert_eq!(effects(|out| worker.on_timer(at(2), 0, out)), []);
    assert_eq!(worker.next_deadline(), Some(at(1001)));
    assert_eq!(effects(|out| worker.on_timer(at(1001), 0, out)), [dial("m9:1")]);
    worker.on_dial_failed(at(1002));
    assert_eq!(worker.next_deadline(), Some(at(1002)));
}

#[test]
fn boards_are_repaired_while_the_worker_is_registered_and_at_once_when_it_is_again() {
    let (mut worker, lobby) = (worker(0), BoardName::lobby());
    let due = at(10) + REPAIR_GRACE;
    let timer = |worker: &mut Worker, at| effects(|out| worker.on_timer(at, 0, out));
    register(&mut worker, at(0), vec![]);
    timer(&mut worker, at(0));
    worker.on_gaps(at(10), vec![lobby.clone()]);
    assert_eq!(worker.next_deadline(), Some(due));
    let close = Close { reason: CloseReason::Expelled, retry_ms: 0 };
    worker.on_link_ended(at(20), Some(&close), &mut Vec::new());
    worker.on_gaps(at(30), vec!["other".parse().expect("a name")]);
    assert_eq!(timer(&mut worker, at(30)), [dial("m9:1")]);
    assert_eq!(worker.next_deadline(), None, "a repair does not wake it either");
    assert_eq!(timer(&mut worker, due + REPAIR_GRACE), []);

    let (now, welcome) = (at(60_000), welcome(vec![]));
    worker.on_welcome(now, &welcome, &mut Vec::new());
    worker.on_registered(now, &welcome, &mut Vec::new());
    let said = timer(&mut worker, now);
    let repairs = said.iter().filter(|effect| matches!(effect, Effect::Repair(_)));
    assert_eq!(repairs.count(), 2, "{said:?}");
}

#[test]
fn worker_whose_identity_another_process_uses_warns_and_waits_before_it_registers_again() {
    let mut worker = worker(0);
    register(&mut worker, at(0), vec![]);
    let told = effects(|out| worker.on_members(at(1), vec![me(2, MemberState::In)], out));
    assert!(told.contains(&Effect::WarnOfDouble), "{told:?}");
    assert_eq!(worker.registration(), None);
    let mut acts = |ms| effects(|out| worker.on_timer(at(ms), 0, out));
    assert_eq!(acts(1), []);
    assert_eq!(acts(250), []);
    assert!(matches!(acts(251)[..], [Effect::Dial(_)]));
}

#[test]
fn worker_that_is_declared_failed_registers_again_at_once_with_the_same_master() {
    let mut worker = worker(0);
    register(&mut worker, at(0), vec![]);
    assert_eq!(effects(|out| worker.on_members(at(1), vec![me(1, MemberState::In)], out)), []);
    let emitted = effects(|out| worker.on_members(at(2), vec![me(1, MemberState::Failed)], out));
    let migrating = Effect::FaultPoint(FaultPoint::WorkerMigrating);
    assert_eq!(emitted, [Effect::CloseLink(CloseReason::Leaving), migrating]);
    assert_eq!(register(&mut worker, at(2), vec![]), Registration(2));
    // An old fact about this worker is answered with the newest one.
    let corrected = effects(|out| worker.on_members(at(3), vec![me(1, MemberState::Failed)], out));
    assert!(
        matches!(&corrected[..], [Effect::Send(Direct::Members(m))] if m[0].fact.registration == Registration(2))
    );
}

#[test]
fn newer_fact_of_another_node_is_announced_once_and_kept() {
    let mut worker = worker(0);
    register(&mut worker, at(0), vec![]);
    let other = member(2, Role::Worker, 5, MemberState::In);
    let emitted = effects(|out| worker.on_update(at(1), Update::Members(vec![other.clone()]), out));
    let line = super::super::gossip::announcement(&other.fact);
    assert_eq!(emitted, [Effect::KeepMembers(vec![other.clone()]), Effect::Event(line)]);
    assert_eq!(effects(|out| worker.on_members(at(2), vec![other], out)), []);
}

#[test]
fn worker_sends_its_digest_and_answers_a_different_one_with_its_members() {
    let mut worker = worker(0);
    register(&mut worker, at(0), vec![]);
    let said = effects(|out| worker.on_timer(at(0), 0, out));
    let digest = Direct::Digest { digest: worker.registry().digest() };
    let round = RoundStart { turn: 1, from: 0 };
    assert_eq!(said, [Effect::Send(digest), Effect::SendStatus, Effect::RepairSessions(round)]);
    assert_eq!(worker.next_deadline(), Some(at(2000)));
    assert_eq!(effects(|out| worker.on_digest(worker.registry().digest(), out)), []);
    let page = effects(|out| worker.on_digest([0; 16], out));
    assert!(matches!(&page[..], [Effect::Send(Direct::Members(m))] if m.len() == 1), "{page:?}");
}

#[test]
fn masters_in_the_store_are_announced_and_searched() {
    let mut worker = worker(0);
    let emitted = effects(|out| worker.on_masters(at(0), vec![row(8, 3, 1), row(9, 2, 1)], out));
    let lines = emitted.iter().filter(|e| matches!(e, Effect::Event(Event::Announce { .. })));
    assert_eq!(lines.count(), 2);
    for second in 1..=5 {
        assert_eq!(
            effects(|out| worker.on_masters(
                at(second * 1000),
                vec![row(8, 3, second), row(9, 2, 1)],
                out
            )),
            []
        );
    }
    // Master 9 is out by now, even though the configuration names it.
    assert_eq!(effects(|out| worker.on_timer(at(5000), 0, out)), [dial("m8:1")]);
    worker.on_dial_failed(at(5001));
    assert_eq!(effects(|out| worker.on_timer(at(5001), 0, out)), []);
    let gone = effects(|out| worker.on_masters(at(6000), vec![row(9, 2, 1)], out));
    let Some(Effect::Event(Event::Announce { state, registration, .. })) = gone.last() else {
        panic!("{gone:?}")
    };
    assert_eq!((*state, *registration), (MemberState::Left, Registration(3)));
    assert_eq!(master_watch::member(&row(8, 3, 1), MemberState::In).fact.role, Role::Master);
}

/// Reads the masters' rows; a worker that wants to move has nothing in flight.
fn masters_read(worker: &mut Worker, now: Mono, rows: Vec<MasterRow>) -> Vec<Effect> {
    let mut out = effects(|out| worker.on_masters(now, rows, out));
    if out.contains(&Effect::FinishBatches) {
        assert!(!out.iter().any(|effect| matches!(effect, Effect::CloseLink(_))), "{out:?}");
        worker.on_batches_answered(now, &mut out);
    }
    out
}

/// Reads the masters' rows each second from `from` to `to`; only those of `live` change.
fn read_rows(worker: &mut Worker, from: u64, to: u64, live: &[u8]) -> Vec<Effect> {
    let mut all = Vec::new();
    for second in from..=to {
        let beat = |n: u8| if live.contains(&n) { second } else { 1 };
        let rows = vec![row(8, 1, beat(8)), row(9, 1, beat(9))];
        all.extend(masters_read(worker, at(second * 1000), rows));
    }
    let is_move = |effect: &Effect| matches!(effect, Effect::CloseLink(_) | Effect::Dial(_));
    all.into_iter().filter(is_move).collect()
}

fn worker_of(n: u8, master: u8) -> Member {
    let mut it = member(n, Role::Worker, 1, MemberState::In);
    it.fact.master = member(master, Role::Master, 1, MemberState::In).fact.node;
    it
}

#[test]
fn worker_leaves_a_master_that_is_cut_from_the_store_for_one_that_is_not() {
    let mut worker = worker(0);
    register(&mut worker, at(0), vec![]);
    assert_eq!(read_rows(&mut worker, 0, 7, &[8]), []);
    assert_eq!(read_rows(&mut worker, 8, 9, &[8]), [Effect::CloseLink(CloseReason::Leaving)]);
    assert_eq!(effects(|out| worker.on_timer(at(9000), 0, out)), [dial("m8:1")]);
}

/// Reads rows each second until the worker wants to move away from master 9, which does not write.
/// Returns the second.
fn wants_to_move(worker: &mut Worker) -> u64 {
    let wants = |second: &u64| {
        let rows = vec![row(8, 1, *second), row(9, 1, 1)];
        let out = effects(|out| worker.on_masters(at(second * 1000), rows, out));
        out.contains(&Effect::FinishBatches)
    };
    (0..20).find(wants).expect("a reason stands")
}

#[test]
fn worker_that_moves_stays_registered_until_its_batches_are_answered() {
    let mut worker = worker(0);
    register(&mut worker, at(0), vec![]);
    let wanted = wants_to_move(&mut worker);
    assert!(worker.registration().is_some());
    // It is asked for once, and the link may end before.
    for second in wanted + 1..wanted + 10 {
        let rows = vec![row(8, 1, second), row(9, 1, 1)];
        let out = effects(|out| worker.on_masters(at(second * 1000), rows, out));
        assert!(!out.contains(&Effect::FinishBatches), "second {second}");
    }
    let now = at((wanted + 10) * 1000);
    let out = effects(|out| worker.on_batches_answered(now, out));
    assert!(out.contains(&Effect::CloseLink(CloseReason::Leaving)), "{out:?}");
    assert_eq!(worker.registration(), None);
    assert_eq!(effects(|out| worker.on_batches_answered(now, out)), []);
}

#[test]
fn worker_whose_link_ends_before_its_batches_are_answered_searches_as_ever() {
    let mut worker = worker(0);
    register(&mut worker, at(0), vec![]);
    let now = at(wants_to_move(&mut worker) * 1000);
    worker.on_link_ended(now, None, &mut Vec::new());
    assert_eq!(effects(|out| worker.on_batches_answered(now, out)), []);
    register(&mut worker, now, vec![]);
    assert_eq!(effects(|out| worker.on_batches_answered(now, out)), []);
}

#[test]
fn worker_stays_while_the_store_takes_no_masters_writes() {
    let mut worker = worker(0);
    register(&mut worker, at(0), vec![]);
    assert_eq!(read_rows(&mut worker, 0, 30, &[]), []);
}

#[test]
fn last_worker_of_a_crowded_master_moves_to_the_empty_one() {
    let mut lone = worker(0);
    register(&mut lone, at(0), vec![]);
    assert_eq!(read_rows(&mut lone, 0, 20, &[8, 9]), [], "one worker is better than none");
    // Of master 9's workers the one with the highest id moves first.
    let own = me(1, MemberState::In).fact.node;
    let others = (2..200).map(|n| worker_of(n, 9));
    let (lower, higher): (Vec<_>, Vec<_>) = others.partition(|it| it.fact.node < own);
    for (other, moves) in [(&lower[0], true), (&higher[0], false)] {
        let mut worker = worker(0);
        register(&mut worker, at(0), vec![other.clone()]);
        let moved = read_rows(&mut worker, 0, 14, &[8, 9]);
        assert_eq!(moved.len(), usize::from(moves), "{moved:?}");
        if moves {
            assert_eq!(effects(|out| worker.on_timer(at(20_000), 0, out)), [dial("m8:1")]);
        }
    }
}

/// Master `n` as a directory names it, at this address.
fn master_at(n: u8, addr: &str) -> Member {
    Member { link: Some(addr.to_owned()), ..member(n, Role::Master, 1, MemberState::In) }
}

/// Searches while only the master at `alive` takes a worker in. Returns the addresses that were
/// dialed before it; `None` if a round ended first.
fn dead_before(worker: &mut Worker, now: Mono, draw: u64, alive: &str) -> Option<Vec<String>> {
    let mut dead = Vec::new();
    loop {
        let dialed = effects(|out| worker.on_timer(now, draw, out));
        let [Effect::Dial(addr)] = &dialed[..] else { return None };
        if addr == alive {
            return Some(dead);
        }
        dead.push(addr.clone());
        worker.on_dial_failed(now);
    }
}

#[test]
fn remembered_master_is_found_while_the_configured_one_is_dead() {
    let mut first_life = worker(0);
    let told = vec![master_at(8, "m8:1")];
    assert!(matches!(effects(|out| first_life.on_timer(at(0), 0, out))[..], [Effect::Dial(_)]));
    let out = effects(|out| {
        first_life.on_welcome(at(0), &welcome(told.clone()), out);
    });
    let kept = out.into_iter().find_map(|effect| match effect {
        Effect::KeepMembers(members) => Some(members),
        _ => None,
    });
    assert_eq!(kept.as_ref(), Some(&told), "it goes to the worker's disk");
    let kept = kept.unwrap_or_default();
    let mut next_life = Worker::new(at(0), &Config::default(), Start { kept, ..start(1) });
    let dead = dead_before(&mut next_life, at(0), 0, "m8:1").expect("found in the first round");
    assert!(dead.iter().all(|addr| addr == "m9:1") && dead.len() <= 1, "{dead:?}");
    let welcome = welcome_of(8, vec![]);
    assert_eq!(next_life.on_welcome(at(1), &welcome, &mut Vec::new()), Some(Registration(2)));
    next_life.on_registered(at(1), &welcome, &mut Vec::new());
    assert_eq!(next_life.domain(), Some(welcome.domain));
}

#[test]
fn remembered_master_is_found_within_a_round_without_configured_masters_and_without_a_store() {
    let configured = ["m3:1", "m5:1", "m9:1"];
    // Addresses before, between and behind the configured ones, from each place of the ring.
    for (alive, draw) in ["a:1", "m4:1", "z:1"].into_iter().flat_map(|a| [(a, 0), (a, 1), (a, 2)]) {
        let masters = configured.map(ToOwned::to_owned).to_vec();
        let kept = vec![master_at(8, alive), master_at(7, "m7:1")];
        let start = Start { masters, kept, draw, ..start(0) };
        let mut worker = Worker::new(at(0), &Config::default(), start);
        worker.on_store_away(at(0));
        let dead = dead_before(&mut worker, at(0), draw, alive).expect("found in the first round");
        assert!(dead.len() <= 4, "each is tried once: {dead:?}");
    }
}

#[test]
fn remembered_master_is_tried_before_the_lost_one_while_the_store_is_away() {
    for draw in 0..10 {
        let mut worker = worker(0);
        register(&mut worker, at(0), vec![master_at(8, "m8:1")]);
        worker.on_store_away(at(10));
        worker.on_link_ended(at(10), None, &mut Vec::new());
        assert_eq!(dead_before(&mut worker, at(10), draw, "m8:1"), Some(vec![]));
    }
}

/// Ten minutes of a worker of masters 8 and 9, whose rows it reads each second. In each second
/// `slow` says, by the worker's master, which of them does not write. Returns the seconds in which
/// the worker moved.
fn moves_while_slow(slow: impl Fn(u64, u8) -> u8) -> Vec<u64> {
    let mut worker = worker(0);
    register(&mut worker, at(0), vec![]);
    let (mut master, mut beats, mut moves) = (9, [1, 1], Vec::new());
    for second in 0..600 {
        for (n, beat) in [8, 9].into_iter().zip(&mut beats) {
            *beat += u64::from(n != slow(second, master));
        }
        let now = at(second * 1000);
        let rows = vec![row(8, 1, beats[0]), row(9, 1, beats[1])];
        let out = masters_read(&mut worker, now, rows);
        if !out.contains(&Effect::CloseLink(CloseReason::Leaving)) {
            continue;
        }
        moves.push(second);
        let to = if master == 9 { 8 } else { 9 };
        assert_eq!(effects(|out| worker.on_timer(now, 0, out)), [dial(&format!("m{to}:1"))]);
        let welcome = welcome_of(to, vec![]);
        worker.on_welcome(now, &welcome, &mut Vec::new());
        worker.on_registered(now, &welcome, &mut Vec::new());
        master = to;
    }
    moves
}

/// Checks that moves are as far from each other as the doubled waits.
fn check_rests(moves: &[u64]) {
    assert!(!moves.is_empty());
    let mut rest = 4;
    for pair in moves.windows(2) {
        assert!(pair[1] - pair[0] >= rest, "{moves:?}");
        rest *= 2;
    }
    // 4, 8, .. 256 s between eight moves are 508 s, and the next wait is longer than the rest.
    assert!(moves.len() <= 8, "{moves:?}");
}

#[test]
fn worker_of_two_masters_that_are_slow_in_turn_moves_at_most_once_per_wait() {
    for period in [10, 12, 20, 45, 60, 150] {
        check_rests(&moves_while_slow(|second, _| [9, 8][usize::from(second / period % 2 == 1)]));
    }
}

#[test]
fn worker_whose_own_master_is_always_the_slow_one_moves_ever_more_rarely() {
    let moves = moves_while_slow(|_, master| master);
    check_rests(&moves);
    assert!(moves.len() >= 4, "the waits, not the masters, hold it back: {moves:?}");
}

#[test]
fn worker_of_two_masters_that_are_slow_at_the_same_time_stays() {
    // Each writes once in seven seconds, in the same second as the other.
    let mut worker = worker(0);
    register(&mut worker, at(0), vec![]);
    for second in 0..600 {
        let beat = 1 + second / 7;
        let rows = vec![row(8, 1, beat), row(9, 1, beat)];
        let out = masters_read(&mut worker, at(second * 1000), rows);
        assert!(!out.contains(&Effect::CloseLink(CloseReason::Leaving)), "second {second}");
    }
}

#[derive(Clone, Debug)]
enum Input {
    Welcome(u64),
    DialFailed,
    Lost(bool),
    Told(u8, u64, u8),
    Timer,
}

fn inputs() -> impl Strategy<Value = Vec<(u64, Input)>> {
    let input = prop_oneof![
        (0..9_u64).prop_map(Input::Welcome),
        Just(Input::DialFailed),
        any::<bool>().prop_map(Input::Lost),
        (1..4_u8, 0..9_u64, 0..3_u8).prop_map(|(n, r, s)| Input::Told(n, r, s)),
        Just(Input::Timer),
        Just(Input::Timer),
    ];
    proptest::collection::vec((0..2000_u64, input), 0..80)
}

proptest! {
    #[test]
    fn registrations_rise_facts_are_announced_in_order_and_one_master_is_linked(
        inputs in inputs(),
    ) {
        let mut worker = worker(0);
        let (mut now, mut last, mut shown) = (0, Registration(0), std::collections::BTreeMap::new());
        let (mut dialing, mut linked) = (false, false);
        for (pass, input) in inputs {
            now += pass;
            let emitted = match input {
                Input::Welcome(known) => {
                    let directory = if known > 0 { vec![me(known, MemberState::Left)] } else { vec![] };
                    let welcome = welcome(directory);
                    let mut out = Vec::new();
                    let registration = worker.on_welcome(at(now), &welcome, &mut out);
                    prop_assert_eq!(registration.is_some(), dialing);
                    if let Some(registration) = registration {
                        prop_assert!(registration > last && registration > Registration(known));
                        last = registration;
                        worker.on_registered(at(now), &welcome, &mut out);
                        (dialing, linked) = (false, true);
                    }
                    out
                }
                Input::DialFailed => {
                    worker.on_dial_failed(at(now));
                    dialing = false;
                    vec![]
                }
                Input::Lost(said) => {
                    let close = Close { reason: CloseReason::Draining, retry_ms: 100 };
                    linked = false;
                    effects(|out| worker.on_link_ended(at(now), said.then_some(&close), out))
                }
                Input::Told(n, r, s) => {
                    let state = [MemberState::In, MemberState::Failed, MemberState::Left];
                    effects(|out| worker.on_members(at(now), vec![member(n, Role::Worker, r, state[usize::from(s)])], out))
                }
                Input::Timer => effects(|out| worker.on_timer(at(now), now, out)),
            };
            for effect in emitted {
                match effect {
                    Effect::Dial(_) => {
                        prop_assert!(!dialing && !linked);
                        dialing = true;
                    }
                    Effect::CloseLink(_) => linked = false,
                    Effect::Event(Event::Announce { node, registration, state, .. }) => {
                        let before = shown.insert(node, (registration, state));
                        prop_assert!(before < Some((registration, state)));
                    }
                    _ => {}
                }
            }
            prop_assert_eq!(worker.registration().is_some(), linked);
        }
    }
}

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

fn at(ms: u64) -> Mono {
    Mono::ZERO + Duration::from_millis(ms)
}

/// A schedule, and what it decided.
struct Lab {
    keys: KeyRefresh<u8>,
    out: Vec<KeyStep<u8>>,
}

impl Lab {
    /// Returns a lab with members 1 to `members`, whose next key is ready.
    fn new(members: u8) -> Self {
        let keys = KeyRefresh::new(at(0), &Config::default(), 1 << 63);
        let mut lab = Self { keys, out: Vec::new() };
        for member in 1..=members {
            lab.keys.on_join(at(0), member, Some(KeyEpoch(1)), &mut lab.out);
        }
        assert_eq!(lab.due(0), [KeyStep::Make(KeyEpoch(2))]);
        lab.made(0, 2);
        lab
    }

    fn due(&mut self, ms: u64) -> Vec<KeyStep<u8>> {
        self.keys.on_time(at(ms), &mut self.out);
        std::mem::take(&mut self.out)
    }

    fn made(&mut self, ms: u64, epoch: u64) {
        self.keys.on_made(at(ms), KeyEpoch(epoch), true, 1 << 63);
    }

    fn held(&mut self, epoch: u64, members: &[u8]) {
        for member in members {
            self.keys.on_held(*member, KeyEpoch(epoch));
        }
    }
}

fn install(epoch: u64, why: RefreshReason, to: &[u8]) -> KeyStep<u8> {
    KeyStep::Install { epoch: KeyEpoch(epoch), why, to: to.to_vec() }
}

fn use_epoch(epoch: u64, to: &[u8]) -> KeyStep<u8> {
    KeyStep::Use { epoch: KeyEpoch(epoch), to: to.to_vec() }
}

const GONE: RefreshReason = RefreshReason::MemberGone;

#[test]
fn aged_key_is_replaced_used_by_all_and_erased_after_the_overlap() {
    let mut lab = Lab::new(2);
    let due = lab.keys.next_deadline().expect("a time");
    assert_eq!(due.since(at(0)).as_millis(), 599_999, "half of the draws is ten minutes");
    assert_eq!(lab.due(599_998), []);
    let installed = install(2, RefreshReason::Interval, &[1, 2]);
    assert_eq!(lab.due(600_000), [installed, KeyStep::Make(KeyEpoch(3))]);
    assert_eq!(lab.keys.lacking().collect::<Vec<_>>(), [1, 2]);
    lab.held(2, &[1]);
    assert_eq!(lab.due(600_010), []);
    lab.held(2, &[2]);
    assert_eq!(lab.due(600_020), [use_epoch(2, &[1, 2])]);
    assert_eq!((lab.keys.in_use(), lab.keys.used_at()), (KeyEpoch(2), at(600_020)));
    assert_eq!(lab.due(610_019), []);
    assert_eq!(lab.due(610_020), [KeyStep::Remove(KeyEpoch(1))]);
}

#[test]
fn jitter_is_a_tenth_either_way() {
    let due = |draw| {
        let mut keys = KeyRefresh::<u8>::new(at(0), &Config::default(), draw);
        keys.on_time(at(0), &mut Vec::new());
        keys.on_made(at(0), KeyEpoch(2), true, draw);
        keys.next_deadline().expect("a time").since(at(0)).as_secs()
    };
    assert_eq!((due(0), due(u64::MAX)), (540, 659));
}

#[test]
fn gone_members_are_gathered_and_refreshes_keep_their_gap() {
    let mut lab = Lab::new(4);
    lab.keys.on_gone(at(10_000), 4);
    lab.keys.on_gone(at(10_900), 3);
    assert_eq!(lab.due(10_999), []);
    assert_eq!(lab.due(11_000)[0], install(2, GONE, &[1, 2]));
    lab.made(11_000, 3);
    lab.keys.on_gone(at(11_100), 2);
    lab.held(2, &[1]);
    assert_eq!(lab.due(11_100), [use_epoch(2, &[1])]);
    assert_eq!(lab.due(15_999), []);
    assert_eq!(lab.due(16_000)[..2], [KeyStep::Remove(KeyEpoch(1)), install(3, GONE, &[1])]);
}

#[test]
fn expulsion_waits_only_for_the_use_of_the_epoch_before() {
    let mut lab = Lab::new(3);
    lab.keys.on_gone(at(10_000), 3);
    assert_eq!(lab.due(11_000)[0], install(2, GONE, &[1, 2]));
    lab.made(11_000, 3);
    lab.keys.forget(2);
    lab.keys.renew_at_once();
    assert_eq!(lab.due(11_001), []);
    lab.held(2, &[1]);
    let expelled = RefreshReason::MemberExpelled;
    let steps = lab.due(11_002);
    let removed = KeyStep::Remove(KeyEpoch(1));
    assert_eq!(steps[..3], [use_epoch(2, &[1]), removed, install(3, expelled, &[1])]);
}

#[test]
fn expulsion_of_a_node_that_is_no_member_replaces_the_key_all_the_same() {
    let mut lab = Lab::new(2);
    lab.keys.renew_at_once();
    let expelled = RefreshReason::MemberExpelled;
    assert_eq!(lab.due(0)[0], install(2, expelled, &[1, 2]));
}

#[test]
fn member_that_does_not_acknowledge_in_time_is_cut_after_the_use() {
    let mut lab = Lab::new(3);
    lab.keys.on_gone(at(0), 3);
    lab.due(1000);
    lab.made(1000, 3);
    lab.held(2, &[1]);
    lab.held(1, &[2]);
    assert_eq!(lab.due(2999), []);
    let cut = KeyStep::Cut { member: 2, epoch: KeyEpoch(2) };
    assert_eq!(lab.due(3000), [use_epoch(2, &[1]), cut]);
    lab.keys.on_gone(at(3000), 2);
    assert_eq!(lab.due(6000)[1], install(3, GONE, &[1]), "it may hold epoch 2");
}

#[test]
fn late_joiner_is_given_what_it_lacks_and_cut_without_it() {
    let mut lab = Lab::new(2);
    lab.keys.on_gone(at(0), 2);
    lab.due(1000);
    lab.keys.on_join(at(1100), 7, Some(KeyEpoch(1)), &mut lab.out);
    let give = |to, epoch, is_used| KeyStep::Give { to, epoch: KeyEpoch(epoch), is_used };
    assert_eq!(lab.due(1100), [give(7, 2, false)]);
    lab.held(2, &[1]);
    assert_eq!(lab.due(1200), [use_epoch(2, &[1, 7])], "nobody waits for it");
    for (member, held) in [(8, Some(KeyEpoch(1))), (9, Some(KeyEpoch(77))), (10, None)] {
        lab.keys.on_join(at(1300), member, held, &mut lab.out);
    }
    assert_eq!(lab.due(1300), [give(8, 2, true), give(9, 2, true), give(10, 2, true)]);
    lab.held(2, &[8, 9]);
    assert_eq!(lab.keys.lacking().collect::<Vec<_>>(), [7, 10]);
    assert_eq!(lab.due(3100), [KeyStep::Cut { member: 7, epoch: KeyEpoch(2) }]);
    assert_eq!(lab.due(3300), [KeyStep::Cut { member: 10, epoch: KeyEpoch(2) }]);
}

#[test]
fn key_that_was_not_made_is_tried_again_and_a_trigger_waits_for_it() {
    let mut keys = KeyRefresh::<u8>::new(at(0), &Config::default(), 0);
    let mut out = Vec::new();
    keys.on_time(at(0), &mut out);
    keys.on_gone(at(0), 1);
    keys.on_made(at(100), KeyEpoch(2), false, 0);
    keys.on_made(at(100), KeyEpoch(2), true, 0);
    keys.on_time(at(5099), &mut out);
    assert_eq!(out, [KeyStep::Make(KeyEpoch(2))]);
    keys.on_time(at(5100), &mut out);
    keys.on_made(at(5200), KeyEpoch(2), true, 0);
    keys.on_time(at(5200), &mut out);
    // Without members it is used at once.
    assert_eq!(out[2..4], [install(2, GONE, &[]), use_epoch(2, &[])]);
}

/// A member as it should be: it takes its messages in order, and may not take them at all.
#[derive(Default)]
struct Member {
    queue: VecDeque<(KeyEpoch, bool)>,
    held: Vec<KeyEpoch>,
    used: KeyEpoch,
}

/// A domain around a schedule: its members, and what must hold.
struct World {
    keys: KeyRefresh<u8>,
    now: u64,
    members: BTreeMap<u8, Member>,
    gone: BTreeSet<u8>,
    /// Epochs that the master holds.
    own: Vec<KeyEpoch>,
    making: Option<KeyEpoch>,
    made: BTreeSet<KeyEpoch>,
    joined: u8,
}

impl World {
    fn new() -> Self {
        let own = vec![KeyEpoch(1)];
        let keys = KeyRefresh::new(at(0), &Config::default(), 0);
        let (members, gone, made) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::from([own[0]]));
        Self { keys, now: 0, members, gone, own, making: None, made, joined: 0 }
    }

    /// A member joins with the key in use, or with one that is two older, as after a slow handshake.
    fn join(&mut self, is_slow: bool, out: &mut Vec<KeyStep<u8>>) {
        self.joined += 1;
        let back = if is_slow { 2 } else { 0 };
        let epoch = KeyEpoch(self.keys.in_use().0.saturating_sub(back).max(1));
        let member = Member { held: vec![epoch], used: epoch, ..Member::default() };
        self.members.insert(self.joined, member);
        self.keys.on_join(at(self.now), self.joined, Some(epoch), out);
    }

    fn leave(&mut self, member: u8, is_expelled: bool) {
        if self.members.remove(&member).is_some() {
            self.gone.insert(member);
            match is_expelled {
                true => {
                    self.keys.forget(member);
                    self.keys.renew_at_once();
                }
                false => self.keys.on_gone(at(self.now), member),
            }
        }
    }

    fn deliver(&mut self, member: u8) -> Result<(), TestCaseError> {
        let Some(at) = self.members.get_mut(&member) else { return Ok(()) };
        let Some((epoch, is_use)) = at.queue.pop_front() else { return Ok(()) };
        if is_use {
            prop_assert!(at.held.contains(&epoch), "{member} uses {epoch} without its key");
            at.used = epoch;
            return Ok(());
        }
        let newest = *at.held.last().expect("one at least");
        prop_assert!(epoch > newest && newest == at.used, "{member}: {epoch} after {newest}");
        if at.held.len() == 2 {
            at.held.remove(0);
        }
        at.held.push(epoch);
        self.keys.on_held(member, epoch);
        Ok(())
    }

    fn send(&mut self, to: u8, epoch: KeyEpoch, is_use: bool) -> Result<(), TestCaseError> {
        prop_assert!(!self.gone.contains(&to), "{to} is gone and is sent {epoch}");
        let member = self.members.get_mut(&to).expect("a member");
        member.queue.push_back((epoch, is_use));
        Ok(())
    }

    fn carry(&mut self, steps: Vec<KeyStep<u8>>) -> Result<(), TestCaseError> {
        let is_cut = |of: u8| {
            steps.iter().any(|step| matches!(step, KeyStep::Cut { member, .. } if *member == of))
        };
        for step in steps.clone() {
            match step {
                KeyStep::Make(epoch) => {
                    prop_assert!(!self.made.contains(&epoch), "two keys for {epoch}");
                    prop_assert!(self.making.replace(epoch).is_none());
                }
                KeyStep::Install { epoch, to, .. } => {
                    prop_assert!(self.made.contains(&epoch), "{epoch} was not made");
                    prop_assert_eq!(epoch, self.own.last().expect("one").next());
                    self.own.push(epoch);
                    prop_assert!(self.own.len() <= 2, "the master holds {:?}", &self.own);
                    for member in to {
                        self.send(member, epoch, false)?;
                    }
                }
                KeyStep::Use { epoch, to } => {
                    prop_assert_eq!(Some(&epoch), self.own.last());
                    for member in to {
                        let of = &self.members[&member];
                        let is_sent = of.queue.contains(&(epoch, false));
                        let is_late = self.keys.late.contains_key(&member) || is_cut(member);
                        prop_assert!(
                            of.held.contains(&epoch) || is_late && is_sent,
                            "{} lacks {} and is not cut",
                            member,
                            epoch
                        );
                        self.send(member, epoch, true)?;
                    }
                }
                KeyStep::Remove(epoch) => {
                    prop_assert_eq!(self.own.remove(0), epoch);
                    prop_assert!(!self.own.is_empty());
                }
                KeyStep::Give { to, epoch, is_used } => {
                    prop_assert!(self.own.contains(&epoch));
                    self.send(to, epoch, false)?;
                    if is_used {
                        self.send(to, epoch, true)?;
                    }
                }
                KeyStep::Cut { member, .. } => self.leave(member, false),
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Join { is_slow: bool },
    Leave { is_expelled: bool },
    Deliver,
    Made { well: bool },
    Pass(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        2 => any::<bool>().prop_map(|is_slow| Act::Join { is_slow }),
        1 => any::<bool>().prop_map(|is_expelled| Act::Leave { is_expelled }),
        6 => Just(Act::Deliver),
        2 => prop::bool::weighted(0.9).prop_map(|well| Act::Made { well }),
        4 => prop_oneof![0..300_u64, 500..3000_u64, Just(12_000), Just(700_000)].prop_map(Act::Pass),
    ]
}

proptest! {
    #[test]
    fn rules_hold_over_all_schedules(acts in prop::collection::vec((act(), any::<u8>()), 0..120)) {
        let mut world = World::new();
        for (act, which) in acts {
            let mut steps = Vec::new();
            let members: Vec<u8> = world.members.keys().copied().collect();
            let one = members.get(usize::from(which) % members.len().max(1)).copied();
            match (act, one) {
                (Act::Join { is_slow }, _) if world.joined < 200 => world.join(is_slow, &mut steps),
                (Act::Leave { is_expelled }, Some(member)) => world.leave(member, is_expelled),
                (Act::Deliver, Some(member)) => world.deliver(member)?,
                (Act::Made { well }, _) => {
                    if let Some(epoch) = world.making.take() {
                        if well {
                            world.made.insert(epoch);
                        }
                        world.keys.on_made(at(world.now), epoch, well, u64::from(which) << 56);
                    }
                }
                (Act::Pass(ms), _) => world.now += ms,
                _ => {}
            }
            let before = (world.keys.in_use(), world.keys.newest());
            world.keys.on_time(at(world.now), &mut steps);
            world.carry(steps)?;
            let after = (world.keys.in_use(), world.keys.newest());
            prop_assert!(before <= after && world.own.contains(&after.0));
            prop_assert!(world.members.values().all(|member| member.held.len() <= 2));
            let due = world.keys.next_deadline();
            prop_assert!(due.is_none_or(|due| due > at(world.now)), "{due:?} at {}", world.now);
        }
    }
}

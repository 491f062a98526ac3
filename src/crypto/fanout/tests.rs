use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{
    head::{topic_code, topic_of},
    *,
};
use crate::testing::keys::{WEAK, epoch_of, identity, pair, rng};

/// Makes a member of master 1's domain at its first epoch.
fn member(number: u8, start: u64) -> Fanout {
    let start = Start::new(start, &mut rng(number));
    Fanout::new(identity(number).node(), start, epoch_of(1, 1), 4)
}

fn text(opened: Result<Opened, FanoutError>) -> Result<Vec<u8>, FanoutError> {
    opened.map(|opened| opened.text)
}

#[test]
fn sealed_text_opens_once_at_every_member() {
    let (mut sender, mut one, mut two) = (member(1, 1), member(2, 1), member(3, 1));
    let envelope = sender.seal(Topic::Board, b"hello").expect("short");
    assert_eq!(envelope.len(), HEAD_LEN + 5 + TAG_LEN);
    for receiver in [&mut one, &mut two] {
        let opened = receiver.open(&envelope).expect("sealed for it");
        assert_eq!((opened.head.sender, opened.head.topic), (sender.me, Topic::Board));
        assert_eq!(opened.text, b"hello");
        assert_eq!(receiver.open(&envelope), Err(FanoutError::Replayed));
    }
    assert_eq!(peek(&envelope).map(|head| head.epoch), Ok(KeyEpoch(1)));
}

#[test]
fn every_topic_reads_back_from_its_code() {
    for topic in Topic::ALL {
        assert_eq!(topic_of(topic_code(topic)), Some(topic));
    }
}

#[test]
fn restarted_sender_is_heard_and_its_older_start_is_refused() {
    let (mut before, mut after, mut receiver) = (member(2, 1), member(2, 2), member(3, 1));
    let first = before.seal(Topic::Board, b"1").expect("short");
    let late = before.seal(Topic::Board, b"2").expect("short");
    assert!(receiver.open(&first).is_ok());
    let again = after.seal(Topic::Board, b"1").expect("short");
    assert_ne!(first[HEAD_LEN..], again[HEAD_LEN..]);
    assert!(receiver.open(&again).is_ok());
    for old in [&first, &late] {
        assert_eq!(receiver.open(old), Err(FanoutError::StaleStart));
    }
    // The same number with another salt: a sender that lost count of its starts.
    let mut twin = Fanout::new(identity(2).node(), Start::new(2, &mut rng(99)), epoch_of(1, 1), 4);
    let forked = twin.seal(Topic::Board, b"1").expect("short");
    assert_eq!(receiver.open(&forked), Err(FanoutError::StaleStart));
}

#[test]
fn forged_envelope_adds_no_sender_and_moves_no_window() {
    let (mut sender, mut receiver) = (member(2, 1), member(3, 1));
    let mut forged = sender.seal(Topic::Board, b"x").expect("short");
    let counter_at = HEAD_LEN - 8;
    forged[counter_at..HEAD_LEN].copy_from_slice(&u64::MAX.to_be_bytes());
    assert_eq!(receiver.open(&forged), Err(FanoutError::Forged));
    assert!(receiver.epochs[0].senders.is_empty());
    assert!(receiver.open(&sender.seal(Topic::Board, b"y").expect("short")).is_ok());
    assert_eq!(receiver.open(&forged), Err(FanoutError::Forged));
    assert!(receiver.open(&sender.seal(Topic::Board, b"z").expect("short")).is_ok());
}

#[test]
fn senders_beyond_the_bound_are_refused() {
    let mut receiver = member(9, 1);
    for number in 2..6 {
        let envelope = member(number, 1).seal(Topic::Board, b"x").expect("short");
        assert!(receiver.open(&envelope).is_ok());
    }
    let envelope = member(6, 1).seal(Topic::Board, b"x").expect("short");
    assert_eq!(receiver.open(&envelope), Err(FanoutError::TooManySenders(4)));
}

#[test]
fn envelope_of_another_domain_or_group_secret_is_refused() {
    let mut receiver = member(3, 1);
    let me = identity(2).node();
    let mut stranger = Fanout::new(me, Start::new(1, &mut rng(1)), epoch_of(4, 1), 4);
    let mut envelope = stranger.seal(Topic::Board, b"x").expect("short");
    assert_eq!(receiver.open(&envelope), Err(FanoutError::OtherDomain));
    // The foreign envelope, relabelled for the receiver's domain.
    envelope[2..26].copy_from_slice(&member(2, 1).seal(Topic::Board, b"").expect("short")[2..26]);
    assert_eq!(receiver.open(&envelope), Err(FanoutError::Forged));
}

#[test]
fn epochs_are_installed_used_and_removed_in_order() {
    let (mut master, mut worker) = (member(1, 1), member(2, 1));
    assert_eq!(worker.install(epoch_of(1, 1)), Ok(()));
    assert_eq!(worker.install(epoch_of(1, 2)), Ok(()));
    assert_eq!(worker.install(epoch_of(1, 2)), Ok(()));
    assert_eq!(worker.install(epoch_of(1, 3)), Err(FanoutError::NotInUse(KeyEpoch(2))));
    assert_eq!(worker.use_epoch(KeyEpoch(3)), Err(FanoutError::EpochAhead(KeyEpoch(3))));

    // An installed epoch is not in use yet: both still seal under the first.
    let old = worker.seal(Topic::Keys, b"old").expect("short");
    assert_eq!(peek(&old).map(|head| head.epoch), Ok(KeyEpoch(1)));
    assert_eq!(worker.use_epoch(KeyEpoch(2)), Ok(()));
    assert_eq!(worker.use_epoch(KeyEpoch(1)), Err(FanoutError::OldEpoch(KeyEpoch(1))));
    let new = worker.seal(Topic::Keys, b"new").expect("short");

    // A member that has not installed the epoch yet can keep the envelope.
    assert_eq!(master.open(&new), Err(FanoutError::EpochAhead(KeyEpoch(2))));
    assert_eq!(master.install(epoch_of(1, 2)), Ok(()));
    assert_eq!(text(master.open(&new)), Ok(b"new".to_vec()));
    assert_eq!(text(master.open(&old)), Ok(b"old".to_vec()));

    worker.remove_old();
    assert_eq!(worker.epochs.len(), 1);
    assert_eq!(worker.open(&old), Err(FanoutError::EpochGone(KeyEpoch(1))));
    assert_eq!(worker.install(epoch_of(1, 1)), Err(FanoutError::OldEpoch(KeyEpoch(1))));
    assert_eq!(worker.keys().epoch(), KeyEpoch(2));
}

#[test]
fn third_epoch_drops_the_oldest_and_a_second_key_is_refused() {
    let mut worker = member(2, 1);
    for number in 2..6 {
        assert_eq!(worker.install(epoch_of(1, number)), Ok(()));
        assert_eq!(worker.use_epoch(KeyEpoch(number)), Ok(()));
        assert_eq!(worker.epochs.len(), 2);
    }
    let other =
        EpochKeys::draw(&mut rng(200), &identity(1), worker.domain(), KeyEpoch(5), pair(9), WEAK);
    let other = other.expect("its own domain");
    assert_eq!(worker.install(other), Err(FanoutError::SecondKey(KeyEpoch(5))));
    assert_eq!(worker.install(epoch_of(4, 6)), Err(FanoutError::OtherDomain));
}

#[test]
fn exhausted_start_seals_no_more_and_long_text_is_refused() {
    let mut sender = member(2, 1);
    sender.epochs[0].sealed = SEALED_MAX - 1;
    assert!(sender.seal(Topic::Board, b"last").is_ok());
    assert_eq!(sender.seal(Topic::Board, b"over"), Err(FanoutError::Exhausted));
    let len = TEXT_LEN_MAX + 1;
    assert_eq!(sender.seal(Topic::Board, &vec![0; len]), Err(FanoutError::TooLong { len }));
}

#[test]
fn same_seeds_give_the_same_envelope() {
    let envelope = member(2, 1).seal(Topic::Board, b"golden").expect("short");
    // A changed snapshot means a changed wire format.
    insta::assert_snapshot!(hex::encode(envelope), @"01023a90bf13204f31260bab7f0825aecbaf000000000000000100000000000000013a815f3f23c861736347cf2fd176b2150000000000000001f6a12ca8ffc30a66000000000000000144fc3d47f5005bd48b3b6f8fcb375d3ae4f11fd7db33");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn envelope_with_a_flipped_bit_is_refused_and_the_original_still_opens(
        at in any::<prop::sample::Index>(),
        bit in 0_u8..8,
    ) {
        let (mut sender, mut receiver) = (member(2, 1), member(3, 1));
        let envelope = sender.seal(Topic::Session, b"a text").expect("short");
        let mut changed = envelope.clone();
        let at = at.index(changed.len());
        changed[at] ^= 1 << bit;
        prop_assert!(receiver.open(&changed).is_err());
        prop_assert!(receiver.open(&envelope).is_ok());
    }

    #[test]
    fn random_bytes_are_refused_as_an_envelope(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(member(3, 1).open(&bytes).is_err());
    }

    /// Duplicates and reorders at random. Each envelope opens at most once, and always when it is
    /// inside the window.
    #[test]
    fn every_envelope_inside_the_window_opens_exactly_once(order in prop::collection::vec(0_usize..300, 1..400)) {
        let (mut sender, mut receiver) = (member(2, 1), member(3, 1));
        let sealed: Vec<_> =
            (0..300).map(|_| sender.seal(Topic::Board, b"").expect("short")).collect();
        let (mut opened, mut highest) = (BTreeSet::new(), 0);
        for at in order {
            let due = !opened.contains(&at) && (at + 128 > highest || opened.is_empty());
            prop_assert_eq!(receiver.open(&sealed[at]).is_ok(), due);
            if due {
                opened.insert(at);
                highest = highest.max(at);
            }
        }
    }
}

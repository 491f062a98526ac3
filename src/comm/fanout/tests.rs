use super::*;
use crate::{
    model::{ids::SessionKey, message::Update},
    testing::{
        keys::{epoch_of, identity},
        stepped_world::run,
    },
};

const PRESENCE: Update = Update::PresenceChanged;

fn closed(n: u8) -> Update {
    Update::SessionClosed(SessionKey([n; 32]))
}

fn node(number: u8) -> NodeId {
    identity(number).node()
}

/// Returns a member of master 1's domain at its first epoch.
fn member(env: &Env, number: u8, start: u64) -> Fanout {
    Fanout::new(env, node(number), start, epoch_of(1, 1), 4)
}

/// Returns a sender that uses the second epoch, and a receiver that lacks its keys.
fn ahead(env: &Env) -> [Fanout; 2] {
    let [mut sender, receiver] = [1, 2].map(|n| member(env, n, 1));
    sender.install(epoch_of(1, 2)).expect("the next epoch");
    sender.use_epoch(KeyEpoch(2)).expect("held");
    [sender, receiver]
}

fn seal(sender: &mut Fanout, update: &Update) -> Bytes {
    sender.seal(&update.clone().into()).expect("short")
}

/// Opens an envelope and returns how many updates were missed before it.
fn missed(receiver: &mut Fanout, envelope: &Bytes) -> u64 {
    receiver.open(envelope).expect("sealed for it").expect("its epoch is held").missed
}

#[test]
fn envelope_opens_once_at_every_member() {
    run(async |env| {
        let [mut sender, mut one, mut two] = [1, 2, 3].map(|n| member(&env, n, 1));
        let envelope = seal(&mut sender, &closed(1));
        let received = ReceivedUpdates { sender: node(1), updates: closed(1).into(), missed: 0 };
        for receiver in [&mut one, &mut two] {
            assert_eq!(receiver.open(&envelope), Ok(Some(received.clone())));
            let again = receiver.open(&envelope);
            assert_eq!(again, Err(FanoutError::Envelope(EnvelopeError::Replayed)));
        }
    });
}

#[test]
fn missing_updates_are_reported_by_topic_and_late_ones_still_open() {
    run(async |env| {
        let [mut sender, mut receiver] = [1, 2].map(|n| member(&env, n, 1));
        let posts: Vec<_> = (0..6).map(|n| seal(&mut sender, &closed(n))).collect();
        let presence = seal(&mut sender, &PRESENCE);
        assert_eq!(missed(&mut receiver, &posts[1]), 0, "a late joiner has missed nothing");
        assert_eq!(missed(&mut receiver, &posts[2]), 0);
        assert_eq!(missed(&mut receiver, &presence), 0, "topics are counted separately");
        assert_eq!(missed(&mut receiver, &posts[5]), 2);
        assert_eq!(missed(&mut receiver, &posts[4]), 0);
        let next = seal(&mut sender, &closed(9));
        assert_eq!(missed(&mut receiver, &next), 0);
    });
}

#[test]
fn restarted_sender_is_counted_from_its_first_update() {
    run(async |env| {
        let [mut before, mut after, mut receiver] =
            [(1, 1), (1, 2), (2, 1)].map(|(n, start)| member(&env, n, start));
        assert_eq!(missed(&mut receiver, &seal(&mut before, &PRESENCE)), 0);
        seal(&mut after, &PRESENCE);
        assert_eq!(missed(&mut receiver, &seal(&mut after, &PRESENCE)), 1);
    });
}

#[test]
fn counts_continue_over_epochs_and_early_envelope_waits_for_its_keys() {
    run(async |env| {
        let [mut sender, mut receiver] = [1, 2].map(|n| member(&env, n, 1));
        assert_eq!(missed(&mut receiver, &seal(&mut sender, &closed(1))), 0);
        assert_eq!(sender.install(epoch_of(1, 2)), Ok(vec![]));
        assert_eq!(sender.use_epoch(KeyEpoch(2)), Ok(()));
        seal(&mut sender, &closed(2));
        let early = seal(&mut sender, &closed(3));
        assert_eq!(receiver.open(&early), Ok(None));
        let received = receiver.install(epoch_of(1, 2)).expect("the next epoch");
        let heard = ReceivedUpdates { sender: node(1), updates: closed(3).into(), missed: 1 };
        assert_eq!(received, [Ok(heard)]);
        assert!(receiver.waiting.is_empty() && receiver.waiting_bytes == 0);
    });
}

#[test]
fn repeat_and_forgery_that_waited_for_keys_are_refused_by_name() {
    run(async |env| {
        let [mut sender, mut receiver] = ahead(&env);
        let early = seal(&mut sender, &closed(1));
        let mut forged = seal(&mut sender, &closed(2)).to_vec();
        *forged.last_mut().expect("a tag") ^= 1;
        for envelope in [early.clone(), early, forged.into()] {
            assert_eq!(receiver.open(&envelope), Ok(None));
        }
        let received = receiver.install(epoch_of(1, 2)).expect("the next epoch");
        let refused = |why| Err(FanoutError::Envelope(why));
        let heard = ReceivedUpdates { sender: node(1), updates: closed(1).into(), missed: 0 };
        assert_eq!(
            received,
            [Ok(heard), refused(EnvelopeError::Replayed), refused(EnvelopeError::Forged)]
        );
    });
}

#[test]
fn waiting_envelopes_are_bounded_and_the_newest_stay() {
    run(async |env| {
        let [mut sender, mut receiver] = ahead(&env);
        for _ in 0..WAITING_MAX + 10 {
            assert_eq!(receiver.open(&seal(&mut sender, &PRESENCE)), Ok(None));
        }
        assert_eq!(receiver.waiting.len(), WAITING_MAX);
        let size: usize = receiver.waiting.iter().map(Bytes::len).sum();
        assert_eq!(receiver.waiting_bytes, size);
        receiver.keep(Bytes::from(vec![0; WAITING_BYTES_MAX]));
        assert_eq!(receiver.waiting.len(), 1);
        receiver.keep(Bytes::from(vec![0; 1]));
        assert_eq!((receiver.waiting.len(), receiver.waiting_bytes), (1, 1));
    });
}

#[test]
fn counted_senders_are_bounded() {
    run(async |env| {
        let mut receiver = member(&env, 9, 1);
        for number in 2..6 {
            let first = seal(&mut member(&env, number, 1), &PRESENCE);
            assert_eq!(missed(&mut receiver, &first), 0);
        }
        receiver.install(epoch_of(1, 2)).expect("the next epoch");
        let mut newcomer = Fanout::new(&env, node(7), 1, epoch_of(1, 2), 4);
        assert_eq!(missed(&mut receiver, &seal(&mut newcomer, &PRESENCE)), 0);
        assert_eq!(receiver.senders.len(), 4);
        assert!(
            !receiver.senders.contains_key(&node(2)),
            "the sender idle for longest is forgotten"
        );
    });
}

#[test]
fn master_relays_only_envelopes_its_peer_sealed_for_its_domain() {
    run(async |env| {
        let [master, mut sender] = [1, 2].map(|n| member(&env, n, 1));
        let mut stranger = Fanout::new(&env, node(2), 1, epoch_of(5, 1), 4);
        let envelope = seal(&mut sender, &closed(1));
        assert_eq!(master.relay(node(2), &envelope), Ok(Topic::Session));
        let forged = FanoutError::OtherSender { claimed: node(2), actual: node(3) };
        assert_eq!(master.relay(node(3), &envelope), Err(forged));
        let other = FanoutError::Envelope(EnvelopeError::OtherDomain);
        assert_eq!(master.relay(node(2), &seal(&mut stranger, &PRESENCE)), Err(other));
        let garbled = master.relay(node(2), b"garbage");
        assert!(matches!(garbled, Err(FanoutError::Envelope(EnvelopeError::Malformed(_)))));
    });
}

#[test]
fn wrong_topic_and_malformed_update_are_refused() {
    run(async |env| {
        let [mut sender, mut receiver] = [1, 2].map(|n| member(&env, n, 1));
        let text = codec::encode(&(1_u64, Updates::from(PRESENCE))).expect("short");
        let sealed = sender.crypt.seal(Topic::Board, &text).expect("short");
        let wrong = FanoutError::OtherTopic { claimed: Topic::Board, actual: Topic::Presence };
        assert_eq!(receiver.open(&sealed.into()), Err(wrong));
        let sealed = sender.crypt.seal(Topic::Board, b"no update").expect("short");
        assert!(matches!(receiver.open(&sealed.into()), Err(FanoutError::Update(_))));
    });
}

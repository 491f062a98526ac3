//! Sessions: their marks, the order in which they make room, and their digests.

use super::*;
use crate::model::copies::{SessionDigests, SessionEntry, SessionRoom, closed_digest};

fn of(sessions_max: u64) -> Replica {
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::default());
    let limits = ReplicaLimits { sessions_max, ..ReplicaLimits::default() };
    Replica::open(&disk, limits, Check::Whole, |_| ()).expect("opens").0
}

fn opens(replica: &Replica, key: u8) {
    replica.apply(&[Update::Session(session(key, &[]))]).expect("applied");
}

fn closes(replica: &Replica, key: u8) -> ApplyReport {
    replica.apply(&[Update::SessionClosed(SessionKey([key; 32]))]).expect("applied")
}

/// Returns the first bytes of the keys that are known, those of open sessions, then those of closed ones.
fn known(replica: &Replica) -> (Vec<u8>, Vec<u8>) {
    let of_bucket = |bucket| replica.sessions(bucket, None, None, usize::MAX).expect("reads");
    let entries = (0..=u8::MAX).flat_map(of_bucket).map(|(_, entry)| entry);
    let (open, closed): (Vec<_>, Vec<_>) =
        entries.partition(|entry| matches!(entry, SessionEntry::Open(_)));
    let bytes = |entries: Vec<SessionEntry>| entries.iter().map(|entry| entry.key().0[0]).collect();
    (bytes(open), bytes(closed))
}

#[test]
fn session_marks_only_rise_and_closed_sessions_stay_closed() {
    let (_, replica) = fresh();
    let key = SessionKey([1; 32]);
    let late = Update::Session(session(1, &[("dev", 3), ("lobby", 4)]));
    replica.apply(&[late.clone(), Update::Session(session(2, &[("a", 1)]))]).expect("applied");
    replica.apply(&[Update::Session(session(1, &[("lobby", 2)]))]).expect("applied");
    assert_eq!(replica.session(key), Ok(Some(session(1, &[("dev", 3), ("lobby", 4)]))));
    replica.apply(&[Update::SessionClosed(key), late]).expect("applied");
    assert_eq!(replica.session(key), Ok(None));
    assert_eq!(replica.session(SessionKey([2; 32])), Ok(Some(session(2, &[("a", 1)]))));
    assert_eq!(replica.session_count(), Ok(2));
}

#[test]
fn closed_sessions_make_room_and_open_ones_stay() {
    let replica = of(4);
    opens(&replica, 1);
    for key in 2..=11 {
        opens(&replica, key);
        closes(&replica, key);
    }
    assert_eq!(known(&replica), (vec![1], vec![9, 10, 11]));
    assert_eq!(replica.session_room(), Ok(SessionRoom { open: 3, closed: 0 }));
    for key in 21..=23 {
        opens(&replica, key);
    }
    assert_eq!(known(&replica), (vec![1, 21, 22, 23], vec![]));
    assert_eq!(replica.session_room(), Ok(SessionRoom { open: 0, closed: 0 }));
    assert_eq!(replica.digests().expect("reads").0, counted(&replica));
}

#[test]
fn session_that_is_closed_again_keeps_its_place() {
    let replica = of(2);
    for key in [1, 2, 1, 3] {
        closes(&replica, key);
    }
    assert_eq!(known(&replica), (vec![], vec![2, 3]));
}

#[test]
fn closed_session_that_is_new_takes_no_room_of_an_open_one() {
    let replica = of(2);
    opens(&replica, 1);
    opens(&replica, 2);
    assert_eq!(closes(&replica, 3), ApplyReport { ignored: 1, ..ApplyReport::default() });
    assert_eq!(known(&replica), (vec![1, 2], vec![]));
    closes(&replica, 1);
    closes(&replica, 3);
    assert_eq!(known(&replica), (vec![2], vec![3]), "what is closed makes room for what is closed");
    assert_eq!(replica.digests().expect("reads").0, counted(&replica));
}

#[test]
fn newer_epoch_forgets_closed_sessions_as_well() {
    let replica = of(2);
    replica.apply(&[posts(1, "lobby", 1..=1)]).expect("applied");
    closes(&replica, 9);
    replica.apply(&[posts(2, "lobby", 1..=1)]).expect("applied");
    assert_eq!(replica.session_room(), Ok(SessionRoom { open: 2, closed: 2 }));
    for key in 1..=3 {
        opens(&replica, key);
    }
    assert_eq!(known(&replica), (vec![2, 3], vec![]));
}

/// Counts the digests from the rows.
fn counted(replica: &Replica) -> SessionDigests {
    let mut digests = SessionDigests::empty(replica.epoch().expect("reads"));
    for bucket in 0..=u8::MAX {
        for (_, entry) in replica.sessions(bucket, None, None, usize::MAX).expect("reads") {
            match entry {
                SessionEntry::Open(row) => digests.open[usize::from(bucket)] ^= row.digest(),
                SessionEntry::Closed(key) => {
                    digests.closed[usize::from(bucket)] ^= closed_digest(&key);
                }
            }
        }
    }
    digests
}

#[test]
fn sessions_of_a_bucket_are_read_between_two_keys_with_their_places() {
    let (_, replica) = fresh();
    let in_bucket = |last: u8| {
        let mut key = [5; 32];
        key[31] = last;
        SessionRow { key: SessionKey(key), ..session(5, &[("lobby", 3)]) }
    };
    let rows: Vec<_> = (1..=4).map(in_bucket).collect();
    let mut group: Vec<_> = rows.iter().cloned().map(Update::Session).collect();
    group.push(Update::SessionClosed(rows[1].key));
    group.push(Update::Session(session(6, &[])));
    replica.apply(&group).expect("applied");
    let read = |after: Option<SessionKey>, to, limit| {
        replica.sessions(5, after, to, limit).expect("reads")
    };
    let all = [
        (0, SessionEntry::Open(rows[0].clone())),
        (4, SessionEntry::Closed(rows[1].key)),
        (2, SessionEntry::Open(rows[2].clone())),
        (3, SessionEntry::Open(rows[3].clone())),
    ];
    assert_eq!(read(None, None, 9), all);
    assert_eq!(read(Some(rows[0].key), Some(rows[2].key), 9), all[1..3]);
    assert_eq!(read(None, None, 2), all[..2]);
    assert_eq!(read(Some(SessionKey([9; 32])), None, 9), []);
    assert_eq!(replica.digests().expect("reads").1, 6, "later writes stand behind");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn digests_are_those_of_the_rows_after_any_writes_and_a_restart(
        groups in proptest::collection::vec(
            proptest::collection::vec((0..12_u8, 0..5_u64, 0..4_u8), 1..8), 1..12),
    ) {
        let limits = ReplicaLimits { sessions_max: 8, ..ReplicaLimits::default() };
        let disk = Arc::new(MemDisk::default()) as Arc<dyn Disk>;
        let open = || Replica::open(&disk, limits, Check::Whole, |_| ()).expect("opens").0;
        let replica = open();
        for (nth, group) in groups.iter().enumerate() {
            let update = |(n, seq, kind): &(u8, u64, u8)| match kind {
                0 => Update::SessionClosed(SessionKey([*n; 32])),
                1 => Update::ReadMark { key: SessionKey([*n; 32]), board: board("lobby"), seq: Seq(*seq) },
                2 if nth == 6 => posts(8, "lobby", 1..=1),
                2 => posts(7, "lobby", 1..=1),
                _ => Update::Session(session(*n, &[("dev", *seq)])),
            };
            replica.apply(&group.iter().map(update).collect::<Vec<_>>()).expect("applied");
            prop_assert_eq!(replica.digests().expect("reads").0, counted(&replica));
        }
        replica.persist().expect("saved");
        let before = replica.digests().expect("reads").0;
        drop(replica);
        prop_assert_eq!(open().digests().expect("reads").0, before);
    }
}

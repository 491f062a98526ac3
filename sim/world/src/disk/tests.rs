//! The disk alone: what survives, in which order, and what does not.

use dst_env::rng::Seed;

use super::*;
use crate::disk_faults::DiskFault;

fn write(disk: &mut DiskState, name: &str, bytes: &[u8]) -> Inode {
    let inode = disk.open(name);
    let change = Change::Write { offset: 0, bytes: bytes.to_vec() };
    disk.change(inode, change).expect("open");
    inode
}

/// Number of sectors of the new write, and whether they are the first ones.
fn survivors(left: &[u8]) -> (usize, bool) {
    let sectors: Vec<bool> = left
        .chunks(SECTOR)
        .map(|sector| {
            assert!(sector.iter().all(|byte| *byte == sector[0]), "a sector is written whole");
            sector[0] == 2
        })
        .collect();
    (sectors.iter().filter(|new| **new).count(), sectors.is_sorted_by(|a, b| a >= b))
}

#[test]
fn synced_bytes_survive_and_unsynced_bytes_are_kept_lost_or_torn() {
    let mut seen = [false; 4];
    for seed in 0..80 {
        let mut disk = DiskState::default();
        let inode = write(&mut disk, "db", &[1; 4096]);
        disk.sync(0, inode).expect("open");
        write(&mut disk, "db", &[2; 4096]);
        assert_eq!(disk.read("db"), Some(vec![2; 4096]), "reads see it at once");
        disk.lose_power(0, &mut Seed(seed).stream("faults"));
        let left = disk.read("db").expect("it was synced");
        seen[match survivors(&left) {
            (0, _) => 0,
            (8, _) => 1,
            (_, true) => 2,
            (_, false) => 3,
        }] = true;
    }
    assert_eq!(seen, [true; 4]);
}

#[test]
fn write_is_always_torn_under_such_a_fault() {
    let mut torn = 0;
    for seed in 0..40 {
        let mut disk = DiskState::default();
        let inode = write(&mut disk, "db", &[1; 4096]);
        disk.sync(0, inode).expect("open");
        write(&mut disk, "db", &[2; 4096]);
        let fault = DiskFault { torn_ppm: 1_000_000, ..DiskFault::default() };
        disk.faults.add(0, fault, Seed(seed).stream("torn"));
        disk.lose_power(0, &mut Seed(seed).stream("faults"));
        torn += u32::from((1..8).contains(&survivors(&disk.read("db").expect("synced")).0));
        assert_eq!(disk.faults.remove(0), 1);
    }
    assert!(torn > 30, "{torn} of 40");
}

#[test]
fn power_loss_within_a_sync_undoes_what_came_after_it() {
    let (mut before, mut after) = (0, 0);
    for seed in 0..60 {
        let mut disk = DiskState::default();
        let inode = disk.open("db");
        let put = |disk: &mut DiskState, at, byte| {
            let change = Change::Write { offset: at, bytes: vec![byte; 8] };
            disk.change(inode, change).expect("open");
        };
        put(&mut disk, 0, 1);
        disk.sync(0, inode).expect("open");
        disk.begin_job(1_000_000);
        put(&mut disk, 0, 2);
        disk.sync(10, inode).expect("open");
        put(&mut disk, 8, 3);
        disk.sync(10, inode).expect("open");
        put(&mut disk, 16, 4);
        let owed = disk.end_job();
        assert!(owed >= 400_000, "{owed}");
        let ends = 1_000_000 + owed;
        let now = [11, ends / 2, ends][seed as usize % 3];
        disk.lose_power(now, &mut Seed(seed).stream("faults"));
        let left = disk.read("db").expect("it was synced");
        let (first, second) = (left[0] == 2, left.get(8) == Some(&3));
        assert!(first || !second, "the second sync was asked for after the first: {left:?}");
        assert!(left.len() <= 16 || now == ends);
        before += u32::from(now == 11 && !first);
        after += u32::from(now == ends && first && second);
    }
    assert!(before > 3, "the first sync was never cut off");
    assert_eq!(after, 20, "a sync that ended is durable");
}

#[test]
fn power_loss_within_a_sync_undoes_what_came_after_it_in_other_files() {
    let mut before = 0;
    for seed in 0..60 {
        let mut disk = DiskState::default();
        let [inode, other] = ["db", "log"].map(|name| write(&mut disk, name, &[1; 8]));
        for inode in [inode, other] {
            disk.sync(0, inode).expect("open");
        }
        let put = |disk: &mut DiskState, inode, byte| {
            let change = Change::Write { offset: 0, bytes: vec![byte; 8] };
            disk.change(inode, change).expect("open");
        };
        disk.begin_job(1_000_000);
        put(&mut disk, other, 2);
        put(&mut disk, inode, 2);
        disk.sync(10, inode).expect("open");
        put(&mut disk, other, 3);
        write(&mut disk, "new", &[3; 8]);
        if seed % 2 == 0 {
            disk.sync(10, other).expect("open");
        }
        let owed = disk.end_job();
        let is_over = seed % 3 == 0;
        disk.lose_power(if is_over { 1_000_000 + owed } else { 11 }, &mut Seed(seed).stream("it"));
        let left = disk.read("log").expect("it was synced")[0];
        if is_over {
            assert!(seed % 2 == 1 || left == 3, "its sync ended");
        } else {
            assert_ne!(left, 3, "the file without a sync holds what had not happened yet");
            assert_eq!(disk.read("new"), None, "it was not there yet");
            before += u32::from(left == 2);
        }
    }
    assert!(before > 3, "what came before the sync may be kept: {before}");
}

#[test]
fn job_ends_after_its_sync_that_waited_for_one_of_another_job() {
    let mut disk = DiskState::default();
    let [one, other] = ["db", "log"].map(|name| write(&mut disk, name, &[1; 8]));
    disk.begin_job(10_000_000);
    disk.sync(10, one).expect("open");
    assert!(disk.end_job() >= 200_000);
    disk.begin_job(1_000);
    disk.sync(20, other).expect("open");
    let ends = 1_000 + disk.end_job();
    disk.lose_power(ends, &mut Seed(1).stream("faults"));
    assert_eq!(disk.read("log"), Some(vec![1; 8]), "its job was told that it is durable");
}

#[test]
fn image_holds_what_was_durable_and_restores_it() {
    let mut disk = DiskState::default();
    let inode = write(&mut disk, "db", b"old");
    write(&mut disk, "unsynced", b"a name that would go");
    disk.sync(0, inode).expect("open");
    write(&mut disk, "db", b"new");
    let image = disk.image(0);
    disk.sync(0, inode).expect("open");
    disk.write_atomic("later", b"x").expect("room");
    disk.restore(&image);
    assert_eq!(disk.read("db").as_deref(), Some(&b"old"[..]));
    assert_eq!((disk.read("unsynced"), disk.read("later")), (None, None));
    assert_eq!(disk.image(0), image);
}

#[test]
fn process_end_loses_nothing_and_atomic_write_is_whole() {
    let mut disk = DiskState::default();
    write(&mut disk, "log", b"unsynced");
    disk.process_ended();
    assert_eq!(disk.read("log").as_deref(), Some(&b"unsynced"[..]));
    for seed in 0..10 {
        disk.write_atomic("key", b"whole").expect("room");
        disk.lose_power(0, &mut Seed(seed).stream("faults"));
        assert_eq!(disk.read("key").as_deref(), Some(&b"whole"[..]));
    }
    disk.wipe();
    assert_eq!(disk.read("key"), None);
}

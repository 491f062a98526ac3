//! Files.

use std::io::ErrorKind;

use super::Lab;

pub(super) async fn what_was_written_reads_back_at_every_offset(lab: &Lab) {
    let file = lab.left.disk().open("db").expect("opened");
    assert!(file.is_empty().expect("a length"), "a new file is empty");
    file.write_at(0, b"hello world").expect("written");
    file.write_at(6, b"there").expect("written over");
    file.write_at(4096, b"far").expect("written past the end");
    assert_eq!(file.len().expect("a length"), 4099);
    let mut got = [1; 13];
    file.read_at(0, &mut got).expect("read");
    assert_eq!(&got, b"hello there\0\0");
    let mut got = [1; 4];
    file.read_at(4095, &mut got).expect("read");
    assert_eq!(&got, b"\0far", "the gap is zeros");
}

pub(super) async fn files_grow_and_shrink_with_zeros(lab: &Lab) {
    let file = lab.left.disk().open("db").expect("opened");
    file.write_at(0, b"abcdef").expect("written");
    file.set_len(3).expect("cut");
    assert_eq!(file.len().expect("a length"), 3);
    file.set_len(6).expect("grown");
    let mut got = [1; 6];
    file.read_at(0, &mut got).expect("read");
    assert_eq!(&got, b"abc\0\0\0", "what was cut does not come back");
}

pub(super) async fn reading_past_the_end_is_an_error(lab: &Lab) {
    let file = lab.left.disk().open("db").expect("opened");
    file.write_at(0, b"abc").expect("written");
    let refused = file.read_at(1, &mut [0; 3]).expect_err("only two are there");
    assert_eq!(refused.kind(), ErrorKind::UnexpectedEof, "{refused}");
}

pub(super) async fn a_file_is_there_after_its_handle_is_gone(lab: &Lab) {
    let disk = lab.left.disk();
    assert_eq!(disk.read("db").expect("looked up"), None);
    let file = disk.open("db").expect("opened");
    file.write_at(0, b"kept").expect("written");
    file.sync().expect("synced");
    drop(file);
    assert_eq!(disk.read("db").expect("read").as_deref(), Some(&b"kept"[..]));
    let again = disk.open("db").expect("opened again");
    assert_eq!(again.len().expect("a length"), 4, "opening does not empty it");
}

pub(super) async fn a_replaced_file_is_the_new_one_whole(lab: &Lab) {
    let disk = lab.left.disk();
    disk.write_atomic("key", b"a long first version").expect("written");
    disk.write_atomic("key", b"short").expect("replaced");
    assert_eq!(disk.read("key").expect("read").as_deref(), Some(&b"short"[..]));
    disk.write_atomic("key", b"").expect("replaced");
    assert_eq!(disk.read("key").expect("read").as_deref(), Some(&b""[..]));
}

pub(super) async fn removing_is_fine_twice(lab: &Lab) {
    let disk = lab.left.disk();
    disk.write_atomic("key", b"x").expect("written");
    disk.remove("key").expect("removed");
    assert_eq!(disk.read("key").expect("looked up"), None);
    disk.remove("key").expect("nothing to remove");
}

pub(super) async fn names_with_separators_are_refused(lab: &Lab) {
    let disk = lab.left.disk();
    for bad in ["", "..", "../key", "a/b"] {
        let refused = disk.write_atomic(bad, b"x").expect_err("not plain");
        assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{bad:?}: {refused}");
        assert!(disk.open(bad).is_err() && disk.read(bad).is_err(), "{bad:?}");
    }
}

pub(super) async fn each_node_has_a_directory_of_its_own(lab: &Lab) {
    lab.left.disk().write_atomic("key", b"left").expect("written");
    assert_eq!(lab.right.disk().read("key").expect("looked up"), None);
}

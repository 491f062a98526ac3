//! Readers whose streams are open when the cluster is stopped and its store restored from a backup.

use chatchat::{
    api::StreamEvent,
    env::{
        Env,
        real::{RealWorld, TempDir},
    },
    model::{
        ids::{BoardName, Seq},
        stream::ResetReason,
    },
};
use futures_util::future::join_all;

use crate::harness::{Cluster, chatctl, front_ends, next_of, person, signal};

const READERS: usize = 8;

#[tokio::test]
async fn open_streams_are_reset_once_by_a_restore_and_go_on_without_a_gap() {
    let args = ["--masters=2", "--workers=2"];
    let mut cluster = Cluster::start(&args);
    cluster.says("Chatchat is ready");
    let (dir, port) = (cluster.dir.path().to_owned(), cluster.port);
    let env = Env::new(RealWorld::temporary().expect("a directory"));
    let masters = front_ends(&cluster, 2);
    let ctl = |args: &[&str]| chatctl(&dir, args).expect("done");
    let lobby = BoardName::lobby();
    let mut pages = Vec::new();
    for nth in 0..READERS {
        let reader = person(&env, &masters, nth % 2, &format!("reader {nth}")).await;
        pages.push(reader.follow(vec![lobby.clone()], None));
    }
    // All streams are open before the first post.
    join_all(pages.iter_mut().map(|page| {
        next_of(&env, page, "a hello", |event| matches!(event, StreamEvent::Hello(_)).then_some(()))
    }))
    .await;

    let backup = dir.join("backup.db");
    let file = backup.to_str().expect("text");
    let kept = ["kept 1", "kept 2", "kept 3"];
    let lost = ["lost 1", "lost 2"];
    kept.iter().for_each(|text| drop(ctl(&["post", text])));
    ctl(&["backup", file]);
    lost.iter().for_each(|text| drop(ctl(&["post", text])));
    let to_the_end = |last: u64| {
        move |event: &StreamEvent| match event {
            StreamEvent::Post(post) if post.seq == Seq(last) => Some(()),
            StreamEvent::Reset(reset) => panic!("reset before the restore: {}", reset.reason),
            _ => None,
        }
    };
    join_all(pages.iter_mut().map(|page| next_of(&env, page, "post 5", to_the_end(5)))).await;
    let before: Vec<_> = pages.iter().map(|page| page.cursor().cloned()).collect();

    signal("-TERM", cluster.process.id());
    assert!(cluster.process.wait().expect("it ends").success());
    ctl(&["restore", file]);
    let moved = std::mem::replace(&mut cluster.dir, TempDir::new().expect("a directory"));
    let again = Cluster::start_at(port, moved, &args);
    again.says("Chatchat is ready");

    let is_reset = |event: &StreamEvent| match event {
        StreamEvent::Reset(reset) => Some(reset.reason),
        StreamEvent::Post(post) => panic!("post {} came before the reset", post.seq),
        _ => None,
    };
    let reasons = join_all(pages.iter_mut().map(|page| next_of(&env, page, "a reset", is_reset)));
    assert_eq!(reasons.await, [ResetReason::Epoch; READERS]);
    let epochs: Vec<_> = pages
        .iter()
        .zip(&before)
        .map(|(page, before)| {
            let (now, before) = (page.cursor().expect("reset"), before.as_ref().expect("read"));
            assert_eq!(now.boards.get(&lobby), Some(&Seq(3)), "the end of what the backup holds");
            assert!(now.epoch > before.epoch, "{now} after {before}");
            now.epoch
        })
        .collect();
    assert!(epochs.iter().all(|epoch| *epoch == epochs[0]), "{epochs:?}");

    let new = ["new 1", "new 2", "new 3"];
    new.iter().for_each(|text| drop(ctl(&["post", text])));
    for page in &mut pages {
        let mut shown = Vec::new();
        let all = |event: &StreamEvent| {
            match event {
                StreamEvent::Post(post) => shown.push((post.seq.0, post.text.as_str().to_owned())),
                StreamEvent::Reset(reset) => panic!("reset again: {}", reset.reason),
                _ => {}
            }
            (shown.len() == new.len()).then(|| std::mem::take(&mut shown))
        };
        let shown = next_of(&env, page, "the new posts", all).await;
        let wanted: Vec<_> = (4..).zip(new.map(str::to_owned)).collect();
        assert_eq!(shown, wanted);
    }
    let shown = ctl(&["tail", "--once"]);
    let texts: Vec<_> = shown.lines().filter_map(|line| line.split(": ").nth(1)).collect();
    assert_eq!(texts, [&kept[..], &new].concat(), "{shown}");
}

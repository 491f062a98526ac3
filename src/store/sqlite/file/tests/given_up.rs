//! Writes whose callers gave up while somebody else had the lock.

use super::*;

#[tokio::test]
async fn writes_that_were_given_up_cost_no_commit_once_the_lock_is_back() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("store.db");
    let env = real_env();
    let store = open(&env, &path, TIMEOUT).expect("a store");
    let touch = || store.touch_sessions(NodeId([1; 16]), Vec::new());
    patiently(&env, touch).await.expect("touched");
    let before = commits(&path);
    let lock = WriteLock::of(&path).expect("a lock file");
    let held = lock.acquire().expect("acquired");
    let given_up = join_all((0..WAITING_MAX).map(|_| touch())).await;
    assert!(given_up.iter().all(Result::is_err), "the lock is held");
    drop(held);

    let touches = touched_again(&env, &store).await;
    let made = commits(&path) - before;
    assert!(made <= touches, "{made} commits of {touches} touches");
}

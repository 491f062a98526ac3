//! Closed sessions that the store lists before those of today.

use super::*;
use crate::testing::long_list::LongList;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn master_that_starts_reads_a_long_list_of_closed_sessions_at_once() {
    let clock = env();
    let inner = memory::open(&new_cluster(&clock), move || clock.wall().ms).expect("opens");
    let list = LongList::new(inner);
    let config = Config { store_poll_interval: 3 * SOON, ..Config::default() };
    let _cluster = start_on(1, 0, Store::new(list.clone()), &config).await;
    list.is_read(&env(), SOON).await;
}

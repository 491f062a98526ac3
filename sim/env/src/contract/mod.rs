//! Contract suite of a world: checks that run in the real one and in a simulated one.
//!
//! A check is named by the property that it checks. It gets a fresh [`Lab`], two nodes on two
//! hosts that can reach each other, and panics with what it saw instead. No check waits for a
//! time shorter than a busy machine's stall: it waits until something holds, with [`LIMIT`] as
//! its end.

mod disk;
mod net;
mod time;

use std::time::Duration;

use crate::{BoxFuture, Env};

/// Longest time that a check takes, by the left node's clock.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Long enough for anything that is on its way to arrive.
const QUIET: Duration = Duration::from_millis(300);

/// Two nodes that can reach each other.
#[derive(Debug)]
pub struct Lab {
    /// Node that dials.
    pub left: Env,
    /// Node that listens.
    pub right: Env,
    /// Host part of the addresses that the right node listens on and the left one dials.
    pub right_host: String,
}

impl Lab {
    /// An address on the right host with a port of the world's choice.
    fn any_port(&self) -> String {
        format!("{}:0", self.right_host)
    }
}

/// One check.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// Property that it checks.
    pub name: &'static str,
    body: for<'a> fn(&'a Lab) -> BoxFuture<'a, ()>,
}

impl Check {
    /// Runs it in a fresh lab.
    ///
    /// # Panics
    /// When it does not hold, or did not end within [`LIMIT`].
    pub async fn run(&self, lab: &Lab) {
        let ended = lab.left.timeout(LIMIT, (self.body)(lab)).await;
        assert!(ended.is_ok(), "{} did not end within {LIMIT:?}", self.name);
    }
}

macro_rules! checks {
    ($($place:ident :: $name:ident,)*) => {
        /// All checks.
        pub const CHECKS: &[Check] = &[
            $(Check { name: stringify!($name), body: |lab| Box::pin($place::$name(lab)) },)*
        ];
    };
}

checks! {
    net::a_dial_to_a_free_port_is_refused,
    net::a_taken_port_is_in_use_and_free_again_after_its_listener,
    net::an_accept_that_was_given_up_loses_nobody,
    net::bytes_arrive_whole_and_in_order_both_ways_at_once,
    net::bytes_leave_without_a_flush_and_an_empty_flush_wakes_nobody,
    net::reads_split_and_join_writes,
    net::half_close_ends_one_direction_only,
    net::a_dropped_stream_delivers_its_last_words_then_ends,
    net::writes_to_a_peer_that_dropped_the_stream_fail_at_last,
    net::a_writer_to_a_peer_that_never_reads_waits,
    net::an_aborted_task_closes_its_streams,
    time::now_never_goes_back,
    time::continuous_now_passes_no_less_than_now,
    time::sleeps_never_wake_early,
    time::a_sleep_until_the_past_is_over_at_once,
    time::a_wait_that_times_out_is_dropped,
    time::a_task_runs_on_without_its_handle,
    time::an_aborted_task_is_not_polled_again,
    time::a_guard_aborts_its_task,
    time::entropy_never_repeats,
    time::computed_results_come_back,
    disk::what_was_written_reads_back_at_every_offset,
    disk::files_grow_and_shrink_with_zeros,
    disk::reading_past_the_end_is_an_error,
    disk::a_file_is_there_after_its_handle_is_gone,
    disk::a_replaced_file_is_the_new_one_whole,
    disk::removing_is_fine_twice,
    disk::names_with_separators_are_refused,
    disk::each_node_has_a_directory_of_its_own,
}

#[cfg(all(test, feature = "real"))]
mod tests {
    use super::*;
    use crate::real::RealWorld;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn real_world_passes_every_check() {
        let node = || Env::new(RealWorld::temporary().expect("a directory"));
        for check in CHECKS {
            let lab = Lab { left: node(), right: node(), right_host: "127.0.0.1".to_owned() };
            check.run(&lab).await;
        }
    }
}

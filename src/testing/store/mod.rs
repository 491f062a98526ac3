//! Contract suite of the shared store: checks that every implementation must pass.
//!
//! A check's name says what holds. It gets a fresh [`Lab`], a store that nobody else uses, and
//! panics with what it saw instead. A check that moves the store's clock says so, and is left out
//! where the clock cannot be moved.

mod admission;
mod leases;
mod masters;
mod posts;
mod presence;
mod sessions;
mod tokens;

use std::{fmt, sync::Arc};

use crate::{
    env::BoxFuture,
    model::{
        ids::{
            Author, BoardName, Incarnation, NodeId, PostId, Resource, Seq, SessionKey, Token,
            UserId,
        },
        message::Task,
        outcome::TaskResult,
        rows::{Holder, Lease, NewPost, Permission, SessionRow, StoreError},
    },
    store::Store,
};

/// Moves a store's clock by so many milliseconds, either way.
pub type MoveClock = Arc<dyn Fn(i64) + Send + Sync>;

/// Fresh store under test. Its clock must begin above one hour.
pub struct Lab {
    /// Store under test.
    pub store: Store,
    /// Moves the store's clock; `None` if it runs by itself.
    pub clock: Option<MoveClock>,
}

impl fmt::Debug for Lab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lab").field("clock", &self.clock.is_some()).finish_non_exhaustive()
    }
}

/// One property that must hold.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// Says what holds.
    pub name: &'static str,
    /// Whether it moves the store's clock.
    pub moves_clock: bool,
    body: for<'a> fn(&'a Lab) -> BoxFuture<'a, ()>,
}

impl Check {
    /// Runs it in a fresh lab.
    ///
    /// # Panics
    /// When it does not hold, or needs a clock that the lab cannot move.
    pub async fn run(&self, lab: &Lab) {
        (self.body)(lab).await;
    }
}

/// Runs every check, each in a lab of its own, prints and returns how many ran. Leaves out those whose
/// clock cannot be moved.
///
/// # Panics
/// At the first that does not hold.
pub async fn suite(backend: &str, mut fresh: impl FnMut(&Check) -> Lab) -> usize {
    let mut ran = 0;
    for check in CHECKS {
        let lab = fresh(check);
        if check.moves_clock && lab.clock.is_none() {
            continue;
        }
        tracing::debug!(check = check.name, "store contract");
        check.run(&lab).await;
        ran += 1;
    }
    println!("store contract on {backend}: {ran} of {} checks ran", CHECKS.len());
    ran
}

macro_rules! checks {
    (
        any clock { $($place:ident :: $name:ident,)* }
        moved clock { $($at:ident :: $moves:ident,)* }
    ) => {
        /// All checks.
        pub const CHECKS: &[Check] = &[
            $(Check {
                name: stringify!($name),
                moves_clock: false,
                body: |lab| Box::pin($place::$name(lab)),
            },)*
            $(Check {
                name: stringify!($moves),
                moves_clock: true,
                body: |lab| Box::pin($at::$moves(lab)),
            },)*
        ];
    };
}

checks! {
    any clock {
        posts::lobby_exists_in_a_new_store,
        posts::new_posts_are_numbered_in_batch_order,
        posts::repeated_post_keeps_its_place,
        posts::post_id_with_another_text_or_board_is_a_conflict,
        posts::first_post_of_an_id_in_a_batch_wins,
        posts::same_id_of_two_users_is_two_posts,
        posts::cancelled_id_is_never_committed,
        posts::committed_post_is_not_cancelled,
        posts::posts_are_read_as_written_from_either_end,
        posts::long_page_is_cut_and_tells_the_last_seq,
        posts::unknown_board_is_reported_as_unknown,
        posts::board_is_created_once_and_listed_by_name,
        posts::board_above_the_bound_is_refused,
        posts::concurrent_writes_leave_no_hole,
        posts::board_that_ends_before_what_the_writer_knows_takes_nothing,
        tokens::write_without_a_lease_is_fenced,
        tokens::token_below_the_last_seen_is_fenced,
        tokens::batch_is_written_only_right_after_the_one_that_it_follows,
        tokens::token_of_an_earlier_lease_is_fenced,
        tokens::token_of_another_epoch_is_fenced,
        tokens::token_used_by_a_second_worker_is_fenced,
        tokens::token_used_for_a_second_batch_is_fenced,
        tokens::refused_batch_leaves_nothing_behind,
        tokens::refused_task_leaves_the_rest_of_its_batch,
        tokens::board_is_created_and_written_in_one_batch,
        tokens::every_kind_of_task_is_fenced,
        tokens::task_of_another_resource_is_refused,
        tokens::record_lists_grants_and_writes_in_order,
        leases::held_lease_is_not_granted_to_another_master,
        leases::every_grant_raises_the_lease_number,
        leases::newer_incarnation_takes_over_at_once,
        leases::released_lease_is_granted_to_another_master,
        leases::renewal_reports_each_lost_lease,
        leases::wish_is_reported_at_renewal_and_served_first,
        sessions::open_session_is_found_until_it_is_closed,
        sessions::closed_session_never_opens_again,
        sessions::closed_sessions_are_listed_once_by_mark,
        sessions::digests_follow_sessions_and_read_marks,
        sessions::read_mark_changes_the_digests_of_all_sessions_of_its_user,
        sessions::read_mark_only_rises_and_stays_within_the_board,
        sessions::ticket_opens_one_session_of_the_same_user,
        sessions::ticket_of_a_closed_session_is_unknown,
        sessions::ticket_that_was_put_last_stands_when_there_are_too_many,
        masters::registration_and_touch_count_up,
        masters::registration_that_came_twice_is_one_life,
        masters::registration_that_comes_after_a_newer_life_changes_nothing,
        masters::older_incarnation_is_stale,
        masters::identity_in_use_at_another_address_is_refused,
        masters::master_that_left_is_not_listed_and_keeps_its_count,
        masters::leaving_master_gives_back_all_its_leases,
        admission::join_token_enrols_as_often_as_it_allows,
        admission::wrong_bearer_role_or_id_is_refused,
        admission::enrolled_node_gets_its_row_back,
        admission::denied_node_stays_out,
        admission::revoked_join_token_enrols_nobody,
        admission::dead_letters_are_kept_once_and_listed_newest_first,
        presence::touched_sessions_are_listed_once_per_user_by_name,
        presence::only_the_last_master_removes_a_session_from_the_list,
    }
    moved clock {
        posts::posted_at_never_falls_within_a_board,
        leases::renewal_prolongs_a_term_and_expired_lease_is_free,
        leases::expired_lease_still_writes_until_the_next_grant,
        leases::term_is_cut_after_the_clock_went_back,
        leases::expired_wish_gives_way_to_another,
        leases::released_lease_is_reserved_for_its_wisher_for_a_second,
        sessions::expired_ticket_is_unknown,
        sessions::ticket_lives_its_time_after_the_clock_went_back,
        sessions::session_too_many_ends_the_one_unused_for_the_longest_time,
        masters::identity_is_free_once_its_owner_is_silent,
        masters::master_off_the_list_for_its_silence_is_told_from_one_that_left,
        admission::expired_join_token_enrols_nobody,
        admission::ended_join_token_stays_ended_when_the_clock_goes_back,
        admission::join_token_lives_its_time_after_the_clock_went_back,
        presence::session_not_touched_is_off_the_list,
        presence::active_list_after_a_silence_waits_for_a_touch,
        presence::active_list_after_the_clock_went_back_waits_for_a_touch,
        presence::touch_after_a_silence_does_not_revive_expired_sessions,
        presence::leave_after_a_newer_touch_is_ignored,
        presence::use_keeps_a_session_open_and_lists_nobody,
    }
}

/// Lease, and the permissions given under it.
struct Leased {
    resource: Resource,
    token: Token,
}

impl Leased {
    /// Permission with this `n` for this worker.
    fn at(&self, n: u64, worker: u8) -> Permission {
        let (resource, token) = (self.resource.clone(), Token { n, ..self.token });
        Permission { resource, token, after: None, worker: node(worker) }
    }

    /// Permission with the next `n` for worker 200.
    fn next(&mut self) -> Permission {
        self.token.n += 1;
        self.at(self.token.n, 200)
    }
}

impl Lab {
    /// Moves the store's clock.
    fn advance(&self, ms: i64) {
        (self.clock.as_ref().expect("left out where the clock cannot be moved"))(ms);
    }

    /// Acquires a lease that must be granted.
    async fn lease(&self, resource: Resource, holder: Holder) -> Leased {
        match self.store.acquire_lease(resource.clone(), holder, TTL_MS).await {
            Ok(Lease::Granted { epoch, lease, n }) => {
                Leased { resource, token: Token { epoch, lease, n } }
            }
            other => panic!("{resource} not granted: {other:?}"),
        }
    }

    /// Acquires the lobby's lease for master 1.
    async fn lobby(&self) -> Leased {
        self.lease(board("lobby"), holder(1)).await
    }

    /// Acquires the lease of master 1's sessions for it.
    async fn sessions(&self) -> Leased {
        self.lease(Resource::Sessions(node(1)), holder(1)).await
    }

    /// Opens the session with the key of the same number.
    async fn open(&self, leased: &mut Leased, n: u8, user: Author) -> SessionKey {
        let opened = self.open_session(leased.next(), key(n), user).await;
        assert_eq!(opened, DONE);
        key(n)
    }

    /// Writes a batch.
    async fn write(
        &self,
        permission: Permission,
        tasks: Vec<Task>,
    ) -> Result<Vec<TaskResult>, StoreError> {
        self.store.write(permission, Arc::new(tasks)).await
    }

    /// Writes posts to the permission's board, or to the lobby where it covers none.
    async fn append(
        &self,
        permission: Permission,
        posts: Vec<NewPost>,
    ) -> Result<Vec<TaskResult>, StoreError> {
        let board = match &permission.resource {
            Resource::Board(board) => board.clone(),
            Resource::Sessions(_) => BoardName::lobby(),
        };
        let task = |post| Task::Post { board: board.clone(), post };
        self.write(permission, posts.into_iter().map(task).collect()).await
    }

    /// Writes a batch of one task. Its refusal by a rule is an error, as the batch's is.
    async fn write_one(
        &self,
        permission: Permission,
        task: Task,
    ) -> Result<TaskResult, StoreError> {
        match self.write(permission, vec![task]).await?.remove(0) {
            TaskResult::Refused(why) => Err(*why),
            result => Ok(result),
        }
    }

    async fn create_board(&self, permission: Permission) -> Result<TaskResult, StoreError> {
        let board = match &permission.resource {
            Resource::Board(board) => board.clone(),
            Resource::Sessions(_) => name_of("dev"),
        };
        self.write_one(permission, Task::CreateBoard { board }).await
    }

    async fn cancel_post(
        &self,
        permission: Permission,
        user: UserId,
        id: PostId,
    ) -> Result<TaskResult, StoreError> {
        self.write_one(permission, Task::CancelPost { user, id }).await
    }

    async fn open_session(
        &self,
        permission: Permission,
        key: SessionKey,
        user: Author,
    ) -> Result<TaskResult, StoreError> {
        self.write_one(permission, Task::OpenSession { key, user }).await
    }

    async fn close_session(
        &self,
        permission: Permission,
        key: SessionKey,
    ) -> Result<TaskResult, StoreError> {
        self.write_one(permission, Task::CloseSession { key }).await
    }

    async fn set_read_mark(
        &self,
        permission: Permission,
        key: SessionKey,
        board: BoardName,
        seq: Seq,
    ) -> Result<TaskResult, StoreError> {
        self.write_one(permission, Task::SetReadMark { key, board, seq }).await
    }

    async fn put_ticket(
        &self,
        permission: Permission,
        ticket_sha256: [u8; 32],
        key: SessionKey,
    ) -> Result<TaskResult, StoreError> {
        self.write_one(permission, Task::PutTicket { key, ticket_sha256 }).await
    }

    async fn redeem_ticket(
        &self,
        permission: Permission,
        ticket_sha256: [u8; 32],
        key: SessionKey,
    ) -> Result<SessionRow, StoreError> {
        match self.write_one(permission, Task::RedeemTicket { ticket_sha256, key }).await? {
            TaskResult::Session(row) => Ok(*row),
            other => panic!("no session: {other:?}"),
        }
    }
}

/// Outcome of a task that has nothing to tell.
const DONE: Result<TaskResult, StoreError> = Ok(TaskResult::Done);

/// Term that checks ask for, ms.
const TTL_MS: u64 = 3000;

fn node(n: u8) -> NodeId {
    NodeId([n; 16])
}

fn holder(n: u8) -> Holder {
    Holder { node: node(n), incarnation: Incarnation(1) }
}

fn board(name: &str) -> Resource {
    Resource::Board(name_of(name))
}

fn name_of(board: &str) -> BoardName {
    board.parse().expect("a good name")
}

fn key(n: u8) -> SessionKey {
    SessionKey([n; 32])
}

fn author(n: u8, name: &str) -> Author {
    Author { id: UserId([n; 16]), name: name.parse().expect("a good name") }
}

fn post_id(n: u16) -> PostId {
    let mut id = [0xaa; 16];
    id[..2].copy_from_slice(&n.to_be_bytes());
    PostId(id)
}

/// A post of user 1.
fn post(n: u16, text: &str) -> NewPost {
    NewPost { id: post_id(n), author: author(1, "Ada"), text: text.parse().expect("a good text") }
}

/// Whether a write was refused for its token.
fn fenced<T>(result: &Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::Fenced { .. }))
}

//! What every store must do, as checks that run against each of them.
//!
//! A check is named by what holds. It gets a fresh [`Lab`], a store that nobody else uses, and
//! panics with what it saw instead. Those that move the store's clock say so: where the clock
//! cannot be moved they are left out.

mod admission;
mod leases;
mod masters;
mod posts;
mod presence;
mod sessions;
mod tokens;

use std::{fmt, sync::Arc};

use super::Store;
use crate::{
    env::BoxFuture,
    model::{
        ids::{
            Author, BoardName, Incarnation, NodeId, PostId, Resource, Seq, SessionKey, Token,
            UserId,
        },
        message::{Task, TaskResult},
        rows::{Holder, Lease, NewPost, Permission, SessionRow, StoreError},
    },
};

/// Moves a store's clock by so many milliseconds, either way.
pub type MoveClock = Arc<dyn Fn(i64) + Send + Sync>;

/// A fresh store under test. Its clock must begin above one hour.
pub struct Lab {
    /// The store.
    pub store: Store,
    /// `None` if its clock runs by itself.
    pub clock: Option<MoveClock>,
}

impl fmt::Debug for Lab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lab").field("clock", &self.clock.is_some()).finish_non_exhaustive()
    }
}

/// One thing that must hold.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// What holds.
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

/// Runs every check, each in a lab of its own; leaves out those whose clock cannot be moved.
/// Answers how many ran.
///
/// # Panics
/// At the first that does not hold.
pub async fn suite(mut fresh: impl FnMut() -> Lab) -> usize {
    let mut ran = 0;
    for check in CHECKS {
        let lab = fresh();
        if check.moves_clock && lab.clock.is_none() {
            continue;
        }
        tracing::debug!(check = check.name, "store contract");
        check.run(&lab).await;
        ran += 1;
    }
    ran
}

macro_rules! checks {
    (
        any clock { $($place:ident :: $name:ident,)* }
        moved clock { $($at:ident :: $moves:ident,)* }
    ) => {
        /// All of them.
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
        posts::the_lobby_is_there_from_the_start,
        posts::an_append_numbers_new_posts_in_batch_order,
        posts::a_repeat_keeps_its_place,
        posts::an_id_stands_for_one_text_of_one_board,
        posts::the_first_of_an_id_in_a_batch_wins,
        posts::ids_of_two_users_do_not_meet,
        posts::a_cancelled_id_never_appears,
        posts::a_committed_post_is_not_cancelled,
        posts::posts_read_back_as_written_from_either_end,
        posts::long_pages_are_cut_and_say_so,
        posts::an_unknown_board_is_said_to_be_unknown,
        posts::boards_are_created_once_and_listed_by_name,
        posts::boards_have_a_bound,
        posts::appends_at_once_leave_no_hole,
        tokens::what_was_never_leased_is_not_written,
        tokens::a_token_below_the_last_seen_is_refused,
        tokens::a_token_of_an_earlier_lease_is_refused,
        tokens::a_token_of_another_epoch_is_refused,
        tokens::a_token_names_one_worker,
        tokens::a_token_names_one_batch,
        tokens::a_refused_write_leaves_nothing_behind,
        tokens::a_refused_task_falls_alone,
        tokens::a_board_is_created_and_written_in_one_batch,
        tokens::every_kind_of_write_is_checked,
        tokens::a_permission_covers_its_own_resource_only,
        tokens::the_record_shows_grants_and_writes_in_order,
        leases::a_held_lease_is_not_granted_to_another,
        leases::every_grant_counts_up,
        leases::a_newer_life_takes_over_at_once,
        leases::a_released_lease_is_free,
        leases::a_renewal_tells_what_is_lost,
        leases::a_wish_is_learnt_at_renewal_and_served_first,
        sessions::a_session_is_found_until_it_is_closed,
        sessions::a_closed_session_never_opens_again,
        sessions::closed_sessions_are_told_once_by_their_marks,
        sessions::read_marks_only_rise_and_stay_within_the_board,
        sessions::a_ticket_makes_one_session_of_the_same_user,
        sessions::a_ticket_ends_with_its_session,
        masters::lives_and_beats_count_up,
        masters::an_older_life_is_stale,
        masters::an_identity_is_refused_while_it_is_fresh_elsewhere,
        masters::who_left_is_not_listed_and_counts_on,
        admission::a_token_enrols_as_often_as_it_says,
        admission::a_wrong_bearer_role_or_id_enrols_nobody,
        admission::who_is_enrolled_gets_its_row_back,
        admission::who_is_denied_stays_out,
        admission::a_revoked_token_enrols_nobody,
        admission::dead_letters_are_kept_once_newest_first,
        presence::touched_sessions_are_listed_once_per_user_by_name,
        presence::only_the_last_master_takes_a_session_off,
    }
    moved clock {
        posts::time_never_falls_within_a_board,
        leases::a_term_ends_and_a_renewal_prolongs_it,
        leases::no_write_asks_for_the_time,
        leases::a_term_is_cut_when_the_clock_went_back,
        leases::a_wish_gives_way_after_its_time,
        leases::a_lease_is_kept_for_its_wisher_for_a_second,
        sessions::a_ticket_ends_with_its_time,
        masters::an_identity_is_free_once_it_is_not_fresh,
        admission::a_token_ends_with_its_time,
        presence::who_is_not_touched_is_off_the_list,
        presence::after_a_silence_a_touch_comes_first,
        presence::after_the_clock_went_back_a_touch_comes_first,
        presence::a_touch_after_silence_raises_no_ghosts,
        presence::a_leave_is_void_after_a_newer_touch,
    }
}

/// A lease and the permissions given under it.
struct Leased {
    resource: Resource,
    token: Token,
}

impl Leased {
    /// This `n`, for this worker.
    fn at(&self, n: u64, worker: u8) -> Permission {
        let (resource, token) = (self.resource.clone(), Token { n, ..self.token });
        Permission { resource, token, worker: node(worker) }
    }

    /// The next `n`.
    fn next(&mut self) -> Permission {
        self.token.n += 1;
        self.at(self.token.n, 200)
    }
}

impl Lab {
    /// Moves the clock.
    fn advance(&self, ms: i64) {
        (self.clock.as_ref().expect("left out where the clock cannot be moved"))(ms);
    }

    /// A lease that must be granted.
    async fn lease(&self, resource: Resource, holder: Holder) -> Leased {
        match self.store.acquire_lease(resource.clone(), holder, TTL_MS).await {
            Ok(Lease::Granted { epoch, lease, n }) => {
                Leased { resource, token: Token { epoch, lease, n } }
            }
            other => panic!("{resource} not granted: {other:?}"),
        }
    }

    /// The lobby's lease, granted to master 1.
    async fn lobby(&self) -> Leased {
        self.lease(board("lobby"), holder(1)).await
    }

    /// The lease of master 1's people.
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

/// The term that checks ask for.
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

//! State that the connections of a process share.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize},
    },
    time::Duration,
};

use rand_chacha::rand_core::Rng;

use super::{
    ServerLimits,
    address::Address,
    readers::Readers,
    schema::{CHANGE_MAX, Release, Rights, THIS_RELEASE},
};
use crate::{
    env::Env,
    model::{absence::AwayReason, rows::StoreError},
    store::{LoginSlot, NewEnds, history::Seen},
};

/// State that the connections of a process share.
pub(super) struct Shared {
    pub(super) env: Env,
    pub(super) address: Address,
    /// Place of the login, if a master gives it.
    pub(super) login: Option<LoginSlot>,
    pub(super) timeout: Duration,
    pub(super) group_batches_max: usize,
    pub(super) may_upgrade: bool,
    pub(super) seen: Arc<Seen>,
    /// Id of the cluster, should one be made.
    pub(super) new_cluster: [u8; 16],
    /// Server that took the last connection, by its place in the list.
    pub(super) good: AtomicUsize,
    /// Whether the lack of a synchronous standby was told.
    pub(super) warned: AtomicBool,
    /// Whether it was told that workers get no logins.
    pub(super) told_logins: AtomicBool,
    /// Time of the store instead of the server's, in tests.
    pub(super) clock: Option<Arc<AtomicU64>>,
    /// Schema that this process knows; in tests that of another release.
    pub(super) release: Release,
    /// Longest time of a change of the tables, which tests make shorter.
    pub(super) change_max: Duration,
    /// Number of times that a connection found the store closed to this release. Operations use no
    /// connection of before any more: each new one finds out by itself.
    pub(super) closed: AtomicU64,
    /// Last failure to connect, until a connection is there again.
    pub(super) absence: Mutex<Option<StoreError>>,
    /// Ends that this process wrote and has not told others of.
    pub(super) written: NewEnds,
    /// Readers of the ends that others wrote.
    pub(super) readers: Readers,
}

impl Shared {
    /// Returns the state of a process without connections, whose store has the time of `clock` if there
    /// is one.
    pub(super) fn new(
        env: &Env,
        address: Address,
        login: Option<LoginSlot>,
        limits: ServerLimits,
        clock: Option<Arc<AtomicU64>>,
    ) -> Self {
        let mut new_cluster = [0; 16];
        env.rng("store-cluster").fill_bytes(&mut new_cluster);
        Self {
            env: env.clone(),
            address,
            login,
            timeout: limits.store_timeout,
            group_batches_max: limits.group_batches_max,
            may_upgrade: limits.may_upgrade,
            seen: Arc::new(Seen::new(limits.expected, "server")),
            new_cluster,
            good: AtomicUsize::new(0),
            warned: AtomicBool::new(false),
            told_logins: AtomicBool::new(false),
            clock,
            release: THIS_RELEASE,
            change_max: CHANGE_MAX,
            closed: AtomicU64::new(0),
            absence: Mutex::default(),
            written: NewEnds::default(),
            readers: Readers::default(),
        }
    }

    pub(super) fn rights(&self) -> Rights {
        Rights {
            create: self.seen.may_create().then_some(self.new_cluster),
            upgrade: self.may_upgrade,
        }
    }

    /// Error of a wait that took as long as the store's time-out.
    pub(super) fn no_answer(&self) -> StoreError {
        let why = format!("no answer for {} ms", self.timeout.as_millis());
        StoreError::away(AwayReason::NoAnswer, why)
    }

    pub(super) fn absence(&self) -> Option<StoreError> {
        self.absence.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_absence(&self, error: Option<StoreError>) {
        *self.absence.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }
}

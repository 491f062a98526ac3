//! Login of a worker at the store's server: its file, and when to ask a master for another one.

use std::time::Duration;

use super::error::WorkerError;
use crate::{
    env::{Cancelled, Env},
    model::{login::StoreLogin, time::Mono},
};

/// File in the worker's directory that holds its login.
pub const LOGIN_FILE: &str = "store.login";

/// Time after a registration until the master is left for another Welcome; doubles with each one that
/// did not help.
const WAIT_MIN: Duration = Duration::from_secs(10);
const WAIT_MAX: Duration = Duration::from_secs(600);

/// Loads the login that an earlier Welcome brought, if there is one.
///
/// # Errors
/// [`WorkerError::Disk`] when the file exists and holds no login; it is left as it is.
pub async fn load_login(env: &Env) -> Result<Option<StoreLogin>, WorkerError> {
    let disk = env.disk();
    let wrong = |why: String| WorkerError::Disk { file: LOGIN_FILE, why };
    let read = env.compute(move || disk.read(LOGIN_FILE)).await;
    let read = read.map_err(|Cancelled| wrong(Cancelled.to_string()))?;
    let Some(bytes) = read.map_err(|error| wrong(error.to_string()))? else { return Ok(None) };
    let why = "it holds no login; remove it, and a master gives this worker another one";
    StoreLogin::parse(&bytes).map(Some).ok_or_else(|| wrong(why.to_owned()))
}

/// Keeps a login on disk. The worker can use it without that, but needs another one after its next
/// start, so a failure is only reported.
pub(super) async fn keep_login(env: &Env, login: &StoreLogin) {
    let (disk, text) = (env.disk(), login.text());
    let kept = env.compute(move || disk.write_atomic(LOGIN_FILE, text.as_bytes())).await;
    if let Ok(Err(error)) = kept {
        tracing::error!(%error, file = LOGIN_FILE, "not written: the next start asks for another login");
    }
}

/// Decision when to leave a master because its Welcome brought no login that the store takes.
///
/// 1. A master is left only while it reaches the store itself: else it could make no login.
/// 2. The longer it does not help, the seldomer it happens.
#[derive(Debug)]
pub(super) struct LoginAsks {
    wait: Duration,
    /// Time of the next attempt, if there is a registration.
    due: Option<Mono>,
    master_reaches_store: bool,
}

impl Default for LoginAsks {
    fn default() -> Self {
        Self { wait: WAIT_MIN, due: None, master_reaches_store: false }
    }
}

impl LoginAsks {
    /// Records that a registration begins.
    pub(super) fn on_registered(&mut self, now: Mono) {
        self.due = Some(now + self.wait);
        self.master_reaches_store = false;
    }

    /// Records whether the master says that it reaches the store.
    pub(super) const fn on_beat(&mut self, reaches_store: bool) {
        self.master_reaches_store = reaches_store;
    }

    /// Records that this worker reached the store.
    pub(super) const fn on_store_reached(&mut self) {
        self.wait = WAIT_MIN;
    }

    /// Returns whether a worker that wants a login leaves its master now.
    pub(super) fn leaves(&mut self, now: Mono) -> bool {
        let is_due = self.master_reaches_store && self.due.is_some_and(|due| due <= now);
        if is_due {
            self.wait = (self.wait * 2).min(WAIT_MAX);
            self.due = None;
        }
        is_due
    }
}

#[cfg(all(test, feature = "net"))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::{
        env::real::{RealWorld, TempDir},
        model::{
            ids::NodeId,
            login::{StorePassword, StoreUser},
        },
    };

    fn at(s: u64) -> Mono {
        Mono::default() + Duration::from_secs(s)
    }

    #[tokio::test]
    async fn login_is_kept_for_its_owner_alone_and_a_file_without_one_is_left_as_it_is() {
        let temp = TempDir::new().expect("a directory");
        let env = Env::new(RealWorld::new(temp.path()).expect("usable"));
        assert_eq!(load_login(&env).await.expect("none yet"), None);
        let user = StoreUser::of_node(&[1; 16], NodeId([2; 16]));
        let login = StoreLogin { user, password: StorePassword::new([3; 32]) };
        keep_login(&env, &login).await;
        assert_eq!(load_login(&env).await.expect("kept"), Some(login));
        let file = temp.path().join(LOGIN_FILE);
        let mode = std::fs::metadata(&file).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(&file, "ada s3cret\n").expect("written");
        let refused = load_login(&env).await.expect_err("it holds none").to_string();
        insta::assert_snapshot!(refused, @"the file store.login: it holds no login; remove it, and a master gives this worker another one");
        assert_eq!(std::fs::read(&file).expect("left"), b"ada s3cret\n");
    }

    #[test]
    fn master_is_left_for_a_login_only_while_it_reaches_the_store_and_ever_seldomer() {
        let mut asks = LoginAsks::default();
        asks.on_beat(true);
        assert!(!asks.leaves(at(1)), "there is no registration");
        asks.on_registered(at(1));
        assert!(!asks.leaves(at(60)), "the master did not say that it reaches the store");
        asks.on_beat(true);
        assert!(asks.leaves(at(60)));
        assert!(!asks.leaves(at(61)), "once for each registration");
        asks.on_registered(at(100));
        asks.on_beat(true);
        assert!(!asks.leaves(at(119)));
        assert!(asks.leaves(at(120)));
        for _ in 0..10 {
            asks.on_registered(at(1000));
            asks.on_beat(true);
            assert!(asks.leaves(at(1600)), "at most ten minutes");
        }
        asks.on_store_reached();
        asks.on_registered(at(2000));
        asks.on_beat(true);
        assert!(asks.leaves(at(2010)));
    }
}

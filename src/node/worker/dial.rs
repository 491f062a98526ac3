//! One attempt to register with one master: connect, shake hands, say the number in Ready.
//!
//! A worker shows the guard of its own that an earlier Welcome gave it, else its join token. When
//! a master refuses the guard, the next attempt shows the token: the store may have been restored
//! from before this worker was enrolled.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use tokio::sync::oneshot;

use super::{error::WorkerError, input::Input, login::keep_login};
use crate::{
    comm::{
        SecureStream,
        handshake::{
            ChooseRegistration, Credential, DialParams, HandshakeError, HandshakeFault,
            ReceivedWelcome, dial_with_registration, load_guard,
        },
        key_source::HandshakeKeys,
    },
    config::Config,
    crypto::{admission::JoinSecret, keys::Identity},
    env::Env,
    model::ids::{Domain, Fingerprint, KeyEpoch, Registration, Role},
    node::inbox::Inputs,
    store::LoginSlot,
};

/// File in the worker's directory that holds the highest number it may have registered under.
const REGISTRATION_FILE: &str = "registration";

/// Numbers that one write of the file sets aside, so that a worker whose disk is full still moves
/// to another master.
const REGISTRATIONS_AHEAD: u64 = 256;

/// Shared state of all attempts.
pub(super) struct Dialer {
    pub identity: Arc<Identity>,
    pub handshake: Arc<HandshakeKeys>,
    pub name: String,
    pub token: Option<Arc<JoinSecret>>,
    /// Place of the store's login, if masters give it.
    pub login: Option<LoginSlot>,
    pub config: Config,
    /// The next attempt shows the token, even if there is a guard.
    pub show_token: AtomicBool,
    /// Highest registration number that the disk holds.
    pub numbers_kept: AtomicU64,
}

/// Parameters of one attempt.
pub(super) struct Attempt {
    /// Number of the attempt; inputs of any other than the last are stale.
    pub number: u64,
    pub addr: String,
    pub pins: Vec<Fingerprint>,
    pub cluster: Option<[u8; 16]>,
    pub last_epoch: Option<(Domain, KeyEpoch)>,
}

impl Dialer {
    /// Makes one attempt. Asks the driver for the registration number on the way, and sends it
    /// the end.
    pub(super) async fn dial(self: Arc<Self>, env: Env, with: Attempt, to: Inputs<Input>) {
        let attempt = with.number;
        let result = self.attempt(&env, with, &to).await;
        let _ = to.send(Input::Dialed { attempt, result: result.map(Box::new) }).await;
    }

    async fn attempt(
        self: &Arc<Self>,
        env: &Env,
        with: Attempt,
        to: &Inputs<Input>,
    ) -> Result<(SecureStream, ReceivedWelcome), HandshakeError> {
        let timeout = self.config.handshake_timeout;
        let stream = env.connect(&with.addr, timeout).await?;
        let own = load_guard(env).await?.map(Credential::Own);
        let token = self.token.clone().map(Credential::Token);
        let credential = match (own, token) {
            (Some(_), Some(token)) if self.show_token.swap(false, Ordering::Relaxed) => token,
            (Some(own), _) => own,
            (None, Some(token)) => token,
            // Checked at start; the guard's file was taken away meanwhile.
            (None, None) => return Err(HandshakeError::GivenUp),
        };
        let is_own = matches!(credential, Credential::Own(_));
        let wanting = self.login.as_ref().filter(|login| login.is_wanted());
        let params = DialParams {
            identity: Arc::clone(&self.identity),
            handshake: Arc::clone(&self.handshake),
            role: Role::Worker,
            name: self.name.clone(),
            credential,
            pins: with.pins,
            cluster: with.cluster,
            last_epoch: with.last_epoch,
            wants_login: wanting.is_some(),
            registration: Registration::default(),
            directory_max: self.config.directory_max,
            timeout,
            version_max: self.config.link_version_max,
        };
        let count = Arc::clone(self).ask_number(env.clone(), with.number, to.clone());
        let mut done = dial_with_registration(env, stream, &params, count).await;
        let is_refused = matches!(
            done,
            Err(HandshakeError::Unanswered | HandshakeError::Fault(HandshakeFault::Rejected(_)))
        );
        if is_own && is_refused {
            self.show_token.store(true, Ordering::Relaxed);
        }
        if let (Some(slot), Ok((_, received))) = (wanting, &mut done) {
            match received.login.take() {
                Some(login) => {
                    keep_login(env, &login).await;
                    slot.set(login);
                }
                None => tracing::warn!(
                    "the master gave no login for the store: its log says why; else name a user in \
                     this worker's setting `store`"
                ),
            }
        }
        done
    }

    /// Asks the driver for the registration number, and keeps it on disk before it is sent.
    fn ask_number(
        self: Arc<Self>,
        env: Env,
        attempt: u64,
        to: Inputs<Input>,
    ) -> ChooseRegistration {
        Box::new(move |welcome| {
            let welcome = welcome.clone();
            Box::pin(async move {
                let (reply, counted) = oneshot::channel();
                // Without a driver the reply is dropped.
                to.send(Input::Welcomed { attempt, welcome, reply }).await;
                let registration = counted.await.ok()??;
                self.keep_registration(&env, registration).await.then_some(registration)
            })
        })
    }

    /// Returns whether the disk holds this number or a higher one.
    async fn keep_registration(&self, env: &Env, registration: Registration) -> bool {
        if registration.0 <= self.numbers_kept.load(Ordering::Relaxed) {
            return true;
        }
        let ahead = registration.0.saturating_add(REGISTRATIONS_AHEAD);
        let disk = env.disk();
        let text = format!("{ahead}\n");
        let kept = env.compute(move || disk.write_atomic(REGISTRATION_FILE, text.as_bytes())).await;
        match kept {
            Ok(Ok(())) => {
                self.numbers_kept.store(ahead, Ordering::Relaxed);
                true
            }
            Ok(Err(error)) => {
                tracing::error!(%error, file = REGISTRATION_FILE, "not written");
                false
            }
            Err(_) => false,
        }
    }
}

/// Loads the highest number that this worker may have registered under; 0 at first start.
///
/// # Errors
/// [`WorkerError::Disk`] when the file exists and is not a number.
pub(super) async fn load_registration(env: &Env) -> Result<Registration, WorkerError> {
    let disk = env.disk();
    let wrong = |why: String| WorkerError::Disk { file: REGISTRATION_FILE, why };
    let read = env.compute(move || disk.read(REGISTRATION_FILE)).await;
    let read = read.map_err(|error| wrong(error.to_string()))?;
    let Some(bytes) = read.map_err(|error| wrong(error.to_string()))? else {
        return Ok(Registration::default());
    };
    let number = std::str::from_utf8(&bytes).ok().and_then(|text| text.trim().parse().ok());
    number.map(Registration).ok_or_else(|| wrong("want a number".to_owned()))
}

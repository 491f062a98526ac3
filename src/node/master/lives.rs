//! Lives of a master in one process.
//!
//! ```text
//!   start ─► serve ─► end
//!     ▲        └─ off the store's list for its silence: goodbye ─┐
//!     └──────────────────────────────────────────────────────────┘
//! ```
//!
//! 1. All nodes take a master whose row is gone for one that left, and that is never taken back of a life.
//!    So a master that was cut from the store until it was off the list begins a new one: with a new row,
//!    new keys and new links.
//! 2. The front end and the listener outlive a life. What comes in between waits for the next.
//! 3. A master that was being drained ends instead: it has nothing to leave any more.

use std::{io, sync::Arc};

use tokio::sync::{Mutex, mpsc};

use super::{Driver, MasterParams, NodeError, WaitsFor, requests};
use crate::{
    api::MasterState,
    env::{BoxFuture, BoxStream, Env, Listener},
    node::handle::{Command, Commands, DrainSignal},
};

/// Runs a master until it has been drained or is told to leave. While it starts, and while the store
/// is away at start, it answers that it is not ready.
///
/// # Errors
/// [`NodeError`]; links are cut, leases run out by themselves.
pub async fn run(
    env: Env,
    params: MasterParams,
    listener: Box<dyn Listener>,
    commands: Commands,
) -> Result<(), NodeError> {
    let Commands { receiver: mut commands, drain: signal } = commands;
    params.config.validate()?;
    let listener = KeptListener::new(listener);
    loop {
        let (params, listener) = (params.clone(), Box::new(listener.clone()));
        match live(&env, params, listener, &mut commands, signal.clone()).await {
            Err(NodeError::Unlisted) if signal.has_begun() => return Ok(()),
            Err(why @ NodeError::Unlisted) => tracing::warn!(%why, "a new life begins"),
            ended => return ended,
        }
    }
}

/// Lives one life.
async fn live(
    env: &Env,
    params: MasterParams,
    listener: Box<dyn Listener>,
    commands: &mut mpsc::Receiver<Command>,
    signal: DrainSignal,
) -> Result<(), NodeError> {
    let waits_for = WaitsFor::default();
    let (mut driver, inbox, _guards) = {
        let starting = Driver::start(env.clone(), params, listener, signal, &waits_for);
        tokio::pin!(starting);
        loop {
            tokio::select! {
                biased;
                driver = &mut starting => break driver?,
                command = commands.recv() => match command {
                    Some(command) => requests::refuse(command, MasterState::Starting, waits_for.get()),
                    None => return Ok(()),
                },
            }
        }
    };
    let ended = driver.run(inbox, commands).await;
    if matches!(ended, Err(NodeError::Unlisted)) {
        driver.say_goodbye().await;
    }
    ended
}

/// Listener that each life leaves to the next.
#[derive(Clone)]
struct KeptListener {
    listener: Arc<Mutex<Box<dyn Listener>>>,
    addr: String,
}

impl KeptListener {
    fn new(listener: Box<dyn Listener>) -> Self {
        let addr = listener.local_addr();
        Self { listener: Arc::new(Mutex::new(listener)), addr }
    }
}

impl Listener for KeptListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxStream, String)>> {
        Box::pin(async {
            // The life before has let go of it, or is about to.
            let mut listener = self.listener.lock().await;
            listener.accept().await
        })
    }

    fn local_addr(&self) -> String {
        self.addr.clone()
    }
}

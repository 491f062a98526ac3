//! Host of the store: its durable state, and the process that serves it.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chatchat::{
    env::{BoxFuture, BoxStream, Env},
    model::{event::FaultPoint, outcome::TaskResult, rows::StoreError},
    store::{
        Backend, Op, OpReply, Store,
        sqlite::{NewCluster, SqliteCore},
    },
};
use rand_core::Rng;
use tokio::sync::Mutex as Turn;

use super::frames;

/// Durable state of the store. It survives crashes of its host.
#[derive(Clone)]
pub struct StoreHost {
    core: Arc<Mutex<SqliteCore>>,
}

impl StoreHost {
    /// Creates an empty store.
    ///
    /// # Errors
    /// As [`SqliteCore::open_in_memory`].
    pub fn new(new: &NewCluster) -> Result<Self, StoreError> {
        Ok(Self { core: Arc::new(Mutex::new(SqliteCore::open_in_memory(new)?)) })
    }

    /// Carries out an operation without the network, for builders of clusters and for oracles.
    ///
    /// # Errors
    /// As [`SqliteCore::apply`].
    pub fn apply(&self, op: &Op, now_ms: u64) -> Result<OpReply, StoreError> {
        // An operation that panicked was rolled back: the core is whole.
        self.core.lock().unwrap_or_else(PoisonError::into_inner).apply(op, now_ms)
    }

    /// Returns a handle that needs no network; `now_ms` is its clock.
    #[must_use]
    pub fn direct(&self, now_ms: impl Fn() -> u64 + Send + Sync + 'static) -> Store {
        Store::new(Direct { host: self.clone(), now_ms })
    }

    /// Serves `addr` until the host is stopped.
    pub async fn serve(self, env: Env, addr: &'static str) {
        let mut listener = env.listen(addr).await.expect("the host is the store's alone");
        let turn = Arc::new(Turn::new(()));
        while let Ok((stream, _)) = listener.accept().await {
            let (host, turn, of_host) = (self.clone(), Arc::clone(&turn), env.clone());
            env.spawn("store-connection", async move {
                // Ends with the connection, which the caller sees break, too.
                let _ = host.converse(&of_host, stream, &turn).await;
            });
        }
    }

    async fn converse(&self, env: &Env, mut stream: BoxStream, turn: &Turn<()>) -> io::Result<()> {
        let mut rng = env.rng("store-service-time");
        loop {
            let (number, op): (u64, Op) = frames::read(&mut stream).await?;
            let answer = {
                let _turn = turn.lock().await;
                // A commit waits for a disk, a read rarely does.
                let (least_us, spread_us) = if op.is_write() { (300, 900) } else { (30, 90) };
                let us = least_us + rng.next_u64() % spread_us;
                env.sleep(Duration::from_micros(us)).await;
                self.apply(&op, env.wall().ms)
            };
            if let Ok(OpReply::Written(results)) = &answer
                && results.iter().any(|result| matches!(result, TaskResult::Committed { .. }))
            {
                env.fault_point(FaultPoint::AppendCommitted.name());
            }
            if matches!(answer, Err(StoreError::Fenced { .. })) {
                env.sometimes("the store refused an old token");
            }
            let frame = match frames::frame(number, &answer) {
                Ok(frame) => frame,
                Err(why) => {
                    let broken = StoreError::Broken { why: format!("the answer: {why}") };
                    frames::frame(number, &Err::<OpReply, _>(broken))?
                }
            };
            frames::write(&mut stream, &frame).await?;
        }
    }
}

struct Direct<F> {
    host: StoreHost,
    now_ms: F,
}

impl<F: Fn() -> u64 + Send + Sync + 'static> Backend for Direct<F> {
    fn call(&self, op: Op) -> BoxFuture<'_, Result<OpReply, StoreError>> {
        Box::pin(async move { self.host.apply(&op, (self.now_ms)()) })
    }
}

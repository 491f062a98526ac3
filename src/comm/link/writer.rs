//! Writing half of a link: frames to records to bytes, with all that waits in one write, flushed
//! once per burst. Heartbeats go out between bursts, even when nothing else is sent.

use std::{io, pin::pin};

use thiserror::Error;
use tokio::io::{AsyncWriteExt, WriteHalf};

use super::{LinkEnd, heartbeat::Heartbeat, responder::Shared, state::Outgoing};
use crate::{
    crypto::record::{RecordError, RecordKind, Sealer},
    env::{BoxStream, Env},
    model::{
        message::{Beat, Close},
        time::Mono,
    },
    wire::{
        codec::{self, CodecError},
        frame::{self, FrameError},
    },
};

/// Buffer capacity in bytes that is kept from burst to burst.
const KEPT_LEN: usize = 128 * 1024;

/// Error of a writer that cannot go on.
#[derive(Debug, Error)]
pub(super) enum WriteError {
    #[error(transparent)]
    Stream(#[from] io::Error),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Codec(#[from] CodecError),
}

pub(super) struct Writer {
    half: WriteHalf<BoxStream>,
    sealer: Sealer,
    keyed_at: Mono,
    /// Sealed records, of which `written` bytes are sent. A cancelled write keeps them, so that
    /// a last record can follow.
    sealed: Vec<u8>,
    written: usize,
    /// Buffer for the frame of an envelope, before it is sealed.
    scratch: Vec<u8>,
    batch: Vec<Outgoing>,
    last_beat: Option<Beat>,
}

impl Writer {
    pub(super) const fn new(half: WriteHalf<BoxStream>, sealer: Sealer, now: Mono) -> Self {
        Self {
            half,
            sealer,
            keyed_at: now,
            sealed: Vec::new(),
            written: 0,
            scratch: Vec::new(),
            batch: Vec::new(),
            last_beat: None,
        }
    }

    /// Writes until this side closes the link, or the stream fails. Cancel-safe.
    pub(super) async fn run(&mut self, env: &Env, shared: &Shared) -> LinkEnd {
        match self.pump(env, shared).await {
            Ok(close) => LinkEnd::Closed(close),
            Err(why) => LinkEnd::Broken(why.to_string()),
        }
    }

    async fn pump(&mut self, env: &Env, shared: &Shared) -> Result<Close, WriteError> {
        let mut beat_at = env.now();
        let mut tick = pin!(env.sleep_until(beat_at));
        loop {
            let taken = shared.state().take(&mut self.batch);
            let now = env.now();
            let due = now >= beat_at;
            let is_fresh = shared.driver.is_fresh(now, shared.limits.silence());
            if (due && is_fresh) || (taken.beat.is_some() && taken.beat != self.last_beat) {
                let beat = taken.beat.unwrap_or(Beat { reaches_store: false });
                self.seal(&frame::beat(&beat)?)?;
                self.last_beat = taken.beat;
            }
            if due {
                // After a pause of the whole process the driver may need a moment.
                let wait = shared.limits.heartbeat_interval / if is_fresh { 1 } else { 8 };
                beat_at = now + wait;
                tick.set(env.sleep_until(beat_at));
                if now.since(self.keyed_at) >= shared.limits.rekey_interval {
                    self.sealer.rekey();
                    self.keyed_at = now;
                }
            }
            self.seal_batch()?;
            if !self.sealed.is_empty() {
                self.write(env, &shared.heartbeat).await?;
                // Flush only once nothing more waits.
                if shared.state().has_work() {
                    continue;
                }
                self.flush(env, &shared.heartbeat).await?;
                continue;
            }
            if let Some(close) = taken.close {
                return Ok(close);
            }
            tokio::select! {
                biased;
                () = shared.work.notified() => {}
                () = &mut tick => {}
            }
        }
    }

    fn seal(&mut self, frame: &[u8]) -> Result<(), RecordError> {
        self.sealer.seal(RecordKind::Data, frame, &mut self.sealed)
    }

    fn seal_batch(&mut self) -> Result<(), RecordError> {
        for out in self.batch.drain(..) {
            let bytes = match &out {
                Outgoing::Frame(bytes) | Outgoing::Call(_, bytes) | Outgoing::Page(_, bytes) => {
                    bytes
                }
                Outgoing::Envelope(envelope) => {
                    frame::publish_into(envelope, &mut self.scratch);
                    &self.scratch
                }
                Outgoing::Secret(frame) => frame.bytes(),
                Outgoing::Switch(fresh) => {
                    self.sealer.switch(fresh.get(), &mut self.sealed)?;
                    continue;
                }
            };
            self.sealer.seal(RecordKind::Data, bytes, &mut self.sealed)?;
        }
        Ok(())
    }

    async fn write(&mut self, env: &Env, heartbeat: &Heartbeat) -> io::Result<()> {
        while self.written < self.sealed.len() {
            heartbeat.write_progress.set(env.now());
            self.write_some().await?;
        }
        heartbeat.write_progress.clear();
        self.forget_written();
        Ok(())
    }

    async fn write_some(&mut self) -> io::Result<()> {
        match self.half.write(&self.sealed[self.written..]).await? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            len => {
                self.written += len;
                Ok(())
            }
        }
    }

    fn forget_written(&mut self) {
        self.sealed.clear();
        self.sealed.shrink_to(KEPT_LEN);
        self.scratch.shrink_to(KEPT_LEN);
        self.written = 0;
    }

    async fn flush(&mut self, env: &Env, heartbeat: &Heartbeat) -> io::Result<()> {
        heartbeat.write_progress.set(env.now());
        self.half.flush().await?;
        heartbeat.write_progress.clear();
        Ok(())
    }

    /// Sends the close record, after all that is already sealed, and ends this direction.
    pub(super) async fn finish(&mut self, close: Close) -> Result<(), WriteError> {
        self.sealer.seal(RecordKind::Close, &codec::encode(&close)?, &mut self.sealed)?;
        while self.written < self.sealed.len() {
            self.write_some().await?;
        }
        self.half.flush().await?;
        self.half.shutdown().await?;
        Ok(())
    }
}

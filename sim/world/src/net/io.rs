//! Reads and writes of the process that holds a socket.

use std::{
    io,
    task::{Context, Poll},
};

use tokio::io::ReadBuf;

use super::{
    Capture, Net, reset,
    socket::{Phase, Socket},
};
use crate::{core::Core, ids::SocketId};

impl Net {
    /// Returns a socket that a process holds.
    pub(super) fn held(&mut self, id: SocketId) -> io::Result<&mut Socket> {
        self.sockets
            .get_mut(id)
            .filter(|socket| !socket.orphan)
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Reads what has come, or the end, or waits.
    pub(crate) fn poll_read(
        &mut self,
        core: &mut Core,
        id: SocketId,
        cx: &Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.held(id)?;
        let read = self.act(core, id, |socket, _, out, _| {
            let read = socket.read(into.remaining(), |bytes| into.put_slice(bytes), out);
            match read {
                Some(_) => Poll::Ready(Ok(())),
                None if socket.phase == Phase::Dead => {
                    // As the kernel does: the error once, then the end.
                    Poll::Ready(socket.error.take().map_or(Ok(()), |why| Err(why.into())))
                }
                None => {
                    socket.reader = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        });
        read.unwrap_or_else(|| Poll::Ready(Err(reset())))
    }

    /// Takes bytes to send, or waits for room.
    pub(crate) fn poll_write(
        &mut self,
        core: &mut Core,
        id: SocketId,
        cx: &Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let socket = self.held(id)?;
        if socket.phase == Phase::Dead || socket.has_shut_down() {
            let why = socket.error.take().unwrap_or(io::ErrorKind::BrokenPipe);
            return Poll::Ready(Err(why.into()));
        }
        let written = self.act(core, id, |socket, now, out, _| {
            let written = socket.write(now, bytes, out);
            if written.is_none() {
                socket.writer = Some(cx.waker().clone());
            }
            written
        });
        let Some(Some(len)) = written else { return Poll::Pending };
        if let (Some(tap), Some(socket)) = (&mut self.tap, self.sockets.get(id))
            && (tap.wants)(socket.host, socket.peer_host)
        {
            let port = socket.local_port.min(socket.peer_port);
            let (from, to) = (socket.host, socket.peer_host);
            tap.captures
                .entry(id)
                .or_insert_with(|| Capture { from, to, port, bytes: Vec::new() })
                .bytes
                .extend_from_slice(&bytes[..len]);
        }
        Poll::Ready(Ok(len))
    }

    /// Ends the writing half.
    pub(crate) fn shut_down(&mut self, core: &mut Core, id: SocketId) -> io::Result<()> {
        self.held(id)?;
        self.act(core, id, |socket, now, out, _| socket.shut_down(now, out));
        Ok(())
    }
}

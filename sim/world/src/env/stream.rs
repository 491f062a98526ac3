//! A node's handles on the network: streams, listeners and connects under way.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use dst_env::{BoxFuture, BoxStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    ids::{HostId, Life, SocketId},
    shared::Shared,
};

/// One end of a connection. Dropping it closes it, unless its process ended before.
#[derive(Debug)]
pub(crate) struct SimStream {
    world: Shared,
    id: SocketId,
}

impl SimStream {
    const fn new(world: Shared, id: SocketId) -> Self {
        Self { world, id }
    }
}

impl AsyncRead for SimStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.world.with(|state| state.net.poll_read(&mut state.core, self.id, cx, into))
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.world.with(|state| state.net.poll_write(&mut state.core, self.id, cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.world.with(|state| state.net.shut_down(&mut state.core, self.id)))
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        // A socket of an ended life is gone or the kernel's: `close` leaves it alone.
        self.world.with(|state| state.net.close(&mut state.core, self.id));
    }
}

/// Connect under way. Dropping it gives it up.
pub(crate) struct Connecting {
    world: Shared,
    id: Option<SocketId>,
}

impl Connecting {
    /// Begins to connect.
    ///
    /// # Errors
    /// When the life has ended.
    pub(crate) fn start(world: Shared, life: Life, to: HostId, port: u16) -> io::Result<Self> {
        let id = world.with(|state| {
            state.live(life)?;
            state.net.check_fds(life.host)?;
            Ok::<_, io::Error>(state.net.connect(&mut state.core, life.host, to, port))
        })?;
        Ok(Self { world, id: Some(id) })
    }
}

impl Future for Connecting {
    type Output = io::Result<BoxStream>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(id) = self.id else { return Poll::Pending };
        let Poll::Ready(connected) = self.world.with(|state| state.net.poll_connected(id, cx))
        else {
            return Poll::Pending;
        };
        self.id = None;
        let stream = SimStream::new(self.world.clone(), id);
        // On an error the stream is dropped, and with it the socket.
        Poll::Ready(connected.map(|()| Box::new(stream) as BoxStream))
    }
}

impl Drop for Connecting {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.world.with(|state| state.net.close(&mut state.core, id));
        }
    }
}

/// Listener on one port. Dropping it frees the port, unless its process ended before.
#[derive(Debug)]
pub(crate) struct SimListener {
    world: Shared,
    life: Life,
    port: u16,
    addr: String,
}

impl SimListener {
    /// Takes a port, 0 for any.
    ///
    /// # Errors
    /// When the port is taken or the life has ended.
    pub(crate) fn listen(world: &Shared, life: Life, port: u16) -> io::Result<Self> {
        let (port, addr) = world.with(|state| {
            state.live(life)?;
            let port = state.net.listen(life.host, port)?;
            Ok::<_, io::Error>((port, format!("{}:{port}", state.core.names[life.host.0])))
        })?;
        Ok(Self { world: world.clone(), life, port, addr })
    }
}

impl Listener for SimListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxStream, String)>> {
        Box::pin(std::future::poll_fn(|cx| {
            let Poll::Ready(accepted) = self.world.with(|state| {
                state.live(self.life)?;
                state
                    .net
                    .poll_accept(self.life.host, self.port, cx)
                    .map_ok(|(id, host, port)| (id, format!("{}:{port}", state.core.names[host.0])))
            }) else {
                return Poll::Pending;
            };
            Poll::Ready(accepted.map(|(id, peer)| {
                let stream: BoxStream = Box::new(SimStream::new(self.world.clone(), id));
                (stream, peer)
            }))
        }))
    }

    fn local_addr(&self) -> String {
        self.addr.clone()
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        self.world.with(|state| {
            if state.live(self.life).is_ok() {
                state.net.unlisten(&mut state.core, self.life.host, self.port);
            }
        });
    }
}

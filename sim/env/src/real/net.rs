//! TCP as nodes use it: no delay, addresses reusable at once after a restart.

use std::{io, net::SocketAddr};

use tokio::net::{TcpListener, TcpStream};

use crate::{BoxFuture, BoxStream, Listener};

/// Connects to `host:port`, trying each address that the name has.
pub(super) async fn connect(addr: String) -> io::Result<BoxStream> {
    let stream = TcpStream::connect(addr).await?;
    // A dial to a free port of the ephemeral range can meet itself.
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    stream.set_nodelay(true)?;
    Ok(Box::new(stream))
}

/// Listens on `host:port`. Tokio sets `SO_REUSEADDR`, and a backlog of 1024.
pub(super) async fn listen(addr: String) -> io::Result<Box<dyn Listener>> {
    let listener = TcpListener::bind(&addr).await?;
    let local = listener.local_addr()?;
    Ok(Box::new(RealListener { listener, local }))
}

struct RealListener {
    listener: TcpListener,
    local: SocketAddr,
}

impl Listener for RealListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxStream, String)>> {
        Box::pin(async {
            let (stream, peer) = self.listener.accept().await?;
            stream.set_nodelay(true)?;
            Ok((Box::new(stream) as BoxStream, peer.to_string()))
        })
    }

    fn local_addr(&self) -> String {
        self.local.to_string()
    }
}

//! TCP as nodes use it: no delay, addresses reusable at once after a restart, an end to peers
//! that vanished and to what the system keeps for those who take nothing.

use std::{io, net::SocketAddr, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};

use crate::{BoxFuture, BoxStream, Listener};

/// Longest time in which a peer acknowledges nothing of what was sent, or of a probe.
#[cfg(target_os = "linux")]
const DEAD_AFTER: Duration = Duration::from_secs(25);
/// Silence after which a peer is probed, and the time between two probes.
const PROBE_AFTER: Duration = Duration::from_secs(10);
const PROBE_INTERVAL: Duration = Duration::from_secs(5);
/// Largest number of bytes that the system keeps for a peer that dialled us, before it doubles them.
const SEND_BUFFER_BYTES: usize = 128 * 1024;

/// Connects to `host:port`, trying each address that the name has.
pub(super) async fn connect(addr: String) -> io::Result<BoxStream> {
    let stream = TcpStream::connect(addr).await?;
    // A dial to a free port of the ephemeral range can meet itself.
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    watch(&stream)?;
    Ok(Box::new(stream))
}

/// Makes a connection end by itself once its peer is gone without a word.
fn watch(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let probes = TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_INTERVAL);
    socket.set_tcp_keepalive(&probes)?;
    // Elsewhere the probes alone notice it.
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(DEAD_AFTER))?;
    Ok(())
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
            // A peer that is gone already is found out by its first use.
            let _ = watch(&stream);
            let _ = SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER_BYTES);
            Ok((Box::new(stream) as BoxStream, peer.to_string()))
        })
    }

    fn local_addr(&self) -> String {
        self.local.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn accepted_connection_ends_by_itself_and_keeps_little() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let (here, there) = tokio::join!(TcpStream::connect(addr), listener.accept());
        let (here, _there) = (here.expect("connected"), there.expect("accepted"));
        watch(&here).expect("it is watched");
        let socket = SockRef::from(&here);
        assert!(socket.keepalive().expect("read"));
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_user_timeout().expect("read"), Some(DEAD_AFTER));
    }
}

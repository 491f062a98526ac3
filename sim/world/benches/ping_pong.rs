//! Compares the world's network with madsim's own TCP: small ping-pongs over one connection.
//!
//! `cargo bench -p dst-world --bench ping_pong`. The two take turns, and the medians are compared,
//! so that whatever else the machine does meets both.

#[cfg(madsim)]
fn main() {
    bench::main();
}

#[cfg(not(madsim))]
fn main() {}

#[cfg(madsim)]
mod bench {
    use std::{
        net::SocketAddr,
        time::{Duration, Instant},
    };

    use dst_env::Env;
    use dst_world::{Setup, simulate};
    use madsim::{
        net::{TcpListener, TcpStream},
        runtime::Runtime,
    };
    use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

    const PING_PONGS: u32 = 200_000;
    const LEN: usize = 64;
    const ROUNDS: usize = 5;

    async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let mut message = [0; LEN];
        while stream.read_exact(&mut message).await.is_ok() {
            stream.write_all(&message).await.expect("the client reads");
            stream.flush().await.expect("the client reads");
        }
    }

    async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let mut message = [7; LEN];
        for _ in 0..PING_PONGS {
            stream.write_all(&message).await.expect("the server reads");
            stream.flush().await.expect("the server reads");
            stream.read_exact(&mut message).await.expect("the server answers");
        }
    }

    fn world() {
        simulate(Setup::new(1), async |world| {
            let [server, client] = ["server", "client"].map(|name| world.add_host(name));
            world.boot(server, async |env: Env| {
                let mut listener = env.listen("0.0.0.0:80").await.expect("a free port");
                serve(listener.accept().await.expect("a client").0).await;
            });
            let run = async |env: Env| {
                // The server listens from now on.
                env.sleep(Duration::from_millis(10)).await;
                let stream = env.connect("server:80", Duration::from_secs(5)).await;
                ask(stream.expect("a server")).await;
            };
            world.run(client, run).await;
        });
    }

    fn madsim() {
        let runtime = Runtime::with_seed_and_config(1, madsim::Config::default());
        let server: SocketAddr = "10.0.0.1:80".parse().expect("an address");
        let node = |name: &str, ip: &str| {
            let ip = ip.parse().expect("an address");
            runtime.create_node().name(name).ip(ip).build()
        };
        let (serving, asking) = (node("server", "10.0.0.1"), node("client", "10.0.0.2"));
        runtime.block_on(async move {
            serving.spawn(async move {
                let listener = TcpListener::bind(server).await.expect("a free port");
                serve(listener.accept().await.expect("a client").0).await;
            });
            let run = async move {
                madsim::time::sleep(Duration::from_millis(10)).await;
                ask(TcpStream::connect(server).await.expect("a server")).await;
            };
            asking.spawn(run).await.expect("it comes to its end");
        });
    }

    /// Outside of every simulated world.
    #[expect(clippy::disallowed_methods, reason = "this is a bench: real time is meant")]
    fn timed(run: fn()) -> Duration {
        let start = Instant::now();
        // On a thread of its own: a world leaves nothing behind for the next one.
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().spawn_scoped(scope, run);
            thread.expect("the machine can start a thread").join().expect("no panic");
        });
        start.elapsed()
    }

    pub(super) fn main() {
        let mut rounds: Vec<_> = (0..ROUNDS).map(|_| (timed(world), timed(madsim))).collect();
        let mut median = |of: fn(&(Duration, Duration)) -> Duration| {
            rounds.sort_by_key(of);
            of(&rounds[ROUNDS / 2])
        };
        let (ours, theirs) = (median(|round| round.0), median(|round| round.1));
        let each = |took: Duration| took.as_nanos() / u128::from(PING_PONGS);
        println!("{PING_PONGS} ping-pongs of {LEN} bytes, medians of {ROUNDS} rounds");
        println!("world   {ours:8.3?}  {:5} ns each", each(ours));
        println!("madsim  {theirs:8.3?}  {:5} ns each", each(theirs));
        println!("ratio   {:.2}", theirs.as_secs_f64() / ours.as_secs_f64());
    }
}

//! A system of your own in the simulated world: a durable counter and a client that retries.
//!
//! The client numbers its increments and sends each until it is acknowledged. The server stores
//! the last number and the count before it answers. Under a partition and a power loss, no
//! increment may be lost and none may count twice. Run it with a seed:
//!
//! ```text
//! cargo run -p dst-world --example own_system -- 7
//! ```
//!
//! The same seed prints the same digest of the event log, byte for byte, in any process.

use std::{io, time::Duration};

use dst_env::{BoxStream, Disk, Env};
use dst_world::{HostId, Link, Setup, World, simulate};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const INCREMENTS: u64 = 100;
const PATIENCE: Duration = Duration::from_millis(500);

/// State of the counter, as its file holds it.
#[derive(Clone, Copy, Default)]
struct Counter {
    last: u64,
    count: u64,
}

impl Counter {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        Some(Self { last: word(0)?, count: word(8)? })
    }

    fn load(disk: &dyn Disk) -> io::Result<Self> {
        match disk.read("counter")? {
            Some(bytes) => Self::parse(&bytes).ok_or_else(|| io::ErrorKind::InvalidData.into()),
            None => Ok(Self::default()),
        }
    }

    fn store(self, disk: &dyn Disk) -> io::Result<()> {
        let bytes = [self.last.to_le_bytes(), self.count.to_le_bytes()].concat();
        disk.write_atomic("counter", &bytes)
    }
}

/// Serves one connection after another: reads a number, counts it if it is new, acknowledges it.
async fn server(env: Env) {
    let mut listener = env.listen("0.0.0.0:80").await.expect("the port is free");
    while let Ok((mut stream, _)) = listener.accept().await {
        // A broken or silent connection ends only itself.
        let _ = env.timeout(Duration::from_secs(2), serve(&env, &mut stream)).await;
    }
}

async fn serve(env: &Env, stream: &mut BoxStream) -> io::Result<()> {
    let disk = env.disk();
    loop {
        let number = stream.read_u64().await?;
        let mut counter = Counter::load(&*disk)?;
        if number > counter.last {
            counter = Counter { last: number, count: counter.count + 1 };
            counter.store(&*disk)?;
        } else {
            env.sometimes("an increment came twice");
        }
        stream.write_u64(number).await?;
        stream.flush().await?;
    }
}

/// Sends each increment until it is acknowledged, over a new connection after each failure.
async fn client(env: Env) {
    let mut stream = None;
    for number in 1..=INCREMENTS {
        while !matches!(env.timeout(PATIENCE, send(&env, &mut stream, number)).await, Ok(Ok(()))) {
            stream = None;
            env.event(&serde_json::json!({ "event": "retry", "number": number }));
            env.sleep(Duration::from_millis(50)).await;
        }
        env.sleep(Duration::from_millis(50)).await;
    }
}

async fn send(env: &Env, stream: &mut Option<BoxStream>, number: u64) -> io::Result<()> {
    let stream = match stream {
        Some(stream) => stream,
        None => stream.insert(env.connect("server:80", PATIENCE).await?),
    };
    stream.write_u64(number).await?;
    stream.flush().await?;
    while stream.read_u64().await? != number {}
    Ok(())
}

/// Results of a run: the count, the number of retries and the digest of the event log.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    count: u64,
    retries: usize,
    digest: String,
}

/// Reads the count from the server's disk, as an observer outside the world.
fn count_of(world: &World, server: HostId) -> u64 {
    let bytes = world.read_file(server, "counter").unwrap_or_default();
    Counter::parse(&bytes).unwrap_or_default().count
}

fn run(seed: u64) -> Outcome {
    simulate(Setup::new(seed), async |world| {
        let (here, there) = (world.add_host("server"), world.add_host("client"));
        world.boot(here, server);
        let faults = break_things(world.clone(), here, there);
        world.supervise(faults);
        world.run(there, client).await;
        let count = count_of(&world, here);
        Outcome { count, retries: world.events().len(), digest: world.digest() }
    })
}

/// Cuts the link for two seconds, then takes the server's power for one.
async fn break_things(world: World, server: HostId, client: HostId) {
    world.sleep(Duration::from_secs(1)).await;
    for (from, to) in [(server, client), (client, server)] {
        world.add_fault(from, to, 0, Link::CUT);
    }
    world.sleep(Duration::from_secs(2)).await;
    for (from, to) in [(server, client), (client, server)] {
        world.remove_fault(from, to, 0);
    }
    world.sleep(Duration::from_secs(2)).await;
    world.crash(server);
    world.sleep(Duration::from_secs(1)).await;
    world.boot(server, self::server);
}

fn main() {
    let seed = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1);
    let outcome = run(seed);
    println!("seed     {seed}");
    println!("counted  {} of {INCREMENTS} increments, each once", outcome.count);
    println!("retries  {}", outcome.retries);
    println!("digest   {}", outcome.digest);
    assert_eq!(outcome.count, INCREMENTS, "an increment was lost or counted twice");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_increment_counts_once_under_a_partition_and_a_crash() {
        for seed in 1..=5 {
            let outcome = run(seed);
            assert_eq!(outcome.count, INCREMENTS, "seed {seed}");
            assert!(outcome.retries > 2, "seed {seed}: the faults must hurt");
        }
    }

    #[test]
    fn same_seed_gives_the_same_digest() {
        assert_eq!(run(3), run(3));
        assert_ne!(run(3).digest, run(4).digest);
    }
}

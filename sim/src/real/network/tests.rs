//! Lines that are broken, seen by connections between two namespaces.
#![expect(
    clippy::disallowed_methods,
    reason = "a thread is in one namespace: each needs one of its own"
)]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

use chatchat::{
    env::real::RealWorld,
    testing::skip::{say_skipped, skip},
};
use tokio::{runtime, sync::oneshot};

use super::*;
use crate::units::ns;

const PLACES: [Place; 2] = [Place::Master(0), Place::Master(1)];
const PORT: u16 = 7000;
/// Delay of a slow line.
const LATE: Duration = Duration::from_millis(300);
/// Time after which a connection counts as lost: the kernel asks again after 1 s.
const LOST: Duration = Duration::from_millis(900);
/// Time for a connection on a busy machine.
const WAIT: Duration = Duration::from_secs(20);

fn network() -> Option<Network> {
    if let Some(why) = Network::obstacle(Kind::Partition) {
        skip(why);
        return None;
    }
    // A machine that gives nobody any is no fault of this code.
    let name = format!("{PREFIX}{}-probe", id());
    if let Err(why) = run("ip", &["netns", "add", &name], "") {
        say_skipped(&why);
        return None;
    }
    run("ip", &["netns", "del", &name], "").expect("it was made");
    if let Some(why) = Network::obstacle(Kind::Delay) {
        say_skipped(why);
        return None;
    }
    Some(Network::new(PLACES.to_vec(), &[Kind::Delay], Seed(1)).expect("a network"))
}

/// Does something in the namespace of a node, on a thread of its own.
async fn at<T: Send + 'static>(nth: usize, act: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = oneshot::channel();
    thread::spawn(move || {
        let file = File::open(Path::new(NAMES).join(namespace(nth))).expect("it is there");
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .expect("it may be entered");
        // Nobody waits any more when the test has failed.
        let _ = done.send(act());
    });
    result.await.expect("no panic")
}

/// Returns how long a connection from one node to the other one took to be made.
async fn connected(env: &Env, [from, to]: [usize; 2], within: Duration) -> Option<Duration> {
    let env = env.clone();
    at(from, move || {
        let from = env.now();
        let to = SocketAddr::from((address(to), PORT));
        TcpStream::connect_timeout(&to, within).ok().map(|_| env.now().since(from))
    })
    .await
}

/// Returns whether connections are late once, which says that their way back is whole.
async fn is_slow(env: &Env) -> bool {
    for _ in 0..5 {
        let takes = connected(env, [0, 1], WAIT).await.expect("connected");
        if takes < 2 * LATE {
            return takes >= LATE;
        }
    }
    false
}

/// Returns whether one of a few connections is fast: a busy machine may hold one up.
async fn is_whole(env: &Env, ends: [usize; 2]) -> bool {
    for _ in 0..5 {
        if connected(env, ends, WAIT).await.expect("connected") < LATE {
            return true;
        }
    }
    false
}

async fn is_lost(env: &Env) -> bool {
    connected(env, [0, 1], LOST).await.is_none()
}

/// Returns a connection from the first node to the second one, as both ends see it.
async fn connection(listener: &TcpListener) -> [TcpStream; 2] {
    let to = SocketAddr::from((address(1), PORT));
    let client = at(0, move || TcpStream::connect_timeout(&to, WAIT).expect("connected")).await;
    let port = client.local_addr().expect("connected").port();
    // Those of others wait before it.
    let accepted = listener.incoming().map(|stream| stream.expect("accepted"));
    let server = { accepted }.find(|it| it.peer_addr().is_ok_and(|peer| peer.port() == port));
    [client, server.expect("it waits")]
}

async fn each_fault_in_turn(network: Arc<Network>) {
    let env = Env::new(RealWorld::temporary().expect("a folder"));
    let (carrier, of_carrier) = (Arc::clone(&network), env.clone());
    let carrying = async move { carrier.carry(&of_carrier).await.expect("carried") };
    let _carrying = env.spawn("carry", carrying).abort_on_drop();
    let listen = |nth| move || TcpListener::bind((address(nth), PORT)).expect("free");
    let (_first, second) = (at(0, listen(0)).await, at(1, listen(1)).await);
    let [from, to] = PLACES;
    let broken = |fault, link| network.break_line(fault, from, to, link).expect("broken");
    let mended = |fault| network.mend(fault, from, to).expect("mended");
    let clear = Link::default();

    assert!(is_whole(&env, [0, 1]).await);
    broken(0, Link { delay_ns: ns(LATE), ..clear });
    assert!(is_slow(&env).await);
    // A cut takes precedence, and leaves the delay.
    broken(1, Link::CUT);
    assert!(is_lost(&env).await);
    assert!(mended(1) > 0);
    assert!(is_slow(&env).await);
    assert!(mended(0) >= 2);
    assert!(is_whole(&env, [0, 1]).await && is_whole(&env, [1, 0]).await);

    let [mut client, mut server] = connection(&second).await;
    for (link, passes) in [
        (Link { loss_ppm: 1_000_000, ..clear }, false),
        (Link { syn_loss_ppm: 1_000_000, ..clear }, true),
        (Link { bytes_per_second: Some(20), ..clear }, false),
    ] {
        broken(2, link);
        assert!(is_lost(&env).await, "{link:?}");
        // What was made before hears of lost packets and of a narrow line later.
        client.write_all(b"word").expect("sent");
        let heard = at(1, move || {
            server.set_read_timeout(Some(LOST)).expect("set");
            let heard = server.read(&mut [0; 4]).is_ok();
            (server, heard)
        });
        let heard = heard.await;
        server = heard.0;
        assert_eq!(heard.1, passes, "{link:?}");
        assert!(mended(2) > 0, "{link:?}");
        if !passes {
            let heard = at(1, move || {
                server.set_read_timeout(Some(WAIT)).expect("set");
                server.read_exact(&mut [0; 4]).expect("it is sent again");
                server
            });
            server = heard.await;
        }
    }
    assert!(is_whole(&env, [0, 1]).await);
}

#[test]
fn line_is_slow_narrow_lossy_or_cut_while_its_fault_stands() {
    // The thread of the network stays in its namespace. What is skipped names its thread.
    let name = thread::current().name().unwrap_or_default().to_owned();
    let test = thread::Builder::new().name(name).spawn(|| {
        let Some(network) = network() else { return };
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(each_fault_in_turn(Arc::new(network)));
    });
    test.expect("a thread").join().expect("no panic");
}

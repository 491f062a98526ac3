//! Lines that are broken, seen by connections between two namespaces.
#![expect(
    clippy::disallowed_methods,
    reason = "a thread is in one namespace: each needs one of its own"
)]

use std::{
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

/// Returns how long a connection from the first node to the second one took to be made.
async fn connected(env: &Env, within: Duration) -> Option<Duration> {
    let env = env.clone();
    at(0, move || {
        let from = env.now();
        let to = SocketAddr::from((address(1), PORT));
        TcpStream::connect_timeout(&to, within).ok().map(|_| env.now().since(from))
    })
    .await
}

async fn is_slow(env: &Env) -> bool {
    connected(env, WAIT).await.expect("connected") >= LATE
}

/// Returns whether one of a few connections is fast: a busy machine may hold one up.
async fn is_whole(env: &Env) -> bool {
    for _ in 0..5 {
        if !is_slow(env).await {
            return true;
        }
    }
    false
}

async fn is_lost(env: &Env) -> bool {
    connected(env, LOST).await.is_none()
}

async fn each_fault_in_turn(network: Arc<Network>) {
    let env = Env::new(RealWorld::temporary().expect("a folder"));
    let (carrier, of_carrier) = (Arc::clone(&network), env.clone());
    let carrying = async move { carrier.carry(&of_carrier).await.expect("carried") };
    let _carrying = env.spawn("carry", carrying).abort_on_drop();
    let _listener = at(1, || TcpListener::bind((address(1), PORT)).expect("free")).await;
    let [from, to] = PLACES;
    let broken = |fault, link| network.break_line(fault, from, to, link).expect("broken");
    let mended = |fault| network.mend(fault, from, to).expect("mended");
    let clear = Link::default();

    assert!(is_whole(&env).await);
    broken(0, Link { delay_ns: ns(LATE), ..clear });
    assert!(is_slow(&env).await);
    // A cut goes before, and leaves the delay.
    broken(1, Link::CUT);
    assert!(is_lost(&env).await);
    assert!(mended(1) > 0);
    assert!(is_slow(&env).await);
    assert!(mended(0) >= 2);
    assert!(is_whole(&env).await);

    for link in [
        Link { loss_ppm: 1_000_000, ..clear },
        Link { syn_loss_ppm: 1_000_000, ..clear },
        Link { bytes_per_second: Some(20), ..clear },
    ] {
        broken(2, link);
        assert!(is_lost(&env).await, "{link:?}");
        assert!(mended(2) > 0, "{link:?}");
    }
    assert!(is_whole(&env).await);
}

#[test]
fn line_is_slow_narrow_lossy_or_cut_while_its_fault_stands() {
    // The thread of the network stays in its namespace.
    let test = thread::spawn(|| {
        let Some(network) = network() else { return };
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(each_fault_in_turn(Arc::new(network)));
    });
    test.join().expect("no panic");
}

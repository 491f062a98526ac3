//! Expulsion of workers: an operator asks for it, and the expelled machines try to come back.
//!
//! ```text
//!  masters asked in turn ─► confirmed ── old identity ── wiped: new identity, old token ─► undone
//!                                       TRIES_AS_ITSELF
//! ```
//!
//! 1. It bites when a master has confirmed every expulsion. Until then the operator goes on asking,
//!    another master each time.
//! 2. A machine comes back under its old join token only after its expulsion was confirmed: what a token
//!    enrolled before stays.
//! 3. When it is undone, the machines are set up as new ones: a new identity, and a token of its own
//!    for each.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chatchat::{
    client::{Api, Limits, Request},
    env::Env,
    model::ids::NodeId,
};
use chatchat_scenarios::{
    plan::Plan,
    target::{Place, Target},
    workload::Admin,
};
use dst_world::Seed;

use crate::deployment::{Begun, Deployment, FaultId};

/// Time for which an expelled machine tries with its old identity: longer than masters may take to
/// follow, or nobody would see that one does not.
const TRIES_AS_ITSELF: Duration = Duration::from_secs(12);
/// Pause between two requests of the operator.
const ASKS_EVERY: Duration = Duration::from_millis(500);
/// Name of the operator's tasks.
const TASK: &str = "operator";

/// State of an expulsion.
#[derive(Default)]
struct Expulsion {
    is_confirmed: AtomicBool,
    is_over: AtomicBool,
}

/// Begins to expel the workers of a target.
pub(super) fn begin<D: Deployment>(
    on: &Arc<D>,
    plan: &Plan,
    nth: FaultId,
    target: &Target,
) -> Begun<D> {
    let mut places = on.places_of(std::slice::from_ref(target));
    places.retain(|place| matches!(place, Place::Worker(_)));
    let expulsion = Arc::new(Expulsion::default());
    let mut rng = Seed(plan.seed).stream(&format!("faults/expel/{}", plan.label_of(nth)));
    let first = rng.index(plan.cluster.masters);
    let carries_out = carry_out(Arc::clone(on), places.clone(), first, Arc::clone(&expulsion));
    on.supervise(Box::pin(carries_out));
    Begun::until(move |on: &Arc<D>| {
        expulsion.is_over.store(true, Ordering::SeqCst);
        for place in &places {
            on.invite(*place);
            renew(on, *place);
        }
        expulsion.is_confirmed.load(Ordering::SeqCst)
    })
}

async fn carry_out<D: Deployment>(
    on: Arc<D>,
    places: Vec<Place>,
    first: usize,
    expulsion: Arc<Expulsion>,
) {
    if places.is_empty() {
        return;
    }
    let env = on.operator().await;
    let operator = env.clone();
    // As a task of its own machine, whose network it uses.
    env.spawn(TASK, async move {
        for place in &places {
            if !expel(&*on, &operator, *place, first, &expulsion).await {
                return;
            }
        }
        expulsion.is_confirmed.store(true, Ordering::SeqCst);
        operator.sleep(TRIES_AS_ITSELF).await;
        for place in places {
            if expulsion.is_over.load(Ordering::SeqCst) {
                return;
            }
            on.note("disguised", &[("place", place.to_string().into())]);
            renew(&on, place);
        }
    });
}

/// Empties a machine's disk and starts it again: as a node that nobody knows.
fn renew<D: Deployment>(on: &Arc<D>, place: Place) {
    on.wipe(place);
    on.start_again(place);
}

/// Asks one master after the other until one confirms. False when the fault is over before.
async fn expel<D: Deployment>(
    on: &D,
    operator: &Env,
    place: Place,
    first: usize,
    expulsion: &Expulsion,
) -> bool {
    let masters = on.admins();
    for master in masters.iter().cycle().skip(first) {
        if expulsion.is_over.load(Ordering::SeqCst) {
            return false;
        }
        if let Some(node) = on.node_at(place)
            && is_expelled(operator, master, node).await
        {
            let members = [
                ("place", place.to_string().into()),
                ("node", node.to_string().into()),
                ("by", master.url.clone().into()),
            ];
            on.note("expelled", &members);
            return true;
        }
        operator.sleep(ASKS_EVERY).await;
    }
    false
}

async fn is_expelled(operator: &Env, master: &Admin, node: NodeId) -> bool {
    let token = Some(master.token.clone());
    let mut api = Api::new(operator, &master.url, token, Limits::default());
    api.call(&Request::Expel { node }).await.is_ok()
}

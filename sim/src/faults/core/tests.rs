//! The core in a simulated cluster: what stays broken around it, and that nothing is left behind.

use std::{collections::BTreeSet, fmt::Write as _, sync::Arc};

use chatchat_scenarios::{plan::Plan, story::Story};
use dst_world::{Setup, simulate};

use super::*;
use crate::cluster::Cluster;

const SECOND: Duration = Duration::from_secs(1);
const NODES: [Place; 6] = [
    Place::Master(0),
    Place::Master(1),
    Place::Master(2),
    Place::Worker(0),
    Place::Worker(1),
    Place::Worker(2),
];

fn plan(faults: &str, seed: u64) -> Plan {
    let text = format!(
        "about = \"\"\nduration = \"20s\"\n[cluster]\nmasters = 3\nworkers = 3\n\
         [workload]\npeople = 2\n{faults}\
         [expect]\npromises = [\"G3\"]\ncore = true\n"
    );
    Plan::expand(&Story::parse("core", &text).expect("a story"), seed)
}

/// Returns by how much the wall clock of a place is ahead of virtual time, in milliseconds.
fn ahead_ms(cluster: &Cluster, place: Place) -> u64 {
    let world = cluster.world();
    let elapsed = u64::try_from(world.elapsed().as_millis()).expect("a short run");
    world.wall(cluster.host(place)).ms - elapsed
}

/// Returns whether a node is broken in any way, a second later. Its wall clock was once so far ahead.
async fn is_broken(cluster: &Cluster, place: Place, right_ms: u64) -> bool {
    let (world, host) = (cluster.world(), cluster.host(place));
    let before = ahead_ms(cluster, place);
    world.sleep(SECOND).await;
    let others = cluster.everything().into_iter().filter(|other| *other != place);
    let mut others = others.map(|other| cluster.host(other));
    before.abs_diff(right_ms) > 250
        || ahead_ms(cluster, place).abs_diff(before) > 5
        || !cluster.is_at_work(place)
        || world.disk_may_refuse(host)
        || world.is_slow(host)
        || others.any(|other| world.line_faults(host, other) + world.line_faults(other, host) > 0)
}

#[test]
fn node_that_is_broken_in_any_way_is_whole_when_the_core_ends() {
    let plan = plan("", 1);
    simulate(Setup::new(plan.seed), async |world| {
        let cluster = Cluster::new(&world, &plan).expect("SQLite works in memory");
        cluster.start();
        world.sleep(3 * SECOND).await;
        let faults = Faults::start(&cluster, &plan);
        let mut rng = Seed(plan.seed).stream("test");
        for way in LOST.into_iter().chain(HURT) {
            for place in [NODES[1], NODES[4]] {
                let right_ms = ahead_ms(&cluster, place);
                faults.break_for_good("test", &way.action(place, &mut rng));
                assert!(is_broken(&cluster, place, right_ms).await, "{way:?} of {place}");
                faults.end_core();
                assert!(!is_broken(&cluster, place, right_ms).await, "{way:?} of {place}");
                assert!(faults.state().around_core.is_empty(), "it is undone once");
            }
        }
    });
}

/// Returns the faults of a story, and of each the nodes that must be in a core for it to touch it.
fn faults_and_nodes() -> (String, Vec<Vec<Place>>) {
    let (mut text, mut nodes) = (String::new(), Vec::new());
    let mut add = |at: u64, keys: String, needs: &[Place]| {
        writeln!(text, "[[fault]]\nat = \"{at}s\"\n{keys}").expect("a string takes it");
        nodes.push(needs.to_vec());
    };
    for place in NODES {
        // They would end in the time of the core.
        let slow = format!("kind = \"slow\"\ntarget = \"{place}\"\nfactor = 2.0\nfor = \"6s\"");
        add(1, slow, &[place]);
        let cut = format!("kind = \"partition\"\nfrom = \"{place}\"\nto = \"store\"");
        add(2, cut, &[place]);
    }
    for master in &NODES[..3] {
        let late =
            format!("kind = \"delay\"\nfrom = \"person:*\"\nto = \"{master}\"\nby = \"9ms\"");
        add(2, late, &[*master]);
        for worker in &NODES[3..] {
            let lossy =
                format!("kind = \"loss\"\nfrom = \"{worker}\"\nto = \"{master}\"\nrate = 0.01");
            add(2, lossy, &[*master, *worker]);
        }
    }
    add(2, "kind = \"clock_offset\"\ntarget = \"person:0\"\nby = \"1s\"".to_owned(), &[]);
    add(2, "kind = \"store_conflict\"\nrate = 0.1".to_owned(), &[]);
    (text, nodes)
}

#[test]
fn fault_outside_of_the_core_stays_on_until_it_ends_and_one_that_touches_it_is_healed() {
    let (text, nodes) = faults_and_nodes();
    for seed in 1..4 {
        let late = "[[fault]]\nat = \"12s\"\nkind = \"pause\"\ntarget = \"worker:*\"\n";
        let plan = plan(&format!("{text}{late}"), seed);
        assert_eq!(plan.faults.len(), nodes.len() + 1, "and the one that never begins");
        simulate(Setup::new(plan.seed), async |world| {
            let cluster = Cluster::new(&world, &plan).expect("SQLite works in memory");
            cluster.start();
            world.sleep(3 * SECOND).await;
            let right = NODES.map(|place| ahead_ms(&cluster, place));
            let faults = Faults::start(&cluster, &plan);
            world.sleep(5 * SECOND).await;
            let core = faults.leave_core().expect("it has workers");
            let is_in = |place: &Place| [core.master, core.worker].contains(place);
            for (place, right_ms) in NODES.into_iter().zip(right) {
                let is_whole = cluster.is_at_work(place)
                    && !world.is_slow(cluster.host(place))
                    && ahead_ms(&cluster, place).abs_diff(right_ms) < 250;
                assert!(is_whole || !is_in(&place), "{place} of {core}");
            }
            world.sleep(8 * SECOND).await;
            let incidents = faults.incidents();
            for (nth, needs) in nodes.iter().enumerate() {
                let mut of_it = incidents.iter().filter(|incident| incident.fault == nth);
                let until = of_it.next().expect("it began").until;
                let fault = &plan.faults[nth];
                assert_eq!(until.is_some(), needs.iter().all(is_in), "{fault}, beside {core}");
            }
            let begun: BTreeSet<_> = incidents.iter().map(|incident| incident.fault).collect();
            assert!(!begun.contains(&nodes.len()), "it is over: no fault begins");
            let around = incidents.iter().filter(|it| it.fault >= plan.core_number());
            assert!(around.clone().count() > 0 && around.clone().all(|it| it.until.is_none()));
            faults.end_core();
            all_is_over(&faults);
        });
    }
}

fn all_is_over(faults: &Arc<Faults<Cluster>>) {
    assert!(faults.incidents().iter().all(|incident| incident.until.is_some()));
    let (state, cluster) = (faults.state(), &faults.on);
    assert!(state.active.is_empty() && state.around_core.is_empty());
    let world = cluster.world();
    let everything = cluster.everything();
    for place in &everything {
        let host = cluster.host(*place);
        assert!(cluster.is_at_work(*place), "{place} runs");
        assert!(!world.is_slow(host) && !world.disk_may_refuse(host), "{place} is whole");
        for other in &everything {
            assert_eq!(world.line_faults(host, cluster.host(*other)), 0, "{place} to {other}");
        }
    }
}

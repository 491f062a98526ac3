//! Network of a real cluster whose lines can be broken: a namespace per node, joined by a bridge.
//!
//! ```text
//!  namespace of master0          hub: this thread, the people           namespace of worker0
//!    eth0 ── veth ────────────────── bridge br0 ──────────────────── veth ── eth0
//!                                    │     │
//!                                holes     detour
//! ```
//!
//! Every node knows the hardware address of each other by a fixed entry. A cut of one direction
//! gives the sender the address of a *hole* instead, a port behind which nobody listens: packets
//! leave and nobody ever hears of them, as on a line that is cut. A line that is slow, narrow or lossy gives it
//! that of the *detour*, where this program carries them. A cut takes precedence.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Write},
    os::fd::AsFd,
    path::Path,
    process::{Command, Stdio, id},
    sync::{Mutex, MutexGuard, PoisonError},
};

use chatchat::env::Env;
use chatchat_scenarios::{fault::Kind, target::Place};
use dst_world::{Link, Seed};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

use super::{
    detour::{self, Detour},
    frame::{self, Hardware, address, hardware, text},
};
use crate::deployment::FaultId;

/// Folder in which `ip` keeps the namespaces that have a name.
const NAMES: &str = "/run/netns";
/// Beginning of the names of namespaces, before the number of the process that made them.
const PREFIX: &str = "chatchat-sim-";

/// Namespaces of one run. They go away with it.
pub(super) struct Network {
    /// Nodes in the order of their addresses.
    places: Vec<Place>,
    cuts: Mutex<Cuts>,
    /// Detour, if the plan has lines that are slow, narrow or lossy.
    detour: Option<Detour>,
}

#[derive(Default)]
struct Cuts {
    /// Faults that cut each direction.
    standing: BTreeMap<(usize, usize), BTreeSet<FaultId>>,
    /// Number of the hole of each fault.
    holes: BTreeMap<FaultId, usize>,
}

impl Network {
    /// Returns whether a kind of fault needs lines that can be broken.
    pub(super) const fn is_needed_for(kind: Kind) -> bool {
        matches!(kind, Kind::Partition) || is_detour(kind)
    }

    /// Returns why no line can be given a kind of fault here, if that is known before it is tried.
    pub(super) fn obstacle(kind: Kind) -> Option<&'static str> {
        if !Self::is_needed_for(kind) {
            return None;
        }
        if !rustix::process::geteuid().is_root() {
            return Some("network namespaces need root");
        }
        let is_there = |tool: &&str| {
            let mut asked = Command::new(tool);
            asked.arg("-V").stdout(Stdio::null()).stderr(Stdio::null());
            asked.status().is_ok_and(|status| status.success())
        };
        if !["ip", "bridge"].iter().all(is_there) {
            return Some("network namespaces need the programs `ip` and `bridge`");
        }
        // To open it changes nothing.
        let opens = || File::options().read(true).write(true).open(detour::DEVICE).is_ok();
        (is_detour(kind) && !opens())
            .then_some("packets take a detour through /dev/net/tun, which cannot be opened")
    }

    /// Makes the namespaces and moves this thread into the one in the middle: sockets that it
    /// opens from now on, and processes that it starts, are there.
    ///
    /// # Errors
    /// The message of the system. Namespaces that were made are removed.
    pub(super) fn new(places: Vec<Place>, kinds: &[Kind], seed: Seed) -> Result<Self, String> {
        if places.len() > frame::NODES_MAX {
            return Err(format!("at most {} nodes have namespaces", frame::NODES_MAX));
        }
        remove_left_behind();
        let mut it = Self { places, cuts: Mutex::default(), detour: None };
        it.make()?;
        if kinds.iter().any(|kind| is_detour(*kind)) {
            it.detour = Some(it.make_detour(seed)?);
        }
        Ok(it)
    }

    fn make(&self) -> Result<(), String> {
        let hub = hub();
        run("ip", &["netns", "add", &hub], "")?;
        quiet(&hub)?;
        batch(
            &hub,
            "link set lo up\nlink add br0 type bridge\nlink set br0 address 02:00:00:00:ff:fe\n\
                     addr add 10.0.0.254/24 dev br0\nlink set br0 up\n",
        )?;
        for nth in 0..self.places.len() {
            let name = namespace(nth);
            run("ip", &["netns", "add", &name], "")?;
            quiet(&name)?;
            batch(
                &hub,
                &format!(
                    "link add v{nth} type veth peer name eth0 netns {name}\n\
                                  link set v{nth} master br0 up\n"
                ),
            )?;
            let mut lines = format!(
                "link set lo up\nlink set eth0 address {}\n\
                                     addr add {}/24 dev eth0\nlink set eth0 up\n\
                                     neigh replace 10.0.0.254 lladdr 02:00:00:00:ff:fe dev eth0 nud permanent\n",
                text(hardware(nth)),
                address(nth)
            );
            for other in (0..self.places.len()).filter(|other| *other != nth) {
                lines.push_str(&neighbour(other, hardware(other)));
            }
            batch(&name, &lines)?;
            batch(
                &hub,
                &format!(
                    "neigh replace {} lladdr {} dev br0 nud permanent\n",
                    address(nth),
                    text(hardware(nth))
                ),
            )?;
            forward(hardware(nth), &format!("v{nth}"))?;
        }
        let file =
            File::open(Path::new(NAMES).join(&hub)).map_err(|why| format!("{hub}: {why}"))?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|why| format!("{hub} cannot be entered: {why}"))
    }

    /// Makes the detour, in the namespace of this thread.
    fn make_detour(&self, seed: Seed) -> Result<Detour, String> {
        let names = self.places.iter().map(Place::to_string);
        let detour = Detour::new(seed, names);
        let detour = detour.map_err(|why| format!("{}: {why}", detour::DEVICE))?;
        batch(&hub(), &format!("link set {} master br0 up\n", detour::PORT))?;
        forward(frame::DETOUR, detour::PORT)?;
        Ok(detour)
    }

    /// Carries packets on the detour, if there is one, for as long as it is polled.
    ///
    /// # Errors
    /// The system's, after which those packets are lost.
    pub(super) async fn carry(&self, env: &Env) -> io::Result<()> {
        match &self.detour {
            Some(detour) => detour.carry(env).await,
            None => Ok(()),
        }
    }

    /// Returns the address of a node, and the name of its namespace.
    pub(super) fn node(&self, place: Place) -> Option<(String, String)> {
        let nth = self.number(place)?;
        Some((address(nth).to_string(), namespace(nth)))
    }

    fn number(&self, place: Place) -> Option<usize> {
        self.places.iter().position(|other| *other == place)
    }

    fn cuts(&self) -> MutexGuard<'_, Cuts> {
        self.cuts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ends(&self, from: Place, to: Place) -> Result<(usize, usize), String> {
        let nodes = self.number(from).zip(self.number(to));
        nodes.ok_or_else(|| format!("{from} or {to} has no namespace"))
    }

    /// Breaks one direction.
    ///
    /// # Errors
    /// The message of the system. The fault may stand all the same, until it is mended.
    pub(super) fn break_line(
        &self,
        fault: FaultId,
        from: Place,
        to: Place,
        link: Link,
    ) -> Result<(), String> {
        let ends = self.ends(from, to)?;
        let mut cuts = self.cuts();
        if link.cut {
            if !cuts.holes.contains_key(&fault) {
                let hole = cuts.holes.len();
                make_hole(hole)?;
                cuts.holes.insert(fault, hole);
            }
            cuts.standing.entry(ends).or_default().insert(fault);
        } else {
            let detour = self.detour.as_ref().ok_or("no detour was made for this plan")?;
            detour.begin(ends, fault, link);
        }
        self.route(&cuts, ends)
    }

    /// Ends the fault on one direction, and returns how many packets it touched. Those that went into a hole
    /// are counted for all directions of the fault.
    pub(super) fn mend(&self, fault: FaultId, from: Place, to: Place) -> Result<u64, String> {
        let Ok(ends) = self.ends(from, to) else { return Ok(0) };
        let mut cuts = self.cuts();
        let was_cut = cuts.standing.get_mut(&ends).is_some_and(|cut| cut.remove(&fault));
        let on_detour = self.detour.as_ref().map_or(0, |detour| detour.end(ends, fault));
        self.route(&cuts, ends)?;
        match cuts.holes.get(&fault) {
            Some(hole) if was_cut => swallowed(*hole),
            _ => Ok(on_detour),
        }
    }

    /// Tells the sender of a direction where its packets go now.
    fn route(&self, cuts: &Cuts, (from, to): (usize, usize)) -> Result<(), String> {
        let cut = cuts.standing.get(&(from, to)).and_then(BTreeSet::last);
        let hole = cut.and_then(|fault| cuts.holes.get(fault));
        let takes_detour = self.detour.as_ref().is_some_and(|detour| detour.stands((from, to)));
        let address = match hole {
            Some(hole) => of_hole(*hole),
            None if takes_detour => frame::DETOUR,
            None => hardware(to),
        };
        batch(&namespace(from), &neighbour(to, address))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in (0..self.places.len()).map(namespace).chain([hub()]) {
            // One that was never made is not there.
            let _ = run("ip", &["netns", "del", &name], "");
        }
    }
}

fn hub() -> String {
    format!("{PREFIX}{}-hub", id())
}

fn namespace(nth: usize) -> String {
    format!("{PREFIX}{}-{nth}", id())
}

/// Returns whether packets of lines with such a fault take the detour.
const fn is_detour(kind: Kind) -> bool {
    matches!(kind, Kind::Delay | Kind::Bandwidth | Kind::Loss | Kind::ConnectHang)
}

/// Returns the hardware address of a hole.
fn of_hole(nth: usize) -> Hardware {
    // More would stand under no plan.
    let [.., high, low] = nth.to_be_bytes();
    [2, 0, 0, 1, high, low]
}

fn neighbour(nth: usize, to: Hardware) -> String {
    format!("neigh replace {} lladdr {} dev eth0 nud permanent\n", address(nth), text(to))
}

/// Makes a port behind which nobody listens.
fn make_hole(hole: usize) -> Result<(), String> {
    let hardware = of_hole(hole);
    batch(
        &hub(),
        &format!(
            "link add h{hole} type veth peer name p{hole}\n\
             link set h{hole} address {} arp off up\n\
             link set p{hole} master br0 up\n",
            text(hardware)
        ),
    )?;
    forward(hardware, &format!("p{hole}"))
}

/// Lets the bridge send what goes to a hardware address to one port, and never elsewhere.
fn forward(hardware: Hardware, port: &str) -> Result<(), String> {
    let (hub, hardware) = (hub(), text(hardware));
    let entry = ["fdb", "replace", &hardware, "dev", port, "master", "static"];
    run("bridge", &[&["-n", &hub], &entry[..]].concat(), "")
}

/// Switches off what would send packets of its own into a hole.
fn quiet(namespace: &str) -> Result<(), String> {
    let settings = "net.ipv6.conf.all.disable_ipv6=1\nnet.ipv6.conf.default.disable_ipv6=1\n";
    // A kernel without IPv6 has none of them.
    let _ = run("ip", &["netns", "exec", namespace, "sysctl", "-q", "-p", "-"], settings);
    Ok(())
}

/// Returns how many packets a hole has swallowed.
fn swallowed(hole: usize) -> Result<u64, String> {
    let name = format!("h{hole}");
    let text = said("ip", &["-n", &hub(), "-s", "-j", "link", "show", &name], "")?;
    let links: Value = serde_json::from_str(&text).map_err(|why| format!("{name}: {why}"))?;
    Ok(links[0]["stats64"]["rx"]["packets"].as_u64().unwrap_or_default())
}

/// Removes the namespaces of runs that were killed.
fn remove_left_behind() {
    let names = fs::read_dir(NAMES).into_iter().flatten().flatten();
    for name in names.filter_map(|entry| entry.file_name().into_string().ok()) {
        let Some(process) = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next())
        else {
            continue;
        };
        if !Path::new("/proc").join(process).exists() {
            // Somebody else may remove it at the same time.
            let _ = run("ip", &["netns", "del", &name], "");
        }
    }
}

fn batch(namespace: &str, lines: &str) -> Result<(), String> {
    run("ip", &["-n", namespace, "-batch", "-"], lines)
}

fn run(program: &str, arguments: &[&str], input: &str) -> Result<(), String> {
    said(program, arguments, input).map(drop)
}

fn said(program: &str, arguments: &[&str], input: &str) -> Result<String, String> {
    let failed = |why: String| format!("{program} {}: {why}", arguments.join(" "));
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|why| failed(why.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).map_err(|why| failed(why.to_string()))?;
    }
    let output = child.wait_with_output().map_err(|why| failed(why.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

//! Network of a real cluster whose lines can be cut: a namespace per node, joined by a bridge.
//!
//! ```text
//!  namespace of master0          hub: this thread, the people           namespace of worker0
//!    eth0 ── veth ────────────────── bridge br0 ──────────────────── veth ── eth0
//!                                       │
//!                                     holes
//! ```
//!
//! Every node knows the hardware address of each other by a fixed entry. A cut of one direction
//! gives the sender the address of a *hole* instead, a port behind which nobody listens: packets
//! leave and nobody ever hears of them, as on a line that is cut. Only `ip` and `bridge` are needed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::Write,
    os::fd::AsFd,
    path::Path,
    process::{Command, Stdio, id},
    sync::{Mutex, MutexGuard, PoisonError},
};

use chatchat_scenarios::target::Place;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

use crate::deployment::FaultId;

/// Folder in which `ip` keeps the namespaces that have a name.
const NAMES: &str = "/run/netns";
/// Beginning of the names of namespaces, before the number of the process that made them.
const PREFIX: &str = "chatchat-sim-";

/// Namespaces of one run. They go away with it.
#[derive(Debug)]
pub(super) struct Network {
    /// Nodes in the order of their addresses.
    places: Vec<Place>,
    cuts: Mutex<Cuts>,
}

#[derive(Debug, Default)]
struct Cuts {
    /// Faults that cut each direction.
    standing: BTreeMap<(Place, Place), BTreeSet<FaultId>>,
    /// Number of the hole of each fault.
    holes: BTreeMap<FaultId, usize>,
}

impl Network {
    /// Returns why no network can be made here, if that is known before it is tried.
    pub(super) fn obstacle() -> Option<&'static str> {
        let has_tools = ["ip", "bridge"].iter().all(|tool| {
            let mut asked = Command::new(tool);
            asked.arg("-V").stdout(Stdio::null()).stderr(Stdio::null());
            asked.status().is_ok_and(|status| status.success())
        });
        match (rustix::process::geteuid().is_root(), has_tools) {
            (false, _) => Some("network namespaces need root"),
            (_, false) => Some("network namespaces need the programs `ip` and `bridge`"),
            (true, true) => None,
        }
    }

    /// Makes the namespaces and moves this thread into the one in the middle: sockets that it
    /// opens from now on, and processes that it starts, are there.
    ///
    /// # Errors
    /// The message of the system. Namespaces that were made are removed.
    pub(super) fn new(places: Vec<Place>) -> Result<Self, String> {
        remove_left_behind();
        let it = Self { places, cuts: Mutex::default() };
        it.make()?;
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
                hardware(nth),
                address(nth)
            );
            for other in (0..self.places.len()).filter(|other| *other != nth) {
                lines.push_str(&neighbour(other, &hardware(other)));
            }
            batch(&name, &lines)?;
            batch(
                &hub,
                &format!(
                    "neigh replace {} lladdr {} dev br0 nud permanent\n",
                    address(nth),
                    hardware(nth)
                ),
            )?;
            self.forward(&hardware(nth), &format!("v{nth}"))?;
        }
        let file =
            File::open(Path::new(NAMES).join(&hub)).map_err(|why| format!("{hub}: {why}"))?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|why| format!("{hub} cannot be entered: {why}"))
    }

    /// Lets the bridge send what goes to a hardware address to one port, and never elsewhere.
    fn forward(&self, hardware: &str, port: &str) -> Result<(), String> {
        run(
            "bridge",
            &["-n", &hub(), "fdb", "replace", hardware, "dev", port, "master", "static"],
            "",
        )
    }

    /// Returns the address of a node, and the name of its namespace.
    pub(super) fn node(&self, place: Place) -> Option<(String, String)> {
        let nth = self.number(place)?;
        Some((address(nth), namespace(nth)))
    }

    fn number(&self, place: Place) -> Option<usize> {
        self.places.iter().position(|other| *other == place)
    }

    fn cuts(&self) -> MutexGuard<'_, Cuts> {
        self.cuts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts one direction.
    ///
    /// # Errors
    /// The message of the system; the line is as it was.
    pub(super) fn cut(&self, fault: FaultId, from: Place, to: Place) -> Result<(), String> {
        let (Some(from_nth), Some(to_nth)) = (self.number(from), self.number(to)) else {
            return Err(format!("{from} or {to} has no namespace"));
        };
        let mut cuts = self.cuts();
        let next = cuts.holes.len();
        let hole = *cuts.holes.entry(fault).or_insert(next);
        if hole == next {
            batch(
                &hub(),
                &format!(
                    "link add h{hole} type veth peer name p{hole}\n\
                                    link set h{hole} address {} arp off up\n\
                                    link set p{hole} master br0 up\n",
                    of_hole(hole)
                ),
            )?;
            self.forward(&of_hole(hole), &format!("p{hole}"))?;
        }
        batch(&namespace(from_nth), &neighbour(to_nth, &of_hole(hole)))?;
        cuts.standing.entry((from, to)).or_default().insert(fault);
        Ok(())
    }

    /// Ends a cut of one direction, and returns how many packets went into the fault's hole.
    pub(super) fn mend(&self, fault: FaultId, from: Place, to: Place) -> Result<u64, String> {
        let (Some(from_nth), Some(to_nth)) = (self.number(from), self.number(to)) else {
            return Ok(0);
        };
        let mut cuts = self.cuts();
        let Some(standing) = cuts.standing.get_mut(&(from, to)) else { return Ok(0) };
        if !standing.remove(&fault) {
            return Ok(0);
        }
        let other = standing.last().copied();
        let hole_of = |fault: &FaultId| cuts.holes.get(fault).copied();
        let now_at = other.as_ref().and_then(hole_of).map_or_else(|| hardware(to_nth), of_hole);
        batch(&namespace(from_nth), &neighbour(to_nth, &now_at))?;
        hole_of(&fault).map_or(Ok(0), swallowed)
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

fn address(nth: usize) -> String {
    format!("10.0.0.{}", nth + 1)
}

fn hardware(nth: usize) -> String {
    format!("02:00:00:00:00:{:02x}", nth + 1)
}

fn of_hole(nth: usize) -> String {
    format!("02:00:00:01:{:02x}:{:02x}", nth >> 8 & 0xff, nth & 0xff)
}

fn neighbour(nth: usize, hardware: &str) -> String {
    format!("neigh replace {} lladdr {hardware} dev eth0 nud permanent\n", address(nth))
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

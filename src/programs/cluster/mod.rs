//! Program `chatchat-cluster`: a cluster on one machine, each node a process of its own, all on
//! one store.
//!
//! The program starts itself again for each node. Nodes end with it, however it ends, because each
//! holds the other end of a pipe. The program follows the masters' event files, so that a stopped
//! or slow supervisor never holds up a node.
//!
//! 1. Identities, join tokens and settings are on disk before the first node starts.
//! 2. `DATA/cluster.json` lists the processes; it is replaced as a whole at each change.
//! 3. A node that ends before the cluster is ready ends the cluster. Later its end is only
//!    reported, and the node is started again under `--restart`.

mod child;
mod plan;
mod watch;

use std::{
    collections::BTreeSet, ffi::OsString, future::Future, io::Write, path::PathBuf, time::Duration,
};

use clap::Command;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime,
    signal::unix::{SignalKind, signal},
};

pub(crate) use self::plan::STORE_FILE;
use self::{
    child::Child,
    plan::{Plan, write_listing},
    watch::Names,
};
use super::{
    ProgramError, master, output,
    process::DirLock,
    settings::{
        Key, Settings, ValueKind,
        node::{TLS_CERT, TLS_KEY},
        with_keys,
    },
    worker,
};
use crate::{
    client::Trust,
    env::{Env, real::RealWorld},
    model::{
        event::Event,
        ids::{NodeId, Role},
        time::Mono,
    },
};

/// Keys of a cluster's own settings.
pub const KEYS: &[Key] = &[
    Key { name: "masters", kind: ValueKind::Count, help: "How many masters [default: 2]" },
    Key { name: "workers", kind: ValueKind::Count, help: "How many workers [default: 3]" },
    Key {
        name: "http_port",
        kind: ValueKind::Count,
        help: "Master i serves people on this + i, nodes on + 100 + i, operators on + 200 + i \
               [default: 8080]",
    },
    Key { name: "data_dir", kind: ValueKind::Text, help: "Where all is kept [default: data]" },
    Key {
        name: "store",
        kind: ValueKind::Url,
        help: "The shared store, sqlite:PATH or postgres://USER@HOST/DATABASE \
               [default: sqlite:DATA_DIR/chatchat.db]",
    },
    TLS_CERT,
    TLS_KEY,
    Key { name: "restart", kind: ValueKind::Switch, help: "Start nodes again that end" },
    Key {
        name: "log",
        kind: ValueKind::Text,
        help: "What each node logs to DATA_DIR/NAME/log [default: info,chatchat::model::event=off]",
    },
];

/// Own settings of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterSettings {
    /// Number of masters, 1 to 100.
    pub masters: u16,
    /// Number of workers, 1 to 100.
    pub workers: u16,
    /// Port of the first master's front end.
    pub http_port: u16,
    /// Directory of the cluster, with one directory for each node.
    pub data_dir: PathBuf,
    /// Shared store, `sqlite:PATH` or a URL `postgres://..`; empty for a file in the directory.
    pub store: String,
    /// PEM file of the masters' certificate; none for plain HTTP.
    pub tls_cert: Option<PathBuf>,
    /// PEM file of the certificate's private key.
    pub tls_key: Option<PathBuf>,
    /// Whether nodes that end are started again.
    pub restart: bool,
    /// Filter of each node's log.
    pub log: String,
}

impl Default for ClusterSettings {
    fn default() -> Self {
        Self {
            masters: 2,
            workers: 3,
            http_port: 8080,
            data_dir: "data".into(),
            store: String::new(),
            tls_cert: None,
            tls_key: None,
            restart: false,
            // Events have a file of their own.
            log: "info,chatchat::model::event=off".to_owned(),
        }
    }
}

/// Runs the program `chatchat-cluster`, or one of its nodes.
///
/// # Errors
/// [`ProgramError`]; all nodes are stopped.
pub fn main(args: impl IntoIterator<Item = OsString>) -> Result<(), ProgramError> {
    let matches = command().try_get_matches_from(args)?;
    match matches.subcommand().and_then(|(_, node)| node.subcommand()) {
        Some(("master", matches)) => return master::start(matches),
        Some((_, matches)) => return worker::start(matches),
        None => {}
    }
    let told = Settings::of_matches(KEYS, &matches)?;
    let settings: ClusterSettings = told.own()?;
    let plan = Plan::new(&settings, &told.config)?;
    if told.check_only {
        return output::answer(&told.show(&settings)?);
    }
    let _lock = DirLock::take(&settings.data_dir)?;
    plan.check_ports()?;
    plan.check_tls()?;
    let runtime = runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| ProgramError::Failed(format!("no threads to run on: {e}")))?;
    let ended = runtime.block_on(async {
        let asked = asked_to_stop()?;
        let world = RealWorld::new(&settings.data_dir);
        let env = Env::new(world.map_err(|e| ProgramError::Usage(e.to_string()))?);
        let started = env.now();
        say(&format!("Starting {plan}"));
        tokio::select! {
            biased;
            () = asked => {
                say("stopped before it was ready");
                Ok(())
            }
            prepared = plan.prepare(&env) => {
                prepared?;
                Supervisor::new(env, plan, settings.restart, started).run().await
            }
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

fn command() -> Command {
    let nodes = Command::new("node")
        .hide(true)
        .subcommand_required(true)
        .subcommand(master::command("master"))
        .subcommand(worker::command("worker"));
    let command = Command::new("chatchat-cluster")
        .about("Chatchat on this machine: masters and workers as processes on one store")
        .disable_help_subcommand(true)
        .subcommand(nodes);
    with_keys(command, KEYS)
}

/// Returns a future that is ready at SIGINT or SIGTERM. Signals count from this call on.
fn asked_to_stop() -> Result<impl Future<Output = ()>, ProgramError> {
    let listen = |kind| signal(kind).map_err(|e| ProgramError::Failed(format!("signals: {e}")));
    let (mut interrupt, mut end) =
        (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            biased;
            _ = interrupt.recv() => {}
            _ = end.recv() => {}
        }
    })
}

/// Prints a line. A closed stdout is no reason to stop.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Supervisor of the nodes' processes.
struct Supervisor {
    env: Env,
    plan: Plan,
    restart: bool,
    started: Mono,
    children: Vec<Child>,
    names: Names,
    joined: BTreeSet<NodeId>,
    ready: bool,
}

impl Supervisor {
    /// Interval between two looks at processes and event files.
    const LOOK: Duration = Duration::from_millis(50);
    /// Time for nodes to end by themselves.
    const END: Duration = Duration::from_secs(5);
    /// Time after which a node counts as steady: if it ends then, the restart waits the least.
    const STEADY: Duration = Duration::from_secs(30);

    fn new(env: Env, plan: Plan, restart: bool, started: Mono) -> Self {
        let names = Names::new(&plan.nodes);
        Self {
            env,
            plan,
            restart,
            started,
            children: Vec::new(),
            names,
            joined: BTreeSet::new(),
            ready: false,
        }
    }

    /// Starts all nodes and watches until it is asked to stop.
    async fn run(mut self) -> Result<(), ProgramError> {
        let asked = asked_to_stop()?;
        let mut asked = std::pin::pin!(asked);
        let mut hang_ups = signal(SignalKind::hangup())
            .map_err(|e| ProgramError::Failed(format!("signals: {e}")))?;
        for node in &self.plan.nodes {
            self.children.push(Child::start(&self.plan.program, node, self.env.now())?);
        }
        self.list();
        let ended = loop {
            tokio::select! {
                biased;
                () = &mut asked => break Ok(()),
                _ = hang_ups.recv() => self.children.iter().for_each(Child::hang_up),
                looked = self.look() => if let Err(e) = looked { break Err(e) },
            }
        };
        say("stopping");
        self.stop().await;
        ended
    }

    async fn look(&mut self) -> Result<(), ProgramError> {
        self.env.sleep(Self::LOOK).await;
        self.look_at_processes()?;
        for at in 0..self.children.len() {
            for line in self.children[at].new_events() {
                self.show(at, &line);
            }
        }
        if !self.ready && self.joined.len() >= self.plan.workers() && self.masters_are_ready().await
        {
            self.ready = true;
            self.greet();
        }
        Ok(())
    }

    fn look_at_processes(&mut self) -> Result<(), ProgramError> {
        let now = self.env.now();
        let mut changed = false;
        for (child, node) in self.children.iter_mut().zip(&self.plan.nodes) {
            if let Some(how) = child.ended() {
                changed = true;
                let last = child.last_words();
                let line = format!("{} ended ({how}){last}", node.name);
                if !self.ready && !self.restart {
                    return Err(ProgramError::Failed(format!(
                        "{line}; see {}",
                        node.log().display()
                    )));
                }
                say(&line);
                if self.restart {
                    child.plan_restart(now, Self::STEADY);
                }
            }
            if child.is_due(now) {
                changed = true;
                match child.start_again(&self.plan.program, node, now) {
                    Ok(()) => say(&format!("{} is started again", node.name)),
                    Err(e) => {
                        say(&e.to_string());
                        child.put_off(now);
                    }
                }
            }
        }
        if changed {
            self.list();
        }
        Ok(())
    }

    /// Writes the listing. The nodes run without it, so a failure is only reported.
    fn list(&self) {
        let pids: Vec<_> = self.children.iter().map(Child::pid).collect();
        if let Err(e) = write_listing(&self.plan, &pids) {
            say(&e.to_string());
        }
    }

    fn show(&mut self, at: usize, line: &watch::Line) {
        // The master's events report its workers, so a worker's own events add nothing.
        if self.plan.nodes[at].role == Role::Worker {
            return;
        }
        if let Event::Join { node, .. } = line.event {
            self.joined.insert(node);
        }
        if let Some(sentence) = watch::sentence(&mut self.names, &self.plan.nodes[at].name, line) {
            let since = self.env.now().since(self.started).as_secs_f64();
            say(&format!("[{since:7.1}s] {sentence}"));
        }
    }

    async fn masters_are_ready(&self) -> bool {
        // A certificate that cannot be read just now may be half replaced.
        let Ok(trust) = self.plan.trust() else { return false };
        for node in &self.plan.nodes {
            let Some(addr) = &node.http else { continue };
            if !is_ready(&self.env, addr, trust.as_ref()).await {
                return false;
            }
        }
        true
    }

    fn greet(&self) {
        let took = self.env.now().since(self.started).as_secs_f64();
        say(&format!("Chatchat is ready after {took:.1} s. Chat at"));
        for node in &self.plan.nodes {
            if let Some(addr) = &node.http {
                say(&format!("  {}  ({})", self.plan.front_end(addr), node.name));
            }
        }
        say("Ctrl-C stops it.");
    }

    /// Asks all nodes to end, and kills those that do not.
    async fn stop(&mut self) {
        self.children.iter_mut().for_each(Child::ask_to_end);
        let until = self.env.now() + Self::END;
        while self.env.now() < until && self.children.iter_mut().any(Child::is_running) {
            self.env.sleep(Self::LOOK / 2).await;
        }
        self.children.iter_mut().for_each(Child::kill);
        // The processes are gone, so the listing must no longer show them.
        self.list();
        self.plan.copy_log_back();
    }
}

/// Returns whether a front end reports that it is ready.
async fn is_ready(env: &Env, addr: &str, trust: Option<&Trust>) -> bool {
    const WAIT: Duration = Duration::from_millis(500);
    const ASK: &[u8] = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let asked = async {
        let mut stream = env.connect(addr, WAIT).await.ok()?;
        if let Some(trust) = trust {
            stream = trust.connect(env, "localhost", stream, WAIT).await.ok()?;
        }
        stream.write_all(ASK).await.ok()?;
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.ok()?;
        Some(status == *b"HTTP/1.1 200")
    };
    matches!(env.timeout(WAIT, asked).await, Ok(Some(true)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_lists_the_settings_of_a_cluster() {
        let help = command().render_help().to_string();
        let (own, limits) = help.split_once("\nLimits and time-outs:").expect("both are there");
        assert!(limits.contains("--lease-ttl <VALUE>"), "{limits}");
        insta::assert_snapshot!(own, @r"
        Chatchat on this machine: masters and workers as processes on one store

        Usage: chatchat-cluster [OPTIONS]

        Options:
              --config <FILE>      A TOML file of the keys below
              --check-config       Show what all sources say together, and do nothing
              --masters <N>        How many masters [default: 2]
              --workers <N>        How many workers [default: 3]
              --http-port <N>      Master i serves people on this + i, nodes on + 100 + i, operators on + 200 + i [default: 8080]
              --data-dir <VALUE>   Where all is kept [default: data]
              --store <VALUE>      The shared store, sqlite:PATH or postgres://USER@HOST/DATABASE [default: sqlite:DATA_DIR/chatchat.db]
              --tls-cert <VALUE>   A PEM file with its certificate for https, then those that vouch for it [default: none]
              --tls-key <VALUE>    A PEM file with the certificate's private key, mode 0600 [default: none]
              --restart[=<VALUE>]  Start nodes again that end
              --log <VALUE>        What each node logs to DATA_DIR/NAME/log [default: info,chatchat::model::event=off]
          -h, --help               Print help
          -V, --version            Print version
        ");
    }
}

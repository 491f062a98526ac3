//! Process of one node, which runs until it is asked to stop.
//!
//! The process stops at SIGINT and SIGTERM: a master hands over first, and leaves at once when it is
//! asked again. A supervised one ignores SIGINT, which a terminal sends to all processes at once, and
//! stops at once when its stdin ends: its supervisor holds the other end, so that the node ends with
//! it.
//!
//! A panic in a part that the node needs ends the process with a line: a node with a dead part
//! would look alive to everybody else.

use std::{
    fs::{File, OpenOptions, TryLockError},
    future::pending,
    io::{self, IsTerminal},
    net::TcpListener,
    os::{fd::AsFd, unix::fs::MetadataExt},
    panic::AssertUnwindSafe,
    path::Path,
    time::Duration,
};

use clap::{Arg, ArgAction, Command};
use futures_util::FutureExt;
use tokio::{
    io::AsyncReadExt,
    net::unix::pipe,
    runtime,
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};
use tracing_subscriber::EnvFilter;

use super::{
    ProgramError,
    node_store::{StoreRights, open_store},
    output::{self, Flushed, LogWriter},
    service_manager,
    settings::node::StorePlace,
};
use crate::{
    comm::{
        handshake::GUARD_FILE,
        key_source::{GeneratedKeys, IDENTITY_FILE, load_or_make_identity},
    },
    config::Config,
    env::{
        Env,
        real::{
            LineQueue, RealWorld, ReopenEvents, make_private_dir, open_private, panic_message,
            raise_files_max, redirect_stderr,
        },
    },
    model::ids::{NodeId, Role},
    node::worker::LOGIN_FILE,
    store::{LoginSlot, Store},
};

/// Hidden flag of a node that ends with its supervisor.
pub(super) const SUPERVISED: &str = "supervised";

/// Hidden flag with the file that stderr is.
pub(super) const LOG_FILE: &str = "log-file";

/// Adds the flags [`SUPERVISED`] and [`LOG_FILE`].
pub(super) fn with_supervised(command: Command) -> Command {
    let help = "Stop when stdin ends, and leave SIGINT to who holds its other end";
    let flag = Arg::new(SUPERVISED).long(SUPERVISED).action(ArgAction::SetTrue).hide(true);
    let file = Arg::new(LOG_FILE).long(LOG_FILE).hide(true).value_name("FILE");
    command.arg(flag.help(help)).arg(file.help("The file that stderr is"))
}

/// Way in which a process is asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A master hands people and work over first, for at most `drain_timeout`.
    Drain,
    /// Leave at once: the others stop too.
    AtOnce,
}

/// Names of tasks that serve one peer or one request. A panic in one of them ends that connection
/// only, so that no stranger's input can end a node.
pub const OF_ONE_PEER: [&str; 5] =
    ["handshake", "http client", "http connection", "link", "serve-read"];

/// Place and manner in which a node runs, whichever role it has.
pub(super) struct NodeProcess<'a> {
    pub(super) role: Role,
    pub(super) data_dir: &'a Path,
    /// Place of the shared store.
    pub(super) store: StorePlace,
    /// Place of the store's login, if masters give it.
    pub(super) login: Option<LoginSlot>,
    /// File for event lines.
    pub(super) events: Option<&'a Path>,
    /// Filter of the log on stderr.
    pub(super) log: &'a str,
    pub(super) config: &'a Config,
    pub(super) supervised: bool,
    /// File that stderr is, to be opened anew when it was moved.
    pub(super) log_file: Option<&'a Path>,
    /// Reads the settings again, and returns what is logged and the keys that differ.
    pub(super) read_again: &'a (dyn Fn() -> Result<(String, Vec<String>), ProgramError> + Sync),
}

/// Opens the directory, the log and the world, and once `check` has passed the store, then runs
/// `node` in them until it ends or the process is asked to stop.
pub(super) fn run(
    process: &NodeProcess<'_>,
    check: impl AsyncFnOnce(&Env) -> Result<(), ProgramError>,
    node: impl AsyncFnOnce(Env, Store, mpsc::Receiver<Stop>) -> Result<(), ProgramError>,
) -> Result<(), ProgramError> {
    /// Time for a node that was asked to stop to take its leave.
    const GOODBYE: Duration = Duration::from_secs(3);
    /// Time for the node's threads to end.
    const END: Duration = Duration::from_secs(1);
    /// Most threads of a node: it runs a few tasks, and more threads only cost memory.
    const THREADS_MAX: usize = 4;

    let _lock = DirLock::take(process.data_dir)?;
    let (log, set_filter) = log_to_stderr(process.log)?;
    let mut lines = Flushed(vec![log.clone()]);
    let files_max = raise_files_max();
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .map_err(|e| ProgramError::Failed(format!("no threads to run on: {e}")))?;
    let ended = runtime.block_on(async {
        let mut asked = StopSignals::new(process.supervised)?;
        let (report, mut panics) = mpsc::channel(1);
        let mut hang_ups = signal(SignalKind::hangup())
            .map_err(|e| ProgramError::Failed(format!("signals: {e}")))?;
        let (env, id, queue, events) = world(process, log, report).await?;
        lines.0.extend(queue);
        check(&env).await?;
        let rights = match process.role {
            // A supervisor has made the store before it starts its nodes.
            Role::Master if process.supervised => StoreRights::Upgrade,
            Role::Master => StoreRights::Create,
            Role::Worker => StoreRights::Use,
        };
        let (login, timeout) = (process.login.clone(), process.config.store_timeout);
        let store = open_store(&env, &process.store, login, timeout, rights).await?;
        let (tell, stops) = mpsc::channel(2);
        let overdue = async {
            let first = asked.next().await;
            service_manager::stopping();
            // A node that has ended by itself no longer listens.
            let _ = tell.try_send(first);
            if (process.role, first) == (Role::Master, Stop::Drain) {
                let limit = process.config.drain_timeout + GOODBYE;
                if env.timeout(limit, asked.next()).await.is_err() {
                    return;
                }
                let _ = tell.try_send(Stop::AtOnce);
            }
            env.sleep(GOODBYE).await;
        };
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            %id,
            files_max,
            data_dir = %process.data_dir.display(),
            store = %process.store,
            "a {} starts",
            process.role
        );
        let ended = tokio::select! {
            biased;
            Some(line) = panics.recv() => Err(ProgramError::Failed(line)),
            ended = AssertUnwindSafe(node(env.clone(), store, stops)).catch_unwind() => {
                let dead = |panic: Box<_>| ProgramError::Failed(dead("node", panic_message(&*panic)));
                ended.unwrap_or_else(|panic| Err(dead(panic)))
            }
            () = async {
                while hang_ups.recv().await.is_some() {
                    events.reopen();
                    on_hang_up(process, &set_filter);
                }
                pending().await
            } => return Ok(()),
            () = overdue => {
                tracing::warn!("the {} ends: its goodbye took too long", process.role);
                return Ok(());
            }
        };
        match &ended {
            Ok(()) => tracing::info!("the {} ends: it was asked to", process.role),
            Err(error) => tracing::error!(%error, "the {} ends", process.role),
        }
        ended
    });
    runtime.shutdown_timeout(END);
    process.store.copy_log_back();
    ended
}

/// Opens the node's world, and its identity in it. The first panic of a part that the node needs
/// goes to `report` as a line.
async fn world(
    process: &NodeProcess<'_>,
    log: LineQueue,
    report: mpsc::Sender<String>,
) -> Result<(Env, NodeId, Option<LineQueue>, ReopenEvents), ProgramError> {
    let usage = |e: &dyn std::fmt::Display| ProgramError::Usage(e.to_string());
    let mut world = RealWorld::new(process.data_dir).map_err(|e| usage(&e))?.with_log(log);
    if let Some(path) = process.events {
        world = world.with_events_file(path);
    }
    let queue = world.event_lines();
    let events = world.reopen_events();
    let env = Env::new(world.with_panics_reported(move |task, why| {
        if !OF_ONE_PEER.contains(&task) {
            // One line is enough: the node ends at the first.
            let _ = report.try_send(dead(task, why));
        }
    }));
    let identity = load_or_make_identity(&env, &GeneratedKeys, process.config.identity_bits)
        .await
        .map_err(|e| usage(&format!("{}: {e}", process.data_dir.display())))?;
    for name in [IDENTITY_FILE, GUARD_FILE] {
        only_ours(&process.data_dir.join(name), "choose another --data-dir")?;
    }
    only_ours(&process.data_dir.join(LOGIN_FILE), "remove it")?;
    env.identify(&identity.node().to_string(), &process.role.to_string());
    Ok((env, identity.node(), queue, events))
}

fn dead(part: &str, why: &str) -> String {
    format!("the part {part:?} of this node panicked: {why}; this is a bug, please report it")
}

/// Refuses a secret file that others may read: who copied it can pose as this node. `otherwise`
/// says what to do if somebody did.
pub(super) fn only_ours(path: &Path, otherwise: &str) -> Result<(), ProgramError> {
    let Ok(found) = path.metadata() else { return Ok(()) };
    let mode = found.mode() & 0o7777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let path = path.display();
    Err(ProgramError::Usage(format!(
        "{path} may be read by others (mode {mode:04o}); take that from them with chmod 600 {path}, \
         or {otherwise} if somebody may have copied it"
    )))
}

/// Sets what is logged from now on.
type SetFilter = Box<dyn Fn(&str) -> Result<(), ProgramError> + Send + Sync>;

fn log_to_stderr(what: &str) -> Result<(LineQueue, SetFilter), ProgramError> {
    let filter = |what: &str| {
        EnvFilter::try_new(what).map_err(|e| {
            ProgramError::Usage(format!("log: {e}; want such as info or warn,chatchat=debug"))
        })
    };
    let failed = |e: &dyn std::fmt::Display| ProgramError::Failed(format!("the log: {e}"));
    let lines = output::log_to_stderr().map_err(|e| failed(&e))?;
    let queue = lines.clone();
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter(what)?)
        .with_writer(move || LogWriter(queue.clone()))
        // Else the subscriber prints a failed write to stderr, and panics if that fails too.
        .log_internal_errors(false)
        .with_ansi(io::stderr().is_terminal())
        .with_filter_reloading();
    let handle = log.reload_handle();
    log.try_init().map_err(|e| failed(&e))?;
    Ok((lines, Box::new(move |what: &str| handle.reload(filter(what)?).map_err(|e| failed(&e)))))
}

/// Opens the log anew, and reads the settings again. What is logged counts at once; other changes
/// are named, and count from the next start on.
fn on_hang_up(process: &NodeProcess<'_>, set_filter: &SetFilter) {
    if let Some(path) = process.log_file {
        let opened = open_private(OpenOptions::new().append(true).create(true), path)
            .and_then(|file| redirect_stderr(&file));
        if let Err(error) = opened {
            tracing::warn!(%error, file = %path.display(), "the log was not opened anew");
        }
    }
    let read = (process.read_again)();
    match read.and_then(|(log, changed)| set_filter(&log).map(|()| changed)) {
        Ok(changed) => {
            let later = changed.join(" ");
            tracing::info!(
                later,
                "SIGHUP: logs are opened anew; these keys count at the next start"
            );
        }
        Err(error) => tracing::warn!(%error, "SIGHUP: logs are opened anew, settings stay"),
    }
}

/// Returns a future that is ready when the node has to stop. Signals count from this call on.
/// Ways in which the process is asked to stop.
struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    /// Whether the end of stdin means to stop. It does once.
    ends_with_stdin: bool,
    ignores_interrupt: bool,
}

impl StopSignals {
    fn new(supervised: bool) -> Result<Self, ProgramError> {
        let listen = |kind| signal(kind).map_err(|e| ProgramError::Failed(format!("signals: {e}")));
        let (interrupt, terminate) =
            (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
        let (ends_with_stdin, ignores_interrupt) = (supervised, supervised);
        Ok(Self { interrupt, terminate, ends_with_stdin, ignores_interrupt })
    }

    async fn next(&mut self) -> Stop {
        let (is_ignored, is_child) = (self.ignores_interrupt, self.ends_with_stdin);
        let interrupted = async {
            self.interrupt.recv().await;
            if is_ignored {
                pending::<()>().await;
            }
        };
        let orphaned = async { if is_child { stdin_ends().await } else { pending().await } };
        tokio::select! {
            biased;
            _ = self.terminate.recv() => Stop::Drain,
            () = interrupted => Stop::Drain,
            () = orphaned => {
                self.ends_with_stdin = false;
                Stop::AtOnce
            }
        }
    }
}

/// Waits for the end of stdin. Never ends if stdin is no pipe: its end would mean nothing.
async fn stdin_ends() {
    let pipe = io::stdin().as_fd().try_clone_to_owned().and_then(pipe::Receiver::from_owned_fd);
    let Ok(mut pipe) = pipe else { return pending().await };
    let mut bytes = [0; 64];
    while pipe.read(&mut bytes).await.is_ok_and(|len| len > 0) {}
}

/// Lock on a data directory, so that only one program uses it. It ends when this is dropped, or
/// with the process, however that ends.
#[derive(Debug)]
pub(super) struct DirLock(#[expect(dead_code, reason = "held, not read")] File);

impl DirLock {
    /// Creates the directory if it does not exist, and locks it.
    ///
    /// # Errors
    /// [`ProgramError::Usage`] when it cannot be created or another program has locked it.
    pub(super) fn take(dir: &Path) -> Result<Self, ProgramError> {
        let refuse = |why: &dyn std::fmt::Display| {
            let dir = dir.display();
            ProgramError::Usage(format!("the data directory {dir} cannot be used: {why}"))
        };
        make_private_dir(dir)
            .map_err(|e| refuse(&format_args!("{e}; choose another with --data-dir")))?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        let file = open_private(&mut options, &dir.join("lock")).map_err(|e| refuse(&e))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(refuse(
                &"another chatchat runs on it; stop that one, or choose another with --data-dir",
            )),
            Err(TryLockError::Error(e)) => Err(refuse(&e)),
        }
    }
}

/// Checks that `addr` can be listened on; `flag` is the flag that sets another address.
///
/// # Errors
/// [`ProgramError::Usage`], which names the flag.
pub(super) fn check_port(addr: &str, flag: &str) -> Result<(), ProgramError> {
    match TcpListener::bind(addr) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => Err(ProgramError::Usage(format!(
            "{addr} is taken; stop what listens there, or choose another with {flag}"
        ))),
        Err(e) => Err(ProgramError::Usage(format!(
            "cannot listen on {addr}: {e}; choose another with {flag}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::real::TempDir;

    #[test]
    fn locked_directory_is_refused_until_the_lock_is_dropped() {
        let temp = TempDir::new().expect("a directory");
        let lock = DirLock::take(temp.path()).expect("free");
        let refused = DirLock::take(temp.path()).expect_err("taken");
        assert!(refused.to_string().contains("another chatchat runs on it"), "{refused}");
        drop(lock);
        assert!(DirLock::take(temp.path()).is_ok());
    }

    #[test]
    fn panic_ends_the_node_if_more_than_one_peer_needs_the_task() {
        let temp = TempDir::new().expect("a directory");
        let config = Config { identity_bits: 2048, ..Config::default() };
        let process = NodeProcess {
            role: Role::Master,
            data_dir: temp.path(),
            store: StorePlace::Sqlite(temp.path().join("store.db")),
            login: None,
            events: None,
            log: "off",
            config: &config,
            supervised: false,
            log_file: None,
            read_again: &|| Ok(("off".to_owned(), Vec::new())),
        };
        let ended = run(
            &process,
            async |_| Ok(()),
            async |env, _, _| {
                let _connection = env.spawn("http connection", async { panic!("of a stranger") });
                env.sleep(Duration::from_millis(100)).await;
                let _part = env.spawn("front-end", async { panic!("on purpose") });
                pending().await
            },
        );
        assert_eq!(
            ended.expect_err("the node ends").to_string(),
            "the part \"front-end\" of this node panicked: on purpose; this is a bug, please report it"
        );
    }

    #[test]
    fn taken_port_is_refused_with_the_flag_that_sets_another() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = taken.local_addr().expect("bound").to_string();
        let refused = check_port(&addr, "--http").expect_err("taken");
        assert_eq!(
            refused.to_string(),
            format!("{addr} is taken; stop what listens there, or choose another with --http")
        );
        drop(taken);
        assert!(check_port(&addr, "--http").is_ok());
    }
}

//! One node in one process, run until it is asked to stop.
//!
//! It stops at SIGINT and SIGTERM. A supervised one leaves SIGINT, which a terminal sends to all
//! processes at once, to its supervisor, and stops when its stdin ends: with its supervisor,
//! however that ends.

mod settings;

use std::{
    ffi::OsString,
    future::{Future, pending},
    io::{self, IsTerminal},
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::{Arg, ArgAction, ArgMatches, Command};
use tokio::{
    io::AsyncReadExt,
    net::unix::pipe,
    runtime,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};
use tracing_subscriber::EnvFilter;

pub use self::settings::{MASTER_KEYS, MasterSettings, WORKER_KEYS, WorkerSettings, store_path};
use super::{
    DirLock, LaunchError, check_port,
    settings::{Told, with_keys},
};
use crate::{
    comm::key_source::{GeneratedKeys, load_or_make_identity},
    config::Config,
    env::{BoxFuture, Env, real::RealWorld},
    model::ids::Role,
    programs::run::{MasterError, MasterParams, WorkerParams, run_master, run_worker},
    store::{Store, sqlite},
};

/// The hidden flag of a node that ends with its supervisor.
pub const SUPERVISED: &str = "supervised";

/// The arguments of a master under some program name.
#[must_use]
pub fn master_command(name: &'static str) -> Command {
    with_keys(supervised(Command::new(name).about("A coordinator with a front end")), MASTER_KEYS)
}

/// The arguments of a worker under some program name.
#[must_use]
pub fn worker_command(name: &'static str) -> Command {
    with_keys(
        supervised(Command::new(name).about("A writer with a database of its own")),
        WORKER_KEYS,
    )
}

fn supervised(command: Command) -> Command {
    let help = "Stop when stdin ends, and leave SIGINT to who holds its other end";
    let flag = Arg::new(SUPERVISED).long(SUPERVISED).action(ArgAction::SetTrue).hide(true);
    command.arg(flag.help(help))
}

/// The program `chatchat-master`.
///
/// # Errors
/// [`LaunchError`]; the node is stopped.
pub fn master_main(args: impl IntoIterator<Item = OsString>) -> Result<(), LaunchError> {
    master(&master_command("chatchat-master").try_get_matches_from(args)?)
}

/// The program `chatchat-worker`.
///
/// # Errors
/// [`LaunchError`]; the node is stopped.
pub fn worker_main(args: impl IntoIterator<Item = OsString>) -> Result<(), LaunchError> {
    worker(&worker_command("chatchat-worker").try_get_matches_from(args)?)
}

/// Runs a master as the arguments say.
///
/// # Errors
/// [`LaunchError`]; the node is stopped.
pub fn master(matches: &ArgMatches) -> Result<(), LaunchError> {
    let told = Told::of_matches(MASTER_KEYS, matches)?;
    let settings = told.own::<MasterSettings>()?.resolve()?;
    if told.check_only {
        print!("{}", told.show(&settings)?);
        return Ok(());
    }
    check_port(&settings.http, "--http")?;
    check_port(&settings.link, "--link")?;
    settings.admin().map_or(Ok(()), |addr| check_port(addr, "--admin"))?;
    let place = Place {
        role: Role::Master,
        data_dir: &settings.data_dir,
        store: store_path(&settings.store)?,
        events: settings.events.as_deref(),
        log: &settings.log,
        config: &told.config,
        supervised: matches.get_flag(SUPERVISED),
    };
    run(&place, async |env, store, stop| {
        let ended = run_master(
            env,
            MasterParams {
                name: settings.name.clone(),
                config: told.config.clone(),
                http_listen: settings.http.clone(),
                http_public: settings.http_public.clone(),
                link_listen: settings.link.clone(),
                link_public: settings.link_public.clone(),
                admin_listen: settings.admin().map(str::to_owned),
                store,
                keys: Arc::new(GeneratedKeys),
            },
            stop,
        );
        ended.await.map_err(|e| match e {
            MasterError::Node(e) => LaunchError::Failed(e.to_string()),
            e => LaunchError::Usage(e.to_string()),
        })
    })
}

/// Runs a worker as the arguments say.
///
/// # Errors
/// [`LaunchError`]; the node is stopped.
pub fn worker(matches: &ArgMatches) -> Result<(), LaunchError> {
    let told = Told::of_matches(WORKER_KEYS, matches)?;
    let settings = told.own::<WorkerSettings>()?.resolve()?;
    if told.check_only {
        print!("{}", told.show(&settings)?);
        return Ok(());
    }
    let token = settings.join_token()?;
    let place = Place {
        role: Role::Worker,
        data_dir: &settings.data_dir,
        store: store_path(&settings.store)?,
        events: settings.events.as_deref(),
        log: &settings.log,
        config: &told.config,
        supervised: matches.get_flag(SUPERVISED),
    };
    run(&place, async |env, store, stop| {
        let ended = run_worker(
            env,
            WorkerParams {
                name: settings.name.clone(),
                config: told.config.clone(),
                masters: settings.masters.clone(),
                pins: settings.pins.clone(),
                token,
                store,
                keys: Arc::new(GeneratedKeys),
            },
            stop,
        );
        // All that it can say is why it did not start.
        ended.await.map_err(|e| LaunchError::Usage(e.to_string()))
    })
}

/// Where and how a node runs, whichever role it has.
struct Place<'a> {
    role: Role,
    data_dir: &'a Path,
    store: PathBuf,
    events: Option<&'a Path>,
    log: &'a str,
    config: &'a Config,
    supervised: bool,
}

fn run(
    place: &Place<'_>,
    node: impl AsyncFnOnce(Env, Store, BoxFuture<'static, ()>) -> Result<(), LaunchError>,
) -> Result<(), LaunchError> {
    /// What a node that was asked to stop gets to say goodbye in.
    const GOODBYE: Duration = Duration::from_secs(3);
    /// What its threads get to end in.
    const END: Duration = Duration::from_secs(1);
    /// A node's work is a few tasks; threads beyond these only cost memory.
    const THREADS_MAX: usize = 4;

    let _lock = DirLock::take(place.data_dir)?;
    log_to_stderr(place.log)?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .map_err(|e| LaunchError::Failed(format!("no threads to run on: {e}")))?;
    let ended = runtime.block_on(async {
        let asked = asked_to_stop(place.supervised)?;
        let env = world(place).await?;
        let store = sqlite::open(&env, &place.store, place.config.store_timeout)
            .map_err(|e| LaunchError::Usage(format!("{}: {e}", place.store.display())))?;
        let (tell, told) = oneshot::channel();
        let overdue = async {
            asked.await;
            // A node that has ended by itself hears nothing any more.
            let _ = tell.send(());
            env.sleep(GOODBYE).await;
        };
        let stop = Box::pin(async {
            let _ = told.await;
        });
        tokio::select! {
            biased;
            ended = node(env.clone(), store, stop) => ended,
            () = overdue => Ok(()),
        }
    });
    runtime.shutdown_timeout(END);
    ended
}

/// The world of a node whose identity is known to be usable.
async fn world(place: &Place<'_>) -> Result<Env, LaunchError> {
    let usage = |e: &dyn std::fmt::Display| LaunchError::Usage(e.to_string());
    let mut world = RealWorld::new(place.data_dir).map_err(|e| usage(&e))?;
    if let Some(path) = place.events {
        world = world
            .with_events_file(path)
            .map_err(|e| usage(&format!("events {}: {e}", path.display())))?;
    }
    let env = Env::new(world);
    let identity = load_or_make_identity(&env, &GeneratedKeys, place.config.identity_bits)
        .await
        .map_err(|e| usage(&format!("{}: {e}", place.data_dir.display())))?;
    env.identify(&identity.node().to_string(), &place.role.to_string());
    Ok(env)
}

fn log_to_stderr(what: &str) -> Result<(), LaunchError> {
    let filter = EnvFilter::try_new(what).map_err(|e| LaunchError::Usage(format!("log: {e}")))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .try_init()
        .map_err(|e| LaunchError::Failed(format!("the log: {e}")))
}

/// Ready when the node has to stop. Signals count from the call on.
fn asked_to_stop(supervised: bool) -> Result<impl Future<Output = ()>, LaunchError> {
    let listen = |kind| signal(kind).map_err(|e| LaunchError::Failed(format!("signals: {e}")));
    let (mut interrupt, mut end) =
        (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    Ok(async move {
        let interrupted = async {
            interrupt.recv().await;
            if supervised {
                pending::<()>().await;
            }
        };
        let orphaned = async { if supervised { stdin_ends().await } else { pending().await } };
        tokio::select! {
            biased;
            _ = end.recv() => {}
            () = interrupted => {}
            () = orphaned => {}
        }
    })
}

/// A stdin that is no pipe has no end that would mean something.
async fn stdin_ends() {
    let pipe = io::stdin().as_fd().try_clone_to_owned().and_then(pipe::Receiver::from_owned_fd);
    let Ok(mut pipe) = pipe else { return pending().await };
    let mut said = [0; 64];
    while pipe.read(&mut said).await.is_ok_and(|len| len > 0) {}
}

//! Program `chatchat-worker`: one worker in one process.

mod settings;

use std::{ffi::OsString, path::Path, sync::Arc};

use clap::{ArgMatches, Command};

pub use self::settings::{KEYS, WorkerSettings};
use super::{
    ProgramError, output,
    process::{self, LOG_FILE, NodeProcess, SUPERVISED, with_supervised},
    service_manager,
    settings::{Settings, node::StorePlace, with_keys},
};
pub use crate::node::worker::{WorkerError, WorkerParams, run as run_worker};
use crate::{
    comm::key_source::GeneratedKeys,
    env::Env,
    model::ids::Role,
    node::worker::{load_login, may_join},
    store::LoginSlot,
};

/// Runs the program `chatchat-worker`.
///
/// # Errors
/// [`ProgramError`]; the node is stopped.
pub fn main(args: impl IntoIterator<Item = OsString>) -> Result<(), ProgramError> {
    start(&command("chatchat-worker").try_get_matches_from(args)?)
}

/// Returns the command line of a worker under some program name.
#[must_use]
pub fn command(name: &'static str) -> Command {
    with_keys(
        with_supervised(Command::new(name).about("A writer with a database of its own")),
        KEYS,
    )
}

/// Runs a worker with parsed arguments until it is asked to stop.
///
/// # Errors
/// [`ProgramError`]; the node is stopped.
pub fn start(matches: &ArgMatches) -> Result<(), ProgramError> {
    let settings = Settings::of_matches(KEYS, matches)?;
    let own = settings.own::<WorkerSettings>()?.resolve()?;
    if settings.check_only {
        return output::answer(&settings.show(&own)?);
    }
    let token = own.join_token()?;
    let read_again = || {
        let again = Settings::of_matches(KEYS, matches)?;
        let log = again.own::<WorkerSettings>()?.resolve()?.log;
        Ok((log, settings.changed(&again)))
    };
    let store = StorePlace::parse(&own.store)?;
    let login = store.lacks_login().then(LoginSlot::default);
    let process = NodeProcess {
        role: Role::Worker,
        data_dir: &own.data_dir,
        store,
        login: login.clone(),
        events: own.events.as_deref(),
        log: &own.log,
        config: &settings.config,
        supervised: matches.get_flag(SUPERVISED),
        log_file: matches.get_one::<String>(LOG_FILE).map(Path::new),
        read_again: &read_again,
    };
    // A worker that could not join anyway says so first, whatever its store.
    let has_token = token.is_some();
    let check = async |env: &Env| {
        may_join(env, has_token).await.map_err(|e| {
            let way_out = match e {
                WorkerError::NotEnrolled => ", by --token or --token-file",
                _ => "",
            };
            ProgramError::Usage(format!("{e}{way_out}"))
        })?;
        if let Some(slot) = &login {
            let kept = load_login(env).await.map_err(|e| ProgramError::Usage(e.to_string()))?;
            kept.into_iter().for_each(|login| slot.set(login));
        }
        Ok(())
    };
    process::run(&process, check, async |env, store, mut stops| {
        let token_is = if token.is_some() { "given" } else { "none" };
        tracing::info!(
            name = own.name,
            masters = own.masters.join(" "),
            pins = own.pins.len(),
            token = token_is,
            "it looks for a master"
        );
        service_manager::ready();
        let ended = run_worker(
            env,
            WorkerParams {
                name: own.name.clone(),
                config: settings.config.clone(),
                masters: own.masters.clone(),
                pins: own.pins.clone(),
                token,
                store,
                login: login.clone(),
                keys: Arc::new(GeneratedKeys),
            },
            async {
                if stops.recv().await.is_none() {
                    std::future::pending::<()>().await;
                }
            },
        );
        // A worker's only error is that it did not start.
        ended.await.map_err(|e| ProgramError::Usage(e.to_string()))
    })
}

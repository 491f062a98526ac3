//! Program `chatchat-master`: one master in one process.

mod run;
mod settings;

use std::{ffi::OsString, sync::Arc};

use clap::{ArgMatches, Command};

pub use self::{
    run::{MasterError, MasterParams, run_master},
    settings::{KEYS, MasterSettings},
};
use super::{
    ProgramError, output,
    process::{self, NodeProcess, SUPERVISED, check_port, with_supervised},
    settings::{Settings, node::store_path, with_keys},
};
use crate::{comm::key_source::GeneratedKeys, model::ids::Role};

/// Runs the program `chatchat-master`.
///
/// # Errors
/// [`ProgramError`]; the node is stopped.
pub fn main(args: impl IntoIterator<Item = OsString>) -> Result<(), ProgramError> {
    start(&command("chatchat-master").try_get_matches_from(args)?)
}

/// Returns the command line of a master under some program name.
#[must_use]
pub fn command(name: &'static str) -> Command {
    with_keys(with_supervised(Command::new(name).about("A coordinator with a front end")), KEYS)
}

/// Runs a master with parsed arguments until it is asked to stop.
///
/// # Errors
/// [`ProgramError`]; the node is stopped.
pub fn start(matches: &ArgMatches) -> Result<(), ProgramError> {
    let settings = Settings::of_matches(KEYS, matches)?;
    let own = settings.own::<MasterSettings>()?.resolve()?;
    if settings.check_only {
        return output::answer(&settings.show(&own)?);
    }
    check_port(&own.http, "--http")?;
    check_port(&own.link, "--link")?;
    own.admin().map_or(Ok(()), |addr| check_port(addr, "--admin"))?;
    let process = NodeProcess {
        role: Role::Master,
        data_dir: &own.data_dir,
        store: store_path(&own.store)?,
        events: own.events.as_deref(),
        log: &own.log,
        config: &settings.config,
        supervised: matches.get_flag(SUPERVISED),
    };
    process::run(
        &process,
        async |_| Ok(()),
        async |env, store, stop| {
            tracing::info!(
                name = own.name,
                http = own.http,
                http_public = own.http_public,
                link = own.link,
                link_public = own.link_public,
                admin = own.admin,
                "its addresses"
            );
            let ended = run_master(
                env,
                MasterParams {
                    name: own.name.clone(),
                    config: settings.config.clone(),
                    http_listen: own.http.clone(),
                    http_public: own.http_public.clone(),
                    access: own.access()?,
                    link_listen: own.link.clone(),
                    link_public: own.link_public.clone(),
                    admin_listen: own.admin().map(str::to_owned),
                    store,
                    keys: Arc::new(GeneratedKeys),
                },
                stop,
            );
            ended.await.map_err(|e| match e {
                MasterError::Node(e) => ProgramError::Failed(e.to_string()),
                e => ProgramError::Usage(e.to_string()),
            })
        },
    )
}

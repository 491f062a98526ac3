//! Program `chatchat-master`: one master in one process.

mod run;
mod settings;

use std::{ffi::OsString, path::Path, sync::Arc};

use clap::{ArgMatches, Command};

pub use self::{
    run::{MasterError, MasterParams, run_master},
    settings::{KEYS, MasterSettings},
};
use super::{
    ProgramError, output,
    process::{self, LOG_FILE, NodeProcess, SUPERVISED, check_port, with_supervised},
    service_manager,
    settings::{Settings, node::StorePlace, with_keys},
    tls,
};
use crate::{
    comm::{handshake::PENDING_MAX, key_source::GeneratedKeys},
    config::Config,
    env::real::raise_files_max,
    model::{ids::Role, rows::MASTERS_MAX},
};

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
    let files = own.tls_files()?;
    let tls = files.map(|(cert, key)| tls::server(cert, key)).transpose()?;
    let read_again = || {
        if let (Some(tls), Some((cert, key))) = (&tls, files) {
            match tls::renew(tls, cert, key) {
                Ok(()) => {
                    tracing::info!(cert = %cert.display(), "certificate and key are read again")
                }
                Err(error) => tracing::warn!(%error, "certificate and key stay as they are"),
            }
        }
        let again = Settings::of_matches(KEYS, matches)?;
        let log = again.own::<MasterSettings>()?.resolve()?.log;
        Ok((log, settings.changed(&again)))
    };
    let process = NodeProcess {
        role: Role::Master,
        data_dir: &own.data_dir,
        store: StorePlace::parse(&own.store)?,
        login: None,
        events: own.events.as_deref(),
        log: &own.log,
        config: &settings.config,
        supervised: matches.get_flag(SUPERVISED),
        log_file: matches.get_one::<String>(LOG_FILE).map(Path::new),
        read_again: &read_again,
    };
    let files_max = raise_files_max();
    let mut config = settings.config.clone();
    config.connections_max = connections_max(&config, files_max);
    process::run(
        &process,
        async |_| Ok(()),
        async |env, store, stops| {
            tracing::info!(
                name = own.name,
                http = own.http,
                http_public = own.http_public,
                link = own.link,
                link_public = own.link_public,
                admin = own.admin,
                "its addresses"
            );
            tracing::info!(
                connections_max = config.connections_max,
                connections_per_address_max = config.connections_per_address_max,
                "its bounds on connections of people"
            );
            if config.connections_max < settings.config.connections_max {
                tracing::warn!(
                    files_max,
                    "fewer connections than the setting connections_max; raise the limit of open files"
                );
            }
            let ended = run_master(
                env,
                MasterParams {
                    name: own.name.clone(),
                    config: config.clone(),
                    http_listen: own.http.clone(),
                    http_public: own.http_public.clone(),
                    access: own.access()?,
                    link_listen: own.link.clone(),
                    link_public: own.link_public.clone(),
                    admin_listen: own.admin().map(str::to_owned),
                    tls: tls.clone(),
                    store,
                    keys: Arc::new(GeneratedKeys),
                    on_listening: service_manager::ready,
                },
                stops,
            );
            ended.await.map_err(|e| match e {
                MasterError::Node(e) => ProgramError::Failed(e.to_string()),
                e => ProgramError::Usage(e.to_string()),
            })
        },
    )
}

/// Returns how many connections of people leave open files for links, the store and other files.
fn connections_max(config: &Config, files_max: u64) -> usize {
    /// Open files of the store, the logs and the runtime, and a few to spare.
    const OWN: usize = 64;
    let files_max = usize::try_from(files_max).unwrap_or(usize::MAX);
    let links = config.workers_max.saturating_add(MASTERS_MAX + 2 * PENDING_MAX).min(files_max / 4);
    config.connections_max.min(files_max.saturating_sub(links + OWN)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_of_people_leave_open_files_for_links_and_the_store() {
        let config = Config::default();
        let max = |files_max| connections_max(&config, files_max);
        assert_eq!(max(u64::MAX), config.connections_max);
        assert_eq!(max(524_288), config.connections_max);
        assert_eq!(max(20_000), 20_000 - (1024 + 256 + 512) - 64);
        assert_eq!(max(1024), 1024 - 256 - 64);
        assert_eq!(max(16), 1);
    }
}

//! Command line of `chatctl`.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{
    CommandFactory, FromArgMatches, Parser, Subcommand, error::ErrorKind, parser::ValueSource,
    value_parser,
};

use crate::{
    api::JoinTerms,
    config::parse_duration,
    model::{
        bounds::JOIN_USES_MAX,
        ids::{BoardName, PostId, TokenId},
    },
};

/// Chat with a Chatchat cluster, and see how it is.
#[derive(Debug, Parser)]
#[command(name = "chatctl", version, arg_required_else_help = true)]
pub(super) struct Args {
    /// The cluster's data directory; its cluster.json says where the masters are.
    #[arg(
        long,
        global = true,
        env = "CHATCHAT_DATA_DIR",
        default_value = "data",
        value_name = "DIR"
    )]
    pub(super) data_dir: PathBuf,

    /// A master of the cluster, instead of --data-dir.
    #[arg(long, global = true, env = "CHATCHAT_MASTER", value_name = "http://HOST:PORT")]
    pub(super) master: Option<String>,

    /// A PEM file with the authorities that vouch for masters at https://; by default the
    /// certificate that cluster.json names.
    #[arg(long, global = true, env = "CHATCHAT_CACERT", value_name = "FILE")]
    pub(super) cacert: Option<PathBuf>,

    /// A master's address for operators, instead of those in cluster.json; its token is read from
    /// the data directory.
    #[arg(long, global = true, value_name = "HOST:PORT")]
    pub(super) admin: Option<String>,

    /// The name under which you chat; it counts when the session is new.
    #[arg(long, global = true, env = "USER", default_value = "chatctl")]
    pub(super) name: String,

    #[command(subcommand)]
    pub(super) command: Command,
}

impl Args {
    /// Reads the command line.
    ///
    /// # Errors
    /// Those of clap, also for a data directory on the command line whose store is not the one that is
    /// left in the environment: the first is what was meant, and would not be what is used.
    pub(super) fn read(args: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut matches = Self::command().try_get_matches_from(args)?;
        let stray_store = matches.subcommand().is_some_and(|(name, of_command)| {
            ["backup", "restore"].contains(&name)
                && is_stray(matches.value_source("data_dir"), of_command.value_source("store"))
        });
        if stray_store {
            let why = "--data-dir and CHATCHAT_STORE each name a store; unset CHATCHAT_STORE, or name \
                       the store with --store instead of --data-dir";
            return Err(Self::command().error(ErrorKind::ArgumentConflict, why));
        }
        Self::from_arg_matches_mut(&mut matches).map_err(|why| why.format(&mut Self::command()))
    }
}

/// Returns whether the store comes from the environment alone and the data directory does not.
fn is_stray(data_dir: Option<ValueSource>, store: Option<ValueSource>) -> bool {
    data_dir == Some(ValueSource::CommandLine) && store == Some(ValueSource::EnvVariable)
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Write on a board; prints the board and the post's place.
    Post {
        /// Text, 1 byte to 8 KiB.
        #[arg(allow_hyphen_values = true)]
        text: String,
        /// Board to write on.
        #[arg(long, default_value = "lobby")]
        board: BoardName,
        /// Send a post again under the id it had: it is never there twice.
        #[arg(long, value_name = "UUID")]
        id: Option<PostId>,
    },
    /// Show the end of a board, then what comes.
    Tail {
        /// Show the end only.
        #[arg(long)]
        once: bool,
        /// Board to show.
        #[arg(long, default_value = "lobby")]
        board: BoardName,
    },
    /// Show who is active, across the system.
    Users,
    /// Show masters, workers, failed lists, queues and epochs.
    Status,
    /// Let new workers join.
    Token {
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// Expel a worker for good: its link is cut, and it is never taken in again.
    Expel {
        /// Its name as `status` shows it, or its whole id.
        node: String,
    },
    /// Hand a master's people and work, or a worker's held posts, over to the others, and end it: before
    /// an upgrade, say.
    Drain {
        /// Its name as `status` shows it, or a worker's whole id; needed when several masters are known.
        node: Option<String>,
        /// Do it even though no other of its kind could go on.
        #[arg(long)]
        force: bool,
    },
    /// See and settle posts that were given up.
    DeadLetters {
        #[command(subcommand)]
        command: LetterCommand,
    },
    /// Write the cluster's store to a new file, as it is at one moment; the cluster goes on.
    ///
    /// The file is a store on SQLite, whichever engine the cluster uses.
    Backup {
        /// File that is made.
        file: PathBuf,
        /// Store, sqlite:PATH or postgres://USER@HOST/DATABASE, instead of the one that the data
        /// directory's cluster.json names. From the environment it counts only without --data-dir.
        #[arg(long, env = "CHATCHAT_STORE", hide_env_values = true, value_name = "STORE")]
        store: Option<String>,
    },
    /// Put a backup in the place of the cluster's store; all nodes have to be stopped.
    ///
    /// The backup may be of a store on the other engine.
    Restore {
        /// File that `backup` made.
        file: PathBuf,
        /// Store, sqlite:PATH or postgres://USER@HOST/DATABASE, instead of the one that the data
        /// directory's cluster.json names. From the environment it counts only without --data-dir.
        #[arg(long, env = "CHATCHAT_STORE", hide_env_values = true, value_name = "STORE")]
        store: Option<String>,
    },
    /// Print the fingerprints of identity keys: of each node below --data-dir, or of the files.
    Fingerprint {
        /// Identity files, or directories of nodes.
        files: Vec<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Make a join token; prints lines for the settings file of each worker that joins with it.
    New {
        /// Number of workers that it enrols, 1 to 1024.
        #[arg(
            long,
            default_value_t = JoinTerms::USES,
            value_parser = value_parser!(u32).range(1..=i64::from(JOIN_USES_MAX)),
            value_name = "N"
        )]
        uses: u32,
        /// Time for which it enrols, such as 30min or 72h: 1min to 720h (30 days).
        #[arg(long = "for", default_value = "24h", value_parser = token_life, value_name = "TIME")]
        life: Duration,
    },
    /// List the join tokens that have not ended.
    List,
    /// Revoke a join token. Workers that joined with it stay.
    Revoke {
        /// Its id as `token list` shows it.
        id: TokenId,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum LetterCommand {
    /// List them, newest first: the latest, at most 1,000.
    List {
        /// List older ones than the one with this number.
        #[arg(long, value_name = "N")]
        before: Option<u64>,
    },
    /// Send the post again, under its id: it is in its board once, whatever became of it before.
    Retry {
        /// Its number as `dead-letters list` shows it.
        number: u64,
    },
    /// Drop the letter and cancel its post for good; one that is in its board by now stays there.
    Drop {
        /// Its number as `dead-letters list` shows it.
        number: u64,
    },
}

/// Reads the life of a join token.
fn token_life(text: &str) -> Result<Duration, String> {
    let life = parse_duration(text).map_err(|why| why.to_string())?;
    match JoinTerms::new(JoinTerms::USES, life) {
        Ok(_) => Ok(life),
        Err(why) => Err(why.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `token new` with these arguments, to the terms that are asked for.
    fn terms(args: &[&str]) -> Result<JoinTerms, String> {
        let args = [&["chatctl", "token", "new"], args].concat();
        let args = Args::try_parse_from(args).map_err(|why| why.to_string())?;
        let Command::Token { command: TokenCommand::New { uses, life } } = args.command else {
            panic!("another command: {args:?}");
        };
        JoinTerms::new(uses, life).map_err(|why| why.to_string())
    }

    #[test]
    fn store_of_the_environment_does_not_replace_that_of_a_data_directory() {
        use ValueSource::{CommandLine, DefaultValue, EnvVariable};
        assert!(is_stray(Some(CommandLine), Some(EnvVariable)));
        for (data_dir, store) in [
            (CommandLine, Some(CommandLine)),
            (CommandLine, None),
            (EnvVariable, Some(EnvVariable)),
            (DefaultValue, Some(EnvVariable)),
        ] {
            assert!(!is_stray(Some(data_dir), store), "{data_dir:?} {store:?}");
        }
        for args in [&["backup", "f", "--data-dir=d"][..], &["--data-dir=d", "restore", "f"]] {
            let args = [&["chatctl"], args, &["--store=sqlite:/x"]].concat();
            Args::read(args.into_iter().map(OsString::from)).expect("both are on the command line");
        }
    }

    #[test]
    fn join_token_is_for_one_worker_and_a_day_unless_said() {
        assert_eq!(terms(&[]), Ok(JoinTerms::default()));
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        for (args, uses, life) in [
            (&["--uses", "6"][..], 6, hours(24)),
            (&["--for", "72h"], 1, hours(72)),
            (&["--uses", "1024", "--for", "720h"], 1024, hours(720)),
            (&["--for=1min", "--uses=1"], 1, Duration::from_secs(60)),
        ] {
            let wanted = JoinTerms::new(uses, life).map_err(|why| why.to_string());
            assert_eq!(terms(args), wanted, "{args:?}");
        }
    }

    #[test]
    fn uses_and_life_of_a_join_token_are_bounded() {
        for uses in ["0", "1025", "-1", "many", "4294967297"] {
            assert!(terms(&["--uses", uses]).is_err(), "{uses}");
        }
        for life in ["0s", "59s", "720.1h", "1e9h", "30d", "24", "-1h"] {
            assert!(terms(&["--for", life]).is_err(), "{life}");
        }
        let why = terms(&["--for", "721h"]).expect_err("over the bound");
        assert!(why.contains("1 min to 720 h"), "{why}");
    }
}

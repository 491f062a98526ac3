//! Command line of `chatctl`.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::model::ids::{BoardName, PostId, TokenId};

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
    /// Hand a master's people and work over to the others, and end it: before an upgrade, say.
    Drain {
        /// Its name as `status` shows it; needed when several masters are known.
        node: Option<String>,
        /// Do it even though no other master could go on.
        #[arg(long)]
        force: bool,
    },
    /// See and settle posts that were given up.
    DeadLetters {
        #[command(subcommand)]
        command: LetterCommand,
    },
    /// Write the cluster's store to a new file, as it is at one moment; the cluster goes on.
    Backup {
        /// File that is made.
        file: PathBuf,
        /// Store, instead of the one that the data directory's cluster.json names.
        #[arg(long, value_name = "sqlite:PATH")]
        store: Option<String>,
    },
    /// Put a backup in the place of the cluster's store; all nodes have to be stopped.
    Restore {
        /// File that `backup` made.
        file: PathBuf,
        /// Store, instead of the one that the data directory's cluster.json names.
        #[arg(long, value_name = "sqlite:PATH")]
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
    /// Make a join token for one worker, good for 24 hours; prints lines for its settings file.
    New,
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
    /// List the latest, newest first.
    List,
    /// Send the post again, under its id: it is in its board once, whatever became of it before.
    Retry {
        /// Its number as `dead-letters list` shows it.
        number: u64,
    },
    /// Drop the letter; its post is never sent.
    Drop {
        /// Its number as `dead-letters list` shows it.
        number: u64,
    },
}

//! `chatctl`: the client of people and operators for a shell.
//!
//! It finds the masters in `DATA/cluster.json` or takes one by `--master`, keeps its session in a
//! file of its own, mode 0600, and moves on to the next master when one does not answer.
//!
//! Exit codes: 0 done, 1 not done (one line says why and what to do), 2 wrong usage.

mod args;
mod fingerprint;
mod held;
mod operate;
mod post;
mod render;
mod session;
mod store;
mod targets;

use std::{
    ffi::OsString,
    io::{self, Write},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use jiff::tz::TimeZone;
use thiserror::Error;

use self::{
    args::{Args, Command, LetterCommand, TokenCommand},
    render::Colours,
    session::{Session, open},
    targets::Targets,
};
use super::output;
use crate::{
    api::{ClusterState, PostList, ResetEvent, StateEvent, StreamEvent},
    client::{Answer, Api, Failure, FollowEvent, Limits, Request},
    env::{Env, real::RealWorld},
    model::{
        ids::{BoardName, Cursor, Seq},
        rows::Range,
        stream::Consistency,
    },
};

/// Error of a command.
#[derive(Debug, Error)]
pub(crate) enum CtlError {
    /// The command line is wrong. Nothing was done.
    #[error("{0}")]
    Usage(String),
    /// The cluster refused, or did not answer.
    #[error("{0}")]
    Failed(String),
    /// A file cannot be read or written.
    #[error("{what}: {why}")]
    File {
        /// Path of the file.
        what: String,
        /// Error of the system.
        why: io::Error,
    },
    /// The reader of the output closed it.
    #[error("the output was closed")]
    OutputClosed,
}

impl From<Failure> for CtlError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure.to_string())
    }
}

/// Time for which a command waits for the cluster.
const PATIENCE: Duration = Duration::from_secs(10);
/// Number of posts that `tail` shows at first.
const TAIL: u32 = 50;

/// Runs the command line; errors go to stderr.
#[must_use]
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = match Args::read(args) {
        Ok(args) => args,
        Err(why) => {
            // clap prints help to stdout and usage errors to stderr; a closed one is no news.
            let _ = why.print();
            return if why.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    match run(args) {
        Ok(()) | Err(CtlError::OutputClosed) => ExitCode::SUCCESS,
        Err(why) => {
            output::complain("chatctl", &why);
            ExitCode::from(if matches!(why, CtlError::Usage(_)) { 2 } else { 1 })
        }
    }
}

fn run(args: Args) -> Result<(), CtlError> {
    match &args.command {
        Command::Fingerprint { files } => return fingerprint::print(files, &args.data_dir),
        Command::Backup { file, store } => {
            return store::back_up(file, store.as_deref(), &args.data_dir);
        }
        Command::Restore { file, store } => {
            return store::restore(file, store.as_deref(), &args.data_dir);
        }
        _ => {}
    }
    let places = Targets::find(&args)?;
    in_world(Some(&places.state_dir), async |env| {
        match &args.command {
            Command::Post { text, board, id } => {
                let session = open(&env, &places, &args.name).await?;
                post::post(&session, text, board, *id).await
            }
            Command::Tail { once, board } => {
                let session = open(&env, &places, &args.name).await?;
                tail(&session, board, *once).await
            }
            Command::Users => users(&env, &open(&env, &places, &args.name).await?).await,
            Command::Status => status(&env, &places, &args.name).await,
            Command::Token { command: TokenCommand::New { uses, life } } => {
                operate::new_token(&env, &places, *uses, *life).await
            }
            Command::Token { command: TokenCommand::List } => {
                operate::list_tokens(&env, &places).await
            }
            Command::Token { command: TokenCommand::Revoke { id } } => {
                operate::revoke_token(&env, &places, *id).await
            }
            Command::DeadLetters { command } => match *command {
                LetterCommand::List { before } => {
                    operate::list_letters(&env, &places, before).await
                }
                LetterCommand::Retry { number } => {
                    operate::retry_letter(&env, &places, number).await
                }
                LetterCommand::Drop { number } => operate::drop_letter(&env, &places, number).await,
            },
            Command::Drain { node, force } => {
                operate::drain(&env, &places, node.as_deref(), *force).await
            }
            Command::Expel { node } => operate::expel(&env, &places, node).await,
            // They need no master, and were done before.
            Command::Fingerprint { .. } | Command::Backup { .. } | Command::Restore { .. } => {
                Ok(())
            }
        }
    })
}

/// Runs a command that waits, with a directory for its files; `None` for a command that keeps none.
fn in_world(
    dir: Option<&Path>,
    command: impl AsyncFnOnce(Env) -> Result<(), CtlError>,
) -> Result<(), CtlError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|why| CtlError::File { what: "the runtime".to_owned(), why })?;
    runtime.block_on(async {
        let world = dir.map_or_else(RealWorld::temporary, RealWorld::new).map_err(|why| {
            let what = dir.unwrap_or_else(|| Path::new("a temporary directory"));
            CtlError::File { what: what.display().to_string(), why }
        })?;
        command(Env::new(world)).await
    })
}

/// Writes to stdout; a closed one ends the command without a message.
fn say(text: &str) -> Result<(), CtlError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|why| match why.kind() {
        io::ErrorKind::BrokenPipe => CtlError::OutputClosed,
        _ => CtlError::File { what: "stdout".to_owned(), why },
    })
}

async fn last_page(session: &Session, board: &BoardName) -> Result<PostList, CtlError> {
    let read = Request::Read {
        board: board.clone(),
        range: Range::Last,
        limit: TAIL,
        wanted: Consistency::Strong,
    };
    match session.client.call(&read, PATIENCE).await? {
        Answer::Page(page) => Ok(page),
        _ => Err(CtlError::Failed("a list of posts was answered with something else".to_owned())),
    }
}

async fn tail(session: &Session, board: &BoardName, once: bool) -> Result<(), CtlError> {
    let zone = TimeZone::system();
    let page = last_page(session, board).await?;
    say(&render::page(&page, &zone))?;
    if once {
        return Ok(());
    }
    let mut cursor = Cursor { epoch: page.epoch, ..Cursor::default() };
    cursor.boards.insert(board.clone(), page.last_seq);
    let mut follow = session.client.follow(vec![board.clone()], Some(cursor));
    let (mut shown, mut known) = (page.last_seq, page.consistency);
    let mut tell = |now| {
        if let Some(line) = render::turned(&mut known, now) {
            output::complain("chatctl", &line);
        }
    };
    let mut is_moving = false;
    loop {
        match follow.next().await {
            FollowEvent::Event(StreamEvent::Post(post)) => {
                shown = shown.max(post.seq);
                say(&render::post(&post, &zone))?;
            }
            FollowEvent::Event(StreamEvent::Reset(ResetEvent { reason })) => {
                output::complain("chatctl", &format_args!("the board is read again ({reason})"));
                let page = last_page(session, board).await?;
                say(&render::page(&page, &zone))?;
                tell(page.consistency);
                shown = page.last_seq.max(Seq(0));
            }
            FollowEvent::Event(StreamEvent::State(StateEvent { consistency })) => tell(consistency),
            FollowEvent::Event(StreamEvent::Pending(event)) => {
                output::complain("chatctl", &render::pending(&event));
            }
            FollowEvent::Event(_) => {}
            FollowEvent::Connected { master } if std::mem::take(&mut is_moving) => {
                output::complain(
                    "chatctl",
                    &format_args!("following at {master}, from {shown} on"),
                );
            }
            FollowEvent::Connected { .. } => {}
            FollowEvent::Disconnected { master, why } => {
                is_moving = true;
                output::complain("chatctl", &format_args!("{master}: {why}; moving on"));
            }
            FollowEvent::Ended { why } => return Err(CtlError::Failed(why)),
        }
    }
}

async fn users(env: &Env, session: &Session) -> Result<(), CtlError> {
    match session.client.call(&Request::Users, PATIENCE).await? {
        Answer::Users(users) => say(&render::users(&users, env.wall().ms)),
        _ => Err(CtlError::Failed("a list of people was answered with something else".to_owned())),
    }
}

/// Shows the cluster: the operators' view with an admin token, else the view of people.
async fn status(env: &Env, places: &Targets, name: &str) -> Result<(), CtlError> {
    if places.admins.is_empty() {
        let session = open(env, places, name).await?;
        return match session.client.call(&Request::Cluster, PATIENCE).await? {
            Answer::Cluster(cluster) => say(&render::cluster(&cluster, Colours::of_stdout())),
            _ => Err(CtlError::Failed("the cluster answered with something else".to_owned())),
        };
    }
    let trust = places.trust()?;
    let mut answered: Vec<(String, Result<ClusterState, String>)> = Vec::new();
    for admin in &places.admins {
        let limits = Limits { read: Duration::from_secs(3), ..Limits::default() };
        let mut api =
            Api::new(env, &admin.url, Some(admin.token.clone()), limits).trusting(trust.clone());
        let state = match api.call(&Request::ClusterState).await {
            Ok(Answer::ClusterState(state)) => Ok(*state),
            Ok(_) => Err("answered with something else".to_owned()),
            Err(why) => Err(why.to_string()),
        };
        answered.push((admin.name.clone(), state));
    }
    say(&render::status(&answered, Colours::of_stdout()))?;
    if answered.iter().all(|(_, state)| state.is_err()) {
        return Err(CtlError::Failed("no master answered; is the cluster running?".to_owned()));
    }
    Ok(())
}

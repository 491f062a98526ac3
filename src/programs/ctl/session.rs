//! Session that `chatctl` keeps between commands.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{CtlError, PATIENCE, held::HeldWatch, targets::Targets};
use crate::{
    client::{ChatClient, Failure, Limits, MasterList, Request},
    env::Env,
    model::names::chosen_name,
};

/// Client with an open session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) client: ChatClient,
    /// Observer of the client.
    pub(super) held: Arc<HeldWatch>,
}

/// Content of the session file. It is as secret as a password.
#[derive(Serialize, Deserialize)]
struct Kept {
    token: String,
}

/// Restores the kept session, or opens one and keeps it.
///
/// # Errors
/// No master answers, the name is malformed, or the file cannot be used.
pub(super) async fn open(env: &Env, places: &Targets, name: &str) -> Result<Session, CtlError> {
    let disk = env.disk();
    let file = |why| CtlError::File {
        what: places.state_dir.join(&places.session_file).display().to_string(),
        why,
    };
    let kept = disk.read(&places.session_file).map_err(file)?;
    // A file that does not read is one of another version: a new session replaces it.
    let kept = kept.and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok());
    let trust = places.trust()?;
    let held = Arc::new(HeldWatch::default());
    let client = |token| {
        let roster = MasterList::new(&places.masters, 0)
            .ok_or_else(|| CtlError::Usage("there is no master to talk to".to_owned()))?;
        Ok::<_, CtlError>(ChatClient::trusting(
            env,
            roster,
            token,
            Limits::default(),
            held.clone(),
            trust.clone(),
        ))
    };
    if let Some(Kept { token }) = kept {
        let client = client(Some(token))?;
        match client.call(&Request::Restore, PATIENCE).await {
            Ok(_) => return Ok(Session { client, held }),
            Err(Failure::Refused { status: 401, .. }) => {}
            Err(failure) => return Err(failure.into()),
        }
    }
    let name =
        chosen_name(name).map_err(|why| CtlError::Usage(format!("--name {name:?}: {why}")))?;
    let client = client(None)?;
    client.open_session(name, PATIENCE).await?;
    if let Some(token) = client.token() {
        let kept = serde_json::to_vec(&Kept { token }).expect("a string is always JSON");
        disk.write_atomic(&places.session_file, &kept).map_err(file)?;
    }
    Ok(Session { client, held })
}

//! Settings of a worker.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{
    crypto::admission::JoinSecret,
    model::ids::Fingerprint,
    programs::{
        ProgramError,
        settings::{
            Key, ValueKind,
            node::{
                DATA_DIR, EVENTS, LOG, NAME, STORE, StorePlace, check_addr, check_name,
                default_store,
            },
        },
    },
};

/// Keys of a worker's own settings.
pub const KEYS: &[Key] = &[
    NAME,
    DATA_DIR,
    STORE,
    Key {
        name: "masters",
        kind: ValueKind::List,
        help: "Where masters take nodes, HOST:PORT, one at least",
    },
    Key {
        name: "pins",
        kind: ValueKind::List,
        help: "Fingerprints of masters' keys, SHA-256 of the public key (SPKI, DER) in hex; for its \
               first start one at least",
    },
    Key { name: "token", kind: ValueKind::Secret, help: "A join token, for its first start" },
    Key { name: "token_file", kind: ValueKind::Text, help: "A file that holds the join token" },
    EVENTS,
    LOG,
];

/// Own settings of a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkerSettings {
    /// Worker's name, for people.
    pub name: String,
    /// Directory that only this worker uses.
    pub data_dir: PathBuf,
    /// Shared store, `sqlite:PATH` or a URL `postgres://..`, which may hold a password; one without a
    /// user is for a login that a master gives. Empty for a file in the directory.
    pub store: String,
    /// Addresses at which masters accept links, `host:port`.
    pub masters: Vec<String>,
    /// Fingerprints of the masters' keys to trust.
    pub pins: Vec<Fingerprint>,
    /// Join token, needed for the first start.
    pub token: Option<String>,
    /// File that holds the join token instead.
    pub token_file: Option<PathBuf>,
    /// File for event lines, which go there besides the log.
    pub events: Option<PathBuf>,
    /// Filter of the log.
    pub log: String,
}

impl Default for WorkerSettings {
    fn default() -> Self {
        Self {
            name: "worker".to_owned(),
            data_dir: "data".into(),
            store: String::new(),
            masters: Vec::new(),
            pins: Vec::new(),
            token: None,
            token_file: None,
            events: None,
            log: "info".to_owned(),
        }
    }
}

impl WorkerSettings {
    /// Derives the settings that were left out, and checks all of them.
    ///
    /// # Errors
    /// [`ProgramError::Usage`] for a worker that could never join.
    pub fn resolve(mut self) -> Result<Self, ProgramError> {
        let usage = |text: &str| Err(ProgramError::Usage(text.to_owned()));
        check_name(&self.name)?;
        default_store(&mut self.store, &self.data_dir);
        if StorePlace::parse(&self.store)?.lacks_database() {
            return usage("store: name the database, as in postgres://HOST/DATABASE");
        }
        if self.masters.is_empty() {
            return usage("masters: name one at least, such as --masters 127.0.0.1:8180");
        }
        self.masters.iter().try_for_each(|addr| check_addr("masters", addr))?;
        if self.token.is_some() && self.token_file.is_some() {
            return usage("token and token_file both say the join token; leave one out");
        }
        Ok(self)
    }

    /// Returns the join token from the setting or its file, checked for its form.
    pub(super) fn join_token(&self) -> Result<Option<String>, ProgramError> {
        let text = match (&self.token, &self.token_file) {
            (Some(text), _) => text.clone(),
            (None, Some(path)) => std::fs::read_to_string(path).map_err(|e| {
                let path = path.display();
                ProgramError::Usage(format!("token_file {path}: {e}; name another file"))
            })?,
            (None, None) => return Ok(None),
        };
        let token = JoinSecret::parse(&text).map_err(|e| ProgramError::Usage(e.to_string()))?;
        Ok(Some(token.text().to_string()))
    }
}

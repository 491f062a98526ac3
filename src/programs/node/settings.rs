//! What a master and a worker can be told, and what must hold before either starts.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    crypto::admission::JoinSecret,
    model::ids::Fingerprint,
    programs::{
        LaunchError,
        settings::{Key, Kind},
    },
};

const NAME: Key = Key { name: "name", kind: Kind::Text, help: "Its name for people" };
const DATA_DIR: Key =
    Key { name: "data_dir", kind: Kind::Text, help: "Its own directory [default: data]" };
const STORE: Key = Key {
    name: "store",
    kind: Kind::Text,
    help: "The shared store, sqlite:PATH [default: sqlite:DATA_DIR/chatchat.db]",
};
const EVENTS: Key =
    Key { name: "events", kind: Kind::Text, help: "A file to append event lines to, as JSON" };
const LOG: Key = Key {
    name: "log",
    kind: Kind::Text,
    help: "What is logged to stderr, such as debug or warn,chatchat=info [default: info]",
};

/// What a master can be told.
pub const MASTER_KEYS: &[Key] = &[
    NAME,
    DATA_DIR,
    STORE,
    Key {
        name: "http",
        kind: Kind::Text,
        help: "Where it serves people, HOST:PORT [default: 127.0.0.1:8080]",
    },
    Key {
        name: "http_public",
        kind: Kind::Text,
        help: "Its front end as browsers reach it [default: http://HTTP]",
    },
    Key {
        name: "link",
        kind: Kind::Text,
        help: "Where it takes nodes, HOST:PORT [default: 127.0.0.1:8180]",
    },
    Key {
        name: "link_public",
        kind: Kind::Text,
        help: "The same as other nodes reach it [default: LINK]",
    },
    Key {
        name: "admin",
        kind: Kind::Text,
        help: "Where it serves operators, HOST:PORT or off [default: 127.0.0.1:8280]",
    },
    EVENTS,
    LOG,
];

/// What a worker can be told.
pub const WORKER_KEYS: &[Key] = &[
    NAME,
    DATA_DIR,
    STORE,
    Key {
        name: "masters",
        kind: Kind::List,
        help: "Where masters take nodes, HOST:PORT, one at least",
    },
    Key {
        name: "pins",
        kind: Kind::List,
        help: "Fingerprints of masters' keys, SHA-256 of the public key (SPKI, DER) in hex; for its \
               first start one at least",
    },
    Key { name: "token", kind: Kind::Secret, help: "A join token, for its first start" },
    Key { name: "token_file", kind: Kind::Text, help: "A file that holds the join token" },
    EVENTS,
    LOG,
];

/// A master's own settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MasterSettings {
    /// Its name for people.
    pub name: String,
    /// Its own directory.
    pub data_dir: PathBuf,
    /// `sqlite:PATH`; empty for a file in the directory.
    pub store: String,
    /// Where it serves people.
    pub http: String,
    /// The same as browsers reach it; empty to say `http`.
    pub http_public: String,
    /// Where it takes nodes.
    pub link: String,
    /// The same as other nodes reach it; empty to say `link`.
    pub link_public: String,
    /// Where it serves operators, or `off`.
    pub admin: String,
    /// Where event lines go besides the log.
    pub events: Option<PathBuf>,
    /// What is logged.
    pub log: String,
}

impl Default for MasterSettings {
    fn default() -> Self {
        Self {
            name: "master".to_owned(),
            data_dir: "data".into(),
            store: String::new(),
            http: "127.0.0.1:8080".to_owned(),
            http_public: String::new(),
            link: "127.0.0.1:8180".to_owned(),
            link_public: String::new(),
            admin: "127.0.0.1:8280".to_owned(),
            events: None,
            log: "info".to_owned(),
        }
    }
}

impl MasterSettings {
    /// Fills in what follows from the rest.
    ///
    /// # Errors
    /// [`LaunchError::Usage`] for what others could not reach, or is no address.
    pub fn resolve(mut self) -> Result<Self, LaunchError> {
        check_name(&self.name)?;
        default_store(&mut self.store, &self.data_dir);
        store_path(&self.store)?;
        if self.http_public.is_empty() {
            self.http_public = format!("http://{}", reachable("http", &self.http)?);
        }
        if self.link_public.is_empty() {
            self.link_public = reachable("link", &self.link)?.to_owned();
        }
        let listens =
            [("http", Some(&*self.http)), ("link", Some(&*self.link)), ("admin", self.admin())];
        for (key, addr) in listens {
            let Some(addr) = addr else { continue };
            check_addr(key, addr)?;
        }
        Ok(self)
    }

    /// Where it serves operators, if it does.
    #[must_use]
    pub fn admin(&self) -> Option<&str> {
        (self.admin != "off").then_some(&self.admin)
    }
}

/// A worker's own settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkerSettings {
    /// Its name for people.
    pub name: String,
    /// Its own directory.
    pub data_dir: PathBuf,
    /// `sqlite:PATH`; empty for a file in the directory.
    pub store: String,
    /// Where masters take nodes.
    pub masters: Vec<String>,
    /// Which masters' keys to believe.
    pub pins: Vec<Fingerprint>,
    /// Lets it in the first time.
    pub token: Option<String>,
    /// Where the token stands instead.
    pub token_file: Option<PathBuf>,
    /// Where event lines go besides the log.
    pub events: Option<PathBuf>,
    /// What is logged.
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
    /// Fills in what follows from the rest.
    ///
    /// # Errors
    /// [`LaunchError::Usage`] for a worker that could never join.
    pub fn resolve(mut self) -> Result<Self, LaunchError> {
        let usage = |text: &str| Err(LaunchError::Usage(text.to_owned()));
        check_name(&self.name)?;
        default_store(&mut self.store, &self.data_dir);
        store_path(&self.store)?;
        if self.masters.is_empty() {
            return usage("masters: name one at least, such as --masters 127.0.0.1:8180");
        }
        self.masters.iter().try_for_each(|addr| check_addr("masters", addr))?;
        if self.token.is_some() && self.token_file.is_some() {
            return usage("token and token_file both say the join token; leave one out");
        }
        Ok(self)
    }

    /// The join token, wherever it stands, checked for its form.
    pub(super) fn join_token(&self) -> Result<Option<String>, LaunchError> {
        let text = match (&self.token, &self.token_file) {
            (Some(text), _) => text.clone(),
            (None, Some(path)) => std::fs::read_to_string(path)
                .map_err(|e| LaunchError::Usage(format!("token_file {}: {e}", path.display())))?,
            (None, None) => return Ok(None),
        };
        let token = JoinSecret::parse(&text).map_err(|e| LaunchError::Usage(e.to_string()))?;
        Ok(Some(token.text().to_string()))
    }
}

fn check_name(name: &str) -> Result<(), LaunchError> {
    let fits = (1..=64).contains(&name.len()) && !name.chars().any(char::is_control);
    let refused = || LaunchError::Usage(format!("name: {name:?} is not 1 to 64 plain characters"));
    fits.then_some(()).ok_or_else(refused)
}

fn check_addr(key: &str, addr: &str) -> Result<(), LaunchError> {
    let port = addr.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    match port.and_then(|(_, port)| port.parse::<u16>().ok()) {
        Some(1..) => Ok(()),
        _ => Err(LaunchError::Usage(format!("{key}: {addr:?} is not HOST:PORT"))),
    }
}

/// An address to listen on that is also one to dial.
fn reachable<'a>(key: &str, addr: &'a str) -> Result<&'a str, LaunchError> {
    if addr.starts_with("0.0.0.0:") || addr.starts_with("[::]:") {
        return Err(LaunchError::Usage(format!(
            "{key}: nobody can dial {addr}; say with --{key}-public how this master is reached"
        )));
    }
    Ok(addr)
}

fn default_store(store: &mut String, data_dir: &Path) {
    if store.is_empty() {
        *store = format!("sqlite:{}", data_dir.join("chatchat.db").display());
    }
}

/// The file that a store is in.
///
/// # Errors
/// [`LaunchError::Usage`] for another kind of store.
pub fn store_path(store: &str) -> Result<PathBuf, LaunchError> {
    match store.strip_prefix("sqlite:") {
        Some(path) if !path.is_empty() => Ok(path.into()),
        _ => Err(LaunchError::Usage(format!("store: {store:?} is not sqlite:PATH"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_from_the_rest_is_filled_in() {
        let master = MasterSettings::default().resolve().expect("the defaults work");
        assert_eq!(master.store, "sqlite:data/chatchat.db");
        assert_eq!(master.http_public, "http://127.0.0.1:8080");
        assert_eq!(master.link_public, "127.0.0.1:8180");
        assert_eq!(MasterSettings { admin: "off".to_owned(), ..master }.admin(), None);
    }

    #[test]
    fn settings_that_cannot_work_are_refused_with_the_way_out() {
        let text = str::to_owned;
        let master = |change: &dyn Fn(&mut MasterSettings)| {
            let mut settings = MasterSettings::default();
            change(&mut settings);
            settings.resolve().expect_err("refused").to_string()
        };
        let worker = |change: &dyn Fn(&mut WorkerSettings)| {
            let mut settings =
                WorkerSettings { masters: vec![text("h:1")], ..WorkerSettings::default() };
            change(&mut settings);
            settings.resolve().expect_err("refused").to_string()
        };
        let lines = [
            master(&|m| m.name = text("a\nb")),
            master(&|m| m.http = text("0.0.0.0:80")),
            master(&|m| m.link = text("nowhere")),
            master(&|m| m.admin = text("127.0.0.1:0")),
            master(&|m| m.store = text("postgres://h/db")),
            worker(&|w| w.masters.clear()),
            worker(&|w| (w.token, w.token_file) = (Some(text("t")), Some("f".into()))),
        ];
        insta::assert_snapshot!(lines.join("\n"), @r#"
        name: "a\nb" is not 1 to 64 plain characters
        http: nobody can dial 0.0.0.0:80; say with --http-public how this master is reached
        link: "nowhere" is not HOST:PORT
        admin: "127.0.0.1:0" is not HOST:PORT
        store: "postgres://h/db" is not sqlite:PATH
        masters: name one at least, such as --masters 127.0.0.1:8180
        token and token_file both say the join token; leave one out
        "#);
    }
}

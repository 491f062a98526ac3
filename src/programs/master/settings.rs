//! Settings of a master.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::http::Access;
use crate::programs::{
    ProgramError,
    settings::{
        Key, ValueKind,
        node::{
            DATA_DIR, EVENTS, LOG, NAME, STORE, StorePlace, TLS_CERT, TLS_KEY, check_addr,
            check_name, default_store, not_plain, reachable, tls_files,
        },
    },
};

/// Keys of a master's own settings.
pub const KEYS: &[Key] = &[
    NAME,
    DATA_DIR,
    STORE,
    Key {
        name: "http",
        kind: ValueKind::Text,
        help: "Where it serves people, HOST:PORT [default: 127.0.0.1:8080]",
    },
    Key {
        name: "http_public",
        kind: ValueKind::Text,
        help: "Its front end as browsers reach it [default: http://HTTP, or https:// under TLS]",
    },
    Key {
        name: "http_names",
        kind: ValueKind::List,
        help: "More names or URLs under which browsers reach it, such as chat.lan or \
               https://chat.example [default: none; addresses, localhost and the name in \
               HTTP_PUBLIC always count]",
    },
    Key {
        name: "http_proxies",
        kind: ValueKind::List,
        help: "Proxies in front of it whose X-Forwarded-For counts, such as 10.0.0.0/8 \
               [default: none]",
    },
    TLS_CERT,
    TLS_KEY,
    Key {
        name: "behind_proxy",
        kind: ValueKind::Switch,
        help: "Speak plain HTTP on addresses that other machines reach, because a proxy with TLS \
               stands in front",
    },
    Key {
        name: "link",
        kind: ValueKind::Text,
        help: "Where it takes nodes, HOST:PORT [default: 127.0.0.1:8180]",
    },
    Key {
        name: "link_public",
        kind: ValueKind::Text,
        help: "The same as other nodes reach it [default: LINK]",
    },
    Key {
        name: "admin",
        kind: ValueKind::Text,
        help: "Where it serves operators, HOST:PORT or off [default: 127.0.0.1:8280]",
    },
    EVENTS,
    LOG,
];

/// Own settings of a master.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MasterSettings {
    /// Master's name, for people.
    pub name: String,
    /// Directory that only this master uses.
    pub data_dir: PathBuf,
    /// Shared store, `sqlite:PATH` or a URL `postgres://..`, which may hold a password; empty for
    /// a file in the directory.
    pub store: String,
    /// Address of the front end, `host:port`.
    pub http: String,
    /// URL of the front end for browsers; empty to derive it from `http`.
    pub http_public: String,
    /// More names and URLs of the front end; what others name is refused.
    pub http_names: Vec<String>,
    /// Addresses and networks of proxies whose `X-Forwarded-For` counts.
    pub http_proxies: Vec<String>,
    /// PEM file of the certificate; none for plain HTTP.
    pub tls_cert: Option<PathBuf>,
    /// PEM file of the certificate's private key.
    pub tls_key: Option<PathBuf>,
    /// Whether plain HTTP is allowed on addresses that other machines reach.
    pub behind_proxy: bool,
    /// Address for links of other nodes, `host:port`.
    pub link: String,
    /// The same address as other nodes reach it; empty to use `link`.
    pub link_public: String,
    /// Address for operators, `host:port`, or `off`.
    pub admin: String,
    /// File for event lines, which go there besides the log.
    pub events: Option<PathBuf>,
    /// Filter of the log.
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
            http_names: Vec::new(),
            http_proxies: Vec::new(),
            tls_cert: None,
            tls_key: None,
            behind_proxy: false,
            link: "127.0.0.1:8180".to_owned(),
            link_public: String::new(),
            admin: "127.0.0.1:8280".to_owned(),
            events: None,
            log: "info".to_owned(),
        }
    }
}

impl MasterSettings {
    /// Derives the settings that were left out, and checks all of them.
    ///
    /// # Errors
    /// [`ProgramError::Usage`] for an address that is none, or that others cannot reach.
    pub fn resolve(mut self) -> Result<Self, ProgramError> {
        check_name(&self.name)?;
        default_store(&mut self.store, &self.data_dir);
        StorePlace::parse(&self.store)?;
        let tls = self.tls_files()?.is_some();
        if self.http_public.is_empty() {
            let scheme = if tls { "https" } else { "http" };
            self.http_public = format!("{scheme}://{}", reachable("http", &self.http)?);
        }
        if let Some(bare) = self.http_public.strip_suffix('/') {
            self.http_public = bare.to_owned();
        }
        self.access()?
            .with_public(&self.http_public)
            .map_err(|e| ProgramError::Usage(format!("http_public: {e}")))?;
        if tls && !self.http_public.to_ascii_lowercase().starts_with("https://") {
            return Err(ProgramError::Usage(format!(
                "http_public: this front end speaks TLS itself, so its URL begins with https://, \
                 not {:?}",
                self.http_public
            )));
        }
        if self.link_public.is_empty() {
            self.link_public = reachable("link", &self.link)?.to_owned();
        }
        let listens = [
            ("http", Some(&*self.http)),
            ("link", Some(&*self.link)),
            ("link_public", Some(&*self.link_public)),
            ("admin", self.admin()),
        ];
        for (key, addr) in listens {
            let Some(addr) = addr else { continue };
            check_addr(key, addr)?;
        }
        not_plain("http", &self.http, tls || self.behind_proxy)?;
        self.admin().map_or(Ok(()), |addr| not_plain("admin", addr, tls || self.behind_proxy))?;
        Ok(self)
    }

    /// Returns the files of certificate and key, if it speaks TLS.
    ///
    /// # Errors
    /// [`ProgramError::Usage`] when one is named without the other.
    pub fn tls_files(&self) -> Result<Option<(&Path, &Path)>, ProgramError> {
        tls_files(self.tls_cert.as_deref(), self.tls_key.as_deref())
    }

    /// Returns the names and proxies of the front end.
    ///
    /// # Errors
    /// [`ProgramError::Usage`] for one that is neither.
    pub fn access(&self) -> Result<Access, ProgramError> {
        Access::new(&self.http_names, &self.http_proxies)
            .map_err(|e| ProgramError::Usage(format!("http_names, http_proxies: {e}")))
    }

    /// Returns the address for operators, unless it is `off`.
    #[must_use]
    pub fn admin(&self) -> Option<&str> {
        (self.admin != "off").then_some(&self.admin)
    }
}

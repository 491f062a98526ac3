//! Keys and checks that the settings of masters and workers share.

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
};

use super::{Key, ValueKind};
use crate::{
    programs::ProgramError,
    store::{
        postgres::{Address, is_postgres, masked},
        sqlite,
    },
};

pub(crate) const NAME: Key =
    Key { name: "name", kind: ValueKind::Text, help: "Its name for people" };
pub(crate) const DATA_DIR: Key =
    Key { name: "data_dir", kind: ValueKind::Text, help: "Its own directory [default: data]" };
pub(crate) const STORE: Key = Key {
    name: "store",
    kind: ValueKind::Url,
    help: "The shared store, sqlite:PATH or postgres://USER@HOST/DATABASE \
           [default: sqlite:DATA_DIR/chatchat.db]",
};
pub(crate) const EVENTS: Key =
    Key { name: "events", kind: ValueKind::Text, help: "A file to append event lines to, as JSON" };
pub(crate) const LOG: Key = Key {
    name: "log",
    kind: ValueKind::Text,
    help: "What is logged to stderr, such as debug or warn,chatchat=info [default: info]",
};

pub(crate) const TLS_CERT: Key = Key {
    name: "tls_cert",
    kind: ValueKind::Text,
    help: "A PEM file with its certificate for https, then those that vouch for it [default: none]",
};
pub(crate) const TLS_KEY: Key = Key {
    name: "tls_key",
    kind: ValueKind::Text,
    help: "A PEM file with the certificate's private key, mode 0600 [default: none]",
};

/// Returns the files of certificate and key, if both are named.
///
/// # Errors
/// [`ProgramError::Usage`] when one is named without the other.
pub(crate) fn tls_files<'a>(
    cert: Option<&'a Path>,
    key: Option<&'a Path>,
) -> Result<Option<(&'a Path, &'a Path)>, ProgramError> {
    match (cert, key) {
        (None, None) => Ok(None),
        (Some(cert), Some(key)) => Ok(Some((cert, key))),
        (None, Some(_)) => Err(ProgramError::Usage(
            "tls_key: name its certificate too, with --tls-cert FILE".to_owned(),
        )),
        (Some(_), None) => Err(ProgramError::Usage(
            "tls_cert: name its private key too, with --tls-key FILE".to_owned(),
        )),
    }
}

/// Returns whether only this machine reaches an address `HOST:PORT`.
pub(crate) fn is_loopback(addr: &str) -> bool {
    let host = addr.rsplit_once(':').map_or(addr, |(host, _)| host);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || bare.parse().is_ok_and(|ip: IpAddr| ip.to_canonical().is_loopback())
}

/// Refuses to send secrets unencrypted to other machines.
pub(crate) fn not_plain(key: &str, addr: &str, is_protected: bool) -> Result<(), ProgramError> {
    if is_protected || is_loopback(addr) {
        return Ok(());
    }
    Err(ProgramError::Usage(format!(
        "{key}: plain HTTP on {addr} shows other machines the tokens of sessions; name a \
         certificate with --tls-cert FILE --tls-key FILE, or say --behind-proxy if a proxy with \
         TLS stands in front of it"
    )))
}

pub(crate) fn check_name(name: &str) -> Result<(), ProgramError> {
    let fits = (1..=64).contains(&name.len()) && !name.chars().any(char::is_control);
    let refused = || ProgramError::Usage(format!("name: {name:?} is not 1 to 64 plain characters"));
    fits.then_some(()).ok_or_else(refused)
}

pub(crate) fn check_addr(key: &str, addr: &str) -> Result<(), ProgramError> {
    let plain = |host: &str| {
        let bracketed = host.starts_with('[') && host.ends_with(']');
        let odd = |c: char| c.is_whitespace() || c.is_control() || "/@?#".contains(c);
        !host.is_empty() && !host.contains(odd) && (bracketed || !host.contains(':'))
    };
    let port = addr.rsplit_once(':').filter(|(host, _)| plain(host));
    match port.and_then(|(_, port)| port.parse::<u16>().ok()) {
        Some(1..) => Ok(()),
        _ => Err(ProgramError::Usage(format!("{key}: {addr:?} is not HOST:PORT"))),
    }
}

/// Returns an address to listen on if others can dial it too.
pub(crate) fn reachable<'a>(key: &str, addr: &'a str) -> Result<&'a str, ProgramError> {
    if addr.starts_with("0.0.0.0:") || addr.starts_with("[::]:") {
        return Err(ProgramError::Usage(format!(
            "{key}: nobody can dial {addr}; say with --{key}-public how this master is reached"
        )));
    }
    Ok(addr)
}

pub(crate) fn default_store(store: &mut String, data_dir: &Path) {
    if store.is_empty() {
        *store = format!("sqlite:{}", data_dir.join("chatchat.db").display());
    }
}

/// Place of the shared store. Its texts show no password, but for the one that a settings file gets.
#[derive(Clone, Debug)]
pub enum StorePlace {
    /// File, for processes of one machine.
    Sqlite(PathBuf),
    /// Servers, for any.
    Postgres(Box<Address>),
}

impl fmt::Display for StorePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Postgres(address) => address.fmt(f),
        }
    }
}

impl StorePlace {
    /// Parses the setting of a store.
    ///
    /// # Errors
    /// [`ProgramError::Usage`] for another kind of store.
    pub fn parse(store: &str) -> Result<Self, ProgramError> {
        if is_postgres(store) {
            let address = Address::parse(store);
            return address
                .map(|address| Self::Postgres(Box::new(address)))
                .map_err(|e| ProgramError::Usage(format!("store: {e}")));
        }
        match store.strip_prefix("sqlite:") {
            Some(path) if !path.is_empty() => Ok(Self::Sqlite(path.into())),
            _ => Err(ProgramError::Usage(format!(
                "store: {:?} is neither sqlite:PATH nor postgres://USER@HOST/DATABASE",
                masked(store)
            ))),
        }
    }

    /// Returns the same place with an absolute path, which holds in whatever directory.
    ///
    /// # Errors
    /// [`ProgramError::Usage`] for an empty path.
    pub(crate) fn absolute(self) -> Result<Self, ProgramError> {
        Ok(match self {
            Self::Sqlite(path) => Self::Sqlite(
                std::path::absolute(path)
                    .map_err(|e| ProgramError::Usage(format!("store: {e}")))?,
            ),
            Self::Postgres(address) => Self::Postgres(address),
        })
    }

    /// Returns whether it is a server, and a worker has to get its login from a master.
    pub(crate) fn lacks_login(&self) -> bool {
        matches!(self, Self::Postgres(address) if address.lacks_login())
    }

    /// Returns whether a login that a master gives would have no database.
    pub(crate) fn lacks_database(&self) -> bool {
        matches!(self, Self::Postgres(address) if address.lacks_login() && !address.names_database())
    }

    /// Returns the setting with its password: for a file that only its owner reads.
    pub(crate) fn secret_setting(&self) -> String {
        match self {
            Self::Sqlite(_) => self.to_string(),
            Self::Postgres(address) => address.secret_url().to_owned(),
        }
    }

    /// Makes a store's one file the whole store, as far as its log can be copied back.
    pub(crate) fn copy_log_back(&self) {
        if let Self::Sqlite(path) = self {
            sqlite::copy_log_back(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::programs::{master::MasterSettings, worker::WorkerSettings};

    #[test]
    fn settings_left_out_are_derived_from_the_others() {
        let master = MasterSettings::default().resolve().expect("the defaults work");
        assert_eq!(master.store, "sqlite:data/chatchat.db");
        assert_eq!(master.http_public, "http://127.0.0.1:8080");
        assert_eq!(master.link_public, "127.0.0.1:8180");
        assert_eq!(MasterSettings { admin: "off".to_owned(), ..master }.admin(), None);
    }

    #[test]
    fn plain_http_needs_loopback_a_certificate_or_a_proxy() {
        let of = |http: &str, tls: bool, behind_proxy: bool| {
            let file = |name: &str| tls.then(|| name.into());
            let settings = MasterSettings {
                http: http.to_owned(),
                tls_cert: file("c.pem"),
                tls_key: file("k.pem"),
                behind_proxy,
                ..MasterSettings::default()
            };
            settings.resolve().map(|settings| settings.http_public)
        };
        for loopback in ["127.0.0.1:80", "127.9.9.9:80", "[::1]:80", "localhost:80"] {
            assert_eq!(of(loopback, false, false).ok(), Some(format!("http://{loopback}")));
        }
        for open in ["10.0.0.1:80", "chat.example:80", "[2001:db8::1]:80", "127.0.0.1.example:80"] {
            assert!(of(open, false, false).is_err(), "{open}");
            assert_eq!(of(open, true, false).ok(), Some(format!("https://{open}")));
            assert_eq!(of(open, false, true).ok(), Some(format!("http://{open}")));
        }
    }

    #[test]
    fn settings_that_cannot_work_are_refused_with_a_remedy() {
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
            master(&|m| m.http_public = text("chat.example")),
            master(&|m| m.http_names = vec![text("chat.example:80")]),
            master(&|m| m.http_proxies = vec![text("lan")]),
            master(&|m| m.link = text("nowhere")),
            master(&|m| m.link_public = text("http://h:1")),
            master(&|m| m.admin = text("127.0.0.1:0")),
            master(&|m| m.http = text("10.0.0.1:80")),
            master(&|m| m.admin = text("[2001:db8::1]:80")),
            master(&|m| m.tls_cert = Some("c.pem".into())),
            master(&|m| m.tls_key = Some("k.pem".into())),
            master(&|m| {
                (m.tls_cert, m.tls_key) = (Some("c.pem".into()), Some("k.pem".into()));
                m.http_public = text("http://chat.example");
            }),
            master(&|m| m.store = text("postgres://ada:s3cret@h/db")),
            master(&|m| m.store = text("mysql://ada:s3cret@h/db")),
            worker(&|w| w.masters.clear()),
            worker(&|w| w.store = text("postgres://localhost")),
            worker(&|w| (w.token, w.token_file) = (Some(text("t")), Some("f".into()))),
        ];
        insta::assert_snapshot!(lines.join("\n"), @r#"
        name: "a\nb" is not 1 to 64 plain characters
        http: nobody can dial 0.0.0.0:80; say with --http-public how this master is reached
        http_public: "chat.example" is not http://HOST[:PORT] or https://HOST[:PORT]
        http_names, http_proxies: "chat.example:80" is not a host's name or a URL
        http_names, http_proxies: "lan" is not an address such as 10.0.0.1 or 10.0.0.0/8
        link: "nowhere" is not HOST:PORT
        link_public: "http://h:1" is not HOST:PORT
        admin: "127.0.0.1:0" is not HOST:PORT
        http: plain HTTP on 10.0.0.1:80 shows other machines the tokens of sessions; name a certificate with --tls-cert FILE --tls-key FILE, or say --behind-proxy if a proxy with TLS stands in front of it
        admin: plain HTTP on [2001:db8::1]:80 shows other machines the tokens of sessions; name a certificate with --tls-cert FILE --tls-key FILE, or say --behind-proxy if a proxy with TLS stands in front of it
        tls_cert: name its private key too, with --tls-key FILE
        tls_key: name its certificate too, with --tls-cert FILE
        http_public: this front end speaks TLS itself, so its URL begins with https://, not "http://chat.example"
        store: h:5432 is reached over a network: name the certificates to trust by sslrootcert=FILE.pem
        store: "mysql://ada:***@h/db" is neither sqlite:PATH nor postgres://USER@HOST/DATABASE
        masters: name one at least, such as --masters 127.0.0.1:8180
        store: name the database, as in postgres://HOST/DATABASE
        token and token_file both say the join token; leave one out
        "#);
    }
}

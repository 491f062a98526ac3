//! URL of a store on PostgreSQL: servers, database, user and TLS.
//!
//! 1. A password is shown nowhere: neither the URL's display nor any error names it.
//! 2. A server that is reached over a network is spoken to by TLS alone, and its certificate must be
//!    of its name. Loopback and Unix sockets need none.

use std::{
    fmt, fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use thiserror::Error;
use tokio_postgres::{Config, config::Host};

/// Keys that the driver reads.
const OF_DRIVER: [&str; 5] =
    ["target_session_attrs", "options", "application_name", "host", "port"];

/// Error of a URL that names no store. Nothing was tried.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AddressError {
    /// It is not of the form of such a URL.
    #[error("{0}; want postgres://USER@HOST[:PORT][,HOST..]/DATABASE[?KEY=VALUE&..]")]
    Malformed(&'static str),
    /// A key is not known.
    #[error(
        "a key behind the ? is none of target_session_attrs, sslmode, sslrootcert, password_file, \
         options, application_name, host, port; write % characters for those of a password"
    )]
    UnknownKey,
    /// A value is not allowed.
    #[error("{key}: {why}")]
    Value {
        /// The key.
        key: &'static str,
        /// Rule that it breaks.
        why: &'static str,
    },
    /// A server is reached over a network, and nothing says whose certificate to trust.
    #[error(
        "{server} is reached over a network: name the certificates to trust by \
         sslrootcert=FILE.pem"
    )]
    NoRoots {
        /// The server.
        server: String,
    },
}

/// Place at which a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

impl Place {
    fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp { host, .. } => {
                host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
            }
        }
    }
}

/// One server of a store, of which one takes writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) place: Place,
    /// Whether it is spoken to by TLS.
    pub(super) tls: bool,
}

/// Parsed URL of a store.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    url: String,
    config: Config,
    servers: Vec<Server>,
    roots: Option<PathBuf>,
    password_file: Option<PathBuf>,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&masked(&self.url))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

impl Address {
    /// Parses a URL `postgres://..` or `postgresql://..`.
    ///
    /// # Errors
    /// [`AddressError`]; none shows what may be part of a password.
    pub fn parse(url: &str) -> Result<Self, AddressError> {
        if !is_postgres(url) {
            return Err(AddressError::Malformed("it is no such URL"));
        }
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let (mut driver, mut own) = (Vec::new(), Vec::new());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').ok_or(AddressError::UnknownKey)?;
            match key {
                _ if OF_DRIVER.contains(&key) => driver.push(pair),
                "sslmode" | "sslrootcert" | "password_file" => own.push((key, decoded(value)?)),
                _ => return Err(AddressError::UnknownKey),
            }
        }
        let value = |key| own.iter().find(|(known, _)| *known == key).map(|(_, value)| value);
        let wrong = |key, why| AddressError::Value { key, why };
        let driver_url = format!("{base}?{}", driver.join("&"));
        let config: Config = driver_url
            .parse()
            .map_err(|_| AddressError::Malformed("a part of the URL is malformed"))?;
        if driver.iter().any(|pair| pair.starts_with("target_session_attrs="))
            && !driver.contains(&"target_session_attrs=read-write")
        {
            return Err(wrong("target_session_attrs", "a store is written, so read-write alone"));
        }
        let mode = value("sslmode").map(String::as_str);
        let path = |key| match value(key).map(PathBuf::from) {
            Some(path) if path.is_relative() => Err(wrong(key, "want an absolute path")),
            path => Ok(path),
        };
        let roots = path("sslrootcert")?;
        let servers = places(&config)?
            .into_iter()
            .map(|place| {
                let tls = match mode {
                    Some("disable") | None if place.is_local() => false,
                    Some("verify-full") => !matches!(place, Place::Unix(_)),
                    None => true,
                    Some("disable") => {
                        return Err(wrong("sslmode", "disable is for loopback and sockets alone"));
                    }
                    Some(_) => return Err(wrong("sslmode", "want verify-full or disable")),
                };
                if tls && roots.is_none() {
                    return Err(AddressError::NoRoots { server: place.to_string() });
                }
                Ok(Server { place, tls })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let password_file = path("password_file")?;
        if password_file.is_some() && config.get_password().is_some() {
            return Err(wrong("password_file", "the URL has a password already"));
        }
        Ok(Self { url: url.to_owned(), config, servers, roots, password_file })
    }

    /// Returns the URL as it was given, with its password: for a file that only its owner reads.
    #[must_use]
    pub fn secret_url(&self) -> &str {
        &self.url
    }

    /// Returns whether it names neither a user nor a password: a worker then gets its login from a
    /// master.
    #[must_use]
    pub fn lacks_login(&self) -> bool {
        self.config.get_user().is_none() && self.password_file.is_none()
    }

    /// Returns whether it names a password or a file that holds one.
    #[must_use]
    pub fn has_password(&self) -> bool {
        self.config.get_password().is_some() || self.password_file.is_some()
    }

    /// Returns whether it names a database; else that of the user's name is meant.
    #[must_use]
    pub fn names_database(&self) -> bool {
        self.config.get_dbname().is_some()
    }

    /// Returns the URL without its user and password, for a worker that gets its login from a master.
    #[must_use]
    pub fn without_login(&self) -> String {
        let (base, query) = self.url.split_once('?').unwrap_or((&self.url, ""));
        let (scheme, rest) = base.split_once("://").unwrap_or(("postgres", base));
        // As the driver does, which takes the first @ for the end of the user.
        let rest = rest.split_once('@').map_or(rest, |(_, servers)| servers);
        let pairs = query.split('&');
        let kept: Vec<_> = pairs.filter(|pair| !pair.starts_with("password_file=")).collect();
        let query = kept.join("&");
        let mark = if query.is_empty() { "" } else { "?" };
        format!("{scheme}://{rest}{mark}{query}")
    }

    pub(super) fn servers(&self) -> &[Server] {
        &self.servers
    }

    pub(super) fn roots(&self) -> Option<&Path> {
        self.roots.as_deref()
    }

    /// Returns the settings of the driver; the password is read from its file anew.
    pub(super) fn config(&self) -> io::Result<Config> {
        let mut config = self.config.clone();
        if let Some(path) = &self.password_file {
            config.password(fs::read_to_string(path)?.trim_end_matches(['\r', '\n']));
        }
        if config.get_application_name().is_none() {
            config.application_name("chatchat");
        }
        Ok(config)
    }

    pub(super) fn password_file(&self) -> Option<&Path> {
        self.password_file.as_deref()
    }
}

/// Returns whether the setting of a store names PostgreSQL.
#[must_use]
pub fn is_postgres(store: &str) -> bool {
    store.starts_with("postgres://") || store.starts_with("postgresql://")
}

/// Returns a URL without its password, whether it can be parsed or not.
#[must_use]
pub fn masked(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    // A password may hold any character that was not written as %XX.
    let Some((user, rest)) = rest.rsplit_once('@') else { return url.to_owned() };
    match user.split_once(':') {
        Some((user, _)) => format!("{scheme}://{user}:***@{rest}"),
        None => url.to_owned(),
    }
}

fn places(config: &Config) -> Result<Vec<Place>, AddressError> {
    if !config.get_hostaddrs().is_empty() {
        return Err(AddressError::UnknownKey);
    }
    let hosts = config.get_hosts();
    if hosts.is_empty() {
        return Err(AddressError::Malformed("no server is named"));
    }
    let ports = config.get_ports();
    let port = |nth: usize| match ports {
        [] => Some(5432),
        [one] => Some(*one),
        _ => ports.get(nth).copied(),
    };
    let place = |(nth, host): (usize, &Host)| {
        let port = port(nth).ok_or(AddressError::Malformed("a server has no port"))?;
        Ok(match host {
            Host::Tcp(host) => Place::Tcp {
                host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
                port,
            },
            Host::Unix(dir) => Place::Unix(dir.join(format!(".s.PGSQL.{port}"))),
        })
    };
    hosts.iter().enumerate().map(place).collect()
}

/// Decodes the `%XX` of a value.
fn decoded(value: &str) -> Result<String, AddressError> {
    let malformed = || AddressError::Malformed("a value behind the ? is malformed");
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        if *first == b'%' {
            let (digits, others) = others.split_at_checked(2).ok_or_else(malformed)?;
            let mut byte = [0];
            hex::decode_to_slice(digits, &mut byte).map_err(|_| malformed())?;
            bytes.extend(byte);
            rest = others;
        } else {
            bytes.push(*first);
            rest = others;
        }
    }
    String::from_utf8(bytes).map_err(|_| malformed())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Address, AddressError> {
        Address::parse(url)
    }

    #[test]
    fn servers_are_listed_in_order_and_only_networks_need_tls() {
        let url = "postgres://me@localhost,127.0.0.2:5433,[::1]:5434,%2Frun%2Fpg/db\
                   ?target_session_attrs=read-write";
        let address = parse(url).expect("all are local");
        let shown: Vec<_> = address.servers.iter().map(|s| (s.place.to_string(), s.tls)).collect();
        let want = [
            ("localhost:5432", false),
            ("127.0.0.2:5433", false),
            ("[::1]:5434", false),
            ("/run/pg/.s.PGSQL.5432", false),
        ];
        assert_eq!(shown, want.map(|(place, tls)| (place.to_owned(), tls)));
        let remote = parse("postgres://me@db.lan/db?sslrootcert=/etc/ca%20s.pem").expect("TLS");
        assert!(remote.servers[0].tls);
        assert_eq!(remote.roots(), Some(Path::new("/etc/ca s.pem")));
    }

    #[test]
    fn url_that_is_unsafe_or_cannot_work_is_refused_without_its_password() {
        let lines: Vec<_> = [
            "postgres://me:s3cret@/db",
            "postgres://me:s3cret@db.lan/db",
            "postgres://me:s3cret@db.lan/db?sslmode=disable",
            "postgres://me:s3cret@db.lan/db?sslmode=require&sslrootcert=/f",
            "postgres://me:s3c?ret@db.lan/db",
            "postgres://me:s3cret@localhost/db?target_session_attrs=any",
            "postgres://me:s3cret@localhost/db?password=s3cret",
            "postgres://me:s3cret@localhost:70000/db",
            "mysql://me:s3cret@h/db",
        ]
        .map(|url| parse(url).expect_err(url).to_string())
        .into();
        let lines = lines.join("\n");
        assert!(!lines.contains("s3c") && !lines.contains("ret@"), "{lines}");
        insta::assert_snapshot!(lines, @r"
        no server is named; want postgres://USER@HOST[:PORT][,HOST..]/DATABASE[?KEY=VALUE&..]
        db.lan:5432 is reached over a network: name the certificates to trust by sslrootcert=FILE.pem
        sslmode: disable is for loopback and sockets alone
        sslmode: want verify-full or disable
        a key behind the ? is none of target_session_attrs, sslmode, sslrootcert, password_file, options, application_name, host, port; write % characters for those of a password
        target_session_attrs: a store is written, so read-write alone
        a key behind the ? is none of target_session_attrs, sslmode, sslrootcert, password_file, options, application_name, host, port; write % characters for those of a password
        a part of the URL is malformed; want postgres://USER@HOST[:PORT][,HOST..]/DATABASE[?KEY=VALUE&..]
        it is no such URL; want postgres://USER@HOST[:PORT][,HOST..]/DATABASE[?KEY=VALUE&..]
        ");
    }

    #[test]
    fn address_without_user_is_for_a_login_that_a_master_gives() {
        let lacks = |url: &str| parse(url).expect("a good URL").lacks_login();
        assert!(lacks("postgres://localhost/db"));
        assert!(lacks("postgres://localhost/db?options=-csearch_path%3Dchat"));
        assert!(!lacks("postgres://me@localhost/db"));
        assert!(!lacks("postgres://me:s3cret@localhost/db"));
        assert!(!lacks("postgres://localhost/db?password_file=/f"));
        assert!(!parse("postgres://localhost").expect("good").names_database());
    }

    #[test]
    fn url_without_its_login_keeps_servers_database_and_settings() {
        for (url, want) in [
            ("postgres://localhost/db", "postgres://localhost/db"),
            ("postgres://me@localhost/db", "postgres://localhost/db"),
            ("postgresql://me:s3cret@localhost,[::1]:7/db", "postgresql://localhost,[::1]:7/db"),
            ("postgres://me@localhost/db?password_file=/f", "postgres://localhost/db"),
            (
                "postgres://me@db.lan/db?sslrootcert=/c&password_file=/f&options=-ca%3Db",
                "postgres://db.lan/db?sslrootcert=/c&options=-ca%3Db",
            ),
        ] {
            let address = parse(url).expect("a good URL");
            assert_eq!(address.without_login(), want);
            let without = parse(want).expect("still a good one");
            assert!(without.lacks_login() && !without.has_password());
            assert_eq!(without.servers(), address.servers());
        }
    }

    #[test]
    fn password_is_shown_nowhere() {
        for url in [
            "postgres://me:s3cret@localhost/db",
            "postgres://me:s3c@ret@localhost/db",
            "postgresql://me:s3cret@h1,h2:5433/db?sslmode=verify-full&sslrootcert=/f",
        ] {
            assert!(!masked(url).contains("ret"), "{}", masked(url));
            let Ok(address) = parse(url) else { continue };
            for shown in [address.to_string(), format!("{address:?}")] {
                assert!(!shown.contains("s3c"), "{shown}");
            }
            assert_eq!(address.secret_url(), url);
        }
        assert_eq!(masked("sqlite:a@b"), "sqlite:a@b");
        assert_eq!(masked("postgres://me@h/db"), "postgres://me@h/db");
    }
}

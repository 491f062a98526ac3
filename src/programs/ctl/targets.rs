//! Addresses of the masters, and the files that `chatctl` keeps.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{CtlError, args::Args};
use crate::{client::Trust, programs::tls};

/// Admin listener of one master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Admin {
    /// The master's name.
    pub(super) name: String,
    /// Its address, `http://host:port` or `https://host:port`.
    pub(super) url: String,
    /// Its admin token.
    pub(super) token: String,
}

/// Addresses and files that a command needs before it connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Targets {
    /// Addresses of front ends, `http://host:port` or `https://host:port`; none with `--admin` alone.
    pub(super) masters: Vec<String>,
    /// Admin listeners; none when no token can be read.
    pub(super) admins: Vec<Admin>,
    /// Directory in which the session is kept.
    pub(super) state_dir: PathBuf,
    /// File of the session in that directory.
    pub(super) session_file: String,
    /// Certificates by which masters at `https://` are known.
    pub(super) certificates: Certificates,
}

/// File of certificates by which masters are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Certificates {
    None,
    /// Of authorities that vouch for masters.
    Authorities(PathBuf),
    /// Of the masters themselves.
    Masters(PathBuf),
}

#[derive(Debug, Deserialize)]
struct ClusterFile {
    tls_cert: Option<PathBuf>,
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    name: String,
    http: Option<String>,
    admin: Option<String>,
}

impl Targets {
    /// Finds them by `--admin`, by `--master`, or in the data directory.
    pub(super) fn find(args: &Args) -> Result<Self, CtlError> {
        let named = args.cacert.clone().map_or(Certificates::None, Certificates::Authorities);
        match (&args.admin, &args.master) {
            (Some(admin), _) => Self::of_admin(admin, &args.data_dir, named),
            (None, Some(master)) => Self::of_master(master, named),
            (None, None) => Self::of_data_dir(&args.data_dir, named),
        }
    }

    /// Reads the certificates by which masters at `https://` are known.
    ///
    /// # Errors
    /// [`CtlError::Usage`]: they cannot be used.
    pub(super) fn trust(&self) -> Result<Option<Trust>, CtlError> {
        let trust = match &self.certificates {
            Certificates::None => return Ok(None),
            Certificates::Authorities(file) => tls::trust(file, Trust::of_authorities),
            Certificates::Masters(file) => tls::trust(file, Trust::of_certificate),
        };
        trust.map(Some).map_err(|why| CtlError::Usage(why.to_string()))
    }

    fn of_admin(admin: &str, dir: &Path, certificates: Certificates) -> Result<Self, CtlError> {
        let token = dir.join("admin.token");
        let read = fs::read_to_string(&token).map(|text| text.trim().to_owned());
        let why = |e: io::Error| format!("{}: {e}; name the master's --data-dir", token.display());
        let token = read.map_err(|e| CtlError::Usage(why(e)))?;
        Ok(Self {
            masters: Vec::new(),
            admins: vec![Admin { name: admin.to_owned(), url: as_url(admin), token }],
            state_dir: dir.to_owned(),
            session_file: "chatctl-session.json".to_owned(),
            certificates,
        })
    }

    fn of_master(master: &str, certificates: Certificates) -> Result<Self, CtlError> {
        let master = as_url(master);
        let authority = match (master.strip_prefix("https://"), master.strip_prefix("http://")) {
            (Some(_), _) if certificates == Certificates::None => {
                return Err(CtlError::Usage(format!(
                    "--master {master}: say with --cacert FILE which authorities vouch for it"
                )));
            }
            // One session is never sent both encrypted and not.
            (Some(authority), _) => format!("tls-{authority}"),
            (None, Some(authority)) if authority.contains(':') => authority.to_owned(),
            _ => {
                let wrong = format!("--master {master}: want http://HOST:PORT or https://HOST");
                return Err(CtlError::Usage(wrong));
            }
        };
        let plain: String =
            authority.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        Ok(Self {
            masters: vec![master],
            admins: Vec::new(),
            state_dir: own_state_dir()?,
            session_file: format!("session-{plain}.json"),
            certificates,
        })
    }

    fn of_data_dir(dir: &Path, named: Certificates) -> Result<Self, CtlError> {
        let path = dir.join("cluster.json");
        let text = fs::read_to_string(&path).map_err(|why| match why.kind() {
            io::ErrorKind::NotFound => CtlError::Usage(format!(
                "{} is not there: start a cluster with chatchat-cluster, say where it is with \
                 --data-dir DIR, or name a master with --master http://HOST:PORT",
                path.display()
            )),
            _ => CtlError::File { what: path.display().to_string(), why },
        })?;
        let file: ClusterFile = serde_json::from_str(&text)
            .map_err(|why| CtlError::Failed(format!("{}: {why}", path.display())))?;
        let masters: Vec<_> =
            file.nodes.iter().filter_map(|node| node.http.as_deref()).map(as_url).collect();
        if masters.is_empty() {
            return Err(CtlError::Failed(format!("{} names no master", path.display())));
        }
        let admins = file.nodes.iter().filter_map(|node| {
            let url = as_url(node.admin.as_deref()?);
            let token = admin_token(dir, &node.name)?;
            Some(Admin { name: node.name.clone(), url, token })
        });
        Ok(Self {
            admins: admins.collect(),
            masters,
            state_dir: dir.to_owned(),
            session_file: "chatctl-session.json".to_owned(),
            certificates: match (named, file.tls_cert) {
                (Certificates::None, Some(cert)) => Certificates::Masters(cert),
                (named, _) => named,
            },
        })
    }
}

/// Reads the cluster's admin token, or the node's own where each node has one.
fn admin_token(dir: &Path, node: &str) -> Option<String> {
    let of_cluster = fs::read_to_string(dir.join("admin.token"));
    let token = of_cluster.or_else(|_| fs::read_to_string(dir.join(node).join("admin.token")));
    token.ok().map(|text| text.trim().to_owned()).filter(|token| !token.is_empty())
}

fn as_url(address: &str) -> String {
    let address = address.trim_end_matches('/');
    if address.contains("://") { address.to_owned() } else { format!("http://{address}") }
}

/// Returns `$XDG_STATE_HOME/chatchat`, by default `~/.local/state/chatchat`.
fn own_state_dir() -> Result<PathBuf, CtlError> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state")));
    base.map(|base| base.join("chatchat")).ok_or_else(|| {
        CtlError::Usage("neither XDG_STATE_HOME nor HOME says where to keep a session".to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::real::TempDir;

    #[test]
    fn data_directory_gives_masters_and_admin_listeners() {
        let dir = TempDir::new().unwrap();
        fs::write(
            dir.path().join("cluster.json"),
            r#"{"nodes":[
                {"name":"m0","role":"master","pid":1,"http":"http://127.0.0.1:8080","link":"127.0.0.1:8180","admin":"127.0.0.1:8280"},
                {"name":"w0","role":"worker","pid":2,"http":null,"link":null,"admin":null}]}"#,
        )
        .unwrap();
        let without = Targets::of_data_dir(dir.path(), Certificates::None).unwrap();
        assert_eq!(without.masters, ["http://127.0.0.1:8080"]);
        assert_eq!(without.admins, []);
        fs::write(dir.path().join("admin.token"), "secret\n").unwrap();
        let with = Targets::of_data_dir(dir.path(), Certificates::None).unwrap();
        let (name, url) = ("m0".to_owned(), "http://127.0.0.1:8280".to_owned());
        assert_eq!(with.admins, [Admin { name, url, token: "secret".to_owned() }]);
    }

    #[test]
    fn missing_cluster_is_a_usage_error_with_advice() {
        let dir = TempDir::new().unwrap();
        let refused = Targets::of_data_dir(dir.path(), Certificates::None).unwrap_err();
        assert!(
            matches!(&refused, CtlError::Usage(text) if text.contains("--master")),
            "{refused}"
        );
        let master = |url| Targets::of_master(url, Certificates::None);
        assert!(matches!(master("x"), Err(CtlError::Usage(_))));
    }

    #[test]
    fn encrypted_master_needs_certificates_and_has_a_session_of_its_own() {
        let refused = Targets::of_master("https://x:1", Certificates::None).unwrap_err();
        assert!(refused.to_string().contains("--cacert FILE"), "{refused}");
        let named = Certificates::Authorities("ca.pem".into());
        let https = Targets::of_master("https://x:1", named.clone()).unwrap();
        let http = Targets::of_master("http://x:1", named.clone()).unwrap();
        assert_eq!(https.masters, ["https://x:1"]);
        assert_ne!(https.session_file, http.session_file);
        let dir = TempDir::new().unwrap();
        let listing =
            r#"{"tls_cert":"/c.pem","nodes":[{"name":"m","http":"https://127.0.0.1:1"}]}"#;
        fs::write(dir.path().join("cluster.json"), listing).unwrap();
        let of = |named| Targets::of_data_dir(dir.path(), named).unwrap().certificates;
        assert_eq!(of(Certificates::None), Certificates::Masters("/c.pem".into()));
        assert_eq!(of(named.clone()), named);
    }
}

//! TLS of a listener: a certificate and its key, which can be replaced while it serves.
//!
//! 1. A pair that cannot be used changes nothing.
//! 2. A handshake has one limit in all, and holds a place of a connection from its start.

use std::{
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
};
use thiserror::Error;
use tokio_rustls::TlsAcceptor;

use crate::env::{BoxStream, Env, TimedOut};

/// Longest handshake, from accept to its last byte.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Certificate and key of a listener. Cheap to clone; all clones change together.
#[derive(Clone)]
pub struct Tls(Arc<Mutex<Arc<ServerConfig>>>);

/// Error of a certificate and a key that cannot be used. Those in use stay.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The text of the certificate holds none.
    #[error("there is no certificate in PEM form")]
    NoCertificate,
    /// A certificate cannot be read.
    #[error("the certificate cannot be read: {0}")]
    Certificate(pem::Error),
    /// The key cannot be read.
    #[error("the private key cannot be read: {0}")]
    Key(pem::Error),
    /// They can be read, and are not good for a server or do not belong together.
    #[error("certificate and key cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
}

impl Tls {
    /// Returns the TLS of a certificate, with those that vouch for it after it, and its private
    /// key, both as the text of PEM files.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn new(certificate: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        Ok(Self(Arc::new(Mutex::new(Arc::new(server_config(certificate, key)?)))))
    }

    /// Uses another pair for the connections to come.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn replace(&self, certificate: &[u8], key: &[u8]) -> Result<(), TlsError> {
        let config = Arc::new(server_config(certificate, key)?);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// Takes a peer's handshake.
    ///
    /// # Errors
    /// The peer broke it off, broke its rules or took too long; the connection is closed.
    pub(super) async fn accept(&self, env: &Env, stream: BoxStream) -> io::Result<BoxStream> {
        let config = Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner));
        match env.timeout(HANDSHAKE, TlsAcceptor::from(config).accept(stream)).await {
            Ok(stream) => Ok(Box::new(stream?)),
            Err(TimedOut) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

fn server_config(certificate: &[u8], key: &[u8]) -> Result<ServerConfig, TlsError> {
    let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(TlsError::Certificate)?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate);
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(TlsError::Key)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

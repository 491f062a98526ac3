//! Masters that a client believes under https.

use std::{fmt, io, sync::Arc, time::Duration};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{self, CryptoProvider, ring},
    pki_types::{
        CertificateDer, ServerName, UnixTime,
        pem::{self, PemObject},
    },
};
use thiserror::Error;
use tokio_rustls::TlsConnector;

use crate::env::{BoxStream, Env, TimedOut};

/// Certificates by which a client knows a master. Cheap to clone.
#[derive(Clone)]
pub struct Trust(Arc<ClientConfig>);

/// Error of certificates that cannot be used.
#[derive(Debug, Error)]
pub enum TrustError {
    /// The text holds no certificate.
    #[error("there is no certificate in PEM form")]
    NoCertificate,
    /// A certificate cannot be read.
    #[error("a certificate cannot be read: {0}")]
    Certificate(pem::Error),
    /// A certificate can be read, and is not good for this.
    #[error("a certificate cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
}

impl Trust {
    /// Returns the trust in all masters whose name one of these authorities vouches for. `pem` is
    /// the text of a PEM file with the authorities' certificates.
    ///
    /// # Errors
    /// [`TrustError`].
    pub fn of_authorities(pem: &[u8]) -> Result<Self, TrustError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(pem)? {
            roots.add(certificate)?;
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self::new(config))
    }

    /// Returns the trust in whoever has the key of the first certificate of this PEM file, under
    /// whatever name: whoever reads that file from the master's own machine needs nobody to vouch
    /// for it.
    ///
    /// # Errors
    /// [`TrustError`].
    pub fn of_certificate(pem: &[u8]) -> Result<Self, TrustError> {
        let provider = Arc::new(ring::default_provider());
        let certificate = certificates(pem)?.swap_remove(0);
        let verifier = ExactCertificate { certificate, provider: Arc::clone(&provider) };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        Ok(Self::new(config))
    }

    fn new(mut config: ClientConfig) -> Self {
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self(Arc::new(config))
    }

    /// Puts TLS around a connection to a host, within `limit`.
    ///
    /// # Errors
    /// The host is not believed, or does not speak TLS in time. Nothing was sent to it.
    pub(crate) async fn connect(
        &self,
        env: &Env,
        host: &str,
        stream: BoxStream,
        limit: Duration,
    ) -> io::Result<BoxStream> {
        let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(name)
            .map_err(|why| io::Error::new(io::ErrorKind::InvalidInput, why))?;
        let connecting = TlsConnector::from(Arc::clone(&self.0)).connect(name, stream);
        match env.timeout(limit, connecting).await {
            Ok(stream) => Ok(Box::new(stream?)),
            Err(TimedOut) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trust")
    }
}

/// Returns the certificates of a PEM file, at least one.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let read = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let read = read.map_err(TrustError::Certificate)?;
    if read.is_empty() { Err(TrustError::NoCertificate) } else { Ok(read) }
}

/// Verifier that accepts one certificate, from whoever has its key.
#[derive(Debug)]
struct ExactCertificate {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ExactCertificate {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *end_entity == self.certificate {
            return Ok(ServerCertVerified::assertion());
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

//! TLS to a PostgreSQL server, whose certificate must be of the name that it was dialled by.

use std::{
    io,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};
use tokio_rustls::TlsConnector;

use crate::env::{BoxFuture, BoxStream};

/// Settings of TLS with the certificates that are trusted.
#[derive(Clone)]
pub(super) struct Tls(TlsConnector);

impl Tls {
    /// Trusts the certificates of a PEM file, and no others.
    pub(super) fn trusting(file: &Path) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        let certificates = CertificateDer::pem_file_iter(file).map_err(|e| e.to_string())?;
        for certificate in certificates {
            let certificate = certificate.map_err(|e| e.to_string())?;
            // A bundle may hold some that are out of date.
            let _ = roots.add(certificate);
        }
        if roots.is_empty() {
            return Err("it holds no certificate of an authority".to_owned());
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// Returns the connector to the server of this name.
    pub(super) fn to(&self, host: &str) -> Result<TlsTo, String> {
        let name = ServerName::try_from(host.to_owned()).map_err(|e| e.to_string())?;
        Ok(TlsTo { connector: self.0.clone(), name })
    }
}

/// Connector to one server.
pub(super) struct TlsTo {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl TlsConnect<Plain> for TlsTo {
    type Stream = Secured;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Secured>>;

    fn connect(self, stream: Plain) -> Self::Future {
        Box::pin(async move { self.connector.connect(self.name, stream).await.map(Secured) })
    }
}

/// Stream without TLS.
pub(super) struct Plain(pub(super) BoxStream);

/// Stream within TLS.
pub(super) struct Secured(tokio_rustls::client::TlsStream<Plain>);

impl TlsStream for Secured {
    fn channel_binding(&self) -> ChannelBinding {
        // The certificate was verified: nobody stands between.
        ChannelBinding::none()
    }
}

macro_rules! stream {
    ($stream:ty) => {
        impl AsyncRead for $stream {
            fn poll_read(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                Pin::new(&mut self.0).poll_read(cx, buf)
            }
        }

        impl AsyncWrite for $stream {
            fn poll_write(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &[u8],
            ) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.0).poll_write(cx, buf)
            }

            fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.0).poll_flush(cx)
            }

            fn poll_shutdown(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
            ) -> Poll<io::Result<()>> {
                Pin::new(&mut self.0).poll_shutdown(cx)
            }
        }
    };
}

stream!(Plain);
stream!(Secured);

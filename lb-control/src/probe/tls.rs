//! TLS of probes.

use super::Unusable;
use crate::trust::{self, Trust};
use lb_core::health::{Failure, HttpVersion, TlsSpec};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, RootCertStore};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// What all handshakes for that version of HTTP have in common.
pub(crate) fn config_of(spec: &TlsSpec, version: HttpVersion) -> Result<ClientConfig, Unusable> {
    config(spec, super::http::alpn(version))
}

/// What all handshakes of a check have in common.
pub(super) fn config(spec: &TlsSpec, protocol: &[u8]) -> Result<ClientConfig, Unusable> {
    let provider = Arc::new(ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let mut config = if spec.verify {
        let roots = match &spec.authorities {
            Some(path) => from_file(path)?,
            None => of_the_system()?,
        };
        builder.with_root_certificates(roots).with_no_client_auth()
    } else {
        builder
            .dangerous()
            .with_custom_certificate_verifier(trust::verifier(Anybody, provider))
            .with_no_client_auth()
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    // A probe is there to see the certificate, each time.
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Makes the handshake; `name` is what the certificate must be for.
pub(super) async fn open(
    config: &Arc<ClientConfig>,
    name: Option<&str>,
    stream: TcpStream,
    address: SocketAddr,
) -> Result<TlsStream<TcpStream>, Failure> {
    let name = match name {
        Some(name) => ServerName::try_from(name.to_owned())
            .map_err(|_| Failure::Own(format!("`{name}` is not a name for a certificate")))?,
        None => ServerName::IpAddress(address.ip().into()),
    };
    let connector = TlsConnector::from(Arc::clone(config));
    let stream = connector.connect(name, stream).await.map_err(|error| match tls_error(&error) {
        Some(reason) => Failure::Tls(reason),
        None => super::connection::meaning(&error),
    })?;
    let wanted = config.alpn_protocols.first().map(Vec::as_slice);
    match stream.get_ref().1.alpn_protocol() {
        Some(agreed) if Some(agreed) == wanted => Ok(stream),
        // A server without ALPN speaks HTTP/1.1.
        None if wanted == Some(b"http/1.1") => Ok(stream),
        Some(_) | None => Err(Failure::Tls("HTTP/2 was not agreed on".into())),
    }
}

fn tls_error(error: &io::Error) -> Option<String> {
    error.get_ref()?.downcast_ref::<rustls::Error>().map(ToString::to_string)
}

fn from_file(path: &Path) -> Result<RootCertStore, Unusable> {
    let failed = |reason: String| Unusable::Authorities { path: path.to_owned(), reason };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| failed(error.to_string()))? {
        let certificate = certificate.map_err(|error| failed(error.to_string()))?;
        roots.add(certificate).map_err(|error| failed(error.to_string()))?;
    }
    if roots.is_empty() { Err(failed("it holds no certificate".into())) } else { Ok(roots) }
}

fn of_the_system() -> Result<RootCertStore, Unusable> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let reasons: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        let reason = if reasons.is_empty() { "none were found".into() } else { reasons.join("; ") };
        return Err(Unusable::NoAuthorities { reason });
    }
    Ok(roots)
}

/// Trusts every certificate.
#[derive(Debug)]
struct Anybody;

impl Trust for Anybody {
    fn judge(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &Arc<CryptoProvider>,
        _: UnixTime,
    ) -> Result<(), rustls::Error> {
        Ok(())
    }
}

//! Who is let into a handshake: members with a certificate of the authority, and bearers of a token.

use crate::cluster::error::ClusterError;
use crate::cluster::identity::{Identity, Role, Subject};
use crate::cluster::token::Token;
use crate::trust::{self, Trust};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, IdleTimeout, ServerConfig, TransportConfig, VarInt};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{CertificateError, RootCertStore, version};
use std::sync::Arc;
use std::time::Duration;

/// Protocol between members.
pub(super) const MEMBER: &[u8] = b"stickleback/1";
/// Protocol of a node that joins.
pub(super) const JOIN: &[u8] = b"stickleback-join/1";

/// How often a silent connection shows that it lives.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// When a connection that shows nothing is given up, in milliseconds.
const IDLE: VarInt = VarInt::from_u32(5_000);
/// Bytes that a peer may send before it is read.
const WINDOW: VarInt = VarInt::from_u32(8 << 20);

/// The server's side. Who has no certificate is refused in the handshake, unless a token is open.
pub(super) fn server(identity: &Identity, joining: bool) -> Result<ServerConfig, ClusterError> {
    let provider = Arc::new(ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots(&identity.authority)?, Arc::clone(&provider));
    let verifier = if joining { verifier.allow_unauthenticated() } else { verifier };
    let verifier =
        verifier.build().map_err(|error| ClusterError::Certificate { reason: error.to_string() })?;
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain(identity), identity.private_key())?;
    tls.alpn_protocols = if joining { vec![MEMBER.to_vec(), JOIN.to_vec()] } else { vec![MEMBER.to_vec()] };
    // Nobody comes back without showing a certificate again.
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    tls.send_tls13_tickets = 0;
    let mut config = ServerConfig::with_crypto(Arc::new(quic_server(tls)?));
    config.transport_config(transport());
    Ok(config)
}

/// The client's side towards a member.
pub(super) fn client(identity: &Identity) -> Result<ClientConfig, ClusterError> {
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&version::TLS13])?
        .with_root_certificates(roots(&identity.authority)?)
        .with_client_auth_cert(chain(identity), identity.private_key())?;
    tls.alpn_protocols = vec![MEMBER.to_vec()];
    quic_client(tls)
}

/// The client's side of a machine that joins: it trusts the authority that its token names.
pub(super) fn joiner(token: Token) -> Result<ClientConfig, ClusterError> {
    let provider = Arc::new(ring::default_provider());
    let verifier = trust::verifier(ByToken { token }, Arc::clone(&provider));
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    tls.alpn_protocols = vec![JOIN.to_vec()];
    quic_client(tls)
}

fn chain(identity: &Identity) -> Vec<CertificateDer<'static>> {
    vec![identity.certificate.clone(), identity.authority.clone()]
}

fn roots(authority: &CertificateDer<'_>) -> Result<Arc<RootCertStore>, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone().into_owned())?;
    Ok(Arc::new(roots))
}

fn quic_server(tls: rustls::ServerConfig) -> Result<QuicServerConfig, ClusterError> {
    QuicServerConfig::try_from(tls).map_err(|error| ClusterError::Certificate { reason: error.to_string() })
}

fn quic_client(tls: rustls::ClientConfig) -> Result<ClientConfig, ClusterError> {
    let crypto = QuicClientConfig::try_from(tls)
        .map_err(|error| ClusterError::Certificate { reason: error.to_string() })?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(transport());
    Ok(config)
}

fn transport() -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(IdleTimeout::from(IDLE)))
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(1))
        .stream_receive_window(WINDOW)
        .send_window(WINDOW.into_inner());
    Arc::new(transport)
}

/// Trusts a server whose chain ends at the authority that a token names.
#[derive(Debug)]
struct ByToken {
    token: Token,
}

impl Trust for ByToken {
    fn judge(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        provider: &Arc<CryptoProvider>,
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let unknown = || rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let authority = intermediates.iter().find(|one| self.token.names(one)).ok_or_else(unknown)?;
        // Which balancer answers does not matter to who has only a token: the name is taken from the certificate.
        // An application server could use the token for itself.
        let subject = Subject::of(end_entity).map_err(|_| unknown())?;
        if subject.role != Role::Node {
            return Err(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure));
        }
        let name = ServerName::try_from(subject.dns_name()).map_err(|_| unknown())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(roots(authority)?, Arc::clone(provider));
        let verifier = verifier.build().map_err(|_| unknown())?;
        verifier.verify_server_cert(end_entity, &[], &name, &[], now)?;
        Ok(())
    }
}

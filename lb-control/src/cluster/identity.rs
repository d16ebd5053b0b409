//! Who a node is: an id and a role that stand in its certificate.

use super::error::ClusterError;
use rcgen::{CertificateParams, KeyPair};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, time::SystemTime};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// End of every name in a certificate; a name that no DNS has (RFC 6762 and RFC 9476 leave `internal` to us).
const DOMAIN: &str = "stickleback.internal";

/// A node's id: random, made when it joins, never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeId(u64);

/// What a node may do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A load balancer: has the bindings, tells and is told.
    Node,
    /// An application server: asks and is told.
    App,
    /// A switch in front of the nodes: is told of their connections, and of nothing else.
    Switch,
}

/// Id and role, as a certificate names them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Subject {
    /// The id.
    pub id: NodeId,
    /// The role.
    pub role: Role,
}

/// A node's own certificate and key, and the authority it trusts.
#[derive(Debug)]
pub struct Identity {
    /// Whose it is.
    pub subject: Subject,
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// The authority's certificate.
    pub authority: CertificateDer<'static>,
    pub(super) key: KeyPair,
}

impl NodeId {
    /// An id with a given number, which is not 0.
    pub const fn new(number: u64) -> Option<Self> {
        if number == 0 { None } else { Some(Self(number)) }
    }

    /// A new id.
    pub(super) fn random() -> Result<Self, ClusterError> {
        loop {
            if let Some(id) = Self::new(u64::from_be_bytes(random()?)) {
                return Ok(id);
            }
        }
    }

    /// Its number.
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({self})")
    }
}

impl FromStr for NodeId {
    type Err = ClusterError;

    fn from_str(text: &str) -> Result<Self, ClusterError> {
        let digits = text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let number = if digits { u64::from_str_radix(text, 16).ok() } else { None };
        number.and_then(Self::new).ok_or_else(|| ClusterError::NodeId { text: text.to_owned() })
    }
}

impl TryFrom<String> for NodeId {
    type Error = ClusterError;

    fn try_from(text: String) -> Result<Self, ClusterError> {
        text.parse()
    }
}

impl From<NodeId> for String {
    fn from(id: NodeId) -> Self {
        id.to_string()
    }
}

impl Role {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Node, Self::App, Self::Switch];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::App => "app",
            Self::Switch => "switch",
        }
    }

    /// The role with a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

impl Subject {
    /// The one DNS name in its certificate, which is also what TLS asks a server for.
    pub fn dns_name(self) -> String {
        format!("{}.{}.{DOMAIN}", self.id, self.role.name())
    }

    /// Whom a certificate names; its signature is somebody else's to check.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, ClusterError> {
        let bad = |reason: &str| ClusterError::Certificate { reason: reason.to_owned() };
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| bad(&error.to_string()))?;
        let names = parsed.subject_alternative_name().map_err(|error| bad(&error.to_string()))?;
        let names = names.ok_or_else(|| bad("it names no node"))?;
        match names.value.general_names.as_slice() {
            [GeneralName::DNSName(name)] => Self::named(name).ok_or_else(|| bad("its name is no node's")),
            _ => Err(bad("it has other names than one node's")),
        }
    }

    fn named(name: &str) -> Option<Self> {
        let (id, rest) = name.split_once('.')?;
        let (role, domain) = rest.split_once('.')?;
        let role = Role::named(role)?;
        (domain == DOMAIN).then_some(Self { id: id.parse().ok()?, role })
    }
}

impl Identity {
    /// Puts together what belongs together.
    pub(super) fn new(
        certificate: CertificateDer<'static>,
        authority: CertificateDer<'static>,
        key: KeyPair,
    ) -> Result<Self, ClusterError> {
        let subject = Subject::of(&certificate)?;
        let matches = match X509Certificate::from_der(&certificate) {
            Ok((_, parsed)) => parsed.public_key().subject_public_key.data == key.public_key_raw(),
            Err(_) => false,
        };
        if !matches {
            return Err(ClusterError::Certificate { reason: "it belongs to another key".to_owned() });
        }
        Ok(Self { subject, certificate, authority, key })
    }

    /// A request for a new certificate of the same key.
    pub(super) fn request(&self) -> Result<Vec<u8>, ClusterError> {
        Ok(CertificateParams::default().serialize_request(&self.key)?.der().to_vec())
    }

    /// Whether the authority signed the certificate; an error when it did not.
    pub(super) fn is_signed(&self) -> Result<(), ClusterError> {
        let (certificate, authority) = (parsed(&self.certificate)?, parsed(&self.authority)?);
        let key =
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &authority.public_key().subject_public_key.data);
        key.verify(certificate.tbs_certificate.as_ref(), &certificate.signature_value.data).map_err(|_| {
            ClusterError::Certificate { reason: "its signature is not the authority's".to_owned() }
        })
    }

    /// When the certificate ends.
    pub(super) fn until(&self) -> Result<SystemTime, ClusterError> {
        Ok(self.life()?.1)
    }

    /// Whether it is time to have the certificate made new: half of its life is over.
    pub(super) fn is_due(&self, now: SystemTime) -> bool {
        self.is_left_less_than(now, 2)
    }

    /// Whether that should have happened long ago: three quarters of its life are over.
    pub(super) fn is_overdue(&self, now: SystemTime) -> bool {
        self.is_left_less_than(now, 4)
    }

    /// Whether less than that part of the certificate's life is left.
    fn is_left_less_than(&self, now: SystemTime, part: u32) -> bool {
        // The authority's own end is the end of everybody's: nothing longer can be had.
        let Ok((from, until)) = self.life() else { return true };
        let is_last = parsed(&self.authority)
            .is_ok_and(|authority| until >= SystemTime::from(authority.validity().not_after.to_datetime()));
        let whole = until.duration_since(from).unwrap_or_default();
        let left = until.duration_since(now).unwrap_or_default();
        !is_last && left < whole / part
    }

    fn life(&self) -> Result<(SystemTime, SystemTime), ClusterError> {
        let validity = parsed(&self.certificate)?.validity().clone();
        Ok((validity.not_before.to_datetime().into(), validity.not_after.to_datetime().into()))
    }

    /// The key as TLS takes it.
    pub(super) fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()))
    }
}

fn parsed<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, ClusterError> {
    let parsed = X509Certificate::from_der(certificate);
    let (_, parsed) = parsed.map_err(|error| ClusterError::Certificate { reason: error.to_string() })?;
    Ok(parsed)
}

/// Random bytes of the system.
pub(super) fn random<const N: usize>() -> Result<[u8; N], ClusterError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| ClusterError::Random)?;
    Ok(bytes)
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Hexadecimal digits as bytes.
pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    text.as_bytes().chunks_exact(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

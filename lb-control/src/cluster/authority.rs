//! The cluster's certificate authority: it lets nodes in and puts them out, on the node where the cluster was made.

use super::error::ClusterError;
use super::home::{Home, Name};
use super::identity::{Identity, NodeId, Role, Subject};
use super::keyring::{Keyring, Rotation, SignedKeyring};
use super::roster::{Member, Roster, SignedRoster};
use super::token::{OpenTokens, Token};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use x509_parser::prelude::{FromDer, X509Certificate};

const DAY: Duration = Duration::from_secs(86_400);
/// Certificates are good from a day ago, for nodes whose clock is behind.
const BACKDATED: Duration = DAY;
/// How long the authority's certificate is good.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(20 * 365 * DAY.as_secs());

/// How long a member's certificate is good; it is made new from half of that on.
///
/// The member list says who is let in, and removal is immediate: an end is for keys that got out unnoticed. A year leaves half a
/// one to bring a lost authority back.
const MEMBER_LIFETIME: Duration = Duration::from_secs(365 * DAY.as_secs());

/// The authority, where its key is.
#[derive(Debug)]
pub struct Authority {
    home: Home,
    certificate: CertificateDer<'static>,
    key: KeyPair,
    roster: SignedRoster,
    keyring: SignedKeyring,
    tokens: OpenTokens,
}

/// What a joining node is given.
#[derive(Debug)]
pub(super) struct Admission {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) authority: CertificateDer<'static>,
    pub(super) roster: SignedRoster,
    /// For load balancers.
    pub(super) keyring: Option<SignedKeyring>,
}

impl Authority {
    /// Makes a cluster whose first member is this node, and whose secrets are this node's.
    pub fn found(
        home: &Home,
        name: &str,
        addresses: Vec<String>,
        keyring: Keyring,
    ) -> Result<Self, ClusterError> {
        home.must_be_free()?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = titled("Stickleback cluster authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let now = SystemTime::now();
        params.not_before = (now - BACKDATED).into();
        params.not_after = (now + AUTHORITY_LIFETIME).into();
        let certificate = params.self_signed(&key)?.der().clone();

        let subject = Subject { id: NodeId::random()?, role: Role::Node };
        let own = KeyPair::generate()?;
        let request = CertificateParams::default().serialize_request(&own)?;
        let issued = issue(&certificate, &key, subject, request.der(), now)?;
        let member = Member { id: subject.id, role: subject.role, name: name.to_owned(), addresses };
        let roster = Roster { serial: 1, members: vec![member], ..Roster::default() };
        let roster = SignedRoster::sign(roster, &key)?;
        let keyring = SignedKeyring::sign(keyring, &key)?;
        home.write(Name::AuthorityKey, key.serialize_pem().as_bytes())?;
        home.write(Name::Tokens, b"[]")?;
        home.keep(&Identity::new(issued, certificate.clone(), own)?, &roster, Some(&keyring))?;
        Ok(Self { home: home.clone(), certificate, key, roster, keyring, tokens: OpenTokens::default() })
    }

    /// The authority of this node's cluster; `None` = its key is elsewhere.
    pub fn open(home: &Home) -> Result<Option<Self>, ClusterError> {
        let (Some(text), Some(identity)) = (home.read(Name::AuthorityKey)?, home.identity()?) else {
            return Ok(None);
        };
        let key = home.key(Name::AuthorityKey, &text)?;
        let certificate = identity.authority;
        let roster = home.roster(&certificate)?;
        let keyring = home.keyring()?.ok_or_else(|| home.malformed(Name::Keyring, "it is missing"))?;
        let text = home.read(Name::Tokens)?.unwrap_or_else(|| b"[]".to_vec());
        let tokens =
            serde_json::from_slice(&text).map_err(|error| home.malformed(Name::Tokens, error.to_string()))?;
        Ok(Some(Self { home: home.clone(), certificate, key, roster, keyring, tokens }))
    }

    /// The newest member list.
    pub fn roster(&self) -> &SignedRoster {
        &self.roster
    }

    /// The newest shared secrets.
    pub fn keyring(&self) -> &SignedKeyring {
        &self.keyring
    }

    /// Makes one of the shared secrets new.
    pub fn rotate(&mut self, rotation: Rotation) -> Result<(), ClusterError> {
        let mut keyring = self.keyring.content().clone();
        keyring.rotate(rotation, Duration::from_secs(unix_now()))?;
        let signed = SignedKeyring::sign(keyring, &self.key)?;
        self.home.keep_keyring(&signed)?;
        self.keyring = signed;
        Ok(())
    }

    /// Makes a token that lets one machine in for a while.
    pub fn token(&mut self, role: Role, lifetime: Duration) -> Result<Token, ClusterError> {
        let token = Token::make(&self.certificate)?;
        let now = unix_now();
        let mut tokens = self.tokens.clone();
        tokens.add(&token, role, now, now.saturating_add(lifetime.as_secs()));
        self.keep_tokens(tokens)?;
        Ok(token)
    }

    /// Until when somebody may join; `None` = no token is open.
    pub fn open_until(&self) -> Option<u64> {
        self.tokens.until(unix_now())
    }

    /// Lets the bearer of a token in; the token is used up first.
    pub(super) fn admit(
        &mut self,
        secret: &str,
        request: &[u8],
        name: &str,
        addresses: Vec<String>,
        wanted: Option<Role>,
    ) -> Result<Admission, ClusterError> {
        let mut tokens = self.tokens.clone();
        let role = tokens.take(secret, wanted, unix_now())?;
        self.keep_tokens(tokens)?;
        let id = self.free_id()?;
        let subject = Subject { id, role };
        let certificate = self.certify(subject, request, SystemTime::now())?;
        let member = Member { id, role, name: name.to_owned(), addresses };
        self.change(|roster| roster.members.push(member))?;
        let keyring = (role == Role::Node).then(|| self.keyring.clone());
        Ok(Admission {
            certificate,
            authority: self.certificate.clone(),
            roster: self.roster.clone(),
            keyring,
        })
    }

    /// A certificate for a member's key, from then on.
    pub(super) fn certify(
        &self,
        subject: Subject,
        request: &[u8],
        now: SystemTime,
    ) -> Result<CertificateDer<'static>, ClusterError> {
        let request = CertificateSigningRequestDer::from(request.to_vec());
        issue(&self.certificate, &self.key, subject, &request, now)
    }

    /// Puts a member out; from the next list on nobody talks to it.
    pub fn remove(&mut self, id: NodeId) -> Result<(), ClusterError> {
        if self.roster.roster().member(id).is_none() {
            return Err(ClusterError::NoMember { id });
        }
        if self.home.identity()?.is_some_and(|own| own.subject.id == id) {
            return Err(ClusterError::Itself { id });
        }
        self.change(|roster| {
            roster.members.retain(|member| member.id != id);
            roster.removed.insert(id);
        })
    }

    fn free_id(&self) -> Result<NodeId, ClusterError> {
        let roster = self.roster.roster();
        loop {
            let id = NodeId::random()?;
            if roster.member(id).is_none() && !roster.removed.contains(&id) {
                return Ok(id);
            }
        }
    }

    fn change(&mut self, edit: impl FnOnce(&mut Roster)) -> Result<(), ClusterError> {
        let mut roster = self.roster.roster().clone();
        edit(&mut roster);
        roster.serial += 1;
        let signed = SignedRoster::sign(roster, &self.key)?;
        self.home.keep_roster(&signed)?;
        self.roster = signed;
        Ok(())
    }

    fn keep_tokens(&mut self, tokens: OpenTokens) -> Result<(), ClusterError> {
        let text = serde_json::to_vec(&tokens)
            .map_err(|error| self.home.malformed(Name::Tokens, error.to_string()))?;
        self.home.write(Name::Tokens, &text)?;
        self.tokens = tokens;
        Ok(())
    }
}

/// Signs a request; of what it asks for only the key counts.
fn issue(
    authority: &CertificateDer<'_>,
    key: &KeyPair,
    subject: Subject,
    request: &CertificateSigningRequestDer<'_>,
    now: SystemTime,
) -> Result<CertificateDer<'static>, ClusterError> {
    let mut request = CertificateSigningRequestParams::from_der(request)?;
    let mut params = CertificateParams::new(vec![subject.dns_name()])?;
    params.distinguished_name = titled(&subject.dns_name());
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = (now - BACKDATED).into();
    let (_, parsed) = X509Certificate::from_der(authority)
        .map_err(|error| ClusterError::Certificate { reason: error.to_string() })?;
    let last: SystemTime = parsed.validity().not_after.to_datetime().into();
    params.not_after = (now + MEMBER_LIFETIME).min(last).into();
    request.params = params;
    let issuer = Issuer::from_ca_cert_der(authority, key)?;
    Ok(request.signed_by(&issuer)?.der().clone())
}

fn titled(name: &str) -> DistinguishedName {
    let mut title = DistinguishedName::new();
    title.push(DnType::CommonName, name);
    title
}

/// Makes a key and a request for a certificate of it.
pub(super) fn request() -> Result<(KeyPair, Vec<u8>), ClusterError> {
    let key = KeyPair::generate()?;
    let request = CertificateParams::default().serialize_request(&key)?;
    Ok((key, request.der().to_vec()))
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

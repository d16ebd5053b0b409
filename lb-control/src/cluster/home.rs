//! The directory that says who this node is.

use super::error::ClusterError;
use super::identity::Identity;
use super::keyring::SignedKeyring;
use super::roster::SignedRoster;
use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A file of the directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Name {
    /// The authority's certificate.
    Authority,
    /// The authority's key, on one node only.
    AuthorityKey,
    /// The node's certificate; it is written last, so a node is in a cluster when it is there.
    Certificate,
    /// The node's key.
    Key,
    /// The newest member list.
    Roster,
    /// The newest shared secrets.
    Keyring,
    /// Tokens that are open, beside the authority's key.
    Tokens,
}

/// The directory `cluster` in the state directory.
#[derive(Clone, Debug)]
pub struct Home {
    directory: PathBuf,
}

impl Name {
    const fn file(self) -> &'static str {
        match self {
            Self::Authority => "authority.pem",
            Self::AuthorityKey => "authority-key.pem",
            Self::Certificate => "node.pem",
            Self::Key => "node-key.pem",
            Self::Roster => "members.json",
            Self::Keyring => "secrets.json",
            Self::Tokens => "tokens.json",
        }
    }
}

impl Home {
    /// The cluster's directory in a state directory.
    pub fn in_state(state: &Path) -> Self {
        Self { directory: state.join("cluster") }
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where the journal is.
    pub fn journal(&self) -> PathBuf {
        self.directory.join("journal.redb")
    }

    /// Who this node is; `None` = it is in no cluster.
    pub fn identity(&self) -> Result<Option<Identity>, ClusterError> {
        let Some(certificate) = self.read(Name::Certificate)? else { return Ok(None) };
        let needed = |name: Name| self.read(name)?.ok_or_else(|| self.malformed(name, "it is missing"));
        let certificate = self.certificate(Name::Certificate, &certificate)?;
        let authority = self.certificate(Name::Authority, &needed(Name::Authority)?)?;
        let key = self.key(Name::Key, &needed(Name::Key)?)?;
        let identity = Identity::new(certificate, authority, key);
        identity.map(Some).map_err(|error| self.malformed(Name::Certificate, error.to_string()))
    }

    /// The newest member list that this node has.
    pub(super) fn roster(&self, authority: &CertificateDer<'_>) -> Result<SignedRoster, ClusterError> {
        let text = self.read(Name::Roster)?.ok_or_else(|| self.malformed(Name::Roster, "it is missing"))?;
        SignedRoster::parse(&text, authority).map_err(|error| self.malformed(Name::Roster, error.to_string()))
    }

    /// Keeps a member list.
    pub(super) fn keep_roster(&self, roster: &SignedRoster) -> Result<(), ClusterError> {
        self.write(Name::Roster, &roster.text()?)
    }

    /// The newest shared secrets that this node has; `None` = it is in no cluster, or none that has any.
    pub fn keyring(&self) -> Result<Option<SignedKeyring>, ClusterError> {
        let Some(identity) = self.identity()? else { return Ok(None) };
        let Some(text) = self.read(Name::Keyring)? else { return Ok(None) };
        let keyring = SignedKeyring::parse(&text, &identity.authority);
        keyring.map(Some).map_err(|error| self.malformed(Name::Keyring, error.to_string()))
    }

    /// Keeps shared secrets.
    pub(super) fn keep_keyring(&self, keyring: &SignedKeyring) -> Result<(), ClusterError> {
        self.write(Name::Keyring, &keyring.text()?)
    }

    /// Keeps a new identity.
    pub(super) fn keep(
        &self,
        identity: &Identity,
        roster: &SignedRoster,
        keyring: Option<&SignedKeyring>,
    ) -> Result<(), ClusterError> {
        if let Some(keyring) = keyring {
            self.keep_keyring(keyring)?;
        }
        self.write(Name::Key, identity.key.serialize_pem().as_bytes())?;
        self.write(Name::Authority, pem(&identity.authority).as_bytes())?;
        self.keep_roster(roster)?;
        self.write(Name::Certificate, pem(&identity.certificate).as_bytes())
    }

    /// An error when the node is in a cluster.
    pub(super) fn must_be_free(&self) -> Result<(), ClusterError> {
        match self.identity()? {
            None => Ok(()),
            Some(identity) => {
                Err(ClusterError::Already { id: identity.subject.id, path: self.directory.clone() })
            }
        }
    }

    pub(super) fn read(&self, name: Name) -> Result<Option<Vec<u8>>, ClusterError> {
        match fs::read(self.path(name)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(ClusterError::File { path: self.path(name), source }),
        }
    }

    /// Writes a file, readable by its owner alone, at once or not at all.
    pub(super) fn write(&self, name: Name, content: &[u8]) -> Result<(), ClusterError> {
        let path = self.path(name);
        let fresh = self.directory.join(format!("{}.new", name.file()));
        let written = || {
            DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
            match fs::remove_file(&fresh) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&fresh, &path)?;
            File::open(&self.directory)?.sync_all()
        };
        written().map_err(|source| ClusterError::File { path: path.clone(), source })
    }

    pub(super) fn certificate(
        &self,
        name: Name,
        text: &[u8],
    ) -> Result<CertificateDer<'static>, ClusterError> {
        CertificateDer::from_pem_slice(text)
            .map_err(|error| self.malformed(name, format!("no certificate: {error}")))
    }

    pub(super) fn key(&self, name: Name, text: &[u8]) -> Result<KeyPair, ClusterError> {
        let text = std::str::from_utf8(text).map_err(|_| self.malformed(name, "no key"))?;
        KeyPair::from_pem(text).map_err(|error| self.malformed(name, format!("no key: {error}")))
    }

    pub(super) fn malformed(&self, name: Name, reason: impl Into<String>) -> ClusterError {
        ClusterError::Malformed { path: self.path(name), reason: reason.into() }
    }

    fn path(&self, name: Name) -> PathBuf {
        self.directory.join(name.file())
    }
}

/// A certificate as text (RFC 7468).
pub(super) fn pem(certificate: &CertificateDer<'_>) -> String {
    pem::encode(&pem::Pem::new("CERTIFICATE", certificate.to_vec()))
}

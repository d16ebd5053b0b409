//! Documents that the authority signs: what they say holds wherever they come from.
//!
//! Every change has a higher serial. Nodes pass the newest one on to each other.

use super::error::ClusterError;
use super::identity::{hex, unhex};
use rcgen::{KeyPair, SigningKey};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls::pki_types::CertificateDer;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Something that is signed.
pub trait Document: Serialize + DeserializeOwned + Default {
    /// What it is called.
    const NAME: &'static str;
    /// Begins what is signed, so that no signature of the authority for something else fits.
    const CONTEXT: &'static [u8];

    /// Rises with every change.
    fn serial(&self) -> u64;

    /// What is wrong with it.
    fn check(&self) -> Result<(), &'static str>;
}

/// A document with the authority's signature.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Signed<T: Document> {
    body: String,
    signature: String,
    #[serde(skip)]
    content: T,
}

impl<T: Document> Signed<T> {
    /// Signs a document with the authority's key.
    pub(super) fn sign(content: T, key: &KeyPair) -> Result<Self, ClusterError> {
        content.check().map_err(refused::<T>)?;
        let body = serde_json::to_string(&content).map_err(refused::<T>)?;
        let signature = hex(&key.sign(&signed::<T>(&body))?);
        Ok(Self { body, signature, content })
    }

    /// Reads what somebody sent, and refuses what the authority did not sign.
    pub fn parse(text: &[u8], authority: &CertificateDer<'_>) -> Result<Self, ClusterError> {
        serde_json::from_slice::<Self>(text).map_err(refused::<T>)?.checked(authority)
    }

    /// The same, of something that was read already.
    pub(super) fn checked(mut self, authority: &CertificateDer<'_>) -> Result<Self, ClusterError> {
        let (_, parsed) = X509Certificate::from_der(authority).map_err(refused::<T>)?;
        let key =
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &parsed.public_key().subject_public_key.data);
        let signature = unhex(&self.signature).ok_or_else(|| refused::<T>("no signature"))?;
        key.verify(&signed::<T>(&self.body), &signature)
            .map_err(|_| refused::<T>("its signature is not the authority's"))?;
        self.content = serde_json::from_str(&self.body).map_err(refused::<T>)?;
        self.content.check().map_err(refused::<T>)?;
        Ok(self)
    }

    /// What was signed.
    pub fn content(&self) -> &T {
        &self.content
    }

    /// As it is kept and sent.
    pub fn text(&self) -> Result<Vec<u8>, ClusterError> {
        serde_json::to_vec(self).map_err(refused::<T>)
    }
}

impl<T: Document> std::fmt::Debug for Signed<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signed({} {})", T::NAME, self.content.serial())
    }
}

fn refused<T: Document>(reason: impl ToString) -> ClusterError {
    ClusterError::Document { name: T::NAME, reason: reason.to_string() }
}

fn signed<T: Document>(body: &str) -> Vec<u8> {
    [T::CONTEXT, body.as_bytes()].concat()
}

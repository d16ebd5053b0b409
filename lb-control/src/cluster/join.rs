//! How a machine becomes a member: it shows a token and a certificate request, and gets a certificate.

use super::authority::{Admission, request};
use super::error::ClusterError;
use super::home::Home;
use super::identity::{Identity, Role, hex, unhex};
use super::keyring::SignedKeyring;
use super::roster::SignedRoster;
use super::token::Token;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

/// What the joining machine sends.
#[derive(Serialize, Deserialize)]
pub(super) struct JoinRequest {
    pub(super) secret: String,
    pub(super) request: String,
    pub(super) name: String,
    pub(super) addresses: Vec<String>,
    /// What the machine can be; absent = anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) role: Option<Role>,
}

/// What it gets.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum JoinAnswer {
    /// It is a member.
    Admitted {
        /// Its certificate, in hexadecimal.
        certificate: String,
        /// The authority's.
        authority: String,
        /// The member list with it.
        roster: SignedRoster,
        /// The shared secrets, for load balancers.
        keyring: Option<Box<SignedKeyring>>,
    },
    /// It is not.
    Refused {
        /// Why.
        reason: String,
    },
}

impl JoinAnswer {
    /// The answer to a decision.
    pub(super) fn of(decision: Result<Admission, ClusterError>) -> Self {
        match decision {
            Ok(admission) => Self::Admitted {
                certificate: hex(&admission.certificate),
                authority: hex(&admission.authority),
                roster: admission.roster,
                keyring: admission.keyring.map(Box::new),
            },
            Err(error) => Self::Refused { reason: error.to_string() },
        }
    }
}

/// Joins the cluster of a node that listens at `address`, with a token of its authority.
///
/// The node's key is made here and stays here. Nothing is kept unless everything fits together, and the token is still good when it is
/// for another `role`.
pub async fn join(
    home: &Home,
    address: &str,
    token: &Token,
    name: &str,
    addresses: Vec<String>,
    role: Option<Role>,
) -> Result<Identity, ClusterError> {
    home.must_be_free()?;
    let (key, request) = request()?;
    let (secret, request) = (token.secret(), hex(&request));
    let request = JoinRequest { secret, request, name: name.to_owned(), addresses, role };
    let answer = super::transport::ask_to_join(address, token, &request).await?;
    let (certificate, authority, roster, keyring) = match answer {
        JoinAnswer::Refused { reason } => return Err(ClusterError::Refused { reason }),
        JoinAnswer::Admitted { certificate, authority, roster, keyring } => {
            (certificate, authority, roster, keyring)
        }
    };
    let der = |text: &str| {
        let bytes =
            unhex(text).ok_or_else(|| ClusterError::Protocol { reason: "no certificate".to_owned() })?;
        Ok::<_, ClusterError>(CertificateDer::from(bytes))
    };
    let authority = der(&authority)?;
    if !token.names(&authority) {
        return Err(ClusterError::Certificate { reason: "it is not of the token's authority".to_owned() });
    }
    let identity = Identity::new(der(&certificate)?, authority, key)?;
    let roster = roster.checked(&identity.authority)?;
    let keyring = keyring.map(|keyring| keyring.checked(&identity.authority)).transpose()?;
    if !roster.roster().admits(identity.subject) {
        return Err(ClusterError::Roster { reason: "this node is not in it".to_owned() });
    }
    home.keep(&identity, &roster, keyring.as_ref())?;
    Ok(identity)
}

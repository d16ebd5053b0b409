//! Members' certificates are made new by the authority before they end, for the same id, role and key.
//!
//! A certificate lasts a year; from half of that on its node asks whenever it is connected to the authority. Should the
//! authority be away for the other half, `lbctl cluster status` warns: from its end on a node cannot make new connections.

use super::{Shared, tls};
use crate::cluster::error::ClusterError;
use crate::cluster::home::{Name, pem};
use crate::cluster::identity::{Identity, hex, unhex};
use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::sleep;

/// How often the certificate is looked at, and what could not be kept is tried again.
const LOOK: Duration = Duration::from_secs(1);

/// Looks after what must not get old.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut complaint = None;
    loop {
        sleep(LOOK).await;
        shared.keep_unkept();
        let is_due = shared.identity().is_due(SystemTime::now());
        shared.renewal_due.send_if_modified(|known| std::mem::replace(known, is_due) != is_due);
        if !is_due || shared.authority.is_none() {
            continue;
        }
        let failure = shared.renew_own().err().map(|error| error.to_string());
        if let Some(error) = failure.as_ref().filter(|_| failure != complaint) {
            tracing::error!(error, "this node's certificate cannot be made new; trying again");
        }
        complaint = failure;
    }
}

impl Shared {
    /// The identity as it is now.
    pub(super) fn identity(&self) -> Arc<Identity> {
        Arc::clone(&self.identity.borrow())
    }

    /// What this node asks the authority for.
    pub(super) fn renewal_request(&self) -> Result<String, ClusterError> {
        Ok(hex(&self.identity().request()?))
    }

    /// As the authority, makes the certificate of a member new.
    pub(super) fn renew(
        &self,
        subject: crate::cluster::identity::Subject,
        request: &str,
    ) -> Result<Option<String>, ClusterError> {
        if self.authority.is_none() || !self.roster.borrow().roster().admits(subject) {
            return Ok(None);
        }
        let request =
            unhex(request).ok_or_else(|| ClusterError::Protocol { reason: "no request".to_owned() })?;
        let certificate = self.authority()?.certify(subject, &request, SystemTime::now())?;
        tracing::info!(id = %subject.id, "a member's certificate was made new");
        Ok(Some(hex(&certificate)))
    }

    /// Takes a new certificate over, if it is this node's own in all but its end.
    pub(super) fn take_certificate(&self, text: &str) -> Result<(), ClusterError> {
        let bytes =
            unhex(text).ok_or_else(|| ClusterError::Protocol { reason: "no certificate".to_owned() })?;
        self.adopt_certificate(CertificateDer::from(bytes))
    }

    fn renew_own(&self) -> Result<(), ClusterError> {
        let own = self.identity();
        let certificate = self.authority()?.certify(own.subject, &own.request()?, SystemTime::now())?;
        self.adopt_certificate(certificate)
    }

    fn adopt_certificate(&self, certificate: CertificateDer<'static>) -> Result<(), ClusterError> {
        let own = self.identity();
        let key = KeyPair::from_pem(&own.key.serialize_pem())?;
        let renewed = Identity::new(certificate, own.authority.clone(), key)?;
        if renewed.subject != own.subject {
            return Err(ClusterError::Certificate { reason: "it names another node".to_owned() });
        }
        renewed.is_signed()?;
        if renewed.until()? <= own.until()? {
            return Ok(());
        }
        let client = tls::client(&renewed)?;
        self.home.write(Name::Certificate, pem(&renewed.certificate).as_bytes())?;
        self.identity.send_replace(Arc::new(renewed));
        self.client.send_replace(client);
        let is_open = self.authority().is_ok_and(|authority| authority.open_until().is_some());
        self.endpoint.set_server_config(Some(tls::server(&self.identity(), is_open)?));
        self.renewal_due.send_replace(false);
        tracing::info!("this node has a new certificate");
        Ok(())
    }
}

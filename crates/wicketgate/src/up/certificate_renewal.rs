//! The gateway's certificate, which is short-lived, as an agent's is, and renewed while the process runs.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tracing::info;
use wicketgate_authority::Ca;
use wicketgate_model::GatewayId;
use wicketgate_server::{BackgroundTask, Outcome};
use wicketgate_transport::{
    identity::{Identity, is_renewal_due},
    key::PrivateKey,
    tls::GatewayIdentity,
};

/// See the module.
pub(super) struct CertificateRenewal {
    ca: Arc<Ca>,
    gateway: GatewayId,
    pub(super) identity: GatewayIdentity,
    issued_at: Timestamp,
}

impl CertificateRenewal {
    /// Issues the first certificate.
    pub(super) fn new(ca: Arc<Ca>, gateway: GatewayId) -> anyhow::Result<Self> {
        let (key, issued_at) = (PrivateKey::generate()?, Timestamp::now());
        let certificate = ca.issue(&Identity::Gateway { gateway }, &key.public_point(), issued_at)?;
        let identity = GatewayIdentity::new(ca.certificate(), key, certificate)?;
        Ok(Self { ca, gateway, identity, issued_at })
    }
}

impl BackgroundTask for CertificateRenewal {
    const NAME: &'static str = "gateway-certificate";
    /// A clock that is set right is noticed soon; a look costs nothing.
    const PERIOD: Duration = Duration::from_secs(5);
    /// One signature.
    const WITHIN: Duration = Duration::from_secs(10);

    async fn activate(&mut self, now: Timestamp) -> anyhow::Result<Outcome> {
        if is_renewal_due(self.issued_at, now) {
            let certificate = self.identity.certificate();
            let identity = Identity::Gateway { gateway: self.gateway };
            certificate.replace(self.ca.issue(&identity, &certificate.public_point(), now)?)?;
            self.issued_at = now;
            info!("the gateway's certificate was renewed");
        }
        Ok(Outcome::Done)
    }
}

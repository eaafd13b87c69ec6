//! The server's certificate on its link port is short-lived, as a gateway's is: it is renewed while the server runs.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tracing::info;
use wicketgate_authority::Ca;
use wicketgate_model::ServerId;
use wicketgate_transport::{
    identity::{Identity, is_renewal_due},
    key::PrivateKey,
    tls::ServerIdentity,
};

use crate::background::{BackgroundTask, Outcome};

/// See the module.
#[derive(Debug)]
pub(crate) struct ServerCertificate {
    ca: Arc<Ca>,
    server: ServerId,
    pub(crate) identity: ServerIdentity,
    issued_at: Timestamp,
}

impl ServerCertificate {
    /// Issues the first certificate, for a new key.
    pub(crate) fn new(ca: Arc<Ca>, server: ServerId) -> anyhow::Result<Self> {
        let (key, issued_at) = (PrivateKey::generate()?, Timestamp::now());
        let certificate = ca.issue(&Identity::Server { server }, &key.public_point(), issued_at)?;
        let identity = ServerIdentity::new(ca.certificate(), key, certificate)?;
        Ok(Self { ca, server, identity, issued_at })
    }
}

impl BackgroundTask for ServerCertificate {
    const NAME: &'static str = "server-certificate";
    /// A clock that is set right is noticed soon; a look costs nothing.
    const PERIOD: Duration = Duration::from_secs(5);
    /// One signature.
    const WITHIN: Duration = Duration::from_secs(10);

    async fn activate(&mut self, now: Timestamp) -> anyhow::Result<Outcome> {
        if is_renewal_due(self.issued_at, now) {
            let certificate = self.identity.certificate();
            let identity = Identity::Server { server: self.server };
            certificate.replace(self.ca.issue(&identity, &certificate.public_point(), now)?)?;
            self.issued_at = now;
            info!("the server's certificate was renewed");
        }
        Ok(Outcome::Done)
    }
}

//! A CA with agents, gateways and servers, whose certificates have the key usages that the real one gives them.

use crate::{
    identity::{AgentIdentity, Identity},
    key::PrivateKey,
    tls::{AgentTls, GatewayIdentity, LinkTls, ServerIdentity},
    trust::CaCertificate,
};
use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
use uuid::Uuid;
use wicketgate_model::{AgentId, EnvironmentId, FrontdoorId, GatewayId, ServerId};

pub(super) const GATEWAY: Identity = Identity::Gateway { gateway: GATEWAY_ID };
pub(super) const SERVER: Identity = Identity::Server { server: SERVER_ID };
pub(super) const GATEWAY_ID: GatewayId = GatewayId::new(Uuid::from_u128(7));
pub(super) const SERVER_ID: ServerId = ServerId::new(Uuid::from_u128(8));
pub(super) const AGENT: Identity = Identity::Agent(AgentIdentity {
    frontdoor: FrontdoorId::new(Uuid::nil()),
    environment: EnvironmentId::new(Uuid::nil()),
    agent: AgentId::new(Uuid::nil()),
});

pub(super) struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pub(super) ca: CaCertificate,
}

impl Authority {
    pub(super) fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
        let ca = params.self_signed(&key).unwrap();
        let ca = CaCertificate::from_der(ca.der().to_vec()).unwrap();
        Self { issuer: rcgen::Issuer::new(params, key), ca }
    }

    pub(super) fn issue(&self, identity: Identity) -> (PrivateKey, Vec<u8>) {
        self.issue_until(identity, 4096)
    }

    /// A certificate that is valid until the beginning of this year.
    pub(super) fn issue_until(&self, identity: Identity, year: i32) -> (PrivateKey, Vec<u8>) {
        let key = PrivateKey::generate().unwrap();
        let leaf = self.issue_for(identity, key.pkcs8(), year);
        (key, leaf)
    }

    /// A certificate for this key.
    pub(super) fn issue_for(&self, identity: Identity, pkcs8: &[u8], year: i32) -> Vec<u8> {
        let pair = rcgen::KeyPair::try_from(pkcs8).unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.subject_alt_names = vec![rcgen::SanType::URI(identity.to_string().try_into().unwrap())];
        params.extended_key_usages = match identity {
            Identity::Agent(_) => vec![ClientAuth],
            Identity::Gateway { .. } | Identity::Server { .. } => vec![ServerAuth, ClientAuth],
        };
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        params.signed_by(&pair, &self.issuer).unwrap().der().to_vec()
    }

    pub(super) fn gateway(&self) -> GatewayIdentity {
        self.agent_port(self.issue(GATEWAY))
    }

    /// An agent port with this certificate.
    pub(super) fn agent_port(&self, (key, leaf): (PrivateKey, Vec<u8>)) -> GatewayIdentity {
        GatewayIdentity::new(&self.ca, key, leaf).unwrap()
    }

    pub(super) fn server(&self) -> ServerIdentity {
        self.link_port(self.issue(SERVER))
    }

    /// A link port with this certificate.
    pub(super) fn link_port(&self, (key, leaf): (PrivateKey, Vec<u8>)) -> ServerIdentity {
        ServerIdentity::new(&self.ca, key, leaf).unwrap()
    }

    /// The end that dials a link with this certificate, and trusts this authority.
    pub(super) fn dialler(&self, certificate: (PrivateKey, Vec<u8>)) -> LinkTls {
        LinkTls::new(&self.ca, &self.agent_port(certificate)).unwrap()
    }

    /// An agent with a certificate of another authority, which trusts this one's gateway.
    pub(super) fn agent(&self, of: &Self) -> AgentTls {
        let (key, leaf) = of.issue(AGENT);
        AgentTls::new(&self.ca, key, leaf).unwrap()
    }
}

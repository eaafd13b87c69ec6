//! The identity of a peer: the one name in its certificate.
//!
//! `wicketgate://agent/<frontdoor>/<environment>/<agent>`, `wicketgate://gateway/<gateway>` or `wicketgate://server/<server>`, as a
//! URI subjectAltName (RFC 5280 §4.2.1.6). A certificate with another name, or several, has no identity.

use crate::trust::sha256;
use jiff::Timestamp;
use std::{fmt, str::FromStr, time::Duration};
use wicketgate_model::{AgentId, EnvironmentId, FrontdoorId, GatewayId, ServerId};

/// The age at which a certificate is renewed: a third of its lifetime.
pub const RENEW_AFTER: Duration = Duration::from_secs(10 * 24 * 3600);

/// Whether a certificate that was issued at that time is to be replaced: it is old, or was issued in the future, so that
/// the clock was wrong then and its end is, too.
pub fn is_renewal_due(issued_at: Timestamp, now: Timestamp) -> bool {
    now < issued_at || now.duration_since(issued_at).unsigned_abs() >= RENEW_AFTER
}

const SCHEME: &str = "wicketgate://";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Identity {
    Agent(AgentIdentity),
    Gateway { gateway: GatewayId },
    Server { server: ServerId },
}

/// An agent, with its environment and Frontdoor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AgentIdentity {
    pub frontdoor: FrontdoorId,
    pub environment: EnvironmentId,
    pub agent: AgentId,
}

/// An agent as its certificate presents it: the holder of the authority's key can make one with any names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PresentedAgent {
    pub identity: AgentIdentity,
    /// The SHA-256 of its public key, an uncompressed point (SEC 1 §2.3.3).
    pub key_sha256: [u8; 32],
}

/// A gateway as its certificate presents it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PresentedGateway {
    pub gateway: GatewayId,
    /// As of a [`PresentedAgent`].
    pub key_sha256: [u8; 32],
}

/// What stands before the point in the SubjectPublicKeyInfo of a key on P-256 (RFC 5480 §2): the two identifiers, and the
/// head of the bit string.
const P256_KEY_INFO: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a Wicketgate identity")]
pub struct NotAnIdentity;

impl Identity {
    /// The identity in an end entity's certificate (DER). The caller has verified the certificate.
    pub fn of_certificate(der: &rustls::pki_types::CertificateDer<'_>) -> Result<Self, NotAnIdentity> {
        let certificate = webpki::EndEntityCert::try_from(der).map_err(|_| NotAnIdentity)?;
        let mut names = certificate.valid_uri_names();
        let identity = names.next().ok_or(NotAnIdentity)?.parse()?;
        if names.next().is_some() { Err(NotAnIdentity) } else { Ok(identity) }
    }
}

impl PresentedAgent {
    /// The agent of an end entity's certificate (DER). The caller has verified the certificate.
    pub fn of_certificate(der: &rustls::pki_types::CertificateDer<'_>) -> Result<Self, NotAnIdentity> {
        let Identity::Agent(identity) = Identity::of_certificate(der)? else { return Err(NotAnIdentity) };
        Ok(Self { identity, key_sha256: key_sha256(der)? })
    }
}

impl PresentedGateway {
    /// The gateway of an end entity's certificate (DER). The caller has verified the certificate.
    pub fn of_certificate(der: &rustls::pki_types::CertificateDer<'_>) -> Result<Self, NotAnIdentity> {
        let Identity::Gateway { gateway } = Identity::of_certificate(der)? else { return Err(NotAnIdentity) };
        Ok(Self { gateway, key_sha256: key_sha256(der)? })
    }
}

fn key_sha256(der: &rustls::pki_types::CertificateDer<'_>) -> Result<[u8; 32], NotAnIdentity> {
    let certificate = webpki::EndEntityCert::try_from(der).map_err(|_| NotAnIdentity)?;
    let info = certificate.subject_public_key_info();
    info.strip_prefix(&P256_KEY_INFO[..]).map(sha256).ok_or(NotAnIdentity)
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(a) => write!(f, "{SCHEME}agent/{}/{}/{}", a.frontdoor, a.environment, a.agent),
            Self::Gateway { gateway } => write!(f, "{SCHEME}gateway/{gateway}"),
            Self::Server { server } => write!(f, "{SCHEME}server/{server}"),
        }
    }
}

impl FromStr for Identity {
    type Err = NotAnIdentity;

    fn from_str(s: &str) -> Result<Self, NotAnIdentity> {
        fn id<T: FromStr>(s: &str) -> Result<T, NotAnIdentity> {
            s.parse().map_err(|_| NotAnIdentity)
        }
        let parts: Vec<_> = s.strip_prefix(SCHEME).ok_or(NotAnIdentity)?.split('/').collect();
        match parts[..] {
            ["agent", frontdoor, environment, agent] => Ok(Self::Agent(AgentIdentity {
                frontdoor: id(frontdoor)?,
                environment: id(environment)?,
                agent: id(agent)?,
            })),
            ["gateway", gateway] => Ok(Self::Gateway { gateway: id(gateway)? }),
            ["server", server] => Ok(Self::Server { server: id(server)? }),
            _ => Err(NotAnIdentity),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    #[test]
    fn a_certificate_is_renewed_when_it_is_old_and_when_the_clock_was_set_back() {
        let issued_at = Timestamp::from_second(1_800_000_000).unwrap();
        let due = |seconds: i64| {
            is_renewal_due(issued_at, Timestamp::from_second(1_800_000_000 + seconds).unwrap())
        };
        let old = i64::try_from(RENEW_AFTER.as_secs()).unwrap();
        assert_eq!(
            [-172_800, -1, 0, old - 1, old, 100 * old].map(due),
            [true, true, false, false, true, true]
        );
    }

    proptest! {
        #[test]
        fn an_identity_survives_a_round_trip(a: u128, b: u128, c: u128, kind in 0..3) {
            let [a, b, c] = [a, b, c].map(Uuid::from_u128);
            let identity = match kind {
                0 => Identity::Gateway { gateway: GatewayId::new(a) },
                1 => Identity::Server { server: ServerId::new(a) },
                _ => Identity::Agent(AgentIdentity {
                    frontdoor: FrontdoorId::new(a),
                    environment: EnvironmentId::new(b),
                    agent: AgentId::new(c),
                }),
            };
            prop_assert_eq!(identity.to_string().parse::<Identity>(), Ok(identity));
            let longer = format!("{}/x", identity);
            prop_assert!(longer.parse::<Identity>().is_err());
        }

        #[test]
        fn no_text_panics(s in "(wicketgate://)?(agent|gateway|server)?[/a-z0-9-]{0,120}") {
            if let Ok(identity) = s.parse::<Identity>() {
                prop_assert_eq!(identity.to_string(), s);
            }
        }
    }
}

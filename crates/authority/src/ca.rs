//! The servers' authority: a P-256 key that issues certificates to servers, gateways and agents, and signs assignments and
//! lists of gateways.
//!
//! Invariant: a certificate's one name is the [`Identity`] that the server decided on; from a request it takes
//! the public key and nothing else.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ParsedPublicKey};
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
    SignatureAlgorithm, SigningKey,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject};
use std::{fmt, fs, io, path::Path, time::Duration};
use wicketgate_model::{Assignment, GatewayList, SignedAssignment, SignedGatewayList};
use wicketgate_system::if_exists;
use wicketgate_transport::{
    identity::Identity,
    key::{KeyError, PrivateKey},
    trust::{CaCertificate, Fingerprint, TrustError},
};
use zeroize::Zeroizing;

/// The lifetime of the certificate of an agent, a gateway or a server. It is renewed after a third, so an outage of twenty days is
/// survived.
pub const LEAF_LIFETIME: SignedDuration = SignedDuration::from_hours(30 * 24);
/// From when on every certificate is valid: 2020-01-01, whatever the clocks say. Which agents are served is the server's
/// decision and not this date's; and one that was issued while a clock was ahead stays valid when the clock is set right.
const VALID_SINCE: Timestamp = Timestamp::constant(1_577_836_800, 0);
/// The CA is replaced by hand, if ever.
const CA_LIFETIME: SignedDuration = SignedDuration::from_hours(20 * 366 * 24);

/// The authority. Only servers have it.
pub struct Ca {
    key: KeyPair,
    certificate: CaCertificate,
    pem: String,
}

/// What an authority is kept as.
pub struct CaMaterial {
    /// PKCS #8 (RFC 5208), DER.
    pub key: Zeroizing<Vec<u8>>,
    /// In PEM.
    pub certificate: String,
}

impl fmt::Debug for CaMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaMaterial").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ca({:?})", self.certificate)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum CaError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the authority's certificate is not that of its key")]
    WrongCertificate,
    #[error(
        "{0} is no certificate: restore it, or remove it, and the next start writes that of the database's authority"
    )]
    NotACertificate(String),
    #[error("{0} has the authority's key, and the certificate beside it, ca.crt, is missing: restore it")]
    NoCertificate(String),
    #[error("the public key is not an uncompressed point on P-256")]
    PublicKey,
    #[error("cannot sign")]
    Sign(#[source] rcgen::Error),
    #[error("the system returned no random bytes")]
    Random,
    #[error("the clock of this host says {0}: set it, for example with `timedatectl set-ntp true`")]
    Clock(Timestamp),
    #[error("cannot encode what is to be signed as JSON")]
    Json(#[source] serde_json::Error),
}

impl Ca {
    /// Where earlier versions kept the key, in [`Ca::DIRECTORY`].
    pub const KEY_FILE: &str = "ca.key";
    /// The certificate in [`Ca::DIRECTORY`]: which authority a data directory belongs to.
    pub const CERTIFICATE_FILE: &str = "ca.crt";
    /// In a data directory.
    pub const DIRECTORY: &str = "ca";

    pub fn generate(now: Timestamp) -> Result<Self, CaError> {
        let key = PrivateKey::generate()?;
        let pem = ca_params(now)?.self_signed(&pair(key.pkcs8())?).map_err(CaError::Sign)?.pem();
        Self::from_material(&CaMaterial { key: Zeroizing::new(key.pkcs8().to_vec()), certificate: pem })
    }

    /// # Errors
    /// Also if the certificate is not that of the key.
    pub fn from_material(kept: &CaMaterial) -> Result<Self, CaError> {
        let der = CertificateDer::from_pem_slice(kept.certificate.as_bytes());
        let der = der.map_err(|_| CaError::WrongCertificate)?;
        let certificate = CaCertificate::from_der(der.to_vec()).map_err(|_| CaError::WrongCertificate)?;
        let ca = Self { key: pair(&kept.key)?, certificate, pem: kept.certificate.clone() };
        // A certificate of another key would otherwise fail only at the first agent.
        let probe = ca.sign("".to_owned())?;
        match ca.certificate.verify(&probe) {
            Err(TrustError::NotAnAssignment) => Ok(ca),
            _ => Err(CaError::WrongCertificate),
        }
    }

    pub fn material(&self) -> CaMaterial {
        CaMaterial { key: Zeroizing::new(self.key.serialize_der()), certificate: self.pem.clone() }
    }

    /// What an earlier version has kept in the directory; `None` if there is no key.
    pub fn load(dir: &Path) -> Result<Option<Self>, CaError> {
        let file = dir.join(Self::KEY_FILE);
        let Some(key) = PrivateKey::load(&file)? else { return Ok(None) };
        let certificate = if_exists(fs::read_to_string(dir.join(Self::CERTIFICATE_FILE)))?;
        let certificate = certificate.ok_or_else(|| CaError::NoCertificate(file.display().to_string()))?;
        Self::from_material(&CaMaterial { key: Zeroizing::new(key.pkcs8().to_vec()), certificate }).map(Some)
    }

    /// The authority that a directory belongs to; `None` if it has no certificate.
    pub fn remembered(dir: &Path) -> Result<Option<Fingerprint>, CaError> {
        let file = dir.join(Self::CERTIFICATE_FILE);
        let Some(pem) = if_exists(fs::read(&file))? else { return Ok(None) };
        let der = CertificateDer::from_pem_slice(&pem);
        let der = der.map_err(|_| CaError::NotACertificate(file.display().to_string()))?;
        Ok(Some(Fingerprint::of(&der)))
    }

    pub fn certificate(&self) -> &CaCertificate {
        &self.certificate
    }

    pub fn fingerprint(&self) -> Fingerprint {
        self.certificate.fingerprint()
    }

    /// A certificate (DER) for the holder of the key, valid until [`LEAF_LIFETIME`] from now. `public_key` is an
    /// uncompressed point (SEC 1 §2.3.3), 65 bytes.
    pub fn issue(&self, identity: &Identity, public_key: &[u8], now: Timestamp) -> Result<Vec<u8>, CaError> {
        let public_key = Point::parse(public_key)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let uri = identity.to_string().try_into().map_err(CaError::Sign)?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match identity {
            Identity::Agent(_) => vec![ExtendedKeyUsagePurpose::ClientAuth],
            // A gateway is dialled by agents, and dials servers; servers dial each other.
            Identity::Gateway { .. } | Identity::Server { .. } => {
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
            }
        };
        params.use_authority_key_identifier_extension = true;
        validity(&mut params, now, LEAF_LIFETIME)?;
        let issuer = Issuer::new(ca_params(now)?, &self.key);
        Ok(params.signed_by(&public_key, &issuer).map_err(CaError::Sign)?.der().to_vec())
    }

    pub fn sign_assignment(&self, assignment: &Assignment) -> Result<SignedAssignment, CaError> {
        self.sign(serde_json::to_string(assignment).map_err(CaError::Json)?)
    }

    pub fn sign_gateways(&self, list: &GatewayList) -> Result<SignedGatewayList, CaError> {
        let body = serde_json::to_string(list).map_err(CaError::Json)?;
        let signature = self.key.sign(&SignedGatewayList::signed_bytes(&body)).map_err(CaError::Sign)?;
        Ok(SignedGatewayList { body, signature })
    }

    /// Signs the body of an assignment.
    ///
    /// # Errors
    ///
    /// The system has no randomness.
    pub fn sign(&self, mut body: String) -> Result<SignedAssignment, CaError> {
        let mut signature = self.key.sign(&SignedAssignment::signed_bytes(&body)).map_err(CaError::Sign)?;
        // Assignments of all shares stay in memory.
        body.shrink_to_fit();
        signature.shrink_to_fit();
        Ok(SignedAssignment { body, signature })
    }
}

fn pair(pkcs8: &[u8]) -> Result<KeyPair, CaError> {
    let der = PrivatePkcs8KeyDer::from(pkcs8);
    KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256).map_err(CaError::Sign)
}

/// The content of the CA's own certificate. Its name is the issuer's name in every certificate that it issues.
fn ca_params(now: Timestamp) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Wicketgate CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    validity(&mut params, now, CA_LIFETIME)?;
    Ok(params)
}

fn validity(params: &mut CertificateParams, now: Timestamp, lifetime: SignedDuration) -> Result<(), CaError> {
    let mut serial = [0; 16];
    getrandom::fill(&mut serial).map_err(|_| CaError::Random)?;
    // Positive and not zero (RFC 5280 §4.1.2.2).
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    if now < VALID_SINCE {
        return Err(CaError::Clock(now));
    }
    let date = |t: Timestamp| {
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(t.as_second()).unwrap_or(0))
    };
    params.not_before = date(VALID_SINCE);
    params.not_after = date(now + lifetime);
    Ok(())
}

/// A public key from a request.
struct Point<'a>(&'a [u8]);

impl<'a> Point<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, CaError> {
        // A point that is not on the curve would give a useless certificate.
        let on_curve = bytes.len() == 65
            && bytes[0] == 4
            && ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, bytes).is_ok();
        if on_curve { Ok(Self(bytes)) } else { Err(CaError::PublicKey) }
    }
}

impl PublicKeyData for Point<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;
    use wicketgate_model::{
        AgentId, DialledGateway, EnvironmentId, Era, FrontdoorId, GatewayId, Generation, ServerId, ShareId,
    };
    use wicketgate_transport::identity::AgentIdentity;

    fn assignment() -> Assignment {
        Assignment {
            environment: EnvironmentId::new(Uuid::nil()),
            share: ShareId::new(Uuid::nil()),
            generation: Generation::FIRST,
            target: "10.0.0.1:80".parse().unwrap(),
            health_check: None,
            name: None,
            era: Era::FIRST,
            expires_at: None,
        }
    }

    #[test]
    fn an_authority_is_what_it_is_kept_as() {
        let made = Ca::generate(Timestamp::now()).unwrap();
        let again = Ca::from_material(&made.material()).unwrap();
        assert_eq!(made.fingerprint(), again.fingerprint());
        let signed = made.sign_assignment(&assignment()).unwrap();
        assert_eq!(again.certificate().verify(&signed), Ok(assignment()));
        assert!(!format!("{:?}", made.material()).contains("key: ["));
        // The certificate of another key is detected at start.
        let other = Ca::generate(Timestamp::now()).unwrap();
        let mixed = CaMaterial { certificate: other.material().certificate, ..made.material() };
        let error = Ca::from_material(&mixed).unwrap_err();
        assert!(matches!(error, CaError::WrongCertificate), "{error}");
    }

    #[test]
    fn files_of_an_earlier_version_are_loaded() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Ca::load(dir.path()).unwrap().is_none() && Ca::remembered(dir.path()).unwrap().is_none());
        let key = PrivateKey::load_or_create(&dir.path().join(Ca::KEY_FILE)).unwrap();
        let missing = Ca::load(dir.path()).unwrap_err();
        assert!(missing.to_string().contains("ca.crt"), "{missing}");
        let params = ca_params(Timestamp::now()).unwrap();
        let certificate = params.self_signed(&pair(key.pkcs8()).unwrap()).unwrap().pem();
        fs::write(dir.path().join(Ca::CERTIFICATE_FILE), certificate).unwrap();
        let loaded = Ca::load(dir.path()).unwrap().unwrap();
        assert_eq!(Ca::remembered(dir.path()).unwrap(), Some(loaded.fingerprint()));
        assert_eq!(*loaded.material().key, key.pkcs8());
        fs::write(dir.path().join(Ca::CERTIFICATE_FILE), "nothing").unwrap();
        assert!(Ca::load(dir.path()).is_err() && Ca::remembered(dir.path()).is_err());
    }

    #[test]
    fn a_changed_assignment_or_another_authority_is_refused() {
        let [a, b] = [(); 2].map(|()| Ca::generate(Timestamp::now()).unwrap());
        let signed = a.sign_assignment(&assignment()).unwrap();
        assert_eq!(b.certificate().verify(&signed), Err(TrustError::BadSignature));
        let changed = SignedAssignment { body: signed.body.replace("10.0.0.1", "10.0.0.2"), ..signed };
        assert_eq!(a.certificate().verify(&changed), Err(TrustError::BadSignature));
    }

    #[test]
    fn a_list_of_gateways_is_signed_by_its_authority_and_as_nothing_else() {
        let [a, b] = [(); 2].map(|()| Ca::generate(Timestamp::now()).unwrap());
        let gateway =
            DialledGateway { id: GatewayId::new(Uuid::nil()), url: "https://gw.example:8443".to_owned() };
        let (environment, gateways) = (EnvironmentId::new(Uuid::nil()), vec![gateway]);
        let list = GatewayList { environment, era: Era::new(3), version: 7, gateways };
        let signed = a.sign_gateways(&list).unwrap();
        assert_eq!(a.certificate().verify_gateways(&signed), Ok(list));
        assert_eq!(b.certificate().verify_gateways(&signed), Err(TrustError::BadSignature));
        let changed =
            SignedGatewayList { body: signed.body.replace("gw.example", "gw.example.org"), ..signed.clone() };
        assert_eq!(a.certificate().verify_gateways(&changed), Err(TrustError::BadSignature));
        // A signature over one kind of document is none over another.
        let SignedGatewayList { body, signature } = signed;
        let other = SignedAssignment { body, signature };
        assert_eq!(a.certificate().verify(&other), Err(TrustError::BadSignature));
        let SignedAssignment { body, signature } = a.sign_assignment(&assignment()).unwrap();
        let other = SignedGatewayList { body, signature };
        assert_eq!(a.certificate().verify_gateways(&other), Err(TrustError::BadSignature));
    }

    #[test]
    fn a_certificate_has_the_identity_and_the_lifetime() {
        let now = Timestamp::now();
        let ca = Ca::generate(now).unwrap();
        let key = PrivateKey::generate().unwrap();
        let identity = Identity::Gateway { gateway: GatewayId::new(Uuid::nil()) };
        let der = CertificateDer::from(ca.issue(&identity, &key.public_point(), now).unwrap());
        assert_eq!(Identity::of_certificate(&der), Ok(identity));
        let ca_der = CertificateDer::from(ca.certificate().der());
        let leaf = webpki::EndEntityCert::try_from(&der).unwrap();
        let anchor = webpki::anchor_from_trusted_cert(&ca_der).unwrap();
        let valid_at = |t: Timestamp| {
            let t = Duration::from_secs(u64::try_from(t.as_second()).unwrap());
            leaf.verify_for_usage(
                webpki::ALL_VERIFICATION_ALGS,
                std::slice::from_ref(&anchor),
                &[],
                rustls::pki_types::UnixTime::since_unix_epoch(t),
                webpki::KeyUsage::server_auth(),
                None,
                None,
            )
            .is_ok()
        };
        let second = SignedDuration::from_secs(2);
        assert!(valid_at(now) && valid_at(VALID_SINCE + second) && valid_at(now + LEAF_LIFETIME - second));
        assert!(!valid_at(VALID_SINCE - second) && !valid_at(now + LEAF_LIFETIME + second));
        let early = ca.issue(&identity, &key.public_point(), VALID_SINCE - second).unwrap_err();
        assert!(early.to_string().contains("set it"), "{early}");
    }

    #[test]
    fn agents_dial_only_and_gateways_and_servers_do_both() {
        let now = Timestamp::now();
        let ca = Ca::generate(now).unwrap();
        let anchor_der = CertificateDer::from(ca.certificate().der());
        let anchor = webpki::anchor_from_trusted_cert(&anchor_der).unwrap();
        let uuid = Uuid::nil();
        let agent = AgentIdentity {
            frontdoor: FrontdoorId::new(uuid),
            environment: EnvironmentId::new(uuid),
            agent: AgentId::new(uuid),
        };
        for (identity, ends) in [
            (Identity::Agent(agent), [false, true]),
            (Identity::Gateway { gateway: GatewayId::new(uuid) }, [true, true]),
            (Identity::Server { server: ServerId::new(uuid) }, [true, true]),
        ] {
            let key = PrivateKey::generate().unwrap();
            let der = CertificateDer::from(ca.issue(&identity, &key.public_point(), now).unwrap());
            assert_eq!(Identity::of_certificate(&der), Ok(identity));
            let leaf = webpki::EndEntityCert::try_from(&der).unwrap();
            let is_for = |usage| {
                let anchors = std::slice::from_ref(&anchor);
                let at = rustls::pki_types::UnixTime::now();
                leaf.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, anchors, &[], at, usage, None, None)
                    .is_ok()
            };
            let usages = [webpki::KeyUsage::server_auth(), webpki::KeyUsage::client_auth()];
            assert_eq!(usages.map(is_for), ends, "{identity}");
        }
    }

    #[test]
    fn a_point_off_the_curve_gets_no_certificate() {
        let mut point = PrivateKey::generate().unwrap().public_point();
        assert!(Point::parse(&point).is_ok());
        point[40] ^= 1;
        for bad in [&point[..], &point[..64], b""] {
            assert!(matches!(Point::parse(bad), Err(CaError::PublicKey)));
        }
    }
}

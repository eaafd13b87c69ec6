//! The algorithms of an SA, as charon names them, held against the proposals.

use wicketgate_model::{Encryption, EspProposals, Group, Hash, IkeProposals};
use wicketgate_vici::Message;

/// Whether an IKE SA of `list-sas` and each of its CHILD SAs is one of what is proposed. Before an IKE SA has its
/// algorithms, they are still to be negotiated; the first CHILD SA has no group of its own.
pub(super) fn is_within(sa: &Message, ike: &IkeProposals, esp: &EspProposals) -> bool {
    let children = sa.sub("child-sas").into_iter().flat_map(Message::sections);
    let mut children = children.map(|(_, child)| child).filter(|child| child.text("encr-alg").is_some());
    (sa.text("encr-alg").is_none()
        || ike.all().iter().any(|p| {
            encrypts(sa, p.encryption)
                && sa.text("prf-alg") == Some(prf(p.hash))
                && sa.text("integ-alg") == (!p.encryption.is_aead()).then(|| integrity(p.hash))
                && sa.text("dh-group") == Some(group(p.group))
        }))
        && children.all(|child| {
            esp.all().iter().any(|p| {
                encrypts(child, p.encryption)
                    && child.text("integ-alg") == p.integrity.map(integrity)
                    && child.text("dh-group").is_none_or(|g| g == group(p.group))
            })
        })
}

fn encrypts(sa: &Message, encryption: Encryption) -> bool {
    let (algorithm, bits) = match encryption {
        Encryption::Aes256Gcm => ("AES_GCM_16", "256"),
        Encryption::Aes128Gcm => ("AES_GCM_16", "128"),
        Encryption::Aes256Cbc => ("AES_CBC", "256"),
        Encryption::Aes128Cbc => ("AES_CBC", "128"),
    };
    sa.text("encr-alg") == Some(algorithm) && sa.text("encr-keysize") == Some(bits)
}

fn prf(hash: Hash) -> &'static str {
    match hash {
        Hash::Sha256 => "PRF_HMAC_SHA2_256",
        Hash::Sha384 => "PRF_HMAC_SHA2_384",
        Hash::Sha512 => "PRF_HMAC_SHA2_512",
    }
}

fn integrity(hash: Hash) -> &'static str {
    match hash {
        Hash::Sha256 => "HMAC_SHA2_256_128",
        Hash::Sha384 => "HMAC_SHA2_384_192",
        Hash::Sha512 => "HMAC_SHA2_512_256",
    }
}

fn group(group: Group) -> &'static str {
    match group {
        Group::Ecp256 => "ECP_256",
        Group::Ecp384 => "ECP_384",
        Group::Ecp521 => "ECP_521",
        Group::X25519 => "CURVE_25519",
        Group::Modp2048 => "MODP_2048",
        Group::Modp3072 => "MODP_3072",
        Group::Modp4096 => "MODP_4096",
    }
}

//! Algorithms in charon's notation: the keywords of a configuration, and the names that `list-sas` reports.
//!
//! The notation of the API (`model::proposal`) happens to be close to these keywords, but it is a contract with the API's
//! callers. charon's notation is strongSwan's, may change with its version, and is spelled out here.

use wicketgate_model::{Encryption, EspProposal, EspProposals, Group, Hash, IkeProposal, IkeProposals};
use wicketgate_vici::Message;

/// `aes256gcm16-prfsha384-ecp384`, `aes256-sha256-modp2048`: a value of `proposals`.
pub(super) fn ike_keywords(proposal: &IkeProposal) -> String {
    let prf = if proposal.encryption.is_aead() { "prf" } else { "" };
    let (encryption, group) = (encryption(proposal.encryption).keyword, group(proposal.group).0);
    format!("{encryption}-{prf}{}-{group}", hash(proposal.hash).keyword)
}

/// `aes256gcm16-ecp384`, `aes256-sha256-modp2048`: a value of `esp_proposals`.
pub(super) fn esp_keywords(proposal: &EspProposal) -> String {
    let (encryption, group) = (encryption(proposal.encryption).keyword, group(proposal.group).0);
    match proposal.integrity {
        Some(integrity) => format!("{encryption}-{}-{group}", hash(integrity).keyword),
        None => format!("{encryption}-{group}"),
    }
}

/// Whether an IKE SA of `list-sas` and each of its CHILD SAs uses one of the proposals. An IKE SA without algorithms is
/// still being negotiated; the first CHILD SA has no group of its own.
pub(super) fn is_within(sa: &Message, ike: &IkeProposals, esp: &EspProposals) -> bool {
    let children = sa.sub("child-sas").into_iter().flat_map(Message::sections);
    let mut children = children.map(|(_, child)| child).filter(|child| child.text("encr-alg").is_some());
    (sa.text("encr-alg").is_none()
        || ike.all().iter().any(|p| {
            let hash = hash(p.hash);
            encrypts(sa, p.encryption)
                && sa.text("prf-alg") == Some(hash.prf)
                && sa.text("integ-alg") == (!p.encryption.is_aead()).then_some(hash.integrity)
                && sa.text("dh-group") == Some(group(p.group).1)
        }))
        && children.all(|child| {
            esp.all().iter().any(|p| {
                encrypts(child, p.encryption)
                    && child.text("integ-alg") == p.integrity.map(|integrity| hash(integrity).integrity)
                    && child.text("dh-group").is_none_or(|name| name == group(p.group).1)
            })
        })
}

fn encrypts(sa: &Message, algorithm: Encryption) -> bool {
    let names = encryption(algorithm);
    sa.text("encr-alg") == Some(names.name) && sa.text("encr-keysize") == Some(names.bits)
}

struct EncryptionNames {
    keyword: &'static str,
    name: &'static str,
    bits: &'static str,
}

fn encryption(encryption: Encryption) -> EncryptionNames {
    let (keyword, name, bits) = match encryption {
        Encryption::Aes256Gcm => ("aes256gcm16", "AES_GCM_16", "256"),
        Encryption::Aes128Gcm => ("aes128gcm16", "AES_GCM_16", "128"),
        Encryption::Aes256Cbc => ("aes256", "AES_CBC", "256"),
        Encryption::Aes128Cbc => ("aes128", "AES_CBC", "128"),
    };
    EncryptionNames { keyword, name, bits }
}

struct HashNames {
    keyword: &'static str,
    prf: &'static str,
    integrity: &'static str,
}

fn hash(hash: Hash) -> HashNames {
    let (keyword, prf, integrity) = match hash {
        Hash::Sha256 => ("sha256", "PRF_HMAC_SHA2_256", "HMAC_SHA2_256_128"),
        Hash::Sha384 => ("sha384", "PRF_HMAC_SHA2_384", "HMAC_SHA2_384_192"),
        Hash::Sha512 => ("sha512", "PRF_HMAC_SHA2_512", "HMAC_SHA2_512_256"),
    };
    HashNames { keyword, prf, integrity }
}

/// The keyword and the reported name.
fn group(group: Group) -> (&'static str, &'static str) {
    match group {
        Group::Ecp256 => ("ecp256", "ECP_256"),
        Group::Ecp384 => ("ecp384", "ECP_384"),
        Group::Ecp521 => ("ecp521", "ECP_521"),
        Group::X25519 => ("x25519", "CURVE_25519"),
        Group::Modp2048 => ("modp2048", "MODP_2048"),
        Group::Modp3072 => ("modp3072", "MODP_3072"),
        Group::Modp4096 => ("modp4096", "MODP_4096"),
    }
}

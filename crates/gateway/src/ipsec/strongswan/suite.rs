//! Algorithms in charon's notation: the keywords of a configuration, and the names that `list-sas` reports.
//!
//! The notation of the API (`model::proposal`) happens to be close to these keywords, but it is a contract with the API's
//! callers. charon's notation is strongSwan's, may change with its version, and is spelled out here.

use wicketgate_model::{Encryption, EspProposal, EspProposals, Group, Hash, IkeProposal, IkeProposals};
use wicketgate_vici::Message;

/// `aes256gcm16-prfsha384-ecp384`, `aes256-sha256-modp2048`: a value of `proposals`.
pub(super) fn ike_keywords(proposal: &IkeProposal) -> String {
    let prf = if proposal.encryption.is_aead() { "prf" } else { "" };
    let (encryption, group) = (encryption(proposal.encryption).0, group(proposal.group).0);
    format!("{encryption}-{prf}{}-{group}", hash(proposal.hash).0)
}

/// `aes256gcm16-ecp384`, `aes256-sha256-modp2048`, `aes256gcm16`: a value of `esp_proposals`.
pub(super) fn esp_keywords(proposal: &EspProposal) -> String {
    let integrity = proposal.integrity.map(|integrity| hash(integrity).0);
    let group = proposal.group.map(|it| group(it).0);
    let words = [Some(encryption(proposal.encryption).0), integrity, group];
    words.into_iter().flatten().collect::<Vec<_>>().join("-")
}

/// The API's notation of an ESP suite without a group, as charon logs what is offered: `AES_GCM_16_256`.
pub(super) fn esp_without_group(offered: &str) -> Option<EspProposal> {
    let hashes = || Hash::ALL.iter().copied().map(Some).chain([None]);
    let mut all = Encryption::ALL.iter().copied().flat_map(|encryption| {
        hashes().map(move |integrity| EspProposal { encryption, integrity, group: None })
    });
    all.find(|p| p.encryption.is_aead() == p.integrity.is_none() && esp_name(p).replace('-', "_") == offered)
}

/// The algorithms of an IKE SA of `list-sas`: `AES_GCM_16-256/PRF_HMAC_SHA2_384/ECP_384`.
pub(super) fn of_ike_sa(sa: &Message) -> String {
    algorithms(sa, &["integ-alg", "prf-alg", "dh-group"])
}

/// The algorithms of a CHILD SA of `list-sas`: `AES_GCM_16-256/ECP_384`. The first CHILD SA has no group of its own.
pub(super) fn of_child_sa(sa: &Message) -> String {
    algorithms(sa, &["integ-alg", "dh-group"])
}

fn algorithms(sa: &Message, after_encryption: &[&str]) -> String {
    let encryption = sa.text("encr-alg").map(|name| match sa.text("encr-keysize") {
        Some(size) => format!("{name}-{size}"),
        None => name.to_owned(),
    });
    let others = after_encryption.iter().filter_map(|name| sa.text(name)).map(str::to_owned);
    encryption.into_iter().chain(others).collect::<Vec<_>>().join("/")
}

/// Whether an IKE SA of `list-sas` and each of its CHILD SAs uses one of the proposals. An IKE SA without algorithms is
/// still being negotiated.
pub(super) fn is_within(sa: &Message, ike: &IkeProposals, esp: &EspProposals) -> bool {
    let children = sa.sub("child-sas").into_iter().flat_map(Message::sections);
    let mut children = children.map(|(_, child)| child).filter(|child| child.text("encr-alg").is_some());
    (sa.text("encr-alg").is_none() || ike.all().iter().any(|p| of_ike_sa(sa) == ike_name(p)))
        && children.all(|child| {
            let used = of_child_sa(child);
            esp.all().iter().any(|p| {
                let name = esp_name(p);
                used == name || p.group.is_some_and(|it| used == format!("{name}/{}", group(it).1))
            })
        })
}

fn ike_name(proposal: &IkeProposal) -> String {
    let (encryption, group) = (encryption(proposal.encryption).1, group(proposal.group).1);
    let (_, prf, integrity) = hash(proposal.hash);
    if proposal.encryption.is_aead() {
        format!("{encryption}/{prf}/{group}")
    } else {
        format!("{encryption}/{integrity}/{prf}/{group}")
    }
}

/// Without the group.
fn esp_name(proposal: &EspProposal) -> String {
    let encryption = encryption(proposal.encryption).1;
    proposal
        .integrity
        .map_or(encryption.to_owned(), |integrity| format!("{encryption}/{}", hash(integrity).2))
}

/// The keyword, and the reported name with the size of the key.
fn encryption(encryption: Encryption) -> (&'static str, &'static str) {
    match encryption {
        Encryption::Aes256Gcm => ("aes256gcm16", "AES_GCM_16-256"),
        Encryption::Aes128Gcm => ("aes128gcm16", "AES_GCM_16-128"),
        Encryption::Aes256Cbc => ("aes256", "AES_CBC-256"),
        Encryption::Aes128Cbc => ("aes128", "AES_CBC-128"),
    }
}

/// The keyword, and the reported names of the PRF and of the integrity algorithm.
fn hash(hash: Hash) -> (&'static str, &'static str, &'static str) {
    match hash {
        Hash::Sha256 => ("sha256", "PRF_HMAC_SHA2_256", "HMAC_SHA2_256_128"),
        Hash::Sha384 => ("sha384", "PRF_HMAC_SHA2_384", "HMAC_SHA2_384_192"),
        Hash::Sha512 => ("sha512", "PRF_HMAC_SHA2_512", "HMAC_SHA2_512_256"),
    }
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

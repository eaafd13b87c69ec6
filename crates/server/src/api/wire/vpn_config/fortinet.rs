//! For FortiGate firewalls: a route-based tunnel.

use super::{
    VpnConfig,
    device::{Choice, Inexpressible, Ipv4Identity, Names, left_out},
    quote,
};
use wicketgate_model::{
    Encryption::{Aes128Cbc, Aes128Gcm, Aes256Cbc, Aes256Gcm},
    Group::{Ecp256, Ecp384, Ecp521, Modp2048, Modp3072, Modp4096, X25519},
    Hash::{Sha256, Sha384, Sha512},
};

const NAMES: Names = Names {
    device: "a FortiGate",
    ike_encryption: ENCRYPTION,
    ike_hash: HASH,
    ike_group: GROUPS,
    esp_encryption: ENCRYPTION,
    esp_hash: HASH,
    esp_group: GROUPS,
};
const ENCRYPTION: &[(wicketgate_model::Encryption, &str)] =
    &[(Aes256Gcm, "aes256gcm"), (Aes128Gcm, "aes128gcm"), (Aes256Cbc, "aes256"), (Aes128Cbc, "aes128")];
const HASH: &[(wicketgate_model::Hash, &str)] = &[(Sha256, "sha256"), (Sha384, "sha384"), (Sha512, "sha512")];
const GROUPS: &[(wicketgate_model::Group, &str)] = &[
    (Modp2048, "14"),
    (Modp3072, "15"),
    (Modp4096, "16"),
    (Ecp256, "19"),
    (Ecp384, "20"),
    (Ecp521, "21"),
    (X25519, "31"),
];

/// Each combination of encryption and hash once; the device combines them with all groups.
fn proposals(choice: &Choice, hash_prefix: &str) -> String {
    let mut all: Vec<String> = Vec::new();
    for suite in &choice.suites {
        let prefix = if suite.is_aead { hash_prefix } else { "" };
        let hash = if suite.hash.is_empty() { String::new() } else { format!("-{prefix}{}", suite.hash) };
        let one = format!("{}{hash}", suite.encryption);
        if !all.contains(&one) {
            all.push(one);
        }
    }
    all.join(" ")
}

pub(super) fn render(config: &VpnConfig) -> Result<String, Inexpressible> {
    let VpnConfig { gateway, peer, ike, esp, dpd, mss, .. } = config;
    let (ike_choice, esp_choice) = (NAMES.ike(config)?, NAMES.esp(config)?);
    let (id_type, id) = match NAMES.identity(config)? {
        Ipv4Identity::Address(address) => ("address", address.to_string()),
        Ipv4Identity::HostName(name) => ("fqdn", name.to_owned()),
        Ipv4Identity::Mail(mail) => ("user-fqdn", mail.to_owned()),
    };
    let rule = "its console takes ? for a question, and $ for the beginning of a variable";
    let key = quote::backslashed(NAMES.key_without(config, "?$", rule)?);
    // A tunnel is a network interface, whose name may have 15 characters.
    let name = config.object(15);
    let header = config.header(
        "#",
        "FortiOS 7.0 to 7.6",
        &[
            "Written after the vendor's documentation. Paste it into the console, or run it as a script.",
            "Before: put the outside interface in the place of wan1, and the inside one in that of internal.",
        ],
    );
    Ok(format!(
        "\
{header}{left_out}
config vpn ipsec phase1-interface
    edit \"{name}\"
        set interface \"wan1\"
        set ike-version 2
        set peertype any
        set net-device disable
        set remote-gw {gateway_ip}
        set localid-type {id_type}
        set localid \"{id}\"
        set psksecret {key}
        set proposal {ike_proposals}
        set dhgrp {ike_groups}
        set keylife {ike_lifetime}
        set nattraversal forced
        set dpd on-idle
        set dpd-retryinterval {dpd_delay}
        set dpd-retrycount 3
    next
end
config vpn ipsec phase2-interface
    edit \"{name}\"
        set phase1name \"{name}\"
        set proposal {esp_proposals}
        set pfs enable
        set dhgrp {esp_groups}
        set keylifeseconds {esp_lifetime}
        set auto-negotiate enable
        set src-subnet {peer_net} {peer_mask}
        set dst-subnet {load_balancer} 255.255.255.255
    next
end
config firewall address
    edit \"{name}\"
        set subnet {load_balancer} 255.255.255.255
    next
end
config router static
    edit 0
        set dst {load_balancer} 255.255.255.255
        set device \"{name}\"
    next
end
config firewall policy
    edit 0
        set name \"{name}\"
        set srcintf \"internal\"
        set dstintf \"{name}\"
        set srcaddr \"all\"
        set dstaddr \"{name}\"
        set action accept
        set schedule \"always\"
        set service \"ALL_TCP\"
        set tcp-mss-sender {mss}
        set tcp-mss-receiver {mss}
    next
end
",
        left_out = left_out("#", &ike_choice, &esp_choice),
        gateway_ip = gateway.public_ip,
        ike_proposals = proposals(&ike_choice, "prf"),
        ike_groups = ike_choice.groups().join(" "),
        ike_lifetime = ike.lifetime_seconds,
        dpd_delay = dpd.delay_seconds,
        esp_proposals = proposals(&esp_choice, ""),
        esp_groups = esp_choice.groups().join(" "),
        esp_lifetime = esp.lifetime_seconds,
        peer_net = peer.traffic_selector.network(),
        peer_mask = peer.traffic_selector.netmask(),
        load_balancer = config.load_balancer(),
    ))
}

//! For firewalls of Palo Alto Networks: a tunnel interface with a proxy id, as `set` commands.

use super::{
    VpnConfig,
    device::{Inexpressible, Ipv4Identity, Names, left_out},
};
use wicketgate_model::{
    Encryption::{Aes128Cbc, Aes128Gcm, Aes256Cbc, Aes256Gcm},
    Group::{Ecp256, Ecp384, Ecp521, Modp2048, Modp3072, Modp4096},
    Hash::{Sha256, Sha384, Sha512},
};

const NAMES: Names = Names {
    device: "a Palo Alto Networks firewall",
    ike_encryption: ENCRYPTION,
    ike_hash: HASH,
    ike_group: GROUPS,
    esp_encryption: ENCRYPTION,
    esp_hash: HASH,
    esp_group: GROUPS,
};
const ENCRYPTION: &[(wicketgate_model::Encryption, &str)] = &[
    (Aes256Gcm, "aes-256-gcm"),
    (Aes128Gcm, "aes-128-gcm"),
    (Aes256Cbc, "aes-256-cbc"),
    (Aes128Cbc, "aes-128-cbc"),
];
const HASH: &[(wicketgate_model::Hash, &str)] = &[(Sha256, "sha256"), (Sha384, "sha384"), (Sha512, "sha512")];
const GROUPS: &[(wicketgate_model::Group, &str)] = &[
    (Modp2048, "group14"),
    (Modp3072, "group15"),
    (Modp4096, "group16"),
    (Ecp256, "group19"),
    (Ecp384, "group20"),
    (Ecp521, "group21"),
];

pub(super) fn render(config: &VpnConfig) -> Result<String, Inexpressible> {
    let VpnConfig { gateway, peer, ike, esp, dpd, mtu, mss, .. } = config;
    let ike_choice = NAMES.ike(config)?;
    let (group, esp_choice) = NAMES.esp(config)?.of_one_group();
    let (id_type, id) = match NAMES.identity(config)? {
        Ipv4Identity::Address(address) => ("ipaddr", address.to_string()),
        Ipv4Identity::HostName(name) => ("fqdn", name.to_owned()),
        Ipv4Identity::Mail(mail) => ("ufqdn", mail.to_owned()),
    };
    let rule = "its console takes ? and quotes and backslashes for itself";
    let key = NAMES.key_without(config, "?\"'\\", rule)?;
    let name = config.object(31);
    // With GCM the hash is none; with CBC beside it, one that both may use.
    let mut authentication = esp_choice.hashes();
    if authentication.is_empty() {
        authentication.push("none");
    }
    let header = config.header(
        "#",
        "PAN-OS 10.2 to 11.2",
        &[
            "Written after the vendor's documentation. Paste it in configuration mode, without these lines; then commit.",
            "Before: ethernet1/1 is the outside interface, tunnel.100 an interface, vpn a zone and default a virtual",
            "router: put yours in their places. A security policy that lets the inside zone reach vpn is yours to make.",
            &format!("TCP segments are made to fit the tunnel's MTU of {mtu} (a segment of {mss}) by the firewall itself."),
        ],
    );
    Ok(format!(
        "\
{header}{left_out}
set network ike crypto-profiles ike-crypto-profiles {name} encryption [ {ike_encryption} ]
set network ike crypto-profiles ike-crypto-profiles {name} hash [ {ike_hash} ]
set network ike crypto-profiles ike-crypto-profiles {name} dh-group [ {ike_groups} ]
set network ike crypto-profiles ike-crypto-profiles {name} lifetime seconds {ike_lifetime}
set network ike crypto-profiles ipsec-crypto-profiles {name} esp encryption [ {esp_encryption} ]
set network ike crypto-profiles ipsec-crypto-profiles {name} esp authentication [ {authentication} ]
set network ike crypto-profiles ipsec-crypto-profiles {name} dh-group {group}
set network ike crypto-profiles ipsec-crypto-profiles {name} lifetime seconds {esp_lifetime}
set network ike gateway {name} protocol version ikev2
set network ike gateway {name} protocol ikev2 ike-crypto-profile {name}
set network ike gateway {name} protocol ikev2 dpd enable yes
set network ike gateway {name} protocol ikev2 dpd interval {dpd_delay}
set network ike gateway {name} protocol-common nat-traversal enable yes
set network ike gateway {name} local-address interface ethernet1/1
set network ike gateway {name} peer-address ip {gateway_ip}
set network ike gateway {name} local-id type {id_type}
set network ike gateway {name} local-id id {id}
set network ike gateway {name} peer-id type ipaddr
set network ike gateway {name} peer-id id {gateway_id}
set network ike gateway {name} authentication pre-shared-key key \"{key}\"
set network interface tunnel units tunnel.100 mtu {mtu}
set network virtual-router default interface tunnel.100
set zone vpn network layer3 tunnel.100
set network tunnel ipsec {name} auto-key ike-gateway {name}
set network tunnel ipsec {name} auto-key ipsec-crypto-profile {name}
set network tunnel ipsec {name} auto-key proxy-id site local {peer_ts}
set network tunnel ipsec {name} auto-key proxy-id site remote {gateway_ts}
set network tunnel ipsec {name} auto-key proxy-id site protocol any
set network tunnel ipsec {name} tunnel-interface tunnel.100
set network virtual-router default routing-table ip static-route {name} destination {gateway_ts}
set network virtual-router default routing-table ip static-route {name} interface tunnel.100
",
        left_out = left_out("#", &ike_choice, &esp_choice),
        ike_encryption = ike_choice.encryptions().join(" "),
        ike_hash = ike_choice.hashes().join(" "),
        ike_groups = ike_choice.groups().join(" "),
        ike_lifetime = ike.lifetime_seconds,
        esp_encryption = esp_choice.encryptions().join(" "),
        authentication = authentication.join(" "),
        esp_lifetime = esp.lifetime_seconds,
        dpd_delay = dpd.delay_seconds,
        gateway_ip = gateway.public_ip,
        gateway_id = gateway.id,
        gateway_ts = gateway.traffic_selector,
        peer_ts = peer.traffic_selector,
    ))
}

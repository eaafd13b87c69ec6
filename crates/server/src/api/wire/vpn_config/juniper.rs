//! For Juniper's SRX firewalls: a tunnel interface with a traffic selector, as `set` commands.

use super::{
    VpnConfig,
    device::{Inexpressible, Ipv4Identity, Names, left_out},
    quote,
};
use wicketgate_model::{
    Encryption::{Aes128Cbc, Aes128Gcm, Aes256Cbc, Aes256Gcm},
    Group::{Ecp256, Ecp384, Modp2048},
    Hash::{Sha256, Sha384},
};

/// In IKE it has GCM too, but does not say with which pseudo-random function.
const NAMES: Names = Names {
    device: "a Juniper SRX",
    ike_encryption: &[(Aes256Cbc, "aes-256-cbc"), (Aes128Cbc, "aes-128-cbc")],
    ike_hash: &[(Sha256, "sha-256"), (Sha384, "sha-384")],
    ike_group: GROUPS,
    esp_encryption: &[
        (Aes256Gcm, "aes-256-gcm"),
        (Aes128Gcm, "aes-128-gcm"),
        (Aes256Cbc, "aes-256-cbc"),
        (Aes128Cbc, "aes-128-cbc"),
    ],
    esp_hash: &[(Sha256, "hmac-sha-256-128")],
    esp_group: GROUPS,
};
const GROUPS: &[(wicketgate_model::Group, &str)] =
    &[(Modp2048, "group14"), (Ecp256, "group19"), (Ecp384, "group20")];

/// A policy takes four proposals, all of one group.
const MOST: usize = 4;

pub(super) fn render(config: &VpnConfig) -> Result<String, Inexpressible> {
    let VpnConfig { gateway, peer, ike, esp, dpd, mss, .. } = config;
    let (ike_group, ike_choice) = NAMES.ike(config)?.of_one_group();
    let (group, esp_choice) = NAMES.esp(config)?.of_one_group();
    let (ike_choice, esp_choice) = (ike_choice.at_most(MOST), esp_choice.at_most(MOST));
    let identity = match NAMES.identity(config)? {
        Ipv4Identity::Address(address) => format!("inet {address}"),
        Ipv4Identity::HostName(name) => format!("hostname {name}"),
        Ipv4Identity::Mail(mail) => format!("user-at-hostname \"{mail}\""),
    };
    let key = &config.pre_shared_key;
    let key = if quote::is_plain(key) {
        format!("ascii-text \"{}\"", key.expose())
    } else {
        format!("hexadecimal {}", quote::hex(key))
    };
    let name = config.object(29);
    let mut proposals = String::new();
    for (n, suite) in (1..).zip(&ike_choice.suites) {
        proposals += &format!(
            "set security ike proposal {name}-{n} authentication-method pre-shared-keys
set security ike proposal {name}-{n} encryption-algorithm {}
set security ike proposal {name}-{n} authentication-algorithm {}
set security ike proposal {name}-{n} dh-group {ike_group}
set security ike proposal {name}-{n} lifetime-seconds {}
set security ike policy {name} proposals {name}-{n}
",
            suite.encryption, suite.hash, ike.lifetime_seconds
        );
    }
    for (n, suite) in (1..).zip(&esp_choice.suites) {
        let authentication = if suite.is_aead {
            String::new()
        } else {
            format!("set security ipsec proposal {name}-{n} authentication-algorithm {}\n", suite.hash)
        };
        proposals += &format!(
            "set security ipsec proposal {name}-{n} protocol esp
set security ipsec proposal {name}-{n} encryption-algorithm {}
{authentication}set security ipsec proposal {name}-{n} lifetime-seconds {}
set security ipsec policy {name} proposals {name}-{n}
",
            suite.encryption, esp.lifetime_seconds
        );
    }
    let header = config.header(
        "#",
        "Junos OS 20.4 to 24.2 on SRX",
        &[
            "Written after the vendor's documentation. Give it to `load set terminal` in configuration mode, without",
            "these lines; then commit. Before: ge-0/0/0.0 is the outside interface, st0.100 a tunnel interface that is",
            "free, vpn a zone: put yours in their places. A policy from the inside zone to vpn is yours to make.",
        ],
    );
    Ok(format!(
        "\
{header}{left_out}
{proposals}set security ike policy {name} pre-shared-key {key}
set security ike gateway {name} ike-policy {name}
set security ike gateway {name} address {gateway_ip}
set security ike gateway {name} version v2-only
set security ike gateway {name} external-interface ge-0/0/0.0
set security ike gateway {name} local-identity {identity}
set security ike gateway {name} remote-identity inet {gateway_id}
set security ike gateway {name} dead-peer-detection probe-idle-tunnel
set security ike gateway {name} dead-peer-detection interval {dpd_delay}
set security ike gateway {name} dead-peer-detection threshold 3
set security ipsec policy {name} perfect-forward-secrecy keys {group}
set security ipsec vpn {name} bind-interface st0.100
set security ipsec vpn {name} ike gateway {name}
set security ipsec vpn {name} ike ipsec-policy {name}
set security ipsec vpn {name} traffic-selector site local-ip {peer_ts} remote-ip {gateway_ts}
set security ipsec vpn {name} establish-tunnels immediately
set interfaces st0 unit 100 family inet
set security zones security-zone vpn interfaces st0.100
set security flow tcp-mss ipsec-vpn mss {mss}
# The traffic selector sets the route to {gateway_ts} while the tunnel is up.
",
        left_out = left_out("#", &ike_choice, &esp_choice),
        gateway_ip = gateway.public_ip,
        gateway_id = gateway.id,
        gateway_ts = gateway.traffic_selector,
        peer_ts = peer.traffic_selector,
        dpd_delay = dpd.delay_seconds,
    ))
}

//! For Cisco firewalls with ASA software: an entry of a crypto map.

use super::{
    VpnConfig,
    device::{Inexpressible, Ipv4Identity, Names, left_out},
};
use wicketgate_model::{
    Encryption::{Aes128Cbc, Aes128Gcm, Aes256Cbc, Aes256Gcm},
    Group::{Ecp256, Ecp384, Ecp521, Modp2048},
    Hash::{Sha256, Sha384, Sha512},
};

const NAMES: Names = Names {
    device: "a Cisco ASA",
    ike_encryption: &[
        (Aes256Gcm, "aes-gcm-256"),
        (Aes128Gcm, "aes-gcm"),
        (Aes256Cbc, "aes-256"),
        (Aes128Cbc, "aes"),
    ],
    ike_hash: &[(Sha256, "sha256"), (Sha384, "sha384"), (Sha512, "sha512")],
    ike_group: GROUPS,
    esp_encryption: &[
        (Aes256Gcm, "aes-gcm-256"),
        (Aes128Gcm, "aes-gcm"),
        (Aes256Cbc, "aes-256"),
        (Aes128Cbc, "aes"),
    ],
    esp_hash: &[(Sha256, "sha-256"), (Sha384, "sha-384"), (Sha512, "sha-512")],
    esp_group: GROUPS,
};
const GROUPS: &[(wicketgate_model::Group, &str)] =
    &[(Modp2048, "14"), (Ecp256, "19"), (Ecp384, "20"), (Ecp521, "21")];

pub(super) fn render(config: &VpnConfig) -> Result<String, Inexpressible> {
    let VpnConfig { gateway, peer, ike, esp, dpd, mss, .. } = config;
    let ike_choice = NAMES.ike(config)?;
    let (group, esp_choice) = NAMES.esp(config)?.of_one_group();
    let Ipv4Identity::Address(identity) = NAMES.identity(config)? else {
        let rule = "it identifies itself by its outside address. Make that the peerId, or leave peerId out";
        return Err(Inexpressible::Identity { device: NAMES.device, rule });
    };
    let rule = "its console takes ? and \" and spaces for itself";
    let key = NAMES.key_without(config, "?\" ", rule)?;
    let name = config.object(30);
    let mut policies = String::new();
    for (n, suite) in (101..).zip(&ike_choice.suites) {
        let integrity = if suite.is_aead { "null" } else { suite.hash };
        policies += &format!(
            "crypto ikev2 policy {n}\n encryption {}\n integrity {integrity}\n group {}\n prf {}\n lifetime seconds {}\n",
            suite.encryption, suite.group, suite.hash, ike.lifetime_seconds
        );
    }
    let mut proposals = String::new();
    let mut proposal_names = Vec::new();
    for (n, suite) in (1..).zip(&esp_choice.suites) {
        let integrity = if suite.is_aead { "null" } else { suite.hash };
        proposals += &format!(
            "crypto ipsec ikev2 ipsec-proposal {name}-{n}\n protocol esp encryption {}\n protocol esp integrity {integrity}\n",
            suite.encryption
        );
        proposal_names.push(format!("{name}-{n}"));
    }
    let header = config.header(
        "!",
        "Cisco ASA 9.14 to 9.20",
        &[
            "Written after the vendor's documentation. Paste it in configuration mode.",
            "Before: outside and inside are the names of its interfaces, outside_map that of the crypto map there, 100 a",
            "number that is free in it; the policies 101 and on have to be free, too.",
            &format!("The ASA identifies itself by its outside address, which has to be {identity}."),
        ],
    );
    Ok(format!(
        "\
{header}{left_out}
{policies}crypto isakmp identity address
crypto ikev2 enable outside
{proposals}object network {name}-site
 subnet {peer_net} {peer_mask}
object network {name}-services
 host {load_balancer}
access-list {name} extended permit ip object {name}-site object {name}-services
nat (inside,outside) source static {name}-site {name}-site destination static {name}-services {name}-services no-proxy-arp route-lookup
crypto map outside_map 100 match address {name}
crypto map outside_map 100 set peer {gateway_ip}
crypto map outside_map 100 set pfs group{group}
crypto map outside_map 100 set ikev2 ipsec-proposal {proposal_names}
crypto map outside_map 100 set security-association lifetime seconds {esp_lifetime}
crypto map outside_map 100 set reverse-route
crypto map outside_map interface outside
tunnel-group {gateway_ip} type ipsec-l2l
tunnel-group {gateway_ip} ipsec-attributes
 ikev2 remote-authentication pre-shared-key {key}
 ikev2 local-authentication pre-shared-key {key}
 isakmp keepalive threshold {dpd_delay} retry 5
sysopt connection tcpmss {mss}
",
        left_out = left_out("!", &ike_choice, &esp_choice),
        peer_net = peer.traffic_selector.network(),
        peer_mask = peer.traffic_selector.netmask(),
        load_balancer = config.load_balancer(),
        gateway_ip = gateway.public_ip,
        proposal_names = proposal_names.join(" "),
        esp_lifetime = esp.lifetime_seconds,
        dpd_delay = dpd.delay_seconds,
    ))
}

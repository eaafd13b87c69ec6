//! For Cisco routers with IOS XE: a virtual tunnel interface whose selectors an access list gives.

use super::{
    VpnConfig,
    device::{Inexpressible, Ipv4Identity, Names, left_out},
    quote,
};
use wicketgate_model::{
    Encryption::{Aes128Cbc, Aes128Gcm, Aes256Cbc, Aes256Gcm},
    Group::{Ecp256, Ecp384, Ecp521, Modp2048, Modp3072, Modp4096},
    Hash::{Sha256, Sha384, Sha512},
};

const NAMES: Names = Names {
    device: "Cisco IOS XE",
    ike_encryption: &[
        (Aes256Gcm, "aes-gcm-256"),
        (Aes128Gcm, "aes-gcm-128"),
        (Aes256Cbc, "aes-cbc-256"),
        (Aes128Cbc, "aes-cbc-128"),
    ],
    ike_hash: &[(Sha256, "sha256"), (Sha384, "sha384"), (Sha512, "sha512")],
    ike_group: GROUPS,
    esp_encryption: &[
        (Aes256Gcm, "esp-gcm 256"),
        (Aes128Gcm, "esp-gcm 128"),
        (Aes256Cbc, "esp-aes 256"),
        (Aes128Cbc, "esp-aes 128"),
    ],
    esp_hash: &[(Sha256, "esp-sha256-hmac"), (Sha384, "esp-sha384-hmac"), (Sha512, "esp-sha512-hmac")],
    esp_group: GROUPS,
};
const GROUPS: &[(wicketgate_model::Group, &str)] =
    &[(Modp2048, "14"), (Modp3072, "15"), (Modp4096, "16"), (Ecp256, "19"), (Ecp384, "20"), (Ecp521, "21")];

pub(super) fn render(config: &VpnConfig) -> Result<String, Inexpressible> {
    let VpnConfig { gateway, peer, ike, esp, dpd, mtu, mss, .. } = config;
    let ike_choice = NAMES.ike(config)?;
    let (group, esp_choice) = NAMES.esp(config)?.of_one_group();
    let identity = match NAMES.identity(config)? {
        Ipv4Identity::Address(address) => format!("address {address}"),
        Ipv4Identity::HostName(name) => format!("fqdn {name}"),
        Ipv4Identity::Mail(mail) => format!("email {mail}"),
    };
    // The console takes a ? for a question, and a space at an end for nothing: then the key goes in as hexadecimal.
    let key = &config.pre_shared_key;
    let key = if quote::is_plain(key) { key.expose().to_owned() } else { format!("hex {}", quote::hex(key)) };
    let name = config.object(30);
    let mut proposals = String::new();
    let mut policy = String::new();
    for (n, suite) in (1..).zip(&ike_choice.suites) {
        let integrity = if suite.is_aead { String::new() } else { format!(" integrity {}\n", suite.hash) };
        proposals += &format!(
            "crypto ikev2 proposal {name}-{n}\n encryption {}\n{integrity} prf {}\n group {}\n",
            suite.encryption, suite.hash, suite.group
        );
        policy += &format!(" proposal {name}-{n}\n");
    }
    let mut sets = String::new();
    let mut set_names = Vec::new();
    for (n, suite) in (1..).zip(&esp_choice.suites) {
        sets +=
            format!("crypto ipsec transform-set {name}-{n} {} {}", suite.encryption, suite.hash).trim_end();
        sets += "\n mode tunnel\n";
        set_names.push(format!("{name}-{n}"));
    }
    let public = peer.public_ip;
    let header = config.header(
        "!",
        "Cisco IOS XE 16.12 to 17.15",
        &[
            "Written after the vendor's documentation. Paste it in configuration mode.",
            "Before: choose another number where Tunnel100 is taken, and another address than 169.254.254.1; where the",
            &format!("router stands behind a NAT, its own outside address takes the place of {public} in the two lines that"),
            "are marked by an exclamation mark above them, and not in identity local.",
        ],
    );
    Ok(format!(
        "\
{header}{left_out}
{proposals}crypto ikev2 policy {name}
! the outside address
 match address local {public}
{policy}crypto ikev2 keyring {name}
 peer gateway
  address {gateway_ip}
  pre-shared-key {key}
crypto ikev2 profile {name}
 match identity remote address {gateway_id} 255.255.255.255
 identity local {identity}
 authentication remote pre-share
 authentication local pre-share
 keyring local {name}
 lifetime {ike_lifetime}
 dpd {dpd_delay} 5 periodic
{sets}crypto ipsec profile {name}
 set transform-set {set_names}
 set pfs group{group}
 set security-association lifetime seconds {esp_lifetime}
 set ikev2-profile {name}
ip access-list extended {name}
 permit ip {peer_net} {peer_wildcard} host {load_balancer}
interface Tunnel100
 description {name}
 ip address 169.254.254.1 255.255.255.252
 ip mtu {mtu}
 ip tcp adjust-mss {mss}
! the outside address, or the name of its interface
 tunnel source {public}
 tunnel mode ipsec ipv4
 tunnel destination {gateway_ip}
 tunnel protection ipsec policy ipv4 {name}
 tunnel protection ipsec profile {name}
ip route {load_balancer} 255.255.255.255 Tunnel100
",
        left_out = left_out("!", &ike_choice, &esp_choice),
        gateway_ip = gateway.public_ip,
        gateway_id = gateway.id,
        ike_lifetime = ike.lifetime_seconds,
        dpd_delay = dpd.delay_seconds,
        set_names = set_names.join(" "),
        esp_lifetime = esp.lifetime_seconds,
        peer_net = peer.traffic_selector.network(),
        peer_wildcard = peer.traffic_selector.hostmask(),
        load_balancer = config.load_balancer(),
    ))
}

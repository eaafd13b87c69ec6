//! For VyOS: a policy-based tunnel, as `set` commands.

use super::{
    VpnConfig,
    device::{Inexpressible, Names, left_out},
    quote,
};
use wicketgate_model::{
    Encryption::{Aes128Cbc, Aes128Gcm, Aes256Cbc, Aes256Gcm},
    Group::{Ecp256, Ecp384, Ecp521, Modp2048, Modp3072, Modp4096, X25519},
    Hash::{Sha256, Sha384, Sha512},
};

const NAMES: Names = Names {
    device: "VyOS",
    ike_encryption: ENCRYPTION,
    ike_hash: HASH,
    ike_group: GROUPS,
    esp_encryption: ENCRYPTION,
    esp_hash: HASH,
    esp_group: GROUPS,
};
const ENCRYPTION: &[(wicketgate_model::Encryption, &str)] =
    &[(Aes256Gcm, "aes256gcm128"), (Aes128Gcm, "aes128gcm128"), (Aes256Cbc, "aes256"), (Aes128Cbc, "aes128")];
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

pub(super) fn render(config: &VpnConfig) -> Result<String, Inexpressible> {
    let VpnConfig { gateway, peer, ike, esp, dpd, mss, .. } = config;
    let ike_choice = NAMES.ike(config)?;
    let (group, esp_choice) = NAMES.esp(config)?.of_one_group();
    let name = config.object(40);
    let mut proposals = String::new();
    for (n, suite) in (1..).zip(&ike_choice.suites) {
        let at = format!("set vpn ipsec ike-group {name} proposal {n}");
        proposals += &format!(
            "{at} encryption '{}'\n{at} hash '{hash}'\n{at} prf 'prf{hash}'\n{at} dh-group '{}'\n",
            suite.encryption,
            suite.group,
            hash = suite.hash
        );
    }
    for (n, suite) in (1..).zip(&esp_choice.suites) {
        let at = format!("set vpn ipsec esp-group {name} proposal {n}");
        // With GCM it is not used, and has to be there.
        let hash = if suite.is_aead { "sha256" } else { suite.hash };
        proposals += &format!("{at} encryption '{}'\n{at} hash '{hash}'\n", suite.encryption);
    }
    let header = config.header(
        "#",
        "VyOS 1.4",
        &[
            "Written after the vendor's documentation. Paste it in configuration mode; then commit and save.",
            "Before: eth0 is the outside interface, eth1 the inside one: put yours in their places.",
            "The key stands in base64, which strongSwan inside VyOS reads, so that no character of it means anything.",
        ],
    );
    Ok(format!(
        "\
{header}{left_out}
set vpn ipsec interface 'eth0'
set vpn ipsec authentication psk {name} id '{peer_id}'
set vpn ipsec authentication psk {name} id '{gateway_id}'
set vpn ipsec authentication psk {name} secret '{secret}'
set vpn ipsec ike-group {name} key-exchange 'ikev2'
set vpn ipsec ike-group {name} lifetime '{ike_lifetime}'
set vpn ipsec ike-group {name} disable-mobike
set vpn ipsec ike-group {name} close-action 'start'
set vpn ipsec ike-group {name} dead-peer-detection action 'restart'
set vpn ipsec ike-group {name} dead-peer-detection interval '{dpd_delay}'
set vpn ipsec ike-group {name} dead-peer-detection timeout '{dpd_timeout}'
set vpn ipsec esp-group {name} lifetime '{esp_lifetime}'
set vpn ipsec esp-group {name} mode 'tunnel'
set vpn ipsec esp-group {name} pfs 'dh-group{group}'
{proposals}set vpn ipsec site-to-site peer {name} authentication mode 'pre-shared-secret'
set vpn ipsec site-to-site peer {name} authentication local-id '{peer_id}'
set vpn ipsec site-to-site peer {name} authentication remote-id '{gateway_id}'
set vpn ipsec site-to-site peer {name} connection-type 'initiate'
set vpn ipsec site-to-site peer {name} force-udp-encapsulation
set vpn ipsec site-to-site peer {name} ike-group '{name}'
set vpn ipsec site-to-site peer {name} local-address 'any'
set vpn ipsec site-to-site peer {name} remote-address '{gateway_ip}'
set vpn ipsec site-to-site peer {name} tunnel 1 esp-group '{name}'
set vpn ipsec site-to-site peer {name} tunnel 1 local prefix '{peer_ts}'
set vpn ipsec site-to-site peer {name} tunnel 1 remote prefix '{gateway_ts}'
set interfaces ethernet eth1 ip adjust-mss '{mss}'
# The tunnel sets the route to {gateway_ts} itself.
",
        left_out = left_out("#", &ike_choice, &esp_choice),
        peer_id = peer.id,
        gateway_id = gateway.id,
        gateway_ip = gateway.public_ip,
        secret = quote::base64(&config.pre_shared_key),
        ike_lifetime = ike.lifetime_seconds,
        dpd_delay = dpd.delay_seconds,
        dpd_timeout = dpd.delay_seconds * 4,
        esp_lifetime = esp.lifetime_seconds,
        peer_ts = peer.traffic_selector,
        gateway_ts = gateway.traffic_selector,
    ))
}

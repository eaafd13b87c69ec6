//! For Libreswan: a file for `/etc/ipsec.d`, and the line of its secrets.

use super::{
    Identity, VpnConfig,
    device::{Inexpressible, Names, left_out},
    quote,
};
use wicketgate_model::{
    Encryption::{Aes128Cbc, Aes128Gcm, Aes256Cbc, Aes256Gcm},
    Group::{Ecp256, Ecp384, Ecp521, Modp2048, Modp3072, Modp4096, X25519},
    Hash::{Sha256, Sha384, Sha512},
};

const ENCRYPTION: &[(wicketgate_model::Encryption, &str)] =
    &[(Aes256Gcm, "aes_gcm256"), (Aes128Gcm, "aes_gcm128"), (Aes256Cbc, "aes256"), (Aes128Cbc, "aes128")];
const HASH: &[(wicketgate_model::Hash, &str)] =
    &[(Sha256, "sha2_256"), (Sha384, "sha2_384"), (Sha512, "sha2_512")];
const GROUP: &[(wicketgate_model::Group, &str)] = &[
    (Modp2048, "dh14"),
    (Modp3072, "dh15"),
    (Modp4096, "dh16"),
    (Ecp256, "dh19"),
    (Ecp384, "dh20"),
    (Ecp521, "dh21"),
    (X25519, "dh31"),
];

const NAMES: Names = Names {
    device: "Libreswan",
    ike_encryption: ENCRYPTION,
    ike_hash: HASH,
    ike_group: GROUP,
    esp_encryption: ENCRYPTION,
    esp_hash: HASH,
    esp_group: GROUP,
};

pub(super) fn render(config: &VpnConfig) -> Result<String, Inexpressible> {
    let VpnConfig { gateway, peer, ike, esp, dpd, mtu, .. } = config;
    // All CHILD SAs of a connection use one group, and it is an error to name several.
    let (ike_choice, (_, esp_choice)) = (NAMES.ike(config)?, NAMES.esp(config)?.of_one_group());
    let suite = |s: &super::device::Suite| {
        if s.hash.is_empty() {
            format!("{};{}", s.encryption, s.group)
        } else {
            format!("{}-{};{}", s.encryption, s.hash, s.group)
        }
    };
    let list = |suites: &[super::device::Suite]| suites.iter().map(suite).collect::<Vec<_>>().join(",");
    // An @ in front says that the rest is a host name, and is not to be looked up.
    let id = match peer.identity() {
        Identity::HostName(name) => format!("@{name}"),
        Identity::Address(_) | Identity::Mail(_) => peer.id.clone(),
    };
    // Without quotes: what stands in them is taken as it is, and not for base64.
    let secret = quote::base64(&config.pre_shared_key);
    let header = config.header(
        "#",
        "Libreswan 4.10 and later",
        &[
            "Put it in /etc/ipsec.d/ with a name that ends in .conf, the last line without its # into a file there that",
            "ends in .secrets, both readable by root only; then: ipsec auto --rereadsecrets, and ipsec restart.",
            "TCP segments are clamped by the route's MTU; for what the device forwards as a router:",
            &config.clamp_segments(),
        ],
    );
    Ok(format!(
        "\
{header}{left_out}
conn {name}
    ikev2=insist
    authby=secret
    left=%defaultroute
    leftid={id}
    leftsubnet={peer_ts}
    right={gateway_ip}
    rightid={gateway_id}
    rightsubnet={gateway_ts}
    ike={ike_list}
    esp={esp_list}
    pfs=yes
    ikelifetime={ike_lifetime}s
    salifetime={esp_lifetime}s
    dpddelay={dpd_delay}
    dpdaction=restart
    encapsulation=yes
    mobike=no
    mtu={mtu}
    auto=start

# {id} {gateway_id} : PSK {secret}
",
        name = config.object(63),
        left_out = left_out("#", &ike_choice, &esp_choice),
        gateway_ip = gateway.public_ip,
        gateway_id = gateway.id,
        gateway_ts = gateway.traffic_selector,
        peer_ts = peer.traffic_selector,
        ike_list = list(&ike_choice.suites),
        esp_list = list(&esp_choice.suites),
        ike_lifetime = ike.lifetime_seconds,
        esp_lifetime = esp.lifetime_seconds,
        dpd_delay = dpd.delay_seconds,
    ))
}

//! For a site in AWS: the commands that make our gateway a customer gateway of its Site-to-Site VPN.
//!
//! There the device is AWS's, whose outside address is told only once the connection is made: the tunnel's
//! `peerPublicIp` is then set to that address, and the tunnel's options are given to the connection.

use super::{
    VpnConfig,
    device::{Inexpressible, Names, left_out},
};
use serde_json::{Value, json};
use wicketgate_model::{
    Encryption::{Aes128Cbc, Aes128Gcm, Aes256Cbc, Aes256Gcm},
    Group::{Ecp256, Ecp384, Ecp521, Modp2048, Modp3072, Modp4096},
    Hash::{Sha256, Sha384, Sha512},
};

const NAMES: Names = Names {
    device: "AWS",
    ike_encryption: ENCRYPTION,
    ike_hash: HASH,
    ike_group: GROUPS,
    esp_encryption: ENCRYPTION,
    esp_hash: HASH,
    esp_group: GROUPS,
};
const ENCRYPTION: &[(wicketgate_model::Encryption, &str)] = &[
    (Aes256Gcm, "AES256-GCM-16"),
    (Aes128Gcm, "AES128-GCM-16"),
    (Aes256Cbc, "AES256"),
    (Aes128Cbc, "AES128"),
];
const HASH: &[(wicketgate_model::Hash, &str)] =
    &[(Sha256, "SHA2-256"), (Sha384, "SHA2-384"), (Sha512, "SHA2-512")];
const GROUPS: &[(wicketgate_model::Group, &str)] =
    &[(Modp2048, "14"), (Modp3072, "15"), (Modp4096, "16"), (Ecp256, "19"), (Ecp384, "20"), (Ecp521, "21")];

/// The longest key that it takes.
const LONGEST_KEY: usize = 64;
/// The shortest silence after which it may take a peer for dead, in seconds.
const SHORTEST_DPD: u32 = 30;

fn values<T: Into<Value>>(all: impl IntoIterator<Item = T>) -> Value {
    all.into_iter().map(|value| json!({"Value": value.into()})).collect()
}

/// Groups are numbers there.
fn numbers(groups: &[&'static str]) -> Value {
    values(groups.iter().filter_map(|group| group.parse::<u8>().ok()))
}

pub(super) fn render(config: &VpnConfig) -> Result<String, Inexpressible> {
    let VpnConfig { gateway, peer, ike, esp, dpd, mss, .. } = config;
    let (ike_choice, esp_choice) = (NAMES.ike(config)?, NAMES.esp(config)?);
    if peer.id != peer.public_ip.to_string() {
        let rule = "it identifies itself by its outside address. Leave peerId out";
        return Err(Inexpressible::Identity { device: NAMES.device, rule });
    }
    let key = config.pre_shared_key.expose();
    let takes = |b: u8| b.is_ascii_alphanumeric() || b"._".contains(&b);
    if key.len() > LONGEST_KEY || key.starts_with('0') || !key.bytes().all(takes) {
        let rule = "it takes up to 64 letters, digits, dots and underscores, not beginning with 0";
        return Err(Inexpressible::Key { device: NAMES.device, rule });
    }
    let mut integrity = esp_choice.hashes();
    if integrity.is_empty() {
        integrity.push("SHA2-256");
    }
    let options = json!({
        "PreSharedKey": key,
        "IKEVersions": values(["ikev2"]),
        "Phase1EncryptionAlgorithms": values(ike_choice.encryptions()),
        "Phase1IntegrityAlgorithms": values(ike_choice.hashes()),
        "Phase1DHGroupNumbers": numbers(&ike_choice.groups()),
        "Phase1LifetimeSeconds": ike.lifetime_seconds,
        "Phase2EncryptionAlgorithms": values(esp_choice.encryptions()),
        "Phase2IntegrityAlgorithms": values(integrity),
        "Phase2DHGroupNumbers": numbers(&esp_choice.groups()),
        "Phase2LifetimeSeconds": esp.lifetime_seconds,
        "DPDTimeoutSeconds": (dpd.delay_seconds * 2).max(SHORTEST_DPD),
        "DPDTimeoutAction": "restart",
        "StartupAction": "start",
    });
    let name = config.object(40);
    let header = config.header(
        "#",
        "AWS Site-to-Site VPN (its command line of version 2)",
        &[
            "Written after the vendor's documentation. CUSTOMER_GATEWAY, VPN_GATEWAY and VPN_CONNECTION are what AWS",
            "answers. The second command tells the outside addresses of its two ends: the tunnel's peerPublicIp has to",
            &format!("be one of them, and is {} now. The third one holds the key: run it where nobody reads along.", peer.public_ip),
            "AWS takes any of these algorithms with any other of them. Hosts in the VPC need no larger TCP segment than",
            &format!("{mss}: set the MTU of their route to {}, {}.", gateway.traffic_selector, config.mtu),
        ],
    );
    let connection = json!({
        "StaticRoutesOnly": true,
        "LocalIpv4NetworkCidr": gateway.traffic_selector,
        "RemoteIpv4NetworkCidr": peer.traffic_selector,
        "TunnelOptions": [{"StartupAction": "start", "IKEVersions": values(["ikev2"])}],
    });
    Ok(format!(
        "\
{header}{left_out}
aws ec2 create-customer-gateway --type ipsec.1 --ip-address {gateway_ip} --device-name {name}
aws ec2 create-vpn-connection --type ipsec.1 --customer-gateway-id CUSTOMER_GATEWAY --vpn-gateway-id VPN_GATEWAY --options '{connection}'
aws ec2 modify-vpn-tunnel-options --vpn-connection-id VPN_CONNECTION --vpn-tunnel-outside-ip-address {peer_ip} --tunnel-options '{options}'
aws ec2 create-vpn-connection-route --vpn-connection-id VPN_CONNECTION --destination-cidr-block {gateway_ts}
",
        left_out = left_out("#", &ike_choice, &esp_choice),
        gateway_ip = gateway.public_ip,
        gateway_ts = gateway.traffic_selector,
        peer_ip = peer.public_ip,
    ))
}

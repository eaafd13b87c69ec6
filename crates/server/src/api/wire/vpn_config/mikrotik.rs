//! For MikroTik's routers: an IPsec policy, as commands of the console.

use super::{
    VpnConfig,
    device::{Inexpressible, Ipv4Identity, Names, left_out},
    quote,
};
use wicketgate_model::{
    Encryption::{Aes128Cbc, Aes128Gcm, Aes256Cbc, Aes256Gcm},
    Group::{Ecp256, Ecp384, Ecp521, Modp2048, Modp3072, Modp4096},
    Hash::{Sha256, Sha512},
};

/// In IKE it has no GCM.
const NAMES: Names = Names {
    device: "MikroTik RouterOS",
    ike_encryption: &[(Aes256Cbc, "aes-256"), (Aes128Cbc, "aes-128")],
    ike_hash: HASH,
    ike_group: GROUPS,
    esp_encryption: &[
        (Aes256Gcm, "aes-256-gcm"),
        (Aes128Gcm, "aes-128-gcm"),
        (Aes256Cbc, "aes-256-cbc"),
        (Aes128Cbc, "aes-128-cbc"),
    ],
    esp_hash: HASH,
    esp_group: GROUPS,
};
const HASH: &[(wicketgate_model::Hash, &str)] = &[(Sha256, "sha256"), (Sha512, "sha512")];
const GROUPS: &[(wicketgate_model::Group, &str)] = &[
    (Modp2048, "modp2048"),
    (Modp3072, "modp3072"),
    (Modp4096, "modp4096"),
    (Ecp256, "ecp256"),
    (Ecp384, "ecp384"),
    (Ecp521, "ecp521"),
];

pub(super) fn render(config: &VpnConfig) -> Result<String, Inexpressible> {
    let VpnConfig { gateway, peer, ike, esp, dpd, mss, .. } = config;
    let (hash, ike_choice) = NAMES.ike(config)?.of_one_hash();
    let (group, esp_choice) = NAMES.esp(config)?.of_one_group();
    let identity = match NAMES.identity(config)? {
        Ipv4Identity::Address(address) => format!("address:{address}"),
        Ipv4Identity::HostName(name) => format!("fqdn:{name}"),
        Ipv4Identity::Mail(mail) => format!("user-fqdn:{mail}"),
    };
    // A secret that begins with 0x is read as hexadecimal: so is written every one that has a character of meaning.
    let key = &config.pre_shared_key;
    let key = if quote::is_plain(key) { key.expose().to_owned() } else { format!("0x{}", quote::hex(key)) };
    let name = config.object(40);
    let authentication = match esp_choice.hashes() {
        none if none.is_empty() => "null".to_owned(),
        hashes => hashes.join(","),
    };
    let header = config.header(
        "#",
        "MikroTik RouterOS 7.1 to 7.16",
        &["Written after the vendor's documentation. Paste it into a terminal.", "Rules of yours that translate addresses have to come after the one of chain srcnat: move it to their front."],
    );
    Ok(format!(
        "\
{header}{left_out}
/ip ipsec profile add name={name} enc-algorithm={ike_encryption} hash-algorithm={hash} dh-group={ike_groups} \
lifetime={ike_lifetime}s dpd-interval={dpd_delay}s dpd-maximum-failures=3 nat-traversal=yes proposal-check=obey
/ip ipsec proposal add name={name} enc-algorithms={esp_encryption} auth-algorithms={authentication} \
pfs-group={group} lifetime={esp_lifetime}s
/ip ipsec peer add name={name} address={gateway_ip}/32 exchange-mode=ike2 profile={name}
/ip ipsec identity add peer={name} auth-method=pre-shared-key my-id={identity} remote-id=address:{gateway_id} \
secret=\"{key}\"
/ip ipsec policy add peer={name} proposal={name} tunnel=yes action=encrypt level=require \
src-address={peer_ts} dst-address={gateway_ts}
/ip firewall nat add chain=srcnat action=accept src-address={peer_ts} dst-address={gateway_ts} comment={name}
/ip firewall mangle add chain=forward action=change-mss new-mss={mss} passthrough=yes protocol=tcp tcp-flags=syn \
tcp-mss=!0-{mss} dst-address={load_balancer} comment={name}
/ip firewall mangle add chain=forward action=change-mss new-mss={mss} passthrough=yes protocol=tcp tcp-flags=syn \
tcp-mss=!0-{mss} src-address={load_balancer} comment={name}
# The policy is the route: what goes to {gateway_ts} is taken into the tunnel.
",
        left_out = left_out("#", &ike_choice, &esp_choice),
        ike_encryption = ike_choice.encryptions().join(","),
        ike_groups = ike_choice.groups().join(","),
        ike_lifetime = ike.lifetime_seconds,
        dpd_delay = dpd.delay_seconds,
        esp_encryption = esp_choice.encryptions().join(","),
        esp_lifetime = esp.lifetime_seconds,
        gateway_ip = gateway.public_ip,
        gateway_id = gateway.id,
        gateway_ts = gateway.traffic_selector,
        peer_ts = peer.traffic_selector,
        load_balancer = config.load_balancer(),
    ))
}

//! For pfSense: the elements of its `config.xml`.

use super::{
    VpnConfig,
    device::{Choice, Inexpressible, Ipv4Identity, Names, left_out},
    quote::xml,
};
use wicketgate_model::{
    Encryption::{Aes128Cbc, Aes128Gcm, Aes256Cbc, Aes256Gcm},
    Group::{Ecp256, Ecp384, Ecp521, Modp2048, Modp3072, Modp4096, X25519},
    Hash::{Sha256, Sha384, Sha512},
};

const NAMES: Names = Names {
    device: "pfSense",
    ike_encryption: ENCRYPTION,
    ike_hash: &[(Sha256, "sha256"), (Sha384, "sha384"), (Sha512, "sha512")],
    ike_group: GROUPS,
    esp_encryption: ENCRYPTION,
    esp_hash: &[(Sha256, "hmac_sha256"), (Sha384, "hmac_sha384"), (Sha512, "hmac_sha512")],
    esp_group: GROUPS,
};
/// The name, and the length of what it names: of the key, with GCM of the tag.
const ENCRYPTION: &[(wicketgate_model::Encryption, &str)] = &[
    (Aes256Gcm, "<name>aes256gcm</name><keylen>128</keylen>"),
    (Aes128Gcm, "<name>aes128gcm</name><keylen>128</keylen>"),
    (Aes256Cbc, "<name>aes</name><keylen>256</keylen>"),
    (Aes128Cbc, "<name>aes</name><keylen>128</keylen>"),
];
const GROUPS: &[(wicketgate_model::Group, &str)] = &[
    (Modp2048, "14"),
    (Modp3072, "15"),
    (Modp4096, "16"),
    (Ecp256, "19"),
    (Ecp384, "20"),
    (Ecp521, "21"),
    (X25519, "31"),
];

fn elements(values: &[&str], before: &str, after: &str) -> String {
    values.iter().map(|value| format!("      {before}{value}{after}\n")).collect()
}

fn items(choice: &Choice) -> String {
    let item = |suite: &super::device::Suite| {
        format!(
            "        <item><encryption-algorithm>{}</encryption-algorithm><hash-algorithm>{hash}</hash-algorithm>\
             <dhgroup>{}</dhgroup><prf-algorithm>{hash}</prf-algorithm></item>\n",
            suite.encryption,
            suite.group,
            hash = suite.hash
        )
    };
    choice.suites.iter().map(item).collect()
}

pub(super) fn render(config: &VpnConfig) -> Result<String, Inexpressible> {
    let VpnConfig { gateway, peer, ike, esp, dpd, mss, .. } = config;
    let ike_choice = NAMES.ike(config)?;
    let (group, esp_choice) = NAMES.esp(config)?.of_one_group();
    let (id_type, id) = match NAMES.identity(config)? {
        Ipv4Identity::Address(address) => ("address", address.to_string()),
        Ipv4Identity::HostName(name) => ("fqdn", name.to_owned()),
        Ipv4Identity::Mail(mail) => ("user_fqdn", mail.to_owned()),
    };
    let key = config.pre_shared_key.expose();
    if key.trim() != key {
        let rule = "it takes spaces off both ends";
        return Err(Inexpressible::Key { device: NAMES.device, rule });
    }
    let mut hashes = esp_choice.hashes();
    if hashes.is_empty() {
        hashes.push("hmac_sha256");
    }
    let traffic = peer.traffic_selector;
    // No name in a comment: two hyphens in a row would end it too early.
    Ok(format!(
        "\
<?xml version=\"1.0\"?>
<!-- A site's end of the IPsec tunnel to {gateway_ip}, for pfSense 2.6 to 2.8 and pfSense Plus 22.01 to 24.11.
Written after what such a firewall writes itself. Take a backup of the area IPsec (Diagnostics, Backup and Restore),
put the two elements phase1 and phase2 beside those that it has, under an ikeid and a reqid that are free, and restore
it: restored as it stands, this file would replace every other tunnel. Then apply under VPN, IPsec.
MSS: under VPN, IPsec, Advanced, enable MSS clamping with {mss}. Routes are set by the tunnel itself.
{left_out}-->
<ipsec>
    <phase1>
      <ikeid>100</ikeid>
      <iketype>ikev2</iketype>
      <interface>wan</interface>
      <protocol>inet</protocol>
      <remote-gateway>{gateway_ip}</remote-gateway>
      <myid_type>{id_type}</myid_type>
      <myid_data>{id}</myid_data>
      <peerid_type>address</peerid_type>
      <peerid_data>{gateway_id}</peerid_data>
      <authentication_method>pre_shared_key</authentication_method>
      <pre-shared-key>{key}</pre-shared-key>
      <encryption>
{items}      </encryption>
      <prfselect_enable>yes</prfselect_enable>
      <rekey_time>{ike_lifetime}</rekey_time>
      <reauth_time>0</reauth_time>
      <lifetime>{ike_life}</lifetime>
      <nat_traversal>force</nat_traversal>
      <mobike>off</mobike>
      <startaction>start</startaction>
      <closeaction>start</closeaction>
      <dpd_delay>{dpd_delay}</dpd_delay>
      <dpd_maxfail>3</dpd_maxfail>
      <descr>{name}</descr>
    </phase1>
    <phase2>
      <ikeid>100</ikeid>
      <uniqid>{name}</uniqid>
      <reqid>100</reqid>
      <mode>tunnel</mode>
      <protocol>esp</protocol>
      <localid><type>network</type><address>{peer_net}</address><netbits>{peer_bits}</netbits></localid>
      <remoteid><type>address</type><address>{load_balancer}</address></remoteid>
{encryptions}{hashes}      <pfsgroup>{group}</pfsgroup>
      <rekey_time>{esp_lifetime}</rekey_time>
      <lifetime>{esp_life}</lifetime>
      <descr>{name}</descr>
    </phase2>
</ipsec>
",
        left_out = left_out("", &ike_choice, &esp_choice),
        gateway_ip = gateway.public_ip,
        gateway_id = xml(&gateway.id),
        id = xml(&id),
        key = xml(key),
        items = items(&ike_choice),
        ike_lifetime = ike.lifetime_seconds,
        ike_life = ike.lifetime_seconds + ike.lifetime_seconds / 10,
        dpd_delay = dpd.delay_seconds,
        name = config.object(40),
        peer_net = traffic.network(),
        peer_bits = traffic.prefix_len(),
        load_balancer = config.load_balancer(),
        encryptions = elements(
            &esp_choice.encryptions(),
            "<encryption-algorithm-option>",
            "</encryption-algorithm-option>"
        ),
        hashes = elements(&hashes, "<hash-algorithm-option>", "</hash-algorithm-option>"),
        esp_lifetime = esp.lifetime_seconds,
        esp_life = esp.lifetime_seconds + esp.lifetime_seconds / 10,
    ))
}

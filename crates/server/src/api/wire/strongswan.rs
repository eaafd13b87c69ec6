//! A VPN configuration as a `swanctl.conf` that works by itself at the remote site.
//!
//! Nothing that a caller wrote breaks out of its place: names and identities are of letters that mean nothing to
//! strongSwan's parser, and the key is written in base64, whatever its characters are.

use super::vpn_config::VpnConfig;
use base64::{Engine, engine::general_purpose::STANDARD};

/// The file's content.
pub(in crate::api) fn swanctl(config: &VpnConfig) -> String {
    let VpnConfig { name, gateway, peer, ike, esp, dpd, .. } = config;
    // The prefix 0s says base64. Without one, a key that itself starts with 0s or 0x would be read as encoded.
    let secret = format!("0s{}", STANDARD.encode(&config.pre_shared_key));
    format!(
        "\
# The tunnel {name} to {gateway_ip}, for strongSwan at the remote site.
# Put it in /etc/swanctl/conf.d/, readable by root only, and run: swanctl --load-all
# It comes up by itself, and again whenever it was lost. Hosts of {peer_ts} then reach {gateway_ts}.

connections {{
  wicketgate-{name} {{
    version = 2
    remote_addrs = {gateway_ip}
    proposals = {ike_proposals}
    encap = yes
    mobike = no
    keyingtries = 0
    rekey_time = {ike_lifetime}s
    dpd_delay = {dpd_delay}s
    local {{
      auth = psk
      id = \"{peer_id}\"
    }}
    remote {{
      auth = psk
      id = \"{gateway_id}\"
    }}
    children {{
      {name} {{
        local_ts = {peer_ts}
        remote_ts = {gateway_ts}
        esp_proposals = {esp_proposals}
        rekey_time = {esp_lifetime}s
        start_action = start
        dpd_action = restart
        close_action = start
      }}
    }}
  }}
}}

secrets {{
  ike-wicketgate-{name} {{
    id-local = \"{peer_id}\"
    id-remote = \"{gateway_id}\"
    secret = \"{secret}\"
  }}
}}
",
        gateway_ip = gateway.public_ip,
        gateway_id = gateway.id,
        gateway_ts = gateway.traffic_selector,
        peer_id = peer.id,
        peer_ts = peer.traffic_selector,
        ike_proposals = ike.proposals.join(", "),
        esp_proposals = esp.proposals.join(", "),
        ike_lifetime = ike.lifetime_seconds,
        esp_lifetime = esp.lifetime_seconds,
        dpd_delay = dpd.delay_seconds,
    )
}

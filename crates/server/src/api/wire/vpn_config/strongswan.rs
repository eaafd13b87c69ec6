//! For strongSwan: a file for `/etc/swanctl/conf.d`.
//!
//! Nothing in it can be more than it is: names and identities have no character that a configuration file gives a
//! meaning, and the key stands in base64. The names of sections begin with a word of ours, since a section named
//! `include` would be an order.

use super::{VpnConfig, device::Inexpressible, quote};

pub(super) fn render(config: &VpnConfig) -> Result<String, Inexpressible> {
    let VpnConfig { name, gateway, peer, ike, esp, dpd, .. } = config;
    let load_balancer = config.load_balancer();
    let header = config.header(
        "#",
        "strongSwan 5.9 and later",
        &[
            "Put it in /etc/swanctl/conf.d/, readable by root only, and run: swanctl --load-all",
            "It comes up by itself, and again whenever it was lost. After a refusal it does not try again by itself:",
            &format!("swanctl --initiate --child wicketgate-{name}"),
            "strongSwan sets the routes, too.",
            &format!(
                "Hosts of {} then reach {load_balancer}. What the device forwards for them needs a smaller",
                peer.traffic_selector
            ),
            "TCP segment, which this command sees to until the next boot, whatever rules there are:",
            &config.clamp_segments(),
        ],
    );
    Ok(format!(
        "\
{header}
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
      wicketgate-{name} {{
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
        ike_proposals = ike.proposals,
        esp_proposals = esp.proposals,
        ike_lifetime = ike.lifetime_seconds,
        esp_lifetime = esp.lifetime_seconds,
        dpd_delay = dpd.delay_seconds,
        secret = quote::base64(&config.pre_shared_key),
    ))
}

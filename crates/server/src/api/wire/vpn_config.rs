//! What the remote site's device has to know of a tunnel: one description, answered as JSON or rendered by a device's
//! template.
//!
//! Invariant: a device's configuration says what the description says, or there is none. A property that the device does
//! not support is an `Inexpressible`, or a proposal that a comment names; it is never left out silently.

mod device;
#[cfg(any(test, fuzzing))]
mod device_reader;
mod devices;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
mod offer;
mod quote;
mod template;

use ipnet::Ipv4Net;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::net::Ipv4Addr;
use wicketgate_model::{EspProposals, IdentityType, IkeProposals, PreSharedKey, ResourceName};
use wicketgate_store::TunnelRow;

pub(in crate::api) use device::RenderError;
pub(in crate::api) use devices::{FORMATS, render};

/// Seconds. The remote site rekeys before the gateway would (8 h and 1 h): if both rekey at once, an SA too many is left.
const IKE_LIFETIME: u32 = 4 * 3600;
const ESP_LIFETIME: u32 = 45 * 60;
const DPD_DELAY: u32 = 15;

/// The largest packet inside the tunnel in bytes, on an uplink of 1,500 bytes with room for PPPoE. The gateway's end of
/// the tunnel has the same.
const MTU: u16 = 1400;
/// Without the headers of IPv4 and TCP.
const MSS: u16 = MTU - 40;

/// Both ends, and the parameters they agree on. It contains the pre-shared key: it is never logged or stored.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct VpnConfig {
    name: ResourceName,
    /// The peer's identity as strongSwan writes it.
    #[serde(skip)]
    strongswan_id: String,
    ike_version: u8,
    /// The first of `gateways`.
    gateway: End,
    /// The device makes a tunnel to each of them, and uses another one while one is down.
    gateways: Vec<End>,
    peer: End,
    pre_shared_key: PreSharedKey,
    ike: Phase<IkeProposals>,
    esp: Phase<EspProposals>,
    dpd: Dpd,
    /// Bytes: the largest packet inside the tunnel, and the largest TCP segment. Larger ones are dropped or fragmented.
    mtu: u16,
    mss: u16,
    /// The destinations that the site routes into the tunnel.
    routes: [Ipv4Net; 1],
    /// Whether ESP is always encapsulated in UDP port 4500 (RFC 3948), because the gateway supports nothing else. If
    /// false, it is encapsulated for a device that offers NAT traversal.
    udp_encapsulation: bool,
    /// The side that initiates the connection: `peer`, or `both`.
    initiator: &'static str,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct End {
    public_ip: Ipv4Addr,
    /// The IKE identity (RFC 7296 §3.5): letters, digits and `.-_@:` only, but for a distinguished name.
    id: String,
    id_type: &'static str,
    traffic_selector: Ipv4Net,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Phase<P> {
    proposals: P,
    lifetime_seconds: u32,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Dpd {
    delay_seconds: u32,
    action: &'static str,
}

impl VpnConfig {
    /// `None`: the tunnel is deleted, and with it its key; or it has no gateway.
    pub(in crate::api) fn new(
        tunnel: &TunnelRow,
        gateways: &[Ipv4Addr],
        udp_encapsulation: bool,
    ) -> Option<Self> {
        let load_balancer = Ipv4Net::from(tunnel.load_balancer_ip);
        let end = |gateway: &Ipv4Addr| End {
            public_ip: *gateway,
            id: gateway.to_string(),
            id_type: IdentityType::Ipv4.as_str(),
            traffic_selector: load_balancer,
        };
        Some(Self {
            name: tunnel.spec.name.clone(),
            strongswan_id: tunnel.spec.peer_id.in_strongswan(),
            ike_version: 2,
            gateway: end(gateways.first()?),
            gateways: gateways.iter().map(end).collect(),
            peer: End {
                public_ip: tunnel.spec.peer_address.get(),
                id: tunnel.spec.peer_id.value().to_owned(),
                id_type: tunnel.spec.peer_id.kind().as_str(),
                traffic_selector: tunnel.spec.peer_cidr.get(),
            },
            pre_shared_key: tunnel.spec.pre_shared_key.clone()?,
            ike: Phase {
                proposals: tunnel.spec.ike_proposals.clone().unwrap_or_default(),
                lifetime_seconds: IKE_LIFETIME,
            },
            esp: Phase {
                proposals: tunnel.spec.esp_proposals.clone().unwrap_or_default(),
                lifetime_seconds: ESP_LIFETIME,
            },
            dpd: Dpd { delay_seconds: DPD_DELAY, action: "restart" },
            mtu: MTU,
            mss: MSS,
            routes: [load_balancer],
            udp_encapsulation,
            initiator: if tunnel.spec.initiate { "both" } else { "peer" },
        })
    }

    /// The address that hosts of the site connect to.
    fn load_balancer(&self) -> Ipv4Addr {
        self.gateway.traffic_selector.addr()
    }

    /// A name for the device's own objects, of at most `most` characters: letters, digits and hyphens. A longer name is
    /// cut and ends in a hash, so that names stay distinct.
    fn object(&self, most: usize) -> String {
        let whole = format!("wg-{}", self.name);
        if whole.len() <= most {
            return whole;
        }
        let hash: String =
            Sha256::digest(self.name.as_str()).iter().take(2).map(|b| format!("{b:02x}")).collect();
        let kept: String = whole.chars().take(most.saturating_sub(hash.len() + 1)).collect();
        format!("{}-{hash}", kept.trim_end_matches('-'))
    }
}

#[cfg(test)]
mod tests;

//! All that the remote site's device has to know of a tunnel: one description, shown as JSON or in a device's own
//! words.
//!
//! Invariant: a device's file says what the description says, or there is none. What a device can't express is an
//! [`Inexpressible`], never left out in silence.

mod aws;
mod cisco_asa;
mod cisco_ios;
mod device;
mod devices;
mod fortinet;
mod juniper;
mod libreswan;
mod mikrotik;
mod paloalto;
mod pfsense;
mod quote;
mod strongswan;
mod vyos;

use super::schema;
use ipnet::Ipv4Net;
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::net::{IpAddr, Ipv4Addr};
use wicketgate_model::{EspProposals, IkeProposals, PreSharedKey, ResourceName};
use wicketgate_store::TunnelRow;

pub(in crate::api) use devices::{FORMATS, render};

/// The remote site rekeys before the gateway would (8 h and 1 h): two ends that rekey at once make an SA too many.
const IKE_LIFETIME: u32 = 4 * 3600;
const ESP_LIFETIME: u32 = 45 * 60;
const DPD_DELAY: u32 = 15;

/// What a packet may have inside the tunnel, on an uplink of 1,500 bytes with room for PPPoE: the gateway's end of the
/// tunnel has it, too.
const MTU: u16 = 1400;
/// Without the headers of IPv4 and TCP.
const MSS: u16 = MTU - 40;

/// Both ends, and what they have to agree on. The key is in here: never logged, never kept.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct VpnConfig {
    name: ResourceName,
    ike_version: u8,
    gateway: End,
    peer: End,
    pre_shared_key: PreSharedKey,
    ike: Phase<IkeProposals>,
    esp: Phase<EspProposals>,
    dpd: Dpd,
    /// Of the packets inside, and of their TCP segments: larger ones don't pass, or in pieces.
    mtu: u16,
    mss: u16,
    /// What the site sends into the tunnel.
    routes: [Ipv4Net; 1],
    /// ESP has to be wrapped in UDP port 4500, whether there is a NAT or not (RFC 3948): the gateway has no other. If not, it
    /// is wrapped for a device that offers NAT traversal, and else goes as it is.
    udp_encapsulation: bool,
    /// The side that starts the connection; a device always may.
    initiator: &'static str,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct End {
    public_ip: Ipv4Addr,
    /// The IKE identity (RFC 7296 §3.5): letters, digits and `.-_@:` only.
    id: String,
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

/// An IKE identity by its type, as devices ask for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Identity<'a> {
    Address(IpAddr),
    HostName(&'a str),
    Mail(&'a str),
}

impl End {
    fn identity(&self) -> Identity<'_> {
        match self.id.parse() {
            Ok(address) => Identity::Address(address),
            Err(_) if self.id.contains('@') => Identity::Mail(&self.id),
            Err(_) => Identity::HostName(&self.id),
        }
    }
}

impl VpnConfig {
    pub(in crate::api) fn new(tunnel: &TunnelRow, gateway: Ipv4Addr, udp_encapsulation: bool) -> Self {
        let load_balancer = Ipv4Net::from(tunnel.load_balancer_ip);
        Self {
            name: tunnel.name.clone(),
            ike_version: 2,
            gateway: End { public_ip: gateway, id: gateway.to_string(), traffic_selector: load_balancer },
            peer: End {
                public_ip: tunnel.peer_address.get(),
                id: tunnel.peer_id.to_string(),
                traffic_selector: tunnel.peer_cidr.get(),
            },
            pre_shared_key: tunnel.key.clone(),
            ike: Phase {
                proposals: tunnel.ike_proposals.clone().unwrap_or_default(),
                lifetime_seconds: IKE_LIFETIME,
            },
            esp: Phase {
                proposals: tunnel.esp_proposals.clone().unwrap_or_default(),
                lifetime_seconds: ESP_LIFETIME,
            },
            dpd: Dpd { delay_seconds: DPD_DELAY, action: "restart" },
            mtu: MTU,
            mss: MSS,
            routes: [load_balancer],
            udp_encapsulation,
            initiator: if tunnel.initiate { "both" } else { "peer" },
        }
    }

    /// What hosts of the site connect to.
    fn load_balancer(&self) -> Ipv4Addr {
        self.gateway.traffic_selector.addr()
    }

    /// A name for the device's own objects, of `most` characters at most: letters, digits and hyphens. Of a longer
    /// one, what is cut off is told apart by a hash.
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

    /// A command for a Linux that forwards: a table of its own, since no other is sure to be there.
    fn clamp_segments(&self) -> String {
        format!(
            "nft 'table inet wicketgate-{} {{ chain forward {{ type filter hook forward priority mangle; \
             ip daddr {} tcp flags syn tcp option maxseg size set {}; }}; }}'",
            self.name,
            self.load_balancer(),
            self.mss
        )
    }

    /// The first lines of a device's file: what it is, and what to know before it is used.
    fn header(&self, comment: &str, device: &str, notes: &[&str]) -> String {
        let mut lines = vec![format!(
            "{comment} {}: a site's end of the IPsec tunnel to {}, for {device}.",
            self.name, self.gateway.public_ip
        )];
        lines.extend(notes.iter().map(|note| format!("{comment} {note}")));
        lines.join("\n") + "\n"
    }
}

pub(in crate::api) fn schema() -> Value {
    let end = json!({
        "type": "object", "additionalProperties": false, "required": ["publicIp", "id", "trafficSelector"],
        "properties": {"publicIp": schema::text("198.51.100.7"), "id": schema::text("198.51.100.7"), "trafficSelector": schema::text("10.255.0.1/32")},
    });
    let phase = json!({
        "type": "object", "additionalProperties": false, "required": ["proposals", "lifetimeSeconds"],
        "properties": {"proposals": {"type": "array", "items": schema::text("aes256gcm16-ecp384")}, "lifetimeSeconds": {"type": "integer"}},
    });
    json!({
        "type": "object", "additionalProperties": false,
        "required": ["name", "ikeVersion", "gateway", "peer", "preSharedKey", "ike", "esp", "dpd", "mtu", "mss", "routes", "udpEncapsulation", "initiator"],
        "properties": {
            "name": schema::name(), "ikeVersion": {"type": "integer", "enum": [2]}, "gateway": end, "peer": end,
            "preSharedKey": {"type": "string"}, "ike": phase, "esp": phase,
            "dpd": {"type": "object", "additionalProperties": false, "required": ["delaySeconds", "action"],
                "properties": {"delaySeconds": {"type": "integer"}, "action": {"type": "string"}}},
            "mtu": {"type": "integer", "description": "The largest packet inside the tunnel"},
            "mss": {"type": "integer", "description": "The TCP maximum segment size that the site must clamp to"},
            "routes": {"type": "array", "items": schema::text("10.255.0.1/32"), "description": "The destinations that the site routes into the tunnel"},
            "udpEncapsulation": {"type": "boolean", "description": "Whether ESP must be encapsulated in UDP port 4500 (RFC 3948): then the \
                device must support NAT traversal. If false, a device without it sends plain ESP"}, "initiator": {"type": "string", "enum": ["peer", "both"], "description": "Which side initiates the connection; `both` with `initiate`"},
            "_links": schema::reference("Links"),
        },
    })
}

#[cfg(test)]
mod tests;

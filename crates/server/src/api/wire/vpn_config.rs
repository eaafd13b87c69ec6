//! All that the remote site's device has to know of a tunnel.

use serde::Serialize;
use std::net::Ipv4Addr;
use wicketgate_model::{ESP_PROPOSALS, IKE_PROPOSALS};
use wicketgate_store::TunnelRow;

/// The remote site rekeys before the gateway would (8 h and 1 h): two ends that rekey at once make an SA too many.
const IKE_LIFETIME: u32 = 4 * 3600;
const ESP_LIFETIME: u32 = 45 * 60;
const DPD_DELAY: u32 = 15;

/// Both ends, and what they have to agree on. The key is in here: never logged, never kept.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct VpnConfig {
    pub(super) name: String,
    pub(super) ike_version: u8,
    pub(super) gateway: End,
    pub(super) peer: End,
    pub(super) pre_shared_key: String,
    pub(super) ike: Phase,
    pub(super) esp: Phase,
    pub(super) dpd: Dpd,
    /// ESP is wrapped in UDP port 4500, whether there is a NAT or not (RFC 3948).
    pub(super) udp_encapsulation: bool,
    /// The side that starts the connection.
    pub(super) initiator: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct End {
    pub(super) public_ip: String,
    /// The IKE identity (RFC 7296 §3.5).
    pub(super) id: String,
    pub(super) traffic_selector: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Phase {
    pub(super) proposals: [&'static str; 5],
    pub(super) lifetime_seconds: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Dpd {
    pub(super) delay_seconds: u32,
    pub(super) action: &'static str,
}

impl VpnConfig {
    pub(in crate::api) fn new(tunnel: &TunnelRow, gateway: Ipv4Addr) -> Self {
        Self {
            name: tunnel.name.to_string(),
            ike_version: 2,
            gateway: End {
                public_ip: gateway.to_string(),
                id: gateway.to_string(),
                traffic_selector: format!("{}/32", tunnel.load_balancer_ip),
            },
            peer: End {
                public_ip: tunnel.peer_address.to_string(),
                id: tunnel.peer_id.to_string(),
                traffic_selector: tunnel.peer_cidr.to_string(),
            },
            pre_shared_key: tunnel.key.expose().to_owned(),
            ike: Phase { proposals: IKE_PROPOSALS, lifetime_seconds: IKE_LIFETIME },
            esp: Phase { proposals: ESP_PROPOSALS, lifetime_seconds: ESP_LIFETIME },
            dpd: Dpd { delay_seconds: DPD_DELAY, action: "restart" },
            udp_encapsulation: true,
            initiator: "peer",
        }
    }
}

//! What the server knows of its gateway itself: its link tells it, the API and the metrics show it.

use std::net::Ipv4Addr;
use wicketgate_model::EspMode;

/// What the server knows of its gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GatewayStatus {
    pub connected: bool,
    /// Where ESP is done, in the gateway's words.
    pub esp: Option<EspMode>,
    /// What remote sites dial; `None` without IPsec.
    pub public_address: Option<Ipv4Addr>,
    /// How many tunnels it can hold, if that is known.
    pub max_tunnels: Option<u32>,
}

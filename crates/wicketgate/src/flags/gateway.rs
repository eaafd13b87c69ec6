//! What a gateway is told: its addresses, how it processes ESP, and how much it bears.

use std::{
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    time::Duration,
};

use clap::Args;
use tokio::net::TcpListener;
use wicketgate_gateway::{
    Backend, CONNECTION_RATE, GatewayConfig, IpsecMode,
    host_check::{HostVerdict, public_address},
};
use wicketgate_system::descriptor_budget::DescriptorBudget;
use wicketgate_transport::tls::GatewayIdentity;

use super::{listen, socket_address};

#[derive(Debug, Args)]
pub(crate) struct GatewayFlags {
    /// Address that hosting agents connect to, with TLS.
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:8443", value_parser = socket_address)]
    pub(crate) agent_listen: SocketAddr,
    /// Where ESP is processed. `auto` uses the kernel if it supports ESP, else userland. `off` is for development: no
    /// IPsec, no root, and a loopback address for each tunnel.
    #[arg(long, value_name = "auto|kernel|userland|off", default_value = "auto")]
    pub(crate) ipsec: IpsecMode,
    /// The IPv4 address that remote sites connect to [default: the source address of the default route].
    #[arg(long, value_name = "IPV4", value_parser = reachable_address)]
    pub(crate) public_address: Option<Ipv4Addr>,
    /// The URL that agents connect to [default: https:// and the address of --agent-listen].
    #[arg(long, value_name = "URL", value_parser = https_url)]
    agent_url: Option<String>,
    /// Maximum number of tunnels [default: from memory and the open-file limit]. Further tunnels have the reason
    /// GatewayFull until there is room.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=16_000))]
    max_tunnels: Option<u32>,
    /// New connections a second of each Frontdoor, while several have tunnels on the gateway. Clients that open more wait.
    #[arg(long, value_name = "NUMBER", default_value_t = CONNECTION_RATE)]
    connection_rate: NonZeroU32,
    /// Seconds that established connections may continue after a signal to stop, while new ones are refused. With 0
    /// they are cut at once, and a restart takes a second.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(..=86_400))]
    drain: u32,
}

impl GatewayFlags {
    /// What the settings say that may be a mistake.
    pub(crate) fn doubts(&self) -> Vec<String> {
        let address = (self.ipsec != IpsecMode::Off).then(|| public_address(self.public_address));
        let doubtful = address.filter(|finding| finding.verdict != HostVerdict::Pass);
        doubtful.into_iter().map(|finding| finding.message).collect()
    }

    /// For hosting agents.
    pub(crate) async fn listener(&self) -> anyhow::Result<TcpListener> {
        listen(self.agent_listen, "agents", "--agent-listen").await
    }

    /// How long established connections may continue after a signal to stop.
    pub(crate) fn drain(&self) -> Duration {
        Duration::from_secs(self.drain.into())
    }

    /// Of a gateway with what it needs besides.
    pub(crate) fn config(
        &self,
        backend: Backend,
        agent_listener: TcpListener,
        identity: GatewayIdentity,
    ) -> GatewayConfig {
        GatewayConfig {
            backend,
            agent_listener,
            identity,
            budget: DescriptorBudget::find(),
            max_tunnels: self.max_tunnels,
            connection_rate: self.connection_rate,
            drain: self.drain(),
            agent_url: self.agent_url.clone(),
            journal: None,
            traffic_file: None,
        }
    }
}

fn reachable_address(text: &str) -> Result<Ipv4Addr, String> {
    let address: Ipv4Addr =
        text.parse().map_err(|_| "must be an IPv4 address, like 198.51.100.1".to_owned())?;
    let is_unusable = address.is_unspecified() || address.is_multicast() || address.is_broadcast();
    if is_unusable { Err("must be an address that sites can connect to".to_owned()) } else { Ok(address) }
}

/// Agents always use TLS.
fn https_url(text: &str) -> Result<String, String> {
    let host = text.strip_prefix("https://").filter(|rest| !rest.is_empty());
    host.map(|_| text.to_owned()).ok_or_else(|| "must begin with https:// and name a host".to_owned())
}

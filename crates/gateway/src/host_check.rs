//! What a gateway would find on this host, by the code that a gateway starts with.
//!
//! Invariant: a check changes nothing that lasts, and disturbs no gateway: the namespace in which ESP is tried has a name that no
//! gateway uses, and is removed again.

mod finding;
mod public_address;
mod udp_ports;

pub use finding::{HostFinding, HostVerdict};
pub use public_address::public_address;

use std::net::Ipv4Addr;

use wicketgate_system::descriptor_budget::DescriptorBudget;

use crate::{
    Backend, GroundError, IpsecMode,
    capacity::Capacity,
    ground::drops_by_default,
    ipsec::strongswan::{EspSupport, esp_support, small_receive_buffer},
    traffic_room::{CONNECTION_RATE, TrafficRoom},
};

/// With fewer tunnels or connections than these, a host is smaller than any that the product is meant for.
const FEW_TUNNELS: u32 = 16;
const FEW_CONNECTIONS: usize = 1000;

/// Checks the host for `mode`, and for the public address that is set. Without IPsec, nothing is needed of it but descriptors.
pub async fn host_check(mode: IpsecMode, public: Option<Ipv4Addr>) -> Vec<HostFinding> {
    if mode == IpsecMode::Off {
        return vec![limits(false)];
    }
    let mut all = Vec::new();
    let preflight = Backend::preflight(mode);
    let is_able = preflight.is_ok();
    all.push(match preflight {
        Ok(()) => HostFinding::pass("programs", "rights, IKE daemon, its plugins, ip and nft are there"),
        Err(error) => HostFinding::fail("programs", error),
    });
    if is_able {
        all.extend(esp(mode).await);
        all.push(firewall().await);
    } else {
        let why = "programs or rights that it needs are missing";
        all.extend(["esp", "firewall"].map(|check| HostFinding::new(check, HostVerdict::Skip, why)));
    }
    all.push(public_address(public));
    all.push(udp_ports::check());
    all.push(limits(true));
    all
}

/// ESP and, if it is done in userland, the buffers that it needs.
async fn esp(mode: IpsecMode) -> Vec<HostFinding> {
    let check = "esp";
    let scratch = format!("wicketgate-doctor-{}", std::process::id());
    let EspSupport { kernel, userland } = match esp_support(&scratch).await {
        Ok(support) => support,
        Err(error) => return vec![HostFinding::fail(check, error)],
    };
    let userland_only = |why: &str| {
        let buffer = match small_receive_buffer() {
            Some((bytes, advice)) => HostFinding::warn("receive-buffer", format!("{bytes} bytes: {advice}")),
            None => HostFinding::pass("receive-buffer", "net.core.rmem_default is large enough"),
        };
        vec![
            HostFinding::new(
                check,
                if mode == IpsecMode::Userland { HostVerdict::Pass } else { HostVerdict::Warn },
                why,
            ),
            buffer,
        ]
    };
    match (mode, kernel, userland) {
        (IpsecMode::Userland, _, Ok(())) => userland_only("ESP is done in userland, through TUN devices"),
        (IpsecMode::Auto | IpsecMode::Kernel, Ok(()), _) => {
            vec![HostFinding::pass(check, "the kernel does ESP")]
        }
        (IpsecMode::Auto, Err(kernel), Ok(())) => userland_only(&format!(
            "ESP is done in userland, through TUN devices, which takes more processor time: {kernel}"
        )),
        (IpsecMode::Auto, Err(kernel), Err(userland)) => {
            vec![HostFinding::fail(
                check,
                GroundError::NoEsp { kernel: kernel.into(), userland: userland.into() },
            )]
        }
        (_, Err(error), _) | (_, _, Err(error)) => vec![HostFinding::fail(check, error)],
        (IpsecMode::Off, Ok(()), Ok(())) => Vec::new(),
    }
}

/// What is certain is seen by packets only, once there are tunnels.
async fn firewall() -> HostFinding {
    let check = "firewall";
    match drops_by_default().await {
        Ok(None) => HostFinding::pass(
            check,
            "nftables works, and no chain drops forwarded packets that it does not know",
        ),
        Ok(Some((cause, cure))) => {
            HostFinding::warn(check, format!("{cause}, unless other rules admit them: {cure}"))
        }
        Err(error) => HostFinding::fail(
            check,
            format!("{error}: load the kernel's nf_tables, or free the host's rules"),
        ),
    }
}

fn limits(is_ipsec: bool) -> HostFinding {
    let capacity = Capacity::find(&DescriptorBudget::find(), is_ipsec, None);
    let connections = TrafficRoom::new(capacity.traffic, CONNECTION_RATE).limits().gateway;
    let tunnels = capacity.tunnels.map_or_else(|| "any number of".to_owned(), |tunnels| tunnels.to_string());
    let found =
        format!("room for {tunnels} tunnels and {} connections, with this user's limits", connections);
    let is_little =
        capacity.tunnels.is_some_and(|tunnels| tunnels < FEW_TUNNELS) || connections < FEW_CONNECTIONS;
    match is_little {
        true => HostFinding::warn(
            "limits",
            format!("{found}: add memory, or raise the hard limit of open files (ulimit -Hn)"),
        ),
        false => HostFinding::pass("limits", found),
    }
}
